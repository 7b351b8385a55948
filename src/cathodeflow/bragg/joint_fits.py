"""Joint fits of two or three overlapping peaks on one background, and the search for a peak that no candidate marks."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from cathodeflow.bragg.least_squares import LN2, PER_PEAK, PER_TURNED_PEAK, maximise_jointly

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_ITERATIONS = 40
_TOLERANCE = 0.05
_NARROWEST = 0.8
# At a skew of 1 an ellipse becomes a line.
_MOST_TURNED = 0.95


class JointFits(NamedTuple):
    """Joint fits, one entry each.

    `peaks`, `errors` : (n, m, 6 or 7) centre [px], amplitude [photons], full widths [px], mixing, and perhaps skew of
    each peak.
    `background`, `background_err` : (n,) [photons/px]. `deviance` : (n,) half the Poisson deviance.
    `chi2` : (n,) reduced. `pixels` : (n,) in the fit. `converged` : (n,) bool.
    """

    peaks: Floats
    errors: Floats
    background: Floats
    background_err: Floats
    deviance: Floats
    chi2: Floats
    pixels: Floats
    converged: Bools


def fit_jointly(windows: Floats, known: Floats, starts: Floats, background: Floats, *, gaussian: bool) -> JointFits:
    """Fit m peaks on one flat background to each window by Poisson maximum likelihood.

    Levenberg-Marquardt with the Fisher matrix of all parameters together, so that the errors contain what the peaks
    have in common.

    Parameters
    ----------
    windows : (n, size, size) float64
        Counts plus variance of their other noise [photons]; NaN where a pixel is left out.
    known : (n, size, size) float64
        Known intensity, variance included [photons/px].
    starts : (n, m, 6) or (n, m, 7) float64
        Centres in window pixels. With a seventh parameter, the ellipses may be turned: its `skew` is that of the
        exponent 4 (u^2 + v^2 + 2 skew u v), u and v the distances in full widths, so the widths are those along lines
        through the centre.
    background : (n,) float64
        Start value [photons/px].
    gaussian : bool
        Hold the mixing at 0.
    """
    n, size = windows.shape[:2]
    m, per_peak = starts.shape[1:]
    x = np.concatenate([background[:, None], starts.reshape(n, -1)], axis=1)
    narrow = [-0.5, -0.5, 0, _NARROWEST, _NARROWEST, 0, -_MOST_TURNED][:per_peak]
    wide = [size - 0.5, size - 0.5, np.inf, 2.0 * size, 2.0 * size, 0.0 if gaussian else 1.0, _MOST_TURNED][:per_peak]
    low = np.concatenate([[0], np.tile(np.array(narrow), m)])
    high = np.concatenate([[np.inf], np.tile(np.array(wide), m)])
    deviance, converged = np.zeros(n), np.zeros(n, bool)
    maximise_jointly(windows, known, x, low, high, per_peak, _ITERATIONS, _TOLERANCE, deviance, converged)
    counts, extra = windows.reshape(n, -1), known.reshape(n, -1)
    valid = np.isfinite(counts) & np.isfinite(extra)
    counts, extra = np.where(valid, counts, 0), np.where(valid, extra, 1)
    return _finished(x, deviance, counts, extra, valid, converged, size, m, gaussian)


def _finished(
    x: Floats,
    deviance: Floats,
    counts: Floats,
    extra: Floats,
    valid: Bools,
    converged: Bools,
    size: int,
    m: int,
    gaussian: bool,
) -> JointFits:
    per_peak = (x.shape[1] - 1) // m
    model, slopes = _model(x, size, m)
    expected = model + extra
    fisher = _fisher(expected, slopes, valid)
    fixed = np.zeros(x.shape, bool)
    fixed[:, 6::per_peak] = gaussian
    errors = np.full(x.shape, np.nan)
    covariance, solved = _inverse(fisher, fixed)
    diagonal = np.einsum("nii->ni", covariance)
    errors[solved] = np.sqrt(np.where(diagonal[solved] > 0, diagonal[solved], np.nan))
    errors[fixed] = 0
    pixels = valid.sum(axis=1)
    residual = np.where(valid, (counts - expected) ** 2 / expected, 0).sum(axis=1)
    chi2 = residual / np.maximum(pixels - x.shape[1] + fixed.sum(axis=1), 1)
    converged = converged & np.isfinite(errors).all(axis=1) & (pixels > x.shape[1])
    converged &= (x[:, 3::per_peak] > 0).all(axis=1)
    peaks, of_peaks = (values[:, 1:].reshape(len(x), m, per_peak) for values in (x, errors))
    return JointFits(peaks, of_peaks, x[:, 0], errors[:, 0], deviance, chi2, pixels.astype(np.float64), converged)


def _model(x: Floats, size: int, m: int) -> tuple[Floats, Floats]:
    """Compute expected counts (n, pixels) without the known part, and their derivatives (n, pixels, parameters)."""
    axis = np.arange(size)
    rows, cols = np.repeat(axis, size), np.tile(axis, size)
    total = np.repeat(x[:, :1], size * size, axis=1)
    slopes = np.ones((len(x), size * size, x.shape[1]))
    per_peak = (x.shape[1] - 1) // m
    for peak in range(m):
        first = 1 + per_peak * peak
        row, col, amplitude, per_row, per_col, mixing = (x[:, first + i, None] for i in range(PER_PEAK))
        u, v = (rows - row) / per_row, (cols - col) / per_col
        skew = x[:, first + 6, None] if per_peak == PER_TURNED_PEAK else 0.0
        q = 4 * (u * u + v * v + 2 * skew * u * v)
        lorentz, gauss = 1 / (1 + q), np.exp2(-q)
        shape = mixing * lorentz + (1 - mixing) * gauss
        total += amplitude * shape
        slope = 8 * amplitude * (mixing * lorentz**2 + (1 - mixing) * LN2 * gauss)
        by_row, by_col = slope * (u + skew * v) / per_row, slope * (v + skew * u) / per_col
        of_peak = (by_row, by_col, shape, by_row * u, by_col * v, amplitude * (lorentz - gauss), -slope * u * v)
        for i, values in enumerate(of_peak[:per_peak]):
            slopes[..., first + i] = values
    return total, slopes


def _fisher(expected: Floats, slopes: Floats, valid: Bools) -> Floats:
    weight = np.where(valid, 1 / expected, 0)
    matrix: Floats = slopes.transpose(0, 2, 1) @ (slopes * weight[..., None])
    return matrix


def _inverse(matrix: Floats, fixed: Bools) -> tuple[Floats, Bools]:
    """Invert without the fixed parameters; False where there is none, whose inverse is written as the diagonal's."""
    free = ~fixed[:, :, None] & ~fixed[:, None, :]
    matrix = np.where(free, matrix, np.eye(matrix.shape[1]))
    scale = np.sqrt(np.maximum(np.einsum("nii->ni", matrix), 1e-300))
    scaled = matrix / scale[:, :, None] / scale[:, None, :]
    scaled = np.where(np.isfinite(scaled), scaled, 0)
    solvable = np.linalg.eigvalsh(scaled)[:, 0] > 1e-10
    scaled[~solvable] = np.eye(matrix.shape[1])
    return np.linalg.inv(scaled) / scale[:, :, None] / scale[:, None, :], solvable


