"""Two-point statistics of a phase, and the variance of its volume fraction that they predict for a volume.

The variance of a fraction over volumes V cut from a stationary material is the mean of its covariance C(h) over all
pairs of points of V: var = (1 / V) sum_h C(h) prod_i (1 - |h_i| / N_i). With the integral range A = sum_h C(h) / C(0)
of a volume that is large against the features this is C(0) A / V (Lantuejoul 1991 [1]_). ImageRep reads C from the
single volume that is measured (Dahari et al. 2025 [2]_), as is done here.

References
----------
.. [1] C. Lantuejoul, J. Microsc. 161, 387 (1991), doi:10.1111/j.1365-2818.1991.tb03101.x
.. [2] A. Dahari, R. Docherty, S. Kench, S. J. Cooper, "Prediction of Microstructural Representativity from a Single
   Image", Advanced Science (2025), arXiv:2410.19568
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Float64 = NDArray[np.float64]

# Side of the cubes that the covariance of a large volume is averaged over, and their number along an axis [px].
_SIDE, _CUBES = 128, 3


class Covariance(NamedTuple):
    """Covariance of the indicator of a phase.

    values : (2 r + 1, ...) float64, C(h) for distances up to r along each axis, h = 0 in the middle; 0 out of range.
    fraction : float, of the phase.
    shape : tuple of int, of the volume that it was estimated from [px].
    """

    values: Float64
    fraction: float
    shape: tuple[int, ...]


def covariance(mask: Any) -> Covariance:
    """Estimate the covariance of a phase from one volume or slice.

    Covariances about the mean of the same volume are too low by the variance of that mean; this is corrected, which
    matters in small volumes. Large volumes are sampled by up to 27 cubes of 128 voxels a side.

    Parameters
    ----------
    mask : (z, y, x) or (y, x) bool array, also of Dask

    Returns
    -------
    Covariance

    Examples
    --------
    >>> checks = np.indices((8, 8)).sum(0) % 2 == 0
    >>> round(float(covariance(checks).values.max()), 2)
    0.25
    """
    shape = tuple(int(side) for side in mask.shape)
    windows = list(itertools.product(*(_cubes(side) for side in shape)))
    parts = [np.asarray(mask[window], dtype=np.float64) for window in windows]
    fraction = float(sum(part.sum() for part in parts) / sum(part.size for part in parts))
    reach = tuple(max((side if side <= _SIDE else _SIDE) // 2 - 1, 0) for side in shape)
    found = np.mean([_about(part, fraction, reach) for part in parts], axis=0)
    found[~_within(found)] = 0.0
    weights = np.where(_within(found), _weights(shape, reach), 0.0)
    variance = float((weights * found).sum()) / max(1.0 - float(weights.sum()), 1e-3)
    return Covariance(np.where(weights > 0, found + max(variance, 0.0), 0.0), fraction, shape)


def mean_variance(found: Covariance, shape: Sequence[int]) -> float:
    """Variance of the fraction over volumes of a shape [px]; never below that of independent voxels.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> noise = covariance(rng.random((64, 64)) < 0.5)
    >>> bool(0.7 < mean_variance(noise, (64, 64)) * 64 * 64 / 0.25 < 1.5)
    True
    """
    reach = tuple(side // 2 for side in found.values.shape)
    variance = float((_weights(shape, reach) * found.values).sum())
    independent = found.fraction * (1 - found.fraction) / float(np.prod(shape, dtype=np.float64))
    return max(variance, independent)


def integral_range(found: Covariance) -> float:
    """Integral range A = sum_h C(h) / C(0) [px^d]: the volume that counts as one independent sample."""
    middle = float(found.values.max())
    return max(float(found.values.sum()) / middle, 1.0) if middle > 0 else float("nan")


def _cubes(side: int) -> list[slice]:
    if side <= _SIDE:
        return [slice(0, side)]
    count = min(_CUBES, -(-side // _SIDE))
    starts = np.linspace(0, side - _SIDE, count).astype(int)
    return [slice(int(start), int(start) + _SIDE) for start in starts]


def _about(part: Float64, fraction: float, reach: Sequence[int]) -> Float64:
    """Products of deviations from the fraction, averaged over all pairs of voxels: by Fourier transform."""
    size = [fft.next_fast_len(side + far, real=True) for side, far in zip(part.shape, reach, strict=True)]
    spectrum = fft.rfftn(part - fraction, size)
    products = fft.irfftn(np.abs(spectrum) ** 2, size)
    taken = np.ix_(*(np.arange(-far, far + 1) % length for far, length in zip(reach, size, strict=True)))
    pairs = _outer([side - np.abs(np.arange(-far, far + 1)) for side, far in zip(part.shape, reach, strict=True)])
    return products[taken] / pairs


def _within(found: Float64) -> NDArray[np.bool_]:
    """Distances within the range: up to the one at which the mean over all directions first falls to zero.

    Beyond it, the sum collects more noise than signal: twice the distance gives standard deviations of which a quarter
    is far too small.
    """
    steps = np.meshgrid(*(np.arange(side) - side // 2 for side in found.shape), indexing="ij")
    distance = np.sqrt(sum(step.astype(np.float64) ** 2 for step in steps))
    ring = np.rint(distance).astype(np.intp)
    mean = np.bincount(ring.ravel(), found.ravel()) / np.maximum(np.bincount(ring.ravel()), 1)
    zero = np.flatnonzero(mean <= 0)
    return distance <= (zero[0] if len(zero) else distance.max())


def _weights(shape: Sequence[int], reach: Sequence[int]) -> Float64:
    """Fraction of the pairs of voxels of a volume that are a step apart, for every step."""
    return _outer(
        [
            np.maximum(side - np.abs(np.arange(-far, far + 1)), 0) / side**2
            for side, far in zip(shape, reach, strict=True)
        ]
    )


def _outer(factors: Sequence[NDArray[Any]]) -> Float64:
    result = np.ones(())
    for factor in factors:
        result = np.multiply.outer(result, factor.astype(np.float64))
    return result
