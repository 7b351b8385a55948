"""Images that show parts of the same place: their positions in a mosaic, and fields of view that hardly overlap.

The stage often moves by less than the field of view. Images that overlap are not independent: a split must not put one
into the training set and the other into the test set, and an interval must not count them twice.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.sem.overlap import MIN_SCORE, SIDE, find_overlap, shrink, shrink_factor

#: Columns of a table of images: the first image of the mosaic, and the position in it [px]; first image of the field.
COLUMNS = ("mosaic", "mosaic_row", "mosaic_col", "field")
#: Fraction of an image that another one must show for the two to overlap.
MIN_SHARED = 0.05
# Minimum correlation in standard deviations of that of different images, whose detail is correlated over some 12 px: a
# small overlap of small images has a high correlation by chance.
_SIGNIFICANT, _CORRELATED = 8.0, 12.0


class Thumbnail(NamedTuple):
    """An image (row, col), shrunk by `factor`."""

    pixels: NDArray[np.uint8]
    factor: int


def thumbnail(image: NDArray[Any]) -> Thumbnail:
    """Shrink an image (row, col) uint8 or uint16 to at most 320 px."""
    factor = shrink_factor(*image.shape, longest=SIDE)
    small = shrink(image, factor)
    scale = 255 / np.iinfo(image.dtype).max
    return Thumbnail(np.rint(small * scale).astype(np.uint8), factor)


def mosaics(thumbnails: Sequence[Thumbnail], names: Sequence[str]) -> pd.DataFrame:
    """Find the positions of images of a class, in the order in which they were taken.

    Every image is registered with the one before (`overlap.find_overlap`). If they do not overlap, or were not taken at
    the same magnification, a new mosaic begins. A field begins with the first image that shows less than `MIN_SHARED`
    of the first image of the field before.

    Returns
    -------
    DataFrame
        `COLUMNS`, a row per image.
    """
    rows: list[tuple[str, float, float, str]] = []
    start = np.zeros(2)
    for number, (small, name) in enumerate(zip(thumbnails, names, strict=True)):
        shift = _shift(thumbnails[number - 1], small) if number else None
        if shift is None:
            rows.append((name, 0.0, 0.0, name))
            start = np.zeros(2)
            continue
        mosaic, row, col, field = rows[-1]
        position = np.array([row, col]) + shift
        if _shared(position - start, np.array(small.pixels.shape) * small.factor) < MIN_SHARED:
            field, start = name, position
        rows.append((mosaic, float(position[0]), float(position[1]), field))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def overlapping(table: pd.DataFrame, others: pd.DataFrame) -> NDArray[np.bool_]:
    """Say which images of `table` show at least `MIN_SHARED` of an image of `others`, of the same mosaic.

    Parameters
    ----------
    table, others : DataFrame
        Columns mosaic, mosaic_row, mosaic_col and those of `UsableArea` [px].
    """
    found = np.zeros(len(table), bool)
    there = {name: part for name, part in others.groupby("mosaic")}
    for index, image in enumerate(table.to_dict("records")):
        same = there.get(image["mosaic"])
        if same is None:
            continue
        size = np.array([image["row1"] - image["row0"], image["col1"] - image["col0"]])
        apart = same[["mosaic_row", "mosaic_col"]].to_numpy(np.float64) - [image["mosaic_row"], image["mosaic_col"]]
        found[index] = bool((_shared(apart, size) >= MIN_SHARED).any())
    return found


def _shift(before: Thumbnail, small: Thumbnail) -> NDArray[np.float64] | None:
    """Rows and columns by which the field of view moved [px of the image]; None if the two do not overlap."""
    if before.factor != small.factor or before.pixels.shape != small.pixels.shape:
        return None
    found = find_overlap(before.pixels, small.pixels, min_fraction=MIN_SHARED)
    shift = np.array([found.shift_row, found.shift_col])
    area = small.pixels.size * float(_shared(shift, np.array(small.pixels.shape)))
    real = found.score >= MIN_SCORE and found.score * np.sqrt(area / _CORRELATED) >= _SIGNIFICANT
    return shift * small.factor if real else None


def _shared(apart: NDArray[np.float64], size: NDArray[np.int64]) -> NDArray[np.float64]:
    """Fraction of an image (..., 2) that another one shows, which is that far from it."""
    shared: NDArray[np.float64] = np.clip(1 - np.abs(apart) / size, 0, 1).prod(axis=-1)
    return shared