def second_starts(windows: Floats, expected: Floats, peaks: Floats) -> list[Floats]:
    """Propose start values for two peaks where one was fitted.

    The second peak stands at the highest excess over the fit; or the peak is split in two along the axis of its
    largest second moment.

    Parameters
    ----------
    windows, expected : (n, size, size) float64
        Counts and fit [photons].
    peaks : (n, 6) float64
        The fitted peaks, centres in window pixels.

    Returns
    -------
    list of (n, 2, 6) float64
    """
    size = windows.shape[1]
    excess = np.where(np.isfinite(windows), windows - expected, 0)
    significance = uniform_filter(excess, (0, 3, 3)) / np.sqrt(uniform_filter(expected, (0, 3, 3)))
    place = significance.reshape(len(windows), -1).argmax(axis=1)
    second = peaks.copy()
    second[:, :2] = np.stack(np.divmod(place, size), axis=1)
    height = np.take_along_axis(uniform_filter(excess, (0, 3, 3)).reshape(len(windows), -1), place[:, None], 1)[:, 0]
    second[:, 2] = np.clip(height, 0.05 * peaks[:, 2], None)
    second[:, 3:5] = np.minimum(peaks[:, 3:5], 3.0)
    beside = np.stack([peaks, second], axis=1)

    grid = np.mgrid[:size, :size]
    away = grid[None] - peaks[:, :2, None, None]
    near = np.where(np.isfinite(windows) & (np.abs(away).max(axis=1) <= size / 3), windows, 0)
    ground = np.nanquantile(np.where(np.isfinite(windows), windows, np.nan), 0.3, axis=(1, 2))
    light = np.clip(near - ground[:, None, None], 0, None)
    total = np.maximum(light.sum(axis=(1, 2)), 1e-9)
    rr, cc, rc = ((light * away[:, i] * away[:, j]).sum(axis=(1, 2)) / total for i, j in ((0, 0), (1, 1), (0, 1)))
    turn = 0.5 * np.arctan2(2 * rc, rr - cc)
    half = 0.35 * np.sqrt(np.maximum(peaks[:, 3] * peaks[:, 4], 1))
    shift = half[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    one, other = peaks.copy(), peaks.copy()
    for part, sign in ((one, 1), (other, -1)):
        part[:, :2] += sign * shift
        part[:, 2] *= 0.7
        part[:, 3:5] = np.clip(0.75 * part[:, 3:5], 1.0, None)
    return [beside, np.stack([one, other], axis=1)]
