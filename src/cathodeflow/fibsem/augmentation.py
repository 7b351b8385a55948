"""Augmented copies of slices, as published: rows cropped at the top, the rest stretched to the original size.

Functions take and return blocks of slices and treat each slice by itself, so that they work on Dask blocks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate

from cathodeflow.errors import InputError
from cathodeflow.fibsem.slice_options import Augment
from cathodeflow.fibsem.structure import ACTIVE, BINDER

# Parameter of Keys' cubic convolution, IEEE Trans. ASSP 29 (1981) 1153: exact to the third order.
_KEYS = -0.5


def grey_copies(slices: NDArray[Any], options: Augment) -> NDArray[Any]:
    """Make several images of each slice: copy i lacks the first i * step rows and is stretched to the original size.

    Copy 0 is the slice itself.

    Parameters
    ----------
    slices : (n, row, col) real
    options : Augment
        Number of copies (the published data set has 10), rows cropped per copy, and the interpolation between rows;
        columns are unchanged.

    Returns
    -------
    (n, copy, row, col) of the same type
        Integers are rounded and clipped to their range.

    Raises
    ------
    InputError
        No row would be left.

    Examples
    --------
    >>> grey_copies(np.array([[[0], [30], [60]]]), Augment(copies=2))[0, :, :, 0]
    array([[ 0, 30, 60],
           [30, 45, 60]])
    """
    rows = slices.shape[-2]
    removed = _removed(rows, options)
    out = np.empty((len(slices), len(removed), *slices.shape[1:]), dtype=slices.dtype)
    for copy, count in enumerate(removed):
        at, weights = _taps(rows, rows - count, options.interpolation)
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
    labels: NDArray[np.uint8], options: Augment, *, among: Sequence[int] = (ACTIVE, BINDER)
) -> NDArray[np.uint8]:
    """Make the labels of the copies of `grey_copies`: nearest rows, then `smoothed` unless `neighbours` is 0.

    The labels of copy 0 are unchanged.

    Parameters
    ----------
    labels : (n, row, col) uint8
    options : Augment
    among : sequence of int
        Classes that are smoothed.

    Returns
    -------
    (n, copy, row, col) uint8
    """
    rows = labels.shape[-2]
    removed = _removed(rows, options)
    out = np.empty((len(labels), len(removed), *labels.shape[1:]), dtype=labels.dtype)
    for copy, count in enumerate(removed):
        left = rows - count
        out[:, copy] = labels[:, count + (2 * np.arange(rows) + 1) * left // (2 * rows)]
    if options.neighbours:
        out[:, 1:] = smoothed(out[:, 1:], neighbours=options.neighbours, among=among)
    return out


def smoothed(
    labels: NDArray[np.uint8], *, neighbours: int, among: Sequence[int] = (ACTIVE, BINDER)
) -> NDArray[np.uint8]:
    """Replace the label of a pixel by the other class if the majority of its nearest neighbours has it.

    The published rule: no binder inside active material, and the reverse. All pixels are compared with the original
    labels. Neighbours outside the slice do not vote.

    Parameters
    ----------
    labels : (..., row, col) uint8
    neighbours : int
        Number of voting pixels: 4, 8, 12, 20, 24, ..., so that all pixels at the same distance vote.
    among : sequence of int
        Classes that replace each other; pixels of any other class are unchanged.

    Returns
    -------
    (..., row, col) uint8

    Raises
    ------
    InputError
        `neighbours` excludes some of the pixels at the same distance.

    Examples
    --------
    >>> smoothed(np.array([[1, 1, 1], [1, 2, 0], [0, 1, 0]], dtype=np.uint8), neighbours=8)
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


def _removed(rows: int, options: Augment) -> list[int]:
    """Return the number of rows cropped from each copy."""
    copies, step = options.copies, options.step
    if copies < 1 or step < 1 or (copies - 1) * step >= rows:
        found = f"{copies} copies, each {step} row{'s' if step != 1 else ''} shorter"
        raise InputError("augmentation", found, f"at least one of each, and rows left of the {rows}")
    return [copy * step for copy in range(copies)]


def _taps(rows: int, left: int, interpolation: str) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the kept rows that each new row is interpolated from, and their weights: (tap, row) each."""
    # Pixels are areas: the outer edges of the first and the last row are fixed.
    position = (np.arange(rows) + 0.5) * left / rows - 0.5
    base = np.floor(position).astype(np.intp)
    part = position - base
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
    """Return a square mask of the nearest pixels around the central pixel, without the central pixel."""
    reach = int(np.ceil(np.sqrt(max(count, 1)))) + 1
    steps = np.arange(-reach, reach + 1)
    square = steps[:, None] ** 2 + steps**2
    order = np.sort(square, axis=None)
    if count < 1 or order[count] == order[count + 1]:
        raise InputError(
            "neighbours", str(count), "4, 8, 12, 20, 24 or more, so that all pixels at a distance are included"
        )
    mask = (square > 0) & (square <= order[count])
    used = np.flatnonzero(mask.any(axis=0))
    window = slice(used[0], used[-1] + 1)
    return mask[window, window].astype(np.int16)
