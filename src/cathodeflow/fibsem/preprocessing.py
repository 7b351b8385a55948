"""Preprocessing of slices: normalisation, and which of them are blank."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.io.slices import is_blank


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


def blank_slices(images: Iterable[NDArray[Any]]) -> list[int]:
    """Return the numbers of the blank slices among some."""
    return [number for number, image in enumerate(images) if is_blank(image)]
