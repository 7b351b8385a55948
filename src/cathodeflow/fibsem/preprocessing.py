"""Preprocessing of slices: normalisation."""

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
