"""Stage: show predictions on one HTML page."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cathodeflow.errors import InputError
from cathodeflow.io.crops import geometry_of
from cathodeflow.io.micrographs import instrument_settings
from cathodeflow.io.reconstructions import write_page
from cathodeflow.io.tables import read_csv
from cathodeflow.learning import resolve_device
from cathodeflow.progress import progress
from cathodeflow.sem.gradcam import whole_map
from cathodeflow.sem.listed_images import mask_of, page_of, read_listed
from cathodeflow.sem.model import load_network
from cathodeflow.sem.moved_images import read_split
from cathodeflow.sem.prediction_page import pictures, prediction_page, worst_first
from cathodeflow.sem.resample import to_uint8
from cathodeflow.sem.tiles import cut_tiles
from cathodeflow.sem.usable_area import UsableArea
from cathodeflow.sem.use_options import Page
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.sem")


@stage("sem.page")
def page(
    predictions: InputFile,
    model: InputFile,
    *,
    out: OutputFile,
    listed: InputFile | None = None,
    sheet: str | None = None,
    options: Page,
) -> Metrics:
    """Show PREDICTIONS on one HTML page, with the class activation maps of MODEL; the most doubtful images come first.

    The page needs no other file, and can be sent.

    Parameters
    ----------
    predictions : path
        Predictions of images, of `predict` or `test`.
    model : path
        Model file of the network that made them.
    out : path
        HTML file to write.
    listed : path
        Table of images of `index`, which predictions of `test` need.
    sheet : str
        Sample sheet: images of a table are read from where it says, if they have been moved since they were listed.

    Raises
    ------
    InputError
        The table has no predictions of images, or a file cannot be read.
    """
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device or "auto").type
    table = _read(predictions, listed, sheet)
    network, metadata = load_network(model)
    unknown = sorted(set(table["prediction"].dropna()) - set(network.classes))
    if unknown:
        raise InputError(predictions, f"class {unknown[0]}", f"classes of the network: {', '.join(network.classes)}")
    table = worst_first(table)
    usable = table[table["prediction"].notna()].head(options.images)
    geometry = geometry_of(metadata)
    shown = {}
    for row in progress(usable.to_dict("records"), "class activation maps", total=len(usable)):
        path = row["path"] if "path" in row else row["image"]
        try:
            # Tables of predictions of earlier versions have neither.
            image = read_listed(path, page_of(row.get("page")), mask_of(row.get("mask")))
            area = _area(row, image.shape)
            # Tables of predictions of earlier versions have no pixel size.
            pixel_nm = row["pixel_nm"] if "pixel_nm" in row else instrument_settings(path).get("pixel_nm")
            own = float(pixel_nm) if pixel_nm and pixel_nm > 0 else None
            tiles = cut_tiles(image, overlap=options.overlap, area=area, own_pixel_nm=own, **geometry)
        except InputError as error:
            # A map that is larger than the memory has no picture.
            log.warning("no picture: %s: found %s, expected %s", path, error.found, error.expected)
            continue
        target = network.classes.index(row["prediction"])
        heat = whole_map(network, tiles, target, method=options.method, device=device)
        grey = area.inset(geometry["margin"], image.shape).of(to_uint8(image, area=area))
        name = row["name"] if "path" in row else row["image"]
        shown[name] = pictures(np.ascontiguousarray(grey), heat, width=options.width)
    title = f"Predictions of {Path(predictions).parent.name}/{Path(predictions).stem}"
    text = prediction_page(table.drop(columns=["path"], errors="ignore"), shown, title=title)
    write_page(out, text)
    log.info("page of %d images, %d of them with pictures, %.1f MB", len(table), len(shown), len(text) / 1e6)
    return Metrics({"images": len(table), "pictures": len(shown)})


def _read(predictions: str, listed: str | None, sheet: str | None) -> pd.DataFrame:
    """Read the predictions, with the path of every image."""
    table = read_csv(predictions)
    if "prediction" not in table or "confidence" not in table or ("image" not in table and "name" not in table):
        raise InputError(predictions, "a table without predictions", "predictions of images, of predict or test")
    if "image" in table:
        return table
    if "crop" in table:
        raise InputError(predictions, "predictions of crops", "predictions of images")
    if listed is None:
        raise InputError("--listed", "nothing", "the table of images that index wrote, for predictions of test")
    files = read_split(listed, ["name", "image", *UsableArea._fields, "pixel_nm", "page", "mask"], sheet=sheet)
    missing = sorted(set(table["name"]) - set(files["name"]))
    if missing:
        raise InputError(listed, f"no image {missing[0]}", "all images of the predictions")
    return table.merge(files.rename(columns={"image": "path"}), on="name", how="left")


def _area(row: dict[Any, Any], shape: tuple[int, ...]) -> UsableArea:
    if "row0" in row:
        return UsableArea(*(int(row[name]) for name in UsableArea._fields))
    return UsableArea.beside_bar(shape, int(row["bar_rows"]), str(row["bar_side"]))
