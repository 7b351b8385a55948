"""More training images from few slices, as published: rows removed from the top, the rest stretched to the old size.

Functions take and return blocks of slices and treat each slice by itself, so that they work on Dask blocks.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate

from cathodeflow.errors import InputError
from cathodeflow.fibsem.structure import ACTIVE, BINDER

Interpolation = Literal["linear", "cubic"]

# Of Keys' cubic convolution, IEEE Trans. ASSP 29 (1981) 1153: exact to the third order.
_KEYS = -0.5


def grey_copies(
    slices: NDArray[Any], *, copies: int = 10, step: int = 1, interpolation: Interpolation = "linear"
) -> NDArray[Any]:
    """Make several images of each slice: copy i lacks the first i * step rows and is stretched to the old size.

    Copy 0 is the slice itself.

    Parameters
    ----------
    slices : (n, row, col) real
    copies : int
        Images of each slice, itself included; the published data set has 10.
    step : int
        Rows removed from one copy to the next [px].
    interpolation : {"linear", "cubic"}
        Between rows; columns stay.

    Returns
    -------
    (n, copy, row, col) of the same type
        Whole numbers are rounded and kept within their range.

    Raises
    ------
    InputError
        No row would be left.

    Examples
    --------
    >>> grey_copies(np.array([[[0], [30], [60]]]), copies=2)[0, :, :, 0]
    array([[ 0, 30, 60],
           [30, 45, 60]])
    """
    removed = _removed(slices.shape[-2], copies, step)
    rows = slices.shape[-2]
    out = np.empty((len(slices), copies, *slices.shape[1:]), dtype=slices.dtype)
    for copy, count in enumerate(removed):
        at, weights = _taps(rows, rows - count, interpolation)
        kept = slices[:, count:]
        if count == 0:
            out[:, copy] = kept
            continue
        values = sum(weight[:, None] * kept[:, row] for row, weight in zip(at, weights, strict=True))
        if np.issubdtype(slices.dtype, np.integer):
            limits = np.iinfo(slices.dtype)
            values = np.rint(np.clip(values, limits.min, limits.max))
        out[:, copy] = values
    return out


def label_copies(
    labels: NDArray[np.uint8],
    *,
    copies: int = 10,
    step: int = 1,
    neighbours: int = 8,
    among: Sequence[int] = (ACTIVE, BINDER),
) -> NDArray[np.uint8]:
    """Make the labels of the copies of `grey_copies`: rows by nearest neighbour, then `smoothed`.

    Copy 0 stays as it was labelled.

    Parameters
    ----------
    labels : (n, row, col) uint8
    copies, step : int
        As of `grey_copies`.
    neighbours : int
        Of a pixel that decide on its label; 0: no smoothing.
    among : sequence of int
        Classes that the rule applies to.

    Returns
    -------
    (n, copy, row, col) uint8
    """
    rows = labels.shape[-2]
    out = np.empty((len(labels), copies, *labels.shape[1:]), dtype=labels.dtype)
    for copy, count in enumerate(_removed(rows, copies, step)):
        left = rows - count
        out[:, copy] = labels[:, count + (2 * np.arange(rows) + 1) * left // (2 * rows)]
    if neighbours:
        out[:, 1:] = smoothed(out[:, 1:], neighbours=neighbours, among=among)
    return out


def smoothed(
    labels: NDArray[np.uint8], *, neighbours: int = 8, among: Sequence[int] = (ACTIVE, BINDER)
) -> NDArray[np.uint8]:
    """Give pixels the label of the other class that most of their nearest neighbours have.

    The published rule: binder does not exist amid active material, nor the reverse. All pixels are judged by the labels
    as they come. Neighbours outside the slice do not count.

    Parameters
    ----------
    labels : (..., row, col) uint8
    neighbours : int
        Nearest pixels that are asked: 4, 8, 12, 20, 24, ..., with all that are equally near.
    among : sequence of int
        Classes of which one replaces another; a pixel of any other class stays.

    Returns
    -------
    (..., row, col) uint8

    Raises
    ------
    InputError
        `neighbours` leaves out pixels that are as near as others.

    Examples
    --------
    >>> smoothed(np.array([[1, 1, 1], [1, 2, 0], [0, 1, 0]], dtype=np.uint8))
    array([[1, 1, 1],
           [1, 1, 0],
           [0, 1, 0]], dtype=uint8)
    """
    mask = _neighbourhood(neighbours)
    kernel = mask.reshape((1,) * (labels.ndim - 2) + mask.shape)
    asked = correlate(np.ones(labels.shape[-2:], dtype=np.int16), mask, mode="constant")
    changeable = np.isin(labels, among)
    out = labels.copy()
    for phase in among:
        votes = correlate((labels == phase).astype(np.int16), kernel, mode="constant")
        out[changeable & (2 * votes > asked)] = phase
    return out


def _removed(rows: int, copies: int, step: int) -> list[int]:
    """Return how many rows each copy lacks."""
    if copies < 1 or step < 1 or (copies - 1) * step >= rows:
        found = f"{copies} copies, {step} row{'s' if step != 1 else ''} less each"
        raise InputError("augmentation", found, f"at least one of each, and rows left of the {rows}")
    return [copy * step for copy in range(copies)]


def _taps(rows: int, left: int, interpolation: Interpolation) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return which of the rows that are left make each new row, and their weights: (tap, row) each."""
    # Pixels are areas: the outer edges of the first and the last row stay where they are.
    place = (np.arange(rows) + 0.5) * left / rows - 0.5
    base = np.floor(place).astype(np.intp)
    part = place - base
    if interpolation == "linear":
        steps = np.arange(2)
        weights = np.stack([1 - part, part])
    else:
        steps = np.arange(-1, 3)
        weights = _keys(np.abs(part - steps[:, None]))
    return np.clip(base + steps[:, None], 0, left - 1), weights.astype(np.float32)


def _keys(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    near = ((_KEYS + 2) * distance - (_KEYS + 3)) * distance**2 + 1
    far = _KEYS * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def _neighbourhood(count: int) -> NDArray[np.int16]:
    """Return a square mask of the nearest pixels around the middle one, which is not among them."""
    reach = int(np.ceil(np.sqrt(max(count, 1)))) + 1
    steps = np.arange(-reach, reach + 1)
    square = steps[:, None] ** 2 + steps**2
    order = np.sort(square, axis=None)
    if count < 1 or order[count] == order[count + 1]:
        raise InputError("neighbours", str(count), "4, 8, 12, 20, 24 or more, with all that are equally near")
    mask = (square > 0) & (square <= order[count])
    used = np.flatnonzero(mask.any(axis=0))
    window = slice(used[0], used[-1] + 1)
    return mask[window, window].astype(np.int16)
