"""Fits of Gaussian rocking curves: many spots at once, each with a few frames."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# The exponent of a Gaussian at half its maximum, at a distance of one half width.
_HALF = 4.0 * np.log(2.0)
_ITERATIONS = 60
# Width limits [frames]: narrower curves are a single frame, and wider ones than this times their frames are no peak.
_NARROWEST, _WIDEST = 0.3, 4.0
# Largest standard error of a centre [frames]: beyond it, the frames do not determine the curve.
_LARGEST = 1.0


class RockingCurves(NamedTuple):
    """Fitted rocking curves, (n,) float64 except `converged` (n,) bool; NaN without a fit.

    `centre`, `fwhm` [frames], `intensity`: integral over the frames [counts], and standard errors `*_err`.
    """

    centre: Floats
    centre_err: Floats
    fwhm: Floats
    fwhm_err: Floats
    intensity: Floats
    intensity_err: Floats
    converged: NDArray[np.bool_]


def fit_rocking_curves(frame: Floats, intensity: Floats, variance: Floats) -> RockingCurves:
    """Fit a Gaussian to the intensities of each spot, by least squares with the variances of counting.

    The weights come from the fitted curve, not from the counts, which would favour low ones: the variance changes with
    the counts as it does between the frames of the spot.

    Parameters
    ----------
    frame, intensity, variance : (n, m) float64
        Frames of each spot, intensity [counts] and its variance [counts^2]; NaN where a spot has fewer than m.

    Returns
    -------
    RockingCurves
        Fits of spots with at least three frames that converge to a width between 0.3 frames and four times their range.
    """
    use = np.isfinite(frame) & np.isfinite(intensity) & np.isfinite(variance)
    count = use.sum(axis=1)
    x, y = np.where(use, frame, 0.0), np.where(use, intensity, 0.0)
    total = np.maximum(y.sum(axis=1), 1e-300)
    start = (x * y).sum(axis=1) / total
    spread = (np.where(use, x - start[:, None], 0.0) ** 2 * y).sum(axis=1) / total
    # Height, centre, logarithm of the width: the width stays positive.
    height = y.max(axis=1, initial=0.0)
    parameters = np.stack([height, start, 0.5 * np.log(np.maximum(spread, 0.2) * 2 * _HALF)], axis=1)
    covariance, damping = np.full((len(x), 3, 3), np.nan), np.full(len(x), 1e-3)
    step = np.full((len(x), 3), np.inf)
    active = count >= 3
    curve = _model(parameters, x)
    known = np.where(use, variance, 1.0)
    gain = (np.where(use, variance, 0.0).sum(axis=1) / total)[:, None]
    for _ in range(_ITERATIONS):
        weight = _weights(curve, y, known, use, gain)
        gradient, normal = _normal_equations(parameters, x, y - curve, weight)
        damped = normal + damping[:, None, None] * np.einsum("nij,ij->nij", normal, np.eye(3))
        damped += 1e-12 * np.eye(3) * np.maximum(np.trace(normal, axis1=1, axis2=2), 1e-300)[:, None, None]
        step = np.linalg.solve(damped, gradient[:, :, None])[:, :, 0]
        step[:, 2] = np.clip(step[:, 2], -0.5, 0.5)
        trial = parameters + step
        trial_curve = _model(trial, x)
        better = (weight * (y - trial_curve) ** 2).sum(axis=1) <= (weight * (y - curve) ** 2).sum(axis=1)
        better &= np.isfinite(trial).all(axis=1)
        parameters[better], curve[better] = trial[better], trial_curve[better]
        damping = np.where(better, np.maximum(damping / 5, 1e-9), np.minimum(damping * 5, 1e9))
    weight = _weights(curve, y, known, use, gain)
    _, normal = _normal_equations(parameters, x, y - curve, weight)
    solvable = active & (np.linalg.cond(np.where(np.isfinite(normal), normal, 0.0)) < 1e14)
    covariance[solvable] = np.linalg.inv(normal[solvable])
    width, extent = np.exp(parameters[:, 2]), np.ptp(np.where(use, x, start[:, None]), axis=1)
    errors = np.sqrt(np.maximum(np.einsum("nii->ni", covariance), 0.0))
    converged = solvable & (parameters[:, 0] > 0) & (width > _NARROWEST) & (width < _WIDEST * np.maximum(extent, 1.0))
    inside = np.abs(parameters[:, 1] - start) <= extent
    with np.errstate(invalid="ignore"):
        converged &= inside & (errors[:, 1] < _LARGEST)
        converged &= np.abs(step[:, 1]) < 0.05 * np.maximum(errors[:, 1], 1e-6)
    area = parameters[:, 0] * width * np.sqrt(np.pi / _HALF)
    # Of the logarithms of height and width, which the integral is the product of.
    slope = np.stack([np.sqrt(np.pi / _HALF) * width, np.zeros_like(width), area], axis=1)
    area_err = np.sqrt(np.maximum(np.einsum("ni,nij,nj->n", slope, covariance, slope), 0.0))
    found = {
        "centre": parameters[:, 1],
        "centre_err": errors[:, 1],
        "fwhm": width,
        "fwhm_err": width * errors[:, 2],
        "intensity": area,
        "intensity_err": area_err,
    }
    fitted = {name: np.where(converged, values, np.nan) for name, values in found.items()}
    return RockingCurves(**fitted, converged=converged)


def _model(parameters: Floats, x: Floats) -> Floats:
    height, centre, width = parameters.T[:, :, None]
    curve: Floats = height * np.exp(-_HALF * ((x - centre) / np.exp(np.clip(width, -5, 12))) ** 2)
    return curve


def _weights(curve: Floats, y: Floats, variance: Floats, use: NDArray[np.bool_], gain: Floats) -> Floats:
    expected = np.maximum(variance + gain * (curve - y), 0.1 * variance)
    return np.where(use, 1.0 / np.maximum(expected, 1e-300), 0.0)


def _normal_equations(parameters: Floats, x: Floats, residual: Floats, weight: Floats) -> tuple[Floats, Floats]:
    height, centre, width = parameters.T[:, :, None]
    scaled = (x - centre) / np.exp(np.clip(width, -5, 12))
    shape = np.exp(-_HALF * scaled**2)
    slopes = np.stack(
        [
            shape,
            height * shape * 2 * _HALF * scaled / np.exp(np.clip(width, -5, 12)),
            height * shape * 2 * _HALF * scaled**2,
        ]
    )
    return np.einsum("inm,nm,nm->ni", slopes, weight, residual), np.einsum("inm,nm,jnm->nij", slopes, weight, slopes)
