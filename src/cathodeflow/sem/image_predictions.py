"""Class, entropy and out-of-distribution score of whole micrographs without labels."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import entr

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.learning import resolve_device
from cathodeflow.parallel import ordered_map
from cathodeflow.sem.calibration import apply_mean_temperature, apply_temperature
from cathodeflow.sem.info_bar import Bar, bar_of
from cathodeflow.sem.model import SemNetwork
from cathodeflow.sem.ood import ood_score
from cathodeflow.sem.options import Predict
from cathodeflow.sem.predictions import network_outputs
from cathodeflow.sem.resample import shrink, to_uint8
from cathodeflow.sem.usable_area import UsableArea

Grey = NDArray[np.uint8] | NDArray[np.uint16]
#: Image as stored and the settings of its instrument, as far as they are known.
Micrograph = tuple[Grey, dict[str, Any]]

# Tiles per batch: all tiles of a usual image, within the memory that the largest images need.
_TOGETHER = 128
_READERS = 2


class Tiles(NamedTuple):
    """Crops that cover an image.

    crops : (n, side, side) uint8, as the network takes them.
    places : (n, 2) int, first pixel (row, col) of each crop in the usable area of the image.
    extent : rows and columns of the image that each crop covers [px].
    """

    crops: NDArray[np.uint8]
    places: NDArray[np.int64]
    extent: tuple[int, int]


def tile_places(rows: int, cols: int, *, extent: tuple[int, int], overlap: float) -> NDArray[np.int64]:
    """Return the first pixels of the smallest number of tiles that cover an area from edge to edge in equal steps.

    Parameters
    ----------
    rows, cols : int
        Size of the area, at least that of a tile [px].
    extent : (int, int)
        Rows and columns of a tile [px].
    overlap : float
        Minimum overlap of neighbouring tiles, as a fraction of their side, from 0 to below 1.

    Returns
    -------
    (n, 2) int
        Row and column, row by row.

    Examples
    --------
    >>> tile_places(6, 10, extent=(6, 4), overlap=0.25).tolist()
    [[0, 0], [0, 3], [0, 6]]
    """
    starts = []
    for length, side in zip((rows, cols), extent, strict=True):
        steps = math.ceil((length - side) / max(side * (1 - overlap), 1) - 1e-9)
        starts.append(np.rint(np.linspace(0, length - side, steps + 1)).astype(np.int64))
    return np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 2)


def cut_tiles(
    image: Grey,
    *,
    pixels: int | None,
    side: int,
    overlap: float,
    margin: int,
    area: UsableArea,
    pixel_nm: float | None = None,
    own_pixel_nm: float | None = None,
) -> Tiles:
    """Cover an image beside its information bar with tiles of the size of the crops that a network was trained on.

    Parameters
    ----------
    image : (row, col) uint8 or uint16
        As stored.
    pixels, side, margin, pixel_nm
        Options of the crops (`options.Crops`).
    overlap : float
        Minimum overlap of neighbouring tiles (`tile_places`).
    area : UsableArea
        Part beside the information bar, which loses `margin` where it meets the bar.
    own_pixel_nm : float, optional
        Pixel size of the image [nm], needed if `pixel_nm` is given.

    Raises
    ------
    InputError
        The image is smaller than a tile, or its pixel size is needed and unknown.
    """
    rows, cols = image.shape
    usable = area.inset(margin, image.shape)
    if pixels is None:
        extent = (rows // 2, cols // 2)
    else:
        if pixel_nm is not None and not own_pixel_nm:
            raise InputError("image", "no pixel size", f"one, as the network takes pixels of {pixel_nm:g} nm")
        extent = (round(pixels * pixel_nm / own_pixel_nm) if pixel_nm and own_pixel_nm else pixels,) * 2
    if not 0 < extent[0] <= usable.rows or not 0 < extent[1] <= usable.cols:
        size = f"{max(usable.rows, 0)} x {max(usable.cols, 0)} px"
        if area.row1 < rows:
            size += f" above a bar of {rows - area.row1} rows"
        elif area != (0, rows, 0, cols):
            size += " beside the bar"
        raise InputError("image", size, f"at least {extent[0]} x {extent[1]} px, the input of the network")
    grey = usable.of(to_uint8(image, area=area))
    places = tile_places(usable.rows, usable.cols, extent=extent, overlap=overlap)
    crops = [shrink(grey[row : row + extent[0], col : col + extent[1]], side=side) for row, col in places]
    return Tiles(np.stack(crops), places, extent)


class ImagePrediction(NamedTuple):
    """Calibrated probabilities (k,) of an image, its OOD score, and the probabilities (n, k) of its tiles."""

    probabilities: NDArray[np.float64]
    ood_score: float
    of_tiles: NDArray[np.float64]


def predict_image(
    model: SemNetwork,
    metadata: Mapping[str, Any],
    tiles: Tiles,
    *,
    device: torch.device | str,
) -> ImagePrediction:
    """Predict an image from all its tiles, in one batch.

    Parameters
    ----------
    model : SemNetwork
    metadata : mapping
        Of `model.load_network`: temperature, original_temperature, statistics.
    tiles : Tiles
    device : torch.device or str
    """
    outputs = network_outputs(model, tiles.crops, batch_size=_TOGETHER, device=device)
    of_tiles = apply_temperature(outputs.logits, metadata["temperature"])
    whole = apply_mean_temperature(of_tiles.mean(0, keepdims=True), metadata["original_temperature"])[0]
    features = outputs.features.mean(0, keepdims=True, dtype=np.float64)
    return ImagePrediction(whole, float(ood_score(features, metadata["statistics"])[0]), of_tiles)


def predict_images(
    model: SemNetwork,
    metadata: Mapping[str, Any],
    images: Iterable[str],
    read: Callable[[str], Micrograph],
    options: Predict,
) -> pd.DataFrame:
    """Predict images and sort them by OOD score, the highest first; the next images are read during the computation.

    Parameters
    ----------
    model, metadata
        Of `model.load_network`.
    images : iterable of str
        Names, such as paths.
    read : function of str
        Returns an image and its pixel size, or raises InputError; runs in threads.
    options : Predict
        With `on_bad_file: skip`, unusable images are the last rows, with the error in column `problem`.

    Returns
    -------
    DataFrame
        rank, image, prediction, confidence (calibrated), entropy [nat], entropy_share (fraction of the maximum
        entropy), strangeness (the OOD score), foreign (whether the score is above the threshold), tiles (their number),
        bar_rows [px], bar_side, problem, p_<class>.

    Raises
    ------
    InputError
        No image; a network without `statistics`; with `on_bad_file: fail`, unusable images, a line each.
    """
    if metadata.get("statistics") is None:
        raise InputError("network", "no statistics of known images", "a network of sem_train")
    threshold, classes = metadata["statistics"].threshold(options.ood_quantile), model.classes
    device = resolve_device(options.device or "auto")
    geometry = {name: metadata[name] for name in ("pixels", "side", "margin", "pixel_nm")}

    def load(name: str) -> tuple[str, tuple[Tiles, Bar] | InputError]:
        try:
            image, settings = read(name)
        except InputError as error:
            return name, error
        try:
            bar, own = bar_of(image, settings, options.bar_rows, options.bar_side), settings.get("pixel_nm")
            area = bar.area(image.shape)
            return name, (cut_tiles(image, overlap=options.overlap, area=area, own_pixel_nm=own, **geometry), bar)
        except InputError as error:
            return name, InputError(name, error.found, error.expected)

    rows, errors = [], []
    for name, loaded in ordered_map(load, images, workers=_READERS):
        if isinstance(loaded, InputError):
            errors.append(loaded)
            rows.append({"image": name, "tiles": 0, "problem": str(loaded)})
        elif options.on_bad_file == "skip" or not errors:
            tiles, bar = loaded
            found = predict_image(model, metadata, tiles, device=device)
            best, entropy = int(found.probabilities.argmax()), float(entr(found.probabilities).sum())
            rows.append(
                {
                    "image": name,
                    "prediction": classes[best],
                    "confidence": found.probabilities[best],
                    "entropy": entropy,
                    "entropy_share": entropy / math.log(len(classes)),
                    "strangeness": found.ood_score,
                    "foreign": found.ood_score > threshold,
                    "tiles": len(tiles.crops),
                    "bar_rows": bar.rows,
                    "bar_side": bar.side,
                    "problem": None,
                }
                | {f"p_{label}": value for label, value in zip(classes, found.probabilities, strict=True)}
            )
    if errors and options.on_bad_file == "fail":
        raise InputErrors.of(errors)
    if not rows:
        raise InputError("images", "none", "at least one")
    return _ranked(pd.DataFrame(rows), classes)


def _ranked(table: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    names = ["image", "prediction", "confidence", "entropy", "entropy_share", "strangeness", "foreign", "tiles",
             "bar_rows", "bar_side", "problem", *(f"p_{label}" for label in classes)]  # fmt: skip
    table = table.reindex(columns=names)
    table = table.astype({"foreign": "boolean", "tiles": "int64", "bar_rows": "Int64"})
    table = table.sort_values(["strangeness", "image"], ascending=[False, True], na_position="last", ignore_index=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table
