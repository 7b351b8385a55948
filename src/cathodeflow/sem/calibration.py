"""Confidence that means what it says: temperatures fitted on validation data, and the calibration error."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax, logsumexp, softmax

from cathodeflow.errors import InputError
from cathodeflow.statistics import confidence_bins

Float64 = NDArray[np.float64]

#: Temperatures outside are of no use: there all answers are certain, or none is.
LOWEST, HIGHEST = 0.01, 100.0
_FLOOR = 1e-30


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Temperature by which to divide logits so that their softmax is calibrated: that of the highest likelihood [1]_.

    The likelihood counts one further answer in which the runner-up is right, in the manner of Platt [2]_. So where
    every answer is right, the confidence stays at about what that many answers can show, instead of going to 1.

    Parameters
    ----------
    logits : (n, k)
        Logits or logarithms of probabilities.
    labels : (n,) int
        Right class of each.

    Returns
    -------
    float
        From 0.01 to 100; above 1 where the network is too sure.

    Raises
    ------
    InputError
        Nothing to fit, labels that are no classes, or values that are not finite.

    References
    ----------
    .. [1] C. Guo et al., ICML 2017, arXiv:1706.04599
    .. [2] J. Platt, Advances in Large Margin Classifiers, 1999, section 2.2

    Examples
    --------
    >>> logits = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]]
    >>> round(fit_temperature(logits, [0, 0, 0, 1]), 2)  # 2 in 3, for 3 right of 4
    5.77
    """
    values, right = _checked(logits, labels)
    count = len(values)
    values = values - values.max(axis=1, keepdims=True)
    of_right = values[np.arange(count), right]
    others = values.copy()
    others[np.arange(count), right] = -np.inf
    share = 1 / (count + 2)
    target = (1 - share) * of_right + share * others.max(axis=1)

    # The likelihood is concave in 1 / temperature, so its slope has one zero at most.
    def slope(inverse: float) -> float:
        return float(((softmax(inverse * values, axis=1) * values).sum(axis=1) - target).mean())

    if slope(1 / HIGHEST) >= 0:
        return 1.0 if not values.any() else HIGHEST
    if slope(1 / LOWEST) <= 0:
        return LOWEST
    return 1 / float(brentq(slope, 1 / HIGHEST, 1 / LOWEST, xtol=1e-10))


def apply_temperature(logits: ArrayLike, temperature: float) -> Float64:
    """Probabilities (n, k) of logits (n, k) divided by a temperature."""
    return softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=-1)


def fit_mean_temperature(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Temperature of an original's probabilities, which are the mean of its crops'.

    Such a mean is too cautious: crops err apart from each other, so most often it is right where its crops disagree.
    What is calibrated is therefore mean ** (1 / temperature), normalised.

    Parameters
    ----------
    probabilities : (n_originals, k)
        Means of the crops' probabilities.
    labels : (n_originals,) int

    Returns
    -------
    float
        Below 1 where the means are too cautious.

    Raises
    ------
    InputError
        As `fit_temperature`.
    """
    return fit_temperature(_logarithm(probabilities), labels)


def apply_mean_temperature(probabilities: ArrayLike, temperature: float) -> Float64:
    """Probabilities (n, k) raised to 1 / temperature and normalised.

    Examples
    --------
    >>> apply_mean_temperature([[0.75, 0.25]], 0.5)
    array([[0.9, 0.1]])
    """
    return apply_temperature(_logarithm(probabilities), temperature)


def reliability(probabilities: ArrayLike, labels: ArrayLike, *, bins: int) -> pd.DataFrame:
    """How often answers are right, in bins of equal width of their confidence.

    Parameters
    ----------
    probabilities : (n, k)
    labels : (n,) int
    bins : int

    Returns
    -------
    DataFrame
        low, high (edges; the upper one belongs to the bin), count, confidence, accuracy (means; NaN in empty bins).
    """
    values, right = _checked(probabilities, labels)
    confidence = values.max(axis=1)
    correct = (values.argmax(axis=1) == right).astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    place = confidence_bins(confidence, bins)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, one, minlength=bins) / count for one in (confidence, correct)]
    return pd.DataFrame(
        {"low": edges[:-1], "high": edges[1:], "count": count, "confidence": means[0], "accuracy": means[1]}
    )


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, *, bins: int) -> float:
    """Mean distance between confidence and accuracy over bins of confidence, weighted by their counts [1]_.

    Parameters
    ----------
    probabilities : (n, k)
    labels : (n,) int
    bins : int

    Raises
    ------
    InputError
        As `fit_temperature`.

    References
    ----------
    .. [1] C. Guo et al., ICML 2017, arXiv:1706.04599, eq. 3

    Examples
    --------
    >>> round(expected_calibration_error([[0.8, 0.2], [0.8, 0.2]], [0, 1], bins=10), 6)
    0.3
    """
    table = reliability(probabilities, labels, bins=bins)
    apart = (table["confidence"] - table["accuracy"]).abs().fillna(0.0)
    return float((apart * table["count"]).sum() / table["count"].sum())


def negative_log_likelihood(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -ln of the right class's probability [nat]."""
    values, right = _checked(_logarithm(probabilities), labels)
    return float((logsumexp(values, axis=1) - values[np.arange(len(values)), right]).mean())


def _logarithm(probabilities: ArrayLike) -> Float64:
    # A probability that was rounded to 0 has no logarithm, and one outright mistake would decide the whole fit.
    return log_softmax(np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), _FLOOR)), axis=-1)


def _checked(values: ArrayLike, labels: ArrayLike) -> tuple[Float64, NDArray[np.int64]]:
    table, right = np.asarray(values, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if table.ndim != 2 or table.shape[1] < 2 or right.shape != table.shape[:1] or not right.size:
        raise InputError("calibration", f"values {table.shape} and labels {right.shape}", "(n, classes) and (n,)")
    if right.min() < 0 or right.max() >= table.shape[1]:
        raise InputError("calibration", f"labels {right.min()} to {right.max()}", f"0 to {table.shape[1] - 1}")
    if not np.isfinite(table).all():
        raise InputError("calibration", "values that are not finite", "finite ones")
    return table, right
