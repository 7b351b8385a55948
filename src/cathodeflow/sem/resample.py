"""Images resized to squares or converted to eight bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.sem.usable_area import UsableArea

#: Fractions of the pixels below black and below white in the conversion to 8 bits.
BLACK, WHITE = 0.001, 0.999


def shrink(image: NDArray[np.uint8], *, side: int) -> NDArray[np.uint8]:
    """Resize an image to a square of `side` px; each new pixel is the exact mean over its area, rounded once.

    Old pixels that a new one covers in part count by that part. Half rounds up. The arithmetic is in integers, so the
    result is the same on every machine.

    Parameters
    ----------
    image : (row, col) uint8
    side : int

    Returns
    -------
    (side, side) uint8

    Examples
    --------
    >>> shrink(np.array([[0, 2, 4, 6], [4, 6, 8, 10]], dtype=np.uint8), side=2)
    array([[1, 5],
           [5, 9]], dtype=uint8)
    """
    rows, cols = image.shape
    if rows % side == 0 and cols % side == 0:
        by_row, by_col = rows // side, cols // side
        # Bands of rows first: long stretches of memory are added fastest.
        bands = image.reshape(side, by_row, cols).sum(axis=1, dtype=np.uint32)
        sums = bands[:, ::by_col].copy()
        for offset in range(1, by_col):
            sums += bands[:, offset::by_col]
        weight = by_row * by_col
    else:
        small = 255 * rows * side <= np.iinfo(np.int32).max
        bands = _sums(image, side, np.int32 if small else np.int64)
        sums = _sums(np.ascontiguousarray(bands.T), side, np.int64).T
        weight = rows * cols
    return ((2 * sums + weight) // (2 * weight)).astype(np.uint8)


def to_uint8(image: NDArray[np.generic], *, area: UsableArea | None = None) -> NDArray[np.uint8]:
    """Convert an image of more than 8 bits to uint8; a uint8 image stays as it is.

    Parameters
    ----------
    image : (row, col) real
        Its 0.1 and 99.9 percentiles become 0 and 255.
    area : UsableArea, optional
        Part beside the information bar, of which the percentiles are taken; default: all.

    Returns
    -------
    (row, col) uint8
    """
    if image.dtype == np.uint8:
        return image.astype(np.uint8, copy=False)
    values = image.astype(np.float32)
    black, white = np.quantile(area.of(values) if area else values, [BLACK, WHITE])
    return scaled_uint8(values, float(black), float(white))


def scaled_uint8(image: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    """Convert an image to uint8: the intensities `black` and `white` become 0 and 255; zeros if they are equal."""
    if white <= black:
        return np.zeros(image.shape, dtype=np.uint8)
    values = image.astype(np.float32, copy=False)
    scale = np.float32(255 / (white - black))
    return np.rint(np.clip((values - np.float32(black)) * scale, 0, 255)).astype(np.uint8)


def _sums(values: NDArray[Any], side: int, dtype: type[np.integer]) -> NDArray[Any]:
    """Sum over `side` equal stretches of the first axis: (side, col), in units of 1 / side of a value."""
    count = len(values)
    edges = np.arange(side + 1) * count
    whole, part = edges // side, (edges % side).astype(dtype)
    total = np.zeros((count + 1, values.shape[1]), dtype=dtype)
    np.cumsum(values, axis=0, out=total[1:])
    # The sum up to each edge: the values before it and the part of the one that it cuts.
    until = total[whole] * dtype(side) + part[:, None] * values[np.minimum(whole, count - 1)]
    return until[1:] - until[:-1]
