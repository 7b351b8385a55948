"""The training patches of one scan in memory; importing it needs no library for files."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class TrainingPatches(NamedTuple):
    """Training patches with a margin for shifts, and the positions of their peaks.

    patches : (n, size, size) float32; size is the patch size plus twice the maximum shift [px].
    row, col : (n,) float32, the peak in the pixels of its patch [px].
    fidx : (n,) int64, the frame.
    peak : (n,) int64, the row of the peaks table.
    error : (n, 2) float32, standard errors of row and col [px]; NaN where the fit has none.
    """

    patches: NDArray[np.float32]
    row: NDArray[np.float32]
    col: NDArray[np.float32]
    fidx: NDArray[np.int64]
    peak: NDArray[np.int64]
    error: NDArray[np.float32]
