"""Standard errors of BraggNN's positions, by propagation of the counting noise through the network."""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def counting_errors(slopes: Float32, patches: Float32, counts: Float32, *, gain: float) -> tuple[Float32, Float32]:
    """Propagate the counting noise of each pixel to the position, to first order.

    The variance is the sum over pixels of gain * counts * (d position / d counts)^2. The derivatives by the counts
    follow from those by the prepared pixels and include the scaling of a patch by its lowest and highest pixel. The
    prediction error of the network is not included (`cathodeflow.bragg.calibration`).

    Parameters
    ----------
    slopes : (n, 2, patch_size, patch_size) float32
        Derivatives of (col, row) [px] by the pixels of the prepared patch.
    patches : (n, patch_size, patch_size) float32
        Prepared patches.
    counts : (n, 2) float32
        Intensities that 0 and 1 correspond to in each patch [counts].
    gain : float
        Detector counts per photon.

    Returns
    -------
    row_std, col_std : (n,) float32
        [px]; NaN for patches with fewer than two pixels, where the derivative does not exist.
    """
    errors = np.empty((2, len(patches)), np.float32)
    _propagate(slopes, patches, counts, gain, errors)
    return errors[1], errors[0]


@njit(cache=True, nogil=True)
def _propagate(slopes, patches, counts, gain, errors):  # type: ignore[no-untyped-def]
    n, size = patches.shape[0], patches.shape[1]
    for i in range(n):
        low, height = float(counts[i, 0]), float(counts[i, 1]) - float(counts[i, 0])
        lowest, highest = 0, 0
        for p in range(size * size):
            value = patches[i, p // size, p % size]
            if value < patches[i, lowest // size, lowest % size]:
                lowest = p
            if value > patches[i, highest // size, highest % size]:
                highest = p
        for axis in range(2):
            through_high = through_low = total = 0.0
            for p in range(size * size):
                slope, value = float(slopes[i, axis, p // size, p % size]), float(patches[i, p // size, p % size])
                through_high -= slope * value
                through_low += slope * (value - 1.0)
            for p in range(size * size):
                slope, value = float(slopes[i, axis, p // size, p % size]), float(patches[i, p // size, p % size])
                if p == highest:
                    slope += through_high
                if p == lowest:
                    slope += through_low
                total += slope * slope * gain * (value * height + low)
            errors[axis, i] = math.sqrt(total) / height if total > 0.0 and height > 0.0 else math.nan
