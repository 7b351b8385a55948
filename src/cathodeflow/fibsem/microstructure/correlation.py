"""Two-point correlation of a phase along the axes, and the size of a representative volume."""

import math

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from cathodeflow.fibsem.microstructure.blocks import Block, Labels, over_blocks

Float64 = NDArray[np.float64]


def two_point_correlation(labels: da.Array, axis: int, n_classes: int, max_lag: int) -> Float64:
    """Compute the probability that two voxels at a distance along an axis are both in a phase.

    Parameters
    ----------
    labels : (z, y, x) dask array of uint8
    axis : int
    n_classes : int
    max_lag : int
        Maximum distance [voxel]; at most half of the volume.

    Returns
    -------
    (n_classes, lags) float64
        For distances of 0, 1, 2, ... voxels; that at 0 is the volume fraction.
    """
    last = min(max_lag, labels.shape[axis] // 2)

    def count(part: Labels, block: Block) -> NDArray[np.int64]:
        lines = np.moveaxis(part, axis, 0)
        own = block.inner[axis]
        found = np.zeros((n_classes, last + 1), np.int64)
        for index in range(n_classes):
            mask = np.ascontiguousarray(lines == index)
            for lag in range(last + 1):
                after = mask[own.start + lag : own.stop + lag]
                found[index, lag] = np.count_nonzero(mask[own.start : own.start + len(after)] & after)
        return found

    after = tuple(last if k == axis else 0 for k in range(3))
    counts = np.zeros((n_classes, last + 1), np.int64)
    for _, part in over_blocks(labels, count, after=(after[0], after[1], after[2])):
        counts += part
    lines = math.prod(labels.shape) // labels.shape[axis]
    pairs: Float64 = counts / (lines * (labels.shape[axis] - np.arange(last + 1)))
    return pairs


def autocorrelation(probability: Float64) -> Float64:
    """Normalise a two-point correlation: 1 at the distance 0, 0 where the voxels know nothing of each other.

    Examples
    --------
    >>> autocorrelation(np.array([0.5, 0.375, 0.25])).tolist()
    [1.0, 0.5, 0.0]
    """
    fraction = probability[0]
    found: Float64 = (probability - fraction**2) / (fraction * (1 - fraction))
    return found


def correlation_length(rho: Float64, step: float) -> float:
    """Distance at which an autocorrelation falls to 1/e, between two lags by interpolation; NaN if it does not.

    Examples
    --------
    >>> round(correlation_length(np.exp(-np.arange(40) / 8), 0.5), 2)
    4.0
    """
    below = np.flatnonzero(rho < math.exp(-1))
    if not below.size:
        return math.nan
    k = int(below[0])
    share = (rho[k - 1] - math.exp(-1)) / (rho[k - 1] - rho[k])
    return float((k - 1 + share) * step)


def representative_side(fraction: float, integral: float, dimensions: int, relative_error: float) -> float:
    """Side of the cube (or square) in which the volume fraction has a relative standard error.

    Examples
    --------
    >>> round(representative_side(0.5, 1.0, 3, 0.1) ** 3, 6)
    100.0
    """
    volume = (1 - fraction) / fraction * integral / relative_error**2
    return float(volume ** (1 / dimensions))
