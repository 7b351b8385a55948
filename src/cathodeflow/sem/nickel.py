"""Nickel fraction of a cathode as a number: ordered regression on the features of a network.

An unknown composition has no class, but lies between known ones. Classes do not know that 523 lies between 333 and 622;
an ordered regression does.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit

from cathodeflow.errors import InputError

Float64 = NDArray[np.float64]

#: Columns of a table of predictions, fraction and limits of its interval; and the fraction of images that this holds.
COLUMNS = ("nickel", "nickel_low", "nickel_high")
LEVEL = 0.9
#: Penalties that are tried, of the squared norm of the weights.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
# Names of layered oxides of nickel, cobalt and manganese: one digit for each, in any order of cobalt and manganese.
_NAME = re.compile(r"(?:(?:Li)?N[CM][MC])?[- ]?(\d)(\d)(\d)(?!\d)", re.IGNORECASE)
# Sums of the digits: 111, 333, and tenths such as 622. Others are no composition, such as the number of a sample.
_SUMS = (3, 9, 10)
_LEAST_DEVIATION = 1e-6


class NickelRegression(NamedTuple):
    """Ordered regression of the nickel fraction.

    mean, scale : (c,) float64, of the features, which are standardized by them.
    weights : (c,) float64
    thresholds : (k - 1,) float64, of the score between neighbouring values.
    values : (k,) float64, known nickel fractions, ascending.
    errors : (m,) float64, absolute errors of images whose composition was left out, ascending.
    """

    mean: Float64
    scale: Float64
    weights: Float64
    thresholds: Float64
    values: Float64
    errors: Float64

    def predict(self, features: ArrayLike) -> Float64:
        """Predict the nickel fraction (n,) of images from the means of the features of their crops (n, c).

        It is the mean over the known values, by their probabilities, so it lies between the lowest and the highest.
        """
        score = ((np.asarray(features, np.float64) - self.mean) / self.scale) @ self.weights
        above = expit(score[:, None] - self.thresholds)
        return self.values[0] + above @ np.diff(self.values)

    def half_width(self, level: float) -> float:
        """Half the width of the interval that holds this fraction of the images of compositions left out."""
        count = len(self.errors)
        # Of conformal prediction: one more sample than there are.
        place = min(int(np.ceil(level * (count + 1))), count) - 1
        return float(self.errors[place])

    def intervals(self, features: ArrayLike) -> Float64:
        """Predict nickel fractions with the limits of their intervals (`COLUMNS`), (n, 3), from features (n, c)."""
        value, width = self.predict(features), self.half_width(LEVEL)
        return np.stack([value, np.maximum(value - width, 0), np.minimum(value + width, 1)], axis=1)


def nickel_fraction(label: str) -> float | None:
    """Read the nickel fraction of a class from the digits of its name; None for other names.

    Examples
    --------
    >>> [nickel_fraction(label) for label in ("333", "622_cycled", "NMC811", "LFP")]
    [0.3333333333333333, 0.6, 0.8, None]
    >>> [nickel_fraction(label) for label in ("101", "104", "NMC955")]
    [None, None, None]
    """
    found = _NAME.fullmatch(label.partition("_")[0])
    if not found or found[1] == "0":
        return None
    digits = [int(digit) for digit in found.groups()]
    return digits[0] / sum(digits) if sum(digits) in _SUMS else None


def fit_nickel(features: ArrayLike, labels: Sequence[str]) -> NickelRegression | None:
    """Fit the regression, with the penalty that predicts compositions best that are left out.

    Parameters
    ----------
    features : (n, c) float
        Of images: the means over their crops.
    labels : sequence of str
        Class of each image.

    Returns
    -------
    NickelRegression or None
        None if the name of a class says no nickel fraction, or fewer than three fractions occur: then there is no
        composition between others.
    """
    fractions = [nickel_fraction(label) for label in labels]
    if None in fractions or len(set(fractions)) < 3:
        return None
    truth = np.array(fractions, np.float64)
    best: tuple[float, Float64, float] | None = None
    for penalty in PENALTIES:
        errors = left_out_errors(features, truth, penalty)
        score = float(np.mean([errors[truth == value].mean() for value in np.unique(truth)]))
        if best is None or score < best[0]:
            best = (score, errors, penalty)
    assert best is not None
    return ordered_regression(features, truth, best[2])._replace(errors=np.sort(best[1]))


def left_out_errors(features: ArrayLike, truth: ArrayLike, penalty: float) -> Float64:
    """Absolute errors (n,) of images, each predicted by a regression without all images of its nickel fraction."""
    values, fractions = np.asarray(features, np.float64), np.asarray(truth, np.float64)
    errors = np.empty(len(fractions))
    for value in np.unique(fractions):
        out = fractions == value
        regression = ordered_regression(values[~out], fractions[~out], penalty)
        errors[out] = np.abs(regression.predict(values[out]) - value)
    return errors


def ordered_regression(features: ArrayLike, truth: ArrayLike, penalty: float) -> NickelRegression:
    """Fit a score and its thresholds by the logistic loss of all thresholds [1]_; all values have the same weight.

    Parameters
    ----------
    features : (n, c) float
    truth : (n,) float
        Of at least two different values.
    penalty : float
        Of the squared norm of the weights, for features of standard deviation 1 / sqrt(c).

    Raises
    ------
    InputError
        Features that are not finite, or a single value.

    References
    ----------
    .. [1] J. D. M. Rennie, N. Srebro, IJCAI workshop on preference handling (2005)
    """
    raw = np.asarray(features, np.float64)
    values, number = np.unique(np.asarray(truth, np.float64), return_inverse=True)
    if not np.isfinite(raw).all() or len(values) < 2:
        found = "one nickel fraction" if len(values) < 2 else "features that are not finite"
        raise InputError("nickel", found, "finite features of at least two nickel fractions")
    mean = raw.mean(0)
    scale = np.maximum(raw.std(0), _LEAST_DEVIATION) * np.sqrt(raw.shape[1])
    # The best weights are a sum of the samples, so as many coordinates as samples are enough.
    left, singular, right = np.linalg.svd((raw - mean) / scale, full_matrices=False)
    coordinates = left * singular
    weight = (1 / (np.bincount(number)[number] * len(values)))[:, None]
    above = (number[:, None] > np.arange(len(values) - 1)).astype(np.float64)
    width = coordinates.shape[1]

    def loss(parameters: Float64) -> tuple[float, Float64]:
        score = (coordinates @ parameters[:width])[:, None] - parameters[width:]
        value = (weight * (np.logaddexp(0, score) - above * score)).sum()
        value += penalty / 2 * parameters[:width] @ parameters[:width]
        slope = weight * (expit(score) - above)
        gradient = coordinates.T @ slope.sum(1) + penalty * parameters[:width]
        return float(value), np.concatenate([gradient, -slope.sum(0)])

    found = minimize(loss, np.zeros(width + len(values) - 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return NickelRegression(
        mean, scale, right.T @ found[:width], np.sort(found[width:]), values, np.zeros(0, np.float64)
    )  # fmt: skip
