"""Stage: measure the properties of a labelled volume."""

import logging
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.fibsem.label_volumes import (
    LabelVolume,
    given_voxel,
    method_volumes,
    open_label_volume,
    reference_volume,
)
from cathodeflow.fibsem.microstructure.compute import Measured, compute_properties, measure
from cathodeflow.fibsem.microstructure.property_table import COLUMNS, Property, as_columns
from cathodeflow.fibsem.properties_options import Properties
from cathodeflow.fibsem.property_errors import SAMPLING_ONLY
from cathodeflow.fibsem.property_plots import properties_figure, sizes_figure
from cathodeflow.fibsem.sampling_error import sampling_errors, with_errors
from cathodeflow.fibsem.surface_page import phases_page
from cathodeflow.io.figures import save_figure
from cathodeflow.io.reconstructions import write_page
from cathodeflow.io.tables import read_table, write_csv, write_json
from cathodeflow.provenance import versions
from cathodeflow.stage import InputFile, InputStore, Metrics, OutputFolder, Source, stage

log = logging.getLogger("cathodeflow.fibsem")
_LIBRARIES = ("numpy", "scipy", "skimage", "numba", "dask", "taufactor", "cathodeflow")
# Groups of properties that have errors.
SCALED = ("fractions", "surfaces", "transport", "particles", "thickness")
#: Name of the reference labels among the methods.
REFERENCE = "reference"


@stage("fibsem.properties")
def properties(
    labels: Source,
    *,
    out: OutputFolder,
    voxel: tuple[str, str, str] | None = None,
    reference: InputStore | None = None,
    table: InputFile | None = None,
    options: Properties,
) -> Metrics:
    """Measure the properties of the phases in LABELS.

    Writes properties.csv, properties.json, properties_slices.csv, properties_curves.csv, figures, and surface.html with
    the surface of each phase in 3D. For a store that `test` wrote, the tables have the properties by every method and
    of the reference, on the longest run of neighbouring test slices.

    Parameters
    ----------
    labels : path
        Labelled volume: folder, pattern, stack file, dataset or Zarr store.
    out : path
        Folder for the tables and figures.
    voxel : texts
        Distance of slices, rows and columns with a unit, such as `0.1 0.1 0.2um`. Default: that in the files; without
        it, lengths are in voxels.
    reference : path
        Zarr store of the reference labels of all images, for a store that `test` wrote.
    table : path
        Table of the test images, for a store that `test` wrote.

    Raises
    ------
    InputError
        The labels cannot be read, have values of no class, or the voxel size is no three lengths.
    """
    methods = method_volumes(labels)
    if methods is None:
        volumes = {"": open_label_volume(labels, options)}
    else:
        if reference is None or table is None:
            raise InputError(labels, "segmentations by several methods", "`--reference` and `--table` as well")
        tested = read_table(table, ["image", "slice", "copy"])
        volumes = {REFERENCE: reference_volume(reference, options)}
        run = longest_run(tested)
        volumes = {REFERENCE: volumes[REFERENCE]._replace(
            labels=volumes[REFERENCE].labels[tested["image"].to_numpy()[run]]
        )}  # fmt: skip
        volumes |= {name: volumes[REFERENCE]._replace(labels=array[run]) for name, array in methods.items()}
    if voxel is not None:
        volumes = {name: one._replace(voxel=given_voxel(voxel), warnings=[]) for name, one in volumes.items()}
    device = _device(options)
    found: dict[str, Measured] = {}
    for name, volume in volumes.items():
        for text in volume.warnings if name in ("", REFERENCE) else ():
            log.warning("%s", text)
        _check_phases(volume, options)
        found[name] = with_sampling_error(
            measure(volume.labels, volume.classes, volume.voxel, options, device=device), volume, options, device
        )
    first = next(iter(volumes.values()))
    rows = pd.concat([pd.DataFrame(as_columns(one.properties)).assign(method=name) for name, one in found.items()])
    rows = rows[[*(["method"] if methods else []), *COLUMNS]]
    write_csv(f"{out}/properties.csv", rows)
    settings = options.model_dump(mode="json") | {"classes": list(first.classes)}
    lengths = {"voxel": list(first.voxel.size), "unit": first.voxel.unit, "shape": list(first.labels.shape)}
    listed = [{str(key): _in_json(value) for key, value in row.items()} for row in rows.to_dict("records")]
    data = {"properties": listed, "settings": settings, "labels": labels, **lengths, "versions": versions(_LIBRARIES)}
    write_json(f"{out}/properties.json", data)
    write_csv(f"{out}/properties_slices.csv", _slices(found, first.classes, methods is not None))
    write_csv(f"{out}/properties_curves.csv", _curves(found, methods is not None))
    drawn = {"properties": properties_figure(rows, first.classes)}
    if methods is None:
        drawn["sizes"] = sizes_figure(found[""].curves, found[""].slices, first.classes)
        page = phases_page(first.labels, first.classes, first.voxel.size, unit=first.voxel.unit, title="Phases")
        write_page(f"{out}/surface.html", page)
    files = [f"{out}/{name}.png" for name in drawn]
    for path, figure in zip(files, drawn.values(), strict=True):
        save_figure(path, figure)
    for row in listed:
        if row["property"] in ("volume_fraction", "tortuosity_factor") and not methods:
            log.info("%s %s %s: %s%s", row["property"], row["phase"], row["direction"], row["value"],
                     f" ({row['note']})" if row["note"] else "")  # fmt: skip
    return Metrics(_figures_of_merit(listed), figures=files)


