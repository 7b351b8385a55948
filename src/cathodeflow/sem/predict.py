"""Class, entropy and strangeness of whole micrographs that nobody has labelled."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import entr

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.parallel import ordered_map
from cathodeflow.sem.calibration import apply_mean_temperature, apply_temperature
from cathodeflow.sem.evaluate import network_outputs
from cathodeflow.sem.info_bar import find_info_bar
from cathodeflow.sem.model import SemNetwork
from cathodeflow.sem.resample import shrink, to_uint8
from cathodeflow.sem.strangeness import strangeness

Grey = NDArray[np.uint8] | NDArray[np.uint16]
#: Image as stored and the size of its pixels [nm], None if unknown.
Micrograph = tuple[Grey, float | None]

# Tiles that go through the network at once: all of a usual image, and little enough memory for the largest.
_TOGETHER = 128
_READERS = 2


class Tiles(NamedTuple):
    """Crops that cover an image.

    crops : (n, side, side) uint8, as the network sees them.
    places : (n, 2) int, first pixel (row, col) of each in the image.
    extent : rows and columns of the image that each covers [px].
    bar_rows : int, rows of the information bar below all of them [px].
    """

    crops: NDArray[np.uint8]
    places: NDArray[np.int64]
    extent: tuple[int, int]
    bar_rows: int


def tile_places(rows: int, cols: int, *, extent: tuple[int, int], overlap: float) -> NDArray[np.int64]:
    """First pixels of the fewest tiles that cover an area from edge to edge in even steps.

    Parameters
    ----------
    rows, cols : int
        Of the area, at least those of a tile [px].
    extent : (int, int)
        Rows and columns of a tile [px].
    overlap : float
        Least share of a tile that it has in common with the next one, from 0 to below 1.

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
    margin: int = 1,
    bar_rows: int | None = None,
    pixel_nm: float | None = None,
    own_pixel_nm: float | None = None,
) -> Tiles:
    """Cover an image above its bar with tiles as large as the crops that a network was trained on.

    Parameters
    ----------
    image : (row, col) uint8 or uint16
        As stored.
    pixels, side, margin, pixel_nm
        Of the crops (`crops.plan_crops`).
    overlap : float
        Of `tile_places`.
    bar_rows : int, optional
        Rows of the information bar [px]; by default found.
    own_pixel_nm : float, optional
        Pixel size of the image [nm], needed where `pixel_nm` is given.

    Raises
    ------
    InputError
        An image that is smaller than a tile or whose pixel size is needed and not known.
    """
    rows, cols = image.shape
    bar = find_info_bar(image) if bar_rows is None else bar_rows
    usable = rows - bar - (margin if bar else 0)
    if pixels is None:
        extent = (rows // 2, cols // 2)
    else:
        if pixel_nm is not None and not own_pixel_nm:
            raise InputError("image", "no pixel size", f"one, as the network sees pixels of {pixel_nm:g} nm")
        extent = (round(pixels * pixel_nm / own_pixel_nm) if pixel_nm and own_pixel_nm else pixels,) * 2
    if not 0 < extent[0] <= usable or not 0 < extent[1] <= cols:
        size = f"{max(usable, 0)} x {cols} px" + (f" above a bar of {bar} rows" if bar else "")
        raise InputError("image", size, f"at least {extent[0]} x {extent[1]} px, which the network sees at once")
    grey = to_uint8(image, bar_rows=bar)
    places = tile_places(usable, cols, extent=extent, overlap=overlap)
    crops = [shrink(grey[row : row + extent[0], col : col + extent[1]], side=side) for row, col in places]
    return Tiles(np.stack(crops), places, extent, bar)


class ImagePrediction(NamedTuple):
    """What a network says of an image: calibrated probabilities (k,), strangeness, probabilities (n, k) of tiles."""

    probabilities: NDArray[np.float64]
    strangeness: float
    of_tiles: NDArray[np.float64]


def predict_image(
    model: SemNetwork,
    metadata: Mapping[str, Any],
    tiles: Tiles,
    *,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
) -> ImagePrediction:
    """Predict an image from all its tiles, which go through the network together.

    Parameters
    ----------
    model : SemNetwork
    metadata : mapping
        Of `model.load_network`: temperature, original_temperature, statistics.
    tiles : Tiles
    device, precision
        Of `evaluate.network_outputs`.
    """
    outputs = network_outputs(model, tiles.crops, batch_size=_TOGETHER, device=device, precision=precision)
    of_tiles = apply_temperature(outputs.logits, metadata["temperature"])
    whole = apply_mean_temperature(of_tiles.mean(0, keepdims=True), metadata["original_temperature"])[0]
    features = outputs.features.mean(0, keepdims=True, dtype=np.float64)
    return ImagePrediction(whole, float(strangeness(features, metadata["statistics"])[0]), of_tiles)


def predict_images(
    model: SemNetwork,
    metadata: Mapping[str, Any],
    images: Iterable[str],
    read: Callable[[str], Micrograph],
    *,
    overlap: float = 0.25,
    foreign: float = 0.99,
    bar_rows: int | None = None,
    on_bad_file: Literal["fail", "skip"] = "skip",
    device: torch.device | str = "cpu",
    precision: str = "32-true",
) -> pd.DataFrame:
    """Predict images and rank them, the strangest first; the next ones are read while the network is busy.

    Parameters
    ----------
    model, metadata
        Of `model.load_network`.
    images : iterable of str
        Names, such as paths.
    read : function of str
        Gives an image and its pixel size, or raises InputError; runs in threads.
    overlap, bar_rows
        Of `cut_tiles`.
    foreign : float
        Quantile of the strangeness of known images above which an image is foreign: of another kind than any class.
    device, precision
        Of `evaluate.network_outputs`.
    on_bad_file : {"fail", "skip"}
        `skip`: images that cannot be used are the last rows, with what is wrong in column `problem`.

    Returns
    -------
    DataFrame
        rank, image, prediction, confidence (calibrated), entropy [nat], entropy_share (of the most there can be),
        strangeness, foreign, tiles, bar_rows [px], problem, p_<class>.

    Raises
    ------
    InputError
        No image; a network without `statistics`; with `fail`, images that cannot be used, a line each.
    """
    if metadata.get("statistics") is None:
        raise InputError("network", "no statistics of known images", "a network of sem_train")
    limit, classes = metadata["statistics"].limit(foreign), model.classes
    geometry = {name: metadata[name] for name in ("pixels", "side", "margin", "pixel_nm")}

    def load(name: str) -> tuple[str, Tiles | InputError]:
        try:
            image, own_pixel_nm = read(name)
        except InputError as error:
            return name, error
        try:
            return name, cut_tiles(image, overlap=overlap, bar_rows=bar_rows, own_pixel_nm=own_pixel_nm, **geometry)
        except InputError as error:
            return name, InputError(name, error.found, error.expected)

    rows, errors = [], []
    for name, tiles in ordered_map(load, images, workers=_READERS):
        if isinstance(tiles, InputError):
            errors.append(tiles)
            rows.append({"image": name, "tiles": 0, "problem": str(tiles)})
        elif on_bad_file == "skip" or not errors:
            found = predict_image(model, metadata, tiles, device=device, precision=precision)
            best, entropy = int(found.probabilities.argmax()), float(entr(found.probabilities).sum())
            rows.append(
                {
                    "image": name,
                    "prediction": classes[best],
                    "confidence": found.probabilities[best],
                    "entropy": entropy,
                    "entropy_share": entropy / math.log(len(classes)),
                    "strangeness": found.strangeness,
                    "foreign": found.strangeness > limit,
                    "tiles": len(tiles.crops),
                    "bar_rows": tiles.bar_rows,
                    "problem": None,
                }
                | {f"p_{label}": value for label, value in zip(classes, found.probabilities, strict=True)}
            )
    if errors and on_bad_file == "fail":
        raise InputErrors.of(errors)
    if not rows:
        raise InputError("images", "none", "at least one")
    return _ranked(pd.DataFrame(rows), classes)


def _ranked(table: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    names = ["image", "prediction", "confidence", "entropy", "entropy_share", "strangeness", "foreign", "tiles",
             "bar_rows", "problem", *(f"p_{label}" for label in classes)]  # fmt: skip
    table = table.reindex(columns=names)
    table = table.astype({"foreign": "boolean", "tiles": "int64", "bar_rows": "Int64"})
    table = table.sort_values(["strangeness", "image"], ascending=[False, True], na_position="last", ignore_index=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table
