"""What the Fisher information of fitted peaks gives beyond their errors: counts, response to misfits and background.

The fit is linearised at its optimum: a small intensity b that the model lacks shifts the parameters by F^-1 J^T W b,
with the derivatives J of the model, the weights W = 1 / expected counts and the Fisher matrix F = J^T W J [1]_.

References
----------
.. [1] S. M. Kay, Fundamentals of Statistical Signal Processing: Estimation Theory, 1993, chapter 3
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.bragg.joint_response import REACH, joint_shifts, neighbours_of
from cathodeflow.bragg.profiles import PARAMETERS, profile, slopes_of

Floats = NDArray[np.float64]
#: Function of (numbers, reach): intensity that the fits of the n peaks with these ascending numbers lack, (pixel, n)
#: float64 [counts/px], in the pixels (rows, then columns) up to `reach` from that of their centre.
Lacking = Callable[[NDArray[np.int64], int], Floats]

#: Columns of the peaks that `information_of` needs.
COLUMNS = ("row", "col", "amplitude", "amplitude_err", "background", "fwhm_row", "fwhm_col", "mixing", "chi2")
# Square of the radius of the ellipse in which counts are integrated, in half widths: one full width.
_RADIUS2 = 4.0
# Half the side of the patch on which the information is summed [px], and peaks at a time.
_REACH, _BLOCK = 5, 2048
_AMPLITUDE = PARAMETERS.index("amplitude")


class Information(NamedTuple):
    """Results of `information_of`, (n,) float64 each.

    `counts`, `counts_var` : counts within one full width of the centre, and their variance. `expected` : mean over the
    patch [counts/px]. `row_response`, `col_response` : variance of the position [px^2] if the counts of all pixels are
    wrong independently, by a standard deviation equal to the counts. `row_shift`, `col_shift` : shift of the fitted
    position by the intensity that the fit lacks [px].
    """

    counts: Floats
    counts_var: Floats
    expected: Floats
    row_response: Floats
    col_response: Floats
    row_shift: Floats
    col_shift: Floats


def information_of(peaks: pd.DataFrame, lacking: Lacking | None = None) -> Information:
    """Compute what the fits of peaks tell about counts and about errors that are common to all frames of a spot.

    The Lorentzian part of the profile has no finite integral over the plane: its tails fall off with the square of the
    distance. Within the ellipse of one full width the integral hardly depends on the Lorentzian fraction, whose error
    is large. All variances are scaled to the error of the amplitude, which contains the gain and the other noise of
    the detector.

    Parameters
    ----------
    peaks : DataFrame
        `COLUMNS`, in pixels of the frames.
    lacking : Lacking, optional
        Of the peaks, from `surroundings.lacking_of`; none by default. `peaks` then has `frame` too.

    Examples
    --------
    >>> one = {"row": 5.0, "col": 5.0, "amplitude": 100.0, "amplitude_err": 10.0, "background": 1.0, "chi2": 1.0}
    >>> peaks = pd.DataFrame({**one, "fwhm_row": 2.0, "fwhm_col": 2.0, "mixing": [0.0, 1.0]})
    >>> information_of(peaks).counts.round()
    array([425., 506.])
    """
    parameters = np.stack([peaks[name].to_numpy(np.float64) for name in PARAMETERS])
    error, n = peaks["amplitude_err"].to_numpy(np.float64), parameters.shape[1]
    blocks = [np.arange(first, min(first + _BLOCK, n)) for first in range(0, n, _BLOCK)]
    parts = [_of_block(parameters[:, block], error[block]) for block in blocks]
    found = [np.concatenate(values) for values in zip(*parts, strict=True)] or [*np.zeros((7, 0))]
    information = Information(*found)
    if lacking is not None:
        neighbours = neighbours_of(peaks)
        together = (neighbours >= 0).sum(axis=1)
        for count in np.unique(together):
            of_count = np.flatnonzero(together == count)
            for first in range(0, len(of_count), _BLOCK):
                chosen = of_count[first : first + _BLOCK]
                reach = REACH if count else _REACH
                shift = joint_shifts(parameters, chosen, neighbours[chosen, :count], lacking(chosen, reach))
                information.row_shift[chosen], information.col_shift[chosen] = shift
    return information


def _of_block(parameters: Floats, amplitude_err: Floats) -> Information:
    rows, cols = np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1].reshape(2, -1, 1)
    corner = np.rint(parameters[:2])
    moved = parameters.copy()
    moved[:2] -= corner
    expected = np.maximum(profile(moved.T, rows, cols), 1e-3)
    slopes = slopes_of(moved, rows, cols)
    gradient = np.stack([_slope_of_counts(moved, index) for index in range(len(moved))])
    fisher = np.einsum("apn,bpn,pn->nab", slopes, slopes, 1 / expected, optimize=True)
    scale = np.sqrt(np.maximum(np.einsum("naa->na", fisher), 1e-300))
    scaled = fisher / (scale[:, :, None] * scale[:, None, :]) + 1e-10 * np.eye(len(slopes))
    inverse = np.linalg.inv(scaled) / (scale[:, :, None] * scale[:, None, :])
    noise = amplitude_err**2 / inverse[:, _AMPLITUDE, _AMPLITUDE]
    variance = np.einsum("an,nab,bn->n", gradient, inverse, gradient, optimize=True) * noise
    # Row and column of F^-1 J^T, the shift by one count of misfit relative to the expected ones in each pixel.
    response = np.einsum("nab,bpn->apn", inverse[:, :2], slopes, optimize=True)
    squares = (response**2).sum(axis=1)
    return Information(counts_of(moved), variance, expected.mean(axis=0), *squares, *np.zeros((2, parameters.shape[1])))


def counts_of(parameters: Floats) -> Floats:
    """Return the counts within one full width of the centre, for parameters (7, n) in the order of `PARAMETERS`."""
    _, _, amplitude, _, row, col, mixing = parameters
    # With q as in `profiles.profile`, an element of area is pi / 4 fwhm_row fwhm_col dq.
    shape = (1 - mixing) * (1 - np.exp2(-_RADIUS2)) / np.log(2) + mixing * np.log1p(_RADIUS2)
    counts: Floats = amplitude * np.pi / 4 * row * col * shape
    return counts


def _slope_of_counts(parameters: Floats, index: int) -> Floats:
    step = 1e-4 * np.maximum(parameters[index], 1e-3)
    up, down = parameters.copy(), parameters.copy()
    up[index] += step
    down[index] -= step
    slope: Floats = (counts_of(up) - counts_of(down)) / (2 * step)
    return slope


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
