"""Stage: outline and measure the particles of micrographs."""

import logging
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.micrographs import instrument_settings, list_micrographs
from cathodeflow.io.tables import write_csv, write_table
from cathodeflow.parallel import ordered_map
from cathodeflow.progress import progress
from cathodeflow.sem.info_bar import bar_of
from cathodeflow.sem.listed_images import listed_reader, read_listed
from cathodeflow.sem.moved_images import read_split
from cathodeflow.sem.particle_distributions import distributions
from cathodeflow.sem.particle_measures import measure_particles, outline_points
from cathodeflow.sem.particle_options import Particles
from cathodeflow.sem.particle_outlines import outline_particles, typical_diameter
from cathodeflow.sem.resample import to_uint8
from cathodeflow.sem.usable_area import UsableArea
from cathodeflow.stage import Metrics, OutputFile, Source, stage

log = logging.getLogger("cathodeflow.sem")
# Class of images that are given without a table of images.
_ALL = "all"
_COLUMNS = ("name", "image", "label", *UsableArea._fields, "pixel_nm", "page", "mask", "duplicate_of")
# Images of a class from which the typical diameter is estimated.
_ESTIMATED = 5


class _Measured(NamedTuple):
    particles: pd.DataFrame
    outlines: pd.DataFrame
    row: dict[str, Any]


@stage("sem.particles")
def particles(
    images: Source,
    *,
    out: OutputFile,
    distributions_table: OutputFile,
    images_table: OutputFile,
    outlines: OutputFile,
    sheet: str | None = None,
    options: Particles,
) -> Metrics:
    """Outline and measure the particles of IMAGES: table of images of `index`, folder, file or pattern.

    Parameters
    ----------
    images : path
        Table of images (.parquet) with classes, or images.
    out : path
        CSV table to write: one row per particle.
    distributions_table : path
        CSV table of the distributions of each class to write, with intervals.
    images_table : path
        CSV table to write: one row per image.
    outlines : path
        Table of the outlines to write (.parquet): one row per corner.
    sheet : str
        Sample sheet: images are read from where it says, if they have been moved since they were listed.

    Raises
    ------
    InputError
        An image cannot be read, or no particle is found.
    """
    listed = _listed(images, sheet, options)
    read_image = listed_reader(listed)

    def read(row: dict[str, Any]) -> NDArray[np.uint8]:
        area = UsableArea(*(int(row[name]) for name in UsableArea._fields))
        return np.ascontiguousarray(area.of(to_uint8(read_image(row["image"]), area=area)))

    rows = [{str(key): value for key, value in row.items()} for row in listed.to_dict("records")]
    typical = {
        str(label): _typical([row for row in rows if row["label"] == label][:_ESTIMATED], read, options)
        for label in dict.fromkeys(listed["label"])
    }

    def measure(row: dict[str, Any]) -> _Measured:
        return _measure(read(row), row, _diameter_px(row, options) or typical[row["label"]], options)

    found = list(progress(ordered_map(measure, rows, workers=options.threads), "measuring particles", total=len(rows)))
    table = pd.concat([one.particles for one in found], ignore_index=True)
    if not (table["weight"] > 0).any():
        raise InputError(images, f"no particle in {len(rows)} images", "particles that are brighter than the gaps")
    per_image = pd.DataFrame([one.row for one in found])
    spread = distributions(table, resamples=options.resamples, confidence=options.confidence, seed=options.seed or 0)
    write_csv(out, table)
    write_csv(distributions_table, spread)
    write_csv(images_table, per_image)
    write_table(outlines, pd.concat([one.outlines for one in found], ignore_index=True))
    unknown = int(listed["pixel_nm"].isna().sum())
    if unknown:
        log.warning("%d of %d images have no pixel size: their diameters are in pixels only", unknown, len(rows))
    cut = int(table["cut"].sum())
    log.info("%d particles in %d images, %d of them cut by the edge", len(table), len(rows), cut)
    return Metrics(
        {
            "images": len(rows),
            "images_without_pixel_size": unknown,
            "particles": len(table),
            "particles_cut": cut,
            "particles_rejected": int(per_image["rejected"].sum()),
            "covered": float(per_image["covered"].mean()),
            "outlined": float(per_image["outlined"].mean()),
        }
    )


def _listed(images: str, sheet: str | None, options: Particles) -> pd.DataFrame:
    """Images that are used once, with the area beside the bar and pixel size of each."""
    if images.endswith(".parquet"):
        table = read_split(images, _COLUMNS, sheet=sheet)
        return table[table["duplicate_of"].isna()].reset_index(drop=True)
    records = []
    for path in list_micrographs(images):
        image, settings = read_listed(path, options.page, options.mask), instrument_settings(path, options.page)
        area = bar_of(image, settings, options.bar_rows, options.bar_side).area(image.shape)
        given = {"page": options.page, "mask": options.mask, "pixel_nm": settings.get("pixel_nm") or options.pixel_nm}
        records.append({"name": path, "image": path, "label": _ALL, **area._asdict(), **given})
    table = pd.DataFrame(records)
    table["pixel_nm"] = table["pixel_nm"].astype(np.float64)
    return table


def _diameter_px(row: dict[str, Any], options: Particles) -> float | None:
    """Typical diameter as given [px]; in um where the pixel size is known."""
    known = row["pixel_nm"] > 0
    if known and options.diameter_um:
        return float(1000 * options.diameter_um / row["pixel_nm"])
    return None if known else options.diameter_px


def _typical(rows: list[dict[str, Any]], read: Any, options: Particles) -> float:
    """Median of the typical diameters [px] of some images of a class; 0 if all of them are given."""
    wanted = [row for row in rows if _diameter_px(row, options) is None]
    found = []
    for row in wanted:
        try:
            found.append(typical_diameter(read(row)))
        except InputError as error:
            raise InputError(row["image"], error.found, error.expected) from error
    return float(np.median(found)) if found else 0.0


def _measure(image: NDArray[np.uint8], row: dict[str, Any], diameter: float, options: Particles) -> _Measured:
    outlined = outline_particles(image, diameter, options)
    table = measure_particles(image, outlined.labels)
    # The corner of the area beside the bar, from which its rows and columns count.
    origin = {"row": int(row["row0"]), "col": int(row["col0"])}
    table["row"] += origin["row"]
    table["col"] += origin["col"]
    pixel_nm = float(row["pixel_nm"]) if row["pixel_nm"] > 0 else np.nan
    table.insert(0, "name", row["name"])
    table.insert(1, "label", str(row["label"]))
    table.insert(list(table.columns).index("diameter_px"), "diameter_um", table["diameter_px"] * pixel_nm / 1000)
    points = outline_points(outlined.labels).astype({"row": np.float32, "col": np.float32, "particle": np.int64})
    points["row"] += origin["row"]
    points["col"] += origin["col"]
    points.insert(0, "name", row["name"])
    summary = {
        "name": row["name"],
        "label": str(row["label"]),
        "image": row["image"],
        "page": row["page"],
        "mask": row["mask"],
        "pixel_nm": pixel_nm,
        "row0": origin["row"],
        "row1": int(row["row1"]),
        "col0": origin["col"],
        "col1": int(row["col1"]),
        "typical_px": diameter,
        "particles": len(table),
        "particles_cut": int(table["cut"].sum()),
        "rejected": outlined.rejected,
        "covered": outlined.covered,
        "outlined": float((outlined.labels > 0).mean()),
        "flat": float(outlined.flat.mean()),
    }
    return _Measured(table, points, summary)
