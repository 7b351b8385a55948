"""Profile of a Bragg peak on flat background on the detector."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Order of the parameters in all arrays: centre [px], amplitude [counts], background [counts/px], full widths at half
#: maximum [px], Lorentzian fraction.
PARAMETERS = ("row", "col", "amplitude", "background", "fwhm_row", "fwhm_col", "mixing")

# Steps of the derivatives: of position and mixing absolute, of the others relative.
_STEP = 1e-4

#: Number of free parameters of each model: `gaussian` is the pseudo-Voigt with mixing 0.
MODELS = {"pseudo_voigt": 7, "gaussian": 6}


def profile(parameters: ArrayLike, rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float64]:
    """Compute a two-dimensional pseudo-Voigt peak on flat background at points of the detector.

    ``background + amplitude * (mixing * L + (1 - mixing) * G)`` with ``L = 1 / (1 + q)``, ``G = exp(-ln(2) q)`` and
    ``q = 4 (r - row)^2 / fwhm_row^2 + 4 (c - col)^2 / fwhm_col^2``. L and G have the same full width at half maximum
    along each axis, and `amplitude` is the height above the background. The axes of the ellipse are those of the
    detector: the profile is symmetric about its centre at any orientation, so the rotation of a peak affects the fitted
    widths, but not the centre.

    Parameters
    ----------
    parameters : (..., 7) float
        In the order of `PARAMETERS`.
    rows, cols : float
        Points [px], which broadcast against `parameters` without its last axis.

    Returns
    -------
    float64
        Expected counts [counts/px].

    Examples
    --------
    >>> profile([0, 0, 100, 5, 2, 3, 0.5], [0, 1, 0], [0, 0, 1.5]).round(6)
    array([105.,  55.,  55.])
    """
    row, col, amplitude, background, fwhm_row, fwhm_col, mixing = np.moveaxis(np.asarray(parameters, float), -1, 0)
    q = 4 * ((rows - row) / fwhm_row) ** 2 + 4 * ((cols - col) / fwhm_col) ** 2
    return background + amplitude * (mixing / (1 + q) + (1 - mixing) * np.exp2(-q))


def slopes_of(
    parameters: NDArray[np.float64], rows: ArrayLike, cols: ArrayLike, names: Sequence[str] = PARAMETERS
) -> NDArray[np.float64]:
    """Compute the derivatives of profiles by their parameters.

    Parameters
    ----------
    parameters : (7, n) float64
        In the order of `PARAMETERS`.
    rows, cols : (n_pixels, 1) float
        Points [px].
    names : sequence of str
        Parameters to derive by.

    Returns
    -------
    (len(names), n_pixels, n) float64
    """
    slopes = []
    for name in names:
        index = PARAMETERS.index(name)
        absolute = name in ("row", "col", "mixing")
        step = _STEP * (1.0 if absolute else np.maximum(parameters[index], 1e-3))
        up, down = parameters.copy(), parameters.copy()
        up[index] += step
        down[index] -= step
        slopes.append((profile(up.T, rows, cols) - profile(down.T, rows, cols)) / (2 * step))
    return np.stack(slopes)
