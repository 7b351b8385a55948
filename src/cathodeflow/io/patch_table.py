"""The training patches of one scan in memory; needs no library that reads files."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class TrainingPatches(NamedTuple):
    """Patches to train on, with a margin for shifts, and where their peaks are.

    patches : (n, size, size) float32; size is the patch size and twice the largest shift [px].
    row, col : (n,) float32, the peak in the pixels of its patch [px].
    fidx : (n,) int64, the frame.
    peak : (n,) int64, the row of the peaks table.
    """

    patches: NDArray[np.float32]
    row: NDArray[np.float32]
    col: NDArray[np.float32]
    fidx: NDArray[np.int64]
    peak: NDArray[np.int64]