def with_sampling_error(found: Measured, volume: LabelVolume, options: Properties, device: str) -> Measured:
    """Add the sampling error to properties; the error of the segmentation is not known from labels alone."""
    groups = tuple(group for group in options.groups if group in SCALED)
    if options.sampling.blocks == 1 or not groups:
        return found
    inner = options.model_copy(update={"groups": groups})

    def compute(part: NDArray[np.uint8]) -> list[Property]:
        return compute_properties(part, volume.classes, volume.voxel, inner, device=device)

    errors = sampling_errors(
        volume.labels, found.properties, compute, classes=volume.classes, options=options.sampling
    )  # fmt: skip
    rows = [
        row if np.isnan(row.standard_error) else row._replace(note="; ".join(filter(None, (row.note, SAMPLING_ONLY))))
        for row in with_errors(found.properties, errors)
    ]
    return found._replace(properties=rows)


def longest_run(tested: pd.DataFrame) -> list[int]:
    """Rows of the longest run of neighbouring slices in a table of test images, without augmented copies.

    Examples
    --------
    >>> longest_run(pd.DataFrame({"slice": [7, 3, 3, 4, 9, 5], "copy": [0, 0, 1, 0, 0, 0]}))
    [1, 3, 5]
    """
    slices = tested["slice"].to_numpy()
    kept = sorted(np.flatnonzero(tested["copy"].to_numpy() == 0).tolist(), key=lambda row: slices[row])
    if not kept:
        kept = list(range(min(1, len(slices))))
    breaks = [k + 1 for k, (a, b) in enumerate(pairwise(kept)) if slices[b] != slices[a] + 1]
    runs = [kept[a:b] for a, b in pairwise([0, *breaks, len(kept)])]
    return max(runs, key=len)


def _check_phases(volume: LabelVolume, options: Properties) -> None:
    for flag, phases in (("particle", options.particle_phases), ("film", options.film_phases)):
        for phase in phases or ():
            if phase not in volume.classes:
                raise InputError(f"--{flag}-phases", phase, "one of " + ", ".join(volume.classes))


def _device(options: Properties) -> str:
    """Device of the transport solver; torch is not imported where the compiled solver is wanted or there is no GPU."""
    from cathodeflow.parallel import graphics_card

    wanted = options.device or "auto"
    if wanted == "cpu" or (wanted == "auto" and not graphics_card()):
        return "cpu"
    from cathodeflow.learning import resolve_device

    return str(resolve_device(wanted))


def _slices(found: dict[str, Measured], classes: Sequence[str], named: bool) -> pd.DataFrame:
    tables = []
    for name, one in found.items():
        fractions = one.slices / np.maximum(one.slices.sum(1, keepdims=True), 1)
        columns = {f"fraction_{phase}": fractions[:, index] for index, phase in enumerate(classes)}
        table = pd.DataFrame({"slice": np.arange(len(fractions)), **columns})
        tables.append(table.assign(method=name)[["method", *table.columns]] if named else table)
    return pd.concat(tables, ignore_index=True)


def _curves(found: dict[str, Measured], named: bool) -> pd.DataFrame:
    columns = ["curve", "phase", "direction", "x", "unit", "y"]
    tables = [pd.DataFrame(columns=(["method"] if named else []) + columns)]
    for name, one in found.items():
        for curve in one.curves:
            direction = "" if curve.direction is None else str(curve.direction)
            values = dict(zip(columns, (curve.name, curve.phase, direction, curve.x, curve.unit, curve.y), strict=True))
            tables.append(pd.DataFrame(({"method": name} if named else {}) | values))
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)


def _in_json(value: Any) -> Any:
    """JSON has no infinity: it is written as the text `inf`; NaN becomes null."""
    return "inf" if isinstance(value, float) and math.isinf(value) else value


def _figures_of_merit(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Values of all properties by name, for the record."""
    named = {}
    for row in rows:
        parts = (row.get("method"), row["property"], row["phase"], row["direction"])
        named["_".join(str(part) for part in parts if part not in (None, ""))] = row["value"]
    return named
