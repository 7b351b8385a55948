"""Preprocessing of slices: normalisation, and which of them are blank."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def normalize_slices(slices: NDArray[Any]) -> NDArray[np.float32]:
    """Normalise every slice (slice, row, col) to mean 0 and standard deviation 1; a slice without contrast to 0.

    Examples
    --------
    >>> normalize_slices(np.array([[[1, 3]], [[40, 20]]])).tolist()
    [[[-1.0, 1.0]], [[1.0, -1.0]]]
    """
    values = np.asarray(slices, np.float64)
    deviation = values.std(axis=(1, 2), keepdims=True)
    centred = values - values.mean(axis=(1, 2), keepdims=True)
    return (centred / np.where(deviation > 0, deviation, 1.0)).astype(np.float32)


def is_blank(image: NDArray[Any]) -> bool:
    """Whether a slice has the same value in every pixel, or values that are not finite.

    Examples
    --------
    >>> is_blank(np.zeros((2, 2))), is_blank(np.array([[0, np.nan]])), is_blank(np.array([[0, 1]]))
    (True, True, False)
    """
    low, high = image.min(), image.max()
    # The minimum of values with NaN is NaN.
    return not (np.isfinite(low) and np.isfinite(high)) or bool(low == high)


def blank_slices(images: Iterable[NDArray[Any]]) -> list[int]:
    """Return the numbers of the blank slices among some."""
    return [number for number, image in enumerate(images) if is_blank(image)]
