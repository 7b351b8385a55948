"""Patches of a frame around candidate pixels, their noise, and fits of one peak to each."""

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.least_squares import BLOCK, fit_all
from cathodeflow.bragg.peak_options import Fit
from cathodeflow.bragg.profiles import MODELS

# Columns of the results of `least_squares.fit_all`.
COLUMNS = 18
# Limits the memory of pairs of patches.
PAIRS = 4096
# Step length at which a fit has converged [standard errors].
TOLERANCE = 0.01

Floats = NDArray[np.float64]
Pairs = NDArray[np.intp]


class Pixels(NamedTuple):
    """A frame, its bad and saturated pixels, and the variance of its noise without read-out [counts^2]."""

    frame: NDArray[Any]
    bad: NDArray[Any]
    saturated: NDArray[np.bool_]
    variance: Floats
    options: Fit

    def cut(self, rows: Pairs, cols: Pairs, size: int) -> tuple[Floats, Floats]:
        """Cut patches around pixels [photons], NaN where bad, saturated or outside the frame, and their variances."""
        inside, at = around(rows, cols, size, self.frame.shape)
        good = inside & (self.bad[at] == 0) & ~self.saturated[at]
        patches = np.where(good, self.frame[at], np.nan) / self.options.gain
        return patches, noise_of(patches, self.variance[at], self.options)


def around(
    rows: Pairs, cols: Pairs, size: int, shape: tuple[int, ...]
) -> tuple[NDArray[np.bool_], tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return which pixels of the patches around pixels are in a frame, and their indices, or those of the nearest."""
    reach = np.arange(size) - size // 2
    r, c = rows[:, None, None] + reach[:, None], cols[:, None, None] + reach
    inside = (r >= 0) & (r < shape[0]) & (c >= 0) & (c < shape[1])
    return inside, (np.clip(r, 0, shape[0] - 1), np.clip(c, 0, shape[1] - 1))


def noise_of(patches: Floats, variance: Floats, options: Fit) -> Floats:
    """Return the variance of all noise but that of counting [photons^2], (n or 1, size or 1, size or 1).

    Parameters
    ----------
    patches : (n, size, size) float64
        [photons]
    variance : (n or 1, size or 1, size or 1) float64
        Variance without the read-out noise [counts^2].
    options : Fit
        `read_noise` and `gain`.
    """
    noise: Floats = (variance + options.read_noise**2) / options.gain**2
    if noise.any():
        return np.ascontiguousarray(noise)
    # Negative counts show noise that no option names: symmetric about zero where there is no background.
    negative = (patches < 0) & np.isfinite(patches)
    squares = np.where(negative, patches, 0) ** 2
    return squares.sum(axis=(1, 2), keepdims=True) / np.maximum(negative.sum(axis=(1, 2), keepdims=True), 1)


def fit_patches(
    patches: Floats,
    noise: Floats,
    known: Floats,
    starts: Floats | None,
    results: Floats,
    options: Fit,
    search: float | None,
    tolerance: float = TOLERANCE,
) -> None:
    """Fit one peak to each patch, as `peak_fits.fit_peaks` does.

    Parameters
    ----------
    patches : (n, size, size) float64
        [photons]; NaN where a pixel is left out.
    noise, known : (1 or n, size, size) float64
        Variance of the noise other than that of counting [photons^2], and known intensity [photons/px].
    starts : (1 or n, 7) float64, optional
        Start values; by default those found from each patch.
    results : (n, COLUMNS) float64
        Output.
    options : Fit
    search : float, optional
        Maximum distance of the start from the patch centre along each axis [px]. Default: the whole patch.
    tolerance : float
        Step length at which the fit has converged [standard errors].
    """
    starts = np.full((1, 7), np.nan) if starts is None else starts
    search = float(patches.shape[1]) if search is None else float(search)
    # Counts are whole multiples of the gain.
    threshold = np.ceil(options.threshold / options.gain) if options.threshold > 0 else -np.inf
    parameters = MODELS[options.model]
    # A thread without a block of its own would still be woken and waited for, longer than a small fit takes.
    threads = numba.get_num_threads()
    numba.set_num_threads(max(1, min(threads, -(-len(patches) // BLOCK))))
    try:
        fit_all(
            patches, known, noise, starts, parameters, search, threshold, tolerance, options.max_iterations, results
        )
    finally:
        numba.set_num_threads(threads)


def of_neighbours(positions: Floats, pairs: Pairs, size: int) -> NDArray[np.bool_]:
    """Mark the pixels of each patch that are closer to another candidate than to its own.

    Parameters
    ----------
    positions : (n, 2) float64
        Candidate pixels.
    pairs : (m, 2) int
        Candidates (own, other) whose patches overlap.
    size : int
        Side of the patches [px].

    Returns
    -------
    (n, size, size) bool
    """
    closer = np.zeros((len(positions), size, size), dtype=bool)
    rows, cols = np.mgrid[:size, :size] - size // 2
    for first in range(0, len(pairs), PAIRS):
        own, other = pairs[first : first + PAIRS].T
        apart = (positions[other] - positions[own])[:, :, None, None]
        np.logical_or.at(closer, own, 2 * (rows * apart[:, 0] + cols * apart[:, 1]) > (apart**2).sum(axis=1))
    return closer
