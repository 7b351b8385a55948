"""Statistics of the texture of crops, which need no trained layers: the basis of a second opinion beside the network.

They are wrong in other places than a network is, so that what both agree on is more often right.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Float32 = NDArray[np.float32]

#: Rings of spatial frequency, octaves with moments, and quantiles of the grey levels.
RINGS, OCTAVES = 15, 5
QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
#: Number of statistics of a crop.
COUNT = RINGS + len(QUANTILES) + 3 * OCTAVES - 1
# Lowest frequency of the rings, in periods per crop: below it there is only the window.
_LOWEST = 2.0
# Crops at a time, which bounds the memory.
_TOGETHER = 16
_TINY = 1e-6


def texture_statistics(crops: NDArray[np.uint8]) -> Float32:
    """Measure the texture of crops, independent of their brightness and contrast.

    The logarithm of the power in rings of spatial frequency; quantiles of the grey levels; for each octave the
    skewness and the logarithm of the kurtosis, and the correlation of its strength with that of the next octave, a
    part of the statistics of Portilla and Simoncelli [1]_.

    Parameters
    ----------
    crops : (n, side, side) uint8

    Returns
    -------
    (n, COUNT) float32
        Finite, also for crops of one grey level. Of crops below 2 ** (OCTAVES + 1) px the coarsest octaves are 0.

    References
    ----------
    .. [1] J. Portilla, E. P. Simoncelli, Int. J. Comput. Vis. 40, 49 (2000)
    """
    parts = [_measured(np.asarray(crops[start : start + _TOGETHER])) for start in range(0, len(crops), _TOGETHER)]
    return np.concatenate(parts) if parts else np.zeros((0, COUNT), np.float32)


def _measured(crops: NDArray[np.uint8]) -> Float32:
    counts = np.stack([np.bincount(crop.ravel(), minlength=256) for crop in crops]) / crops[0].size
    values = np.arange(256.0)
    mean = counts @ values
    deviation = np.sqrt(np.maximum(counts @ values**2 - mean**2, 0))
    # Crops of one grey level have no contrast to divide by.
    deviation = np.maximum(deviation, 1e-3)
    cumulative = counts.cumsum(1)
    levels = np.stack([(cumulative < quantile - 1e-12).sum(1) for quantile in QUANTILES], axis=1)
    x = (crops - mean[:, None, None].astype(np.float32)) / deviation[:, None, None].astype(np.float32)
    grey = (levels - mean[:, None]) / deviation[:, None]
    return np.concatenate([_rings(x), grey, _octaves(x)], axis=1).astype(np.float32)


def _rings(x: Float32) -> NDArray[np.float64]:
    """Logarithm of the mean power (n, RINGS), in rings of equal width in the logarithm of the frequency."""
    n, rows, cols = x.shape
    window = (np.hanning(rows)[:, None] * np.hanning(cols)).astype(np.float32)
    spectrum = fft.rfft2(x * window, workers=1).reshape(n, -1)
    power = spectrum.real**2 + spectrum.imag**2
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(cols)).ravel()
    ring = np.digitize(frequency, np.geomspace(_LOWEST / min(rows, cols), 0.5, RINGS + 1))
    sizes = np.bincount(ring, minlength=RINGS + 2)
    sums = np.stack([np.bincount(ring, each, minlength=RINGS + 2) for each in power])
    mean: NDArray[np.float64] = sums[:, 1 : RINGS + 1] / np.maximum(sizes[1 : RINGS + 1], 1)
    return np.log(mean + _TINY)


def _octaves(x: Float32) -> NDArray[np.float64]:
    """Skewness and kurtosis of octaves, OCTAVES each, and OCTAVES - 1 correlations of the strengths of neighbours."""
    bands = list(_bands(x))
    skewness = np.zeros((len(x), OCTAVES))
    kurtosis, together = np.zeros_like(skewness), np.zeros((len(x), OCTAVES - 1))
    squares = [band * band for band in bands]
    for number, (band, square) in enumerate(zip(bands, squares, strict=True)):
        variance = square.mean((1, 2), dtype=np.float64) + _TINY
        skewness[:, number] = (square * band).mean((1, 2), dtype=np.float64) / variance**1.5
        kurtosis[:, number] = np.log((square * square).mean((1, 2), dtype=np.float64) / variance**2 + _TINY)
    for number, (square, coarse) in enumerate(zip(squares, bands[1:], strict=False)):
        together[:, number] = _correlation(np.sqrt(_halved(square)), np.abs(coarse))
    return np.concatenate([skewness, kurtosis, together], axis=1)


def _bands(x: Float32) -> Iterator[Float32]:
    """Octaves from the finest on: what a coarser grid cannot show; each of half the size of the one before."""
    for _ in range(OCTAVES):
        if min(x.shape[1:]) < 4:
            return
        coarse = _halved(x)
        _, rows, cols = coarse.shape
        blocks = x[:, : 2 * rows, : 2 * cols].reshape(len(x), rows, 2, cols, 2)
        yield (blocks - coarse[:, :, None, :, None]).reshape(len(x), 2 * rows, 2 * cols)
        x = coarse


def _halved(x: Float32) -> Float32:
    rows, cols = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :rows, :cols]
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / np.float32(4)


def _correlation(a: Float32, b: Float32) -> NDArray[np.float64]:
    rows, cols = (min(sizes) for sizes in zip(a.shape[1:], b.shape[1:], strict=True))
    flat = [v[:, :rows, :cols].reshape(len(v), -1).astype(np.float64) for v in (a, b)]
    a, b = (v - v.mean(1, keepdims=True) for v in flat)
    found: NDArray[np.float64] = (a * b).mean(1) / (a.std(1) * b.std(1) + _TINY)
    return found
