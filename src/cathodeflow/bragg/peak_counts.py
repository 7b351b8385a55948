"""Integrated counts of fitted peaks, with standard errors from the Fisher information of their fits."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.bragg.profiles import profile

Floats = NDArray[np.float64]

#: Columns of the peaks that `counts_of` needs.
COLUMNS = (
    "amplitude", "amplitude_err", "background", "fwhm_row", "fwhm_col", "mixing",
)  # fmt: skip
# Square of the radius of the ellipse in which counts are integrated, in half widths: one full width.
_RADIUS2 = 4.0
# Half the side of the patch on which the information is summed [px], and peaks at a time.
_REACH, _BLOCK = 5, 4096
# Steps of the derivatives, relative to the parameter; of the mixing absolute.
_STEP = 1e-4


def counts_of(peaks: pd.DataFrame) -> tuple[Floats, Floats]:
    """Return the counts of fitted peaks within one full width of their centres, and their variance.

    The Lorentzian part of the profile has no finite integral over the plane: its tails fall off with the square of the
    distance. Within this ellipse the integral hardly depends on the Lorentzian fraction, whose error is large.

    Parameters
    ----------
    peaks : DataFrame
        `COLUMNS`: `amplitude`, its error and `background` [counts], `fwhm_row`, `fwhm_col` [px], `mixing`.

    Returns
    -------
    counts, variance : (n,) float64
        The variance is propagated from the inverse Fisher matrix of amplitude, background, widths and mixing, which
        together determine the counts far better than each of them; it is scaled to the error of the amplitude,
        which contains the gain and the other noise of the detector.

    Examples
    --------
    >>> one = {"amplitude": 100.0, "amplitude_err": 10.0, "background": 1.0, "fwhm_row": 2.0, "fwhm_col": 2.0}
    >>> counts_of(pd.DataFrame({**one, "mixing": [0.0, 1.0]}))[0].round(1)
    array([425. , 505.6])
    """
    values = {name: peaks[name].to_numpy(np.float64) for name in COLUMNS}
    parameters = np.stack([values[name] for name in ("amplitude", "background", "fwhm_row", "fwhm_col", "mixing")])
    variance = np.empty(len(peaks))
    for first in range(0, len(peaks), _BLOCK):
        part = slice(first, first + _BLOCK)
        variance[part] = _variance(parameters[:, part], values["amplitude_err"][part])
    return _counts(parameters), variance


def _counts(parameters: Floats) -> Floats:
    amplitude, _, row, col, mixing = parameters
    # With q as in `profiles.profile`, an element of area is pi / 4 fwhm_row fwhm_col dq.
    shape = (1 - mixing) * (1 - np.exp2(-_RADIUS2)) / np.log(2) + mixing * np.log1p(_RADIUS2)
    counts: Floats = amplitude * np.pi / 4 * row * col * shape
    return counts


def _variance(parameters: Floats, amplitude_err: Floats) -> Floats:
    """Return the variance of the counts of a block of peaks; parameters (5, n)."""
    rows, cols = np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1].reshape(2, -1, 1)

    def image(given: Floats) -> Floats:
        amplitude, background, row, col, mixing = given
        centre = np.zeros_like(amplitude)
        return profile(np.stack([centre, centre, amplitude, background, row, col, mixing], axis=-1), rows, cols)

    expected = np.maximum(image(parameters), 1e-3)
    slopes, gradient = np.empty((5, *expected.shape)), np.empty((5, parameters.shape[1]))
    for index in range(5):
        step = np.full(parameters.shape[1], _STEP) if index == 4 else _STEP * np.maximum(parameters[index], 1e-3)
        moved = np.stack([parameters, parameters])
        moved[0, index] += step
        moved[1, index] -= step
        slopes[index] = (image(moved[0]) - image(moved[1])) / (2 * step)
        gradient[index] = (_counts(moved[0]) - _counts(moved[1])) / (2 * step)
    information = np.einsum("apn,bpn,pn->nab", slopes, slopes, 1 / expected)
    information += 1e-12 * np.eye(5) * np.trace(information, axis1=1, axis2=2)[:, None, None]
    inverse = np.linalg.inv(information)
    variance = np.einsum("an,nab,bn->n", gradient, inverse, gradient)
    scaled: Floats = variance * amplitude_err**2 / inverse[:, 0, 0]
    return scaled
