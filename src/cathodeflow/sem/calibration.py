"""Calibration of confidence: temperatures fitted on validation data, and the calibration error."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from cathodeflow.errors import InputError
from cathodeflow.statistics import confidence_bins

Float64 = NDArray[np.float64]

#: Range of temperatures: beyond it all predictions are certain, or all classes equally likely.
LOWEST, HIGHEST = 0.01, 100.0
_FLOOR = 1e-30


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Fit the temperature that calibrates the softmax of logits, by maximum likelihood [1]_.

    The likelihood includes one additional sample whose second most likely class is the true one, similar to Platt [2]_.
    So if every prediction is correct, confidence is limited by the number of samples instead of approaching 1.

    Parameters
    ----------
    logits : (n, k)
        Logits or logarithms of probabilities.
    labels : (n,) int
        True class of each sample.

    Returns
    -------
    float
        From 0.01 to 100; above 1 for an overconfident network.

    Raises
    ------
    InputError
        No samples, labels that are no classes, or values that are not finite.

    References
    ----------
    .. [1] C. Guo et al., ICML 2017, arXiv:1706.04599
    .. [2] J. Platt, Advances in Large Margin Classifiers, 1999, section 2.2

    Examples
    --------
    >>> logits = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]]
    >>> round(fit_temperature(logits, [0, 0, 0, 1]), 2)  # confidence 2 / 3, as 3 of 4 are correct
    5.77
    """
    values, true = _checked(logits, labels)
    count = len(values)
    values = values - values.max(axis=1, keepdims=True)
    of_true = values[np.arange(count), true]
    others = values.copy()
    others[np.arange(count), true] = -np.inf
    weight = 1 / (count + 2)
    target = (1 - weight) * of_true + weight * others.max(axis=1)

    # The likelihood is concave in 1 / temperature, so its slope has at most one zero.
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
    """Fit the temperature of an original's probabilities, which are the mean over its crops.

    Such a mean is underconfident: the errors of crops are partly independent, so it is mostly correct even if its crops
    disagree. Therefore mean ** (1 / temperature), normalised, is calibrated.

    Parameters
    ----------
    probabilities : (n_originals, k)
        Mean probabilities of the crops.
    labels : (n_originals,) int

    Returns
    -------
    float
        Below 1 for underconfident means.

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
    """Accuracy in bins of equal width of confidence (reliability diagram).

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
    values, true = _checked(probabilities, labels)
    confidence = values.max(axis=1)
    correct = (values.argmax(axis=1) == true).astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    number = confidence_bins(confidence, bins)
    count = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(number, values, minlength=bins) / count for values in (confidence, correct)]
    return pd.DataFrame(
        {"low": edges[:-1], "high": edges[1:], "count": count, "confidence": means[0], "accuracy": means[1]}
    )


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, *, bins: int) -> float:
    """Compute the expected calibration error (ECE) [1]_: mean |confidence - accuracy| over bins, weighted by count.

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
    return calibration_error(reliability(probabilities, labels, bins=bins))


def calibration_error(diagram: pd.DataFrame) -> float:
    """Compute the expected calibration error of a table of `reliability`."""
    difference = (diagram["confidence"] - diagram["accuracy"]).abs().fillna(0.0)
    return float((difference * diagram["count"]).sum() / diagram["count"].sum())


def _logarithm(probabilities: ArrayLike) -> Float64:
    # A probability that was rounded to 0 has no logarithm, and a single confident error would dominate the fit.
    return log_softmax(np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), _FLOOR)), axis=-1)


def _checked(values: ArrayLike, labels: ArrayLike) -> tuple[Float64, NDArray[np.int64]]:
    table, true = np.asarray(values, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if table.ndim != 2 or table.shape[1] < 2 or true.shape != table.shape[:1] or not true.size:
        raise InputError("calibration", f"values {table.shape} and labels {true.shape}", "(n, classes) and (n,)")
    if true.min() < 0 or true.max() >= table.shape[1]:
        raise InputError("calibration", f"labels {true.min()} to {true.max()}", f"0 to {table.shape[1] - 1}")
    if not np.isfinite(table).all():
        raise InputError("calibration", "values that are not finite", "finite ones")
    return table, true
