"""What the Fisher information of fitted peaks gives beyond their errors: counts, response to misfits and background.

The fit is linearised at its optimum: a small intensity b that the model lacks shifts the parameters by F^-1 J^T W b,
with the derivatives J of the model, the weights W = 1 / expected counts and the Fisher matrix F = J^T W J [1]_.

References
----------
.. [1] S. M. Kay, Fundamentals of Statistical Signal Processing: Estimation Theory, 1993, chapter 3
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.bragg.profiles import PARAMETERS, profile

Floats = NDArray[np.float64]

#: Columns of the peaks that `information_of` needs.
COLUMNS = ("row", "col", "amplitude", "amplitude_err", "background", "fwhm_row", "fwhm_col", "mixing", "chi2")
# Square of the radius of the ellipse in which counts are integrated, in half widths: one full width.
_RADIUS2 = 4.0
# Half the side of the patch on which the information is summed [px], and peaks at a time.
_REACH, _BLOCK = 5, 2048
# Steps of the derivatives: of position and mixing absolute, of the others relative.
_STEP = 1e-4
_AMPLITUDE = PARAMETERS.index("amplitude")


class Information(NamedTuple):
    """Results of `information_of`, (n,) float64 each.

    `counts`, `counts_var` : counts within one full width of the centre, and their variance. `expected` : mean over the
    patch [counts/px]. `row_response`, `col_response` : variance of the position [px^2] if the counts of all pixels are
    wrong independently, by a standard deviation equal to the counts. `row_shift`, `col_shift` : shift of the fitted
    position by the background that is not flat [px]; 0 without one.
    """

    counts: Floats
    counts_var: Floats
    expected: Floats
    row_response: Floats
    col_response: Floats
    row_shift: Floats
    col_shift: Floats


def information_of(peaks: pd.DataFrame, common_background: Floats | None = None) -> Information:
    """Compute what the fits of peaks tell about counts and about errors that are common to all frames of a spot.

    The Lorentzian part of the profile has no finite integral over the plane: its tails fall off with the square of the
    distance. Within the ellipse of one full width the integral hardly depends on the Lorentzian fraction, whose error
    is large. All variances are scaled to the error of the amplitude, which contains the gain and the other noise of
    the detector.

    Parameters
    ----------
    peaks : DataFrame
        `COLUMNS`, in pixels of the frames.
    common_background : (row, col) float64, optional
        Background that is the same in all frames [counts/px]; NaN where it is not known.

    Examples
    --------
    >>> one = {"row": 5.0, "col": 5.0, "amplitude": 100.0, "amplitude_err": 10.0, "background": 1.0, "chi2": 1.0}
    >>> peaks = pd.DataFrame({**one, "fwhm_row": 2.0, "fwhm_col": 2.0, "mixing": [0.0, 1.0]})
    >>> information_of(peaks).counts.round()
    array([425., 506.])
    """
    parameters = np.stack([peaks[name].to_numpy(np.float64) for name in PARAMETERS])
    error, n = peaks["amplitude_err"].to_numpy(np.float64), parameters.shape[1]
    parts = [
        _of_block(parameters[:, first : first + _BLOCK], error[first : first + _BLOCK], common_background)
        for first in range(0, n, _BLOCK)
    ] or [Information(*np.zeros((7, 0)))]
    return Information(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _of_block(parameters: Floats, amplitude_err: Floats, background: Floats | None) -> Information:
    rows, cols = np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1].reshape(2, -1, 1)
    corner = np.rint(parameters[:2])
    moved = parameters.copy()
    moved[:2] -= corner
    expected = np.maximum(profile(moved.T, rows, cols), 1e-3)
    steps = np.where(np.isin(PARAMETERS, ("row", "col", "mixing"))[:, None], 1.0, np.maximum(moved, 1e-3)) * _STEP
    slopes, gradient = np.empty((len(steps), *expected.shape)), np.empty(parameters.shape)
    for index, step in enumerate(steps):
        up, down = moved.copy(), moved.copy()
        up[index] += step
        down[index] -= step
        slopes[index] = (profile(up.T, rows, cols) - profile(down.T, rows, cols)) / (2 * step)
        gradient[index] = (_counts(up) - _counts(down)) / (2 * step)
    fisher = np.einsum("apn,bpn,pn->nab", slopes, slopes, 1 / expected, optimize=True)
    scale = np.sqrt(np.maximum(np.einsum("naa->na", fisher), 1e-300))
    scaled = fisher / (scale[:, :, None] * scale[:, None, :]) + 1e-10 * np.eye(len(steps))
    inverse = np.linalg.inv(scaled) / (scale[:, :, None] * scale[:, None, :])
    noise = amplitude_err**2 / inverse[:, _AMPLITUDE, _AMPLITUDE]
    variance = np.einsum("an,nab,bn->n", gradient, inverse, gradient, optimize=True) * noise
    # Row and column of F^-1 J^T, the shift by one count of misfit relative to the expected ones in each pixel.
    response = np.einsum("nab,bpn->apn", inverse[:, :2], slopes, optimize=True)
    shift = np.zeros((2, parameters.shape[1]))
    if background is not None:
        at = [(corner[axis].astype(np.int64) + grid) for axis, grid in enumerate((rows, cols))]
        inside = np.logical_and.reduce([(x >= 0) & (x < side) for x, side in zip(at, background.shape, strict=True)])
        patch = background[tuple(np.clip(x, 0, side - 1) for x, side in zip(at, background.shape, strict=True))]
        known = inside & np.isfinite(patch)
        level = np.where(known, patch, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        shift = np.einsum("apn,pn->an", response, np.where(known, patch - level, 0.0) / expected)
    squares = (response**2).sum(axis=1)
    return Information(_counts(moved), variance, expected.mean(axis=0), *squares, *shift)


def _counts(parameters: Floats) -> Floats:
    _, _, amplitude, _, row, col, mixing = parameters
    # With q as in `profiles.profile`, an element of area is pi / 4 fwhm_row fwhm_col dq.
    shape = (1 - mixing) * (1 - np.exp2(-_RADIUS2)) / np.log(2) + mixing * np.log1p(_RADIUS2)
    counts: Floats = amplitude * np.pi / 4 * row * col * shape
    return counts


def misfit_of(peaks: pd.DataFrame, information: Information) -> float:
    """Estimate the misfit of pixels relative to their counts from the chi-square of the good peaks.

    Where pixels do not respond alike, or the profile is not the model's, the counts of a pixel are wrong by a fraction
    of them, the same in all frames. The excess of the reduced chi-square over that of faint peaks then grows with the
    mean counts of the patch, with the square of that fraction as slope. The slope is fitted to all peaks of the scan,
    weighted alike, and is 0 if it is not two standard errors above 0.

    Returns
    -------
    float
        Standard deviation of the counts of a pixel relative to these.
    """
    use = peaks["good"].to_numpy(bool) & np.isfinite(peaks["chi2"].to_numpy(np.float64))
    x, y = information.expected[use], peaks["chi2"].to_numpy(np.float64)[use]
    if use.sum() < 10:
        return 0.0
    centre = np.median(x)
    x = x - centre
    slope = float(np.sum(x * (y - np.median(y))) / np.sum(x**2))
    residual = y - np.median(y) - slope * x
    # Resistant to the few peaks with neighbours: those beyond three times the median deviation are left out once.
    kept = np.abs(residual) < 3 * 1.4826 * np.median(np.abs(residual)) + 1e-12 + 0.5 * np.abs(slope * x)
    x, y = x[kept], y[kept]
    x = x - x.mean()
    slope = float(np.sum(x * (y - y.mean())) / max(np.sum(x**2), 1e-300))
    error = float(np.std(y - y.mean() - slope * x) / np.sqrt(max(np.sum(x**2), 1e-300)))
    return float(np.sqrt(slope)) if slope > 2 * error else 0.0
