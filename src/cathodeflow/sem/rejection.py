"""Selective classification: predictions that are likely to be wrong are withheld.

The probability that a prediction is right is fitted on validation images [1]_: as they are, as other sessions of the
microscope might have imaged them, and as if their class were unknown. It depends on the calibrated confidence and on
the out-of-distribution (OOD) score, since networks are confident far from their training images too.

References
----------
.. [1] Y. Geifman, R. El-Yaniv, NeurIPS 2017, arXiv:1705.08500
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from cathodeflow.sem.ood import FeatureStatistics, ood_score

Float64 = NDArray[np.float64]
Floats = NDArray[np.float32]

#: Why a prediction is withheld: the image is further from all classes than validation images are, or P(right) is low.
UNKNOWN, DOUBTFUL = "unknown material or session", "low confidence"
#: Fraction of the right predictions of validation images, as they are and as other sessions image them, that is lost.
LOST = 0.1
# Fraction of the right predictions that lie beyond the limit of the OOD score.
_BEYOND = 0.025
#: Quantile of the OOD scores of validation images to which scores are relative.
QUANTILE = 0.99
# Confidences are kept this far from 0 and 1, beyond which they say no more.
_CLIP = 1e-4
# Weight of the penalty of the fit.
_PENALTY = 1.0


class Rejection(NamedTuple):
    """Rule by which predictions are withheld.

    weights : (3,) float32, of 1, the log-odds of the confidence and the logarithm of the relative OOD score, whose
        weighted sum are the log-odds of P(right).
    threshold : (1,) float32, smallest P(right) of an accepted prediction.
    limit : (1,) float32, largest relative OOD score of an accepted prediction: beyond it P(right) is not known, and 0.
    """

    weights: Floats
    threshold: Floats
    limit: Floats

    def probability(self, confidence: ArrayLike, score: ArrayLike) -> Float64:
        """P(right) of predictions (n,) from their confidence and OOD score relative to the OOD threshold (n,)."""
        found: Float64 = expit(_evidence(confidence, score) @ self.weights.astype(np.float64))
        return np.where(np.asarray(score) <= self.limit[0], found, 0.0)

    def accepted(self, confidence: ArrayLike, score: ArrayLike) -> NDArray[np.bool_]:
        """Whether predictions (n,) are accepted."""
        accepted: NDArray[np.bool_] = self.probability(confidence, score) >= self.threshold[0]
        return accepted


def fit_rejection(
    confidence: ArrayLike, score: ArrayLike, right: ArrayLike, kinds: ArrayLike, *, lost: float = LOST
) -> Rejection:
    """Fit P(right) by a logistic regression, and the threshold below which predictions are withheld.

    Right and wrong predictions have the same total weight, and so has each kind of images within them. The weight of
    the confidence is not negative, and that of the OOD score not positive.

    Parameters
    ----------
    confidence, score : (n,)
        Calibrated confidence, and OOD score relative to the OOD threshold.
    right : (n,) bool
    kinds : (n,) int
        Kind of the image, such as unchanged, simulated session, unknown class.
    lost : float
        Fraction of the right predictions that is withheld by P(right).

    Returns
    -------
    Rejection
        Without a right, or without a wrong prediction, confidence and score decide with equal weight.
    """
    rows, truth = _evidence(confidence, score), np.asarray(right, bool)
    weights = np.array([0.0, 1.0, -1.0])
    if truth.any() and not truth.all():
        weights = _logistic(rows, truth, _balanced(truth, np.asarray(kinds)))
    chosen = truth if truth.any() else np.ones_like(truth)
    threshold = np.quantile(expit(rows[chosen] @ weights), lost)
    limit = max(1.0, float(np.quantile(np.asarray(score)[chosen], 1 - _BEYOND)))
    # Just beside, so that rounding to float32 withholds no row at the threshold.
    return Rejection(
        weights.astype(np.float32), np.array([threshold - 1e-6], np.float32), np.array([limit + 1e-6], np.float32)
    )


def relative_scores(score: ArrayLike, statistics: FeatureStatistics) -> Float64:
    """OOD scores relative to the OOD threshold of the rule, `QUANTILE` of the validation images."""
    # Features without any variation have a threshold of 0.
    limit = max(statistics.threshold(QUANTILE), float(np.finfo(np.float32).tiny))
    return np.asarray(score, np.float64) / limit


def as_unknown(
    probabilities: Float64, labels: NDArray[np.int64], features: Float64, statistics: FeatureStatistics
) -> tuple[Float64, Float64]:
    """Return confidence and OOD score of images as if their own class were unknown to the network.

    The class is removed from the probabilities, and its mean from the distances.

    Parameters
    ----------
    probabilities : (n, k)
    labels : (n,) int
        Class of each image.
    features : (n, c)
    statistics : FeatureStatistics

    Returns
    -------
    confidence, score : (n,), (n,)
    """
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = 0
    confidence = others.max(1) / np.maximum(others.sum(1), 1e-30)
    score = np.zeros(len(labels))
    for label in np.unique(labels):
        left = statistics._replace(means=np.delete(statistics.means, label, axis=0))
        score[labels == label] = ood_score(features[labels == label], left)
    return confidence, score


def withheld_curve(probability: ArrayLike, right: ArrayLike) -> tuple[Float64, Float64]:
    """Return the rejection curve: for every threshold the fraction of right ones lost, and of wrong ones withheld.

    Examples
    --------
    >>> lost, withheld = withheld_curve([0.9, 0.8, 0.3, 0.2], [True, True, False, True])
    >>> lost.round(2).tolist(), withheld.tolist()
    ([0.0, 0.33, 0.33, 0.67, 1.0], [0.0, 0.0, 1.0, 1.0, 1.0])
    """
    order = np.argsort(np.asarray(probability), kind="stable")
    truth = np.asarray(right, bool)[order]
    lost, withheld = np.cumsum(np.r_[0, truth]), np.cumsum(np.r_[0, ~truth])
    return lost / max(lost[-1], 1), withheld / max(withheld[-1], 1)


def _evidence(confidence: ArrayLike, score: ArrayLike) -> Float64:
    odds = logit(np.clip(np.asarray(confidence, np.float64), _CLIP, 1 - _CLIP))
    return np.column_stack([np.ones(len(odds)), odds, np.log(np.maximum(np.asarray(score, np.float64), 1e-6))])


def _balanced(truth: NDArray[np.bool_], kinds: NDArray[np.int64]) -> Float64:
    weight = np.zeros(len(truth))
    for side in (True, False):
        present = np.unique(kinds[truth == side])
        for kind in present:
            rows = (truth == side) & (kinds == kind)
            weight[rows] = len(truth) / (2 * len(present) * rows.sum())
    return weight


def _logistic(rows: Float64, truth: NDArray[np.bool_], weight: Float64) -> Float64:
    """Weights of a logistic regression with a penalty on the squares of all but the first."""
    from scipy.optimize import minimize

    sign = np.where(truth, 1.0, -1.0)

    def loss(w: Float64) -> tuple[float, Float64]:
        margin = sign * (rows @ w)
        value = float(weight @ np.logaddexp(0, -margin)) + 0.5 * _PENALTY * float(w[1:] @ w[1:])
        slope = -(weight * sign * expit(-margin)) @ rows
        return value, slope + _PENALTY * np.r_[0, w[1:]]

    found = minimize(loss, np.array([0.0, 1.0, -1.0]), jac=True, bounds=[(None, None), (0, None), (None, 0)])
    weights: Float64 = found.x
    return weights
