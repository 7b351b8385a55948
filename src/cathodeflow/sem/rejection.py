"""Selective classification: predictions that are likely to be wrong are withheld.

The probability that a prediction is right is fitted on validation images [1]_: as they are, as other sessions of the
microscope might have imaged them, and as if their class were unknown. It depends on the calibrated confidence, on the
out-of-distribution (OOD) score, since networks are confident far from their training images too, and on the agreement:
the probability that a classifier of the texture (`texture_classifier`) gives to the prediction of the network.

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

#: Why a prediction is withheld: the image is further from all classes than validation images are; or P(right) is low
#: since the texture is rather that of another class, or since the confidence is low.
UNKNOWN, CONTRADICTED, DOUBTFUL = "unknown material or session", "texture of another class", "low confidence"
#: Fraction of the right predictions of validation images, as they are and as other sessions image them, that is lost.
LOST = 0.1
# Fraction of the right predictions that lie beyond the limit of the OOD score.
_BEYOND = 0.025
#: Quantile of the OOD scores of validation images to which scores are relative.
QUANTILE = 0.99
# Confidences are kept this far from 0 and 1, beyond which they say no more.
_CLIP = 1e-4
# Weight of the penalty of the fit; weights that it starts from, and their limits.
_PENALTY = 1.0
_EQUAL = np.array([0.0, 1.0, -1.0, 1.0])
_LIMITS = ((None, None), (0, None), (None, 0), (0, None))


class Rejection(NamedTuple):
    """Rule by which predictions are withheld.

    weights : (4,) float32, of 1, the log-odds of the confidence, the logarithm of the relative OOD score, and the
        log-odds of the agreement, whose weighted sum are the log-odds of P(right); (3,) without an agreement, as in
        networks of earlier versions.
    threshold : (1,) float32, smallest P(right) of an accepted prediction.
    limit : (1,) float32, largest relative OOD score of an accepted prediction: beyond it P(right) is not known, and 0.
    """

    weights: Floats
    threshold: Floats
    limit: Floats

    def probability(self, confidence: ArrayLike, score: ArrayLike, agreement: ArrayLike | None = None) -> Float64:
        """P(right) of predictions (n,) from confidence, OOD score relative to the OOD threshold, and agreement (n,)."""
        rows = _evidence(confidence, score, agreement)
        found: Float64 = expit(rows @ self.weights.astype(np.float64))
        return np.where(np.asarray(score) <= self.limit[0], found, 0.0)

    def accepted(
        self, confidence: ArrayLike, score: ArrayLike, agreement: ArrayLike | None = None
    ) -> NDArray[np.bool_]:
        """Whether predictions (n,) are accepted."""
        accepted: NDArray[np.bool_] = self.probability(confidence, score, agreement) >= self.threshold[0]
        return accepted


def fit_rejection(
    confidence: ArrayLike, score: ArrayLike, right: ArrayLike, kinds: ArrayLike, *,
    agreement: ArrayLike | None = None, lost: float = LOST,
) -> Rejection:  # fmt: skip
    """Fit P(right) by a logistic regression, and the threshold below which predictions are withheld.

    Right and wrong predictions have the same total weight, and so has each kind of images within them. The weights of
    the confidence and the agreement are not negative, and that of the OOD score not positive.

    Parameters
    ----------
    confidence, score : (n,)
        Calibrated confidence, and OOD score relative to the OOD threshold.
    right : (n,) bool
    kinds : (n,) int
        Kind of the image, such as unchanged, simulated session, unknown class.
    agreement : (n,), optional
        Probability of the prediction according to its texture.
    lost : float
        Fraction of the right predictions that is withheld by P(right).

    Returns
    -------
    Rejection
        Without a right, or without a wrong prediction, all decide with equal weight.
    """
    rows, truth = _evidence(confidence, score, agreement), np.asarray(right, bool)
    weights = _EQUAL[: rows.shape[1]]
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


def without_class(probabilities: Float64, labels: NDArray[np.int64]) -> Float64:
    """Return probabilities (n, k) of images as if the class of each, labels (n,), were unknown.

    Examples
    --------
    >>> without_class(np.array([[0.6, 0.3, 0.1]]), np.array([0])).round(2).tolist()
    [[0.0, 0.75, 0.25]]
    """
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = 0
    found: Float64 = others / np.maximum(others.sum(1, keepdims=True), 1e-30)
    return found


def unknown_scores(features: Float64, labels: NDArray[np.int64], statistics: FeatureStatistics) -> Float64:
    """Return OOD scores (n,) of images with features (n, c) as if the mean of the class of each were unknown."""
    score = np.zeros(len(labels))
    for label in np.unique(labels):
        left = statistics._replace(means=np.delete(statistics.means, label, axis=0))
        score[labels == label] = ood_score(features[labels == label], left)
    return score


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


def _evidence(confidence: ArrayLike, score: ArrayLike, agreement: ArrayLike | None) -> Float64:
    odds = _log_odds(confidence)
    columns = [np.ones(len(odds)), odds, np.log(np.maximum(np.asarray(score, np.float64), 1e-6))]
    return np.column_stack(columns if agreement is None else [*columns, _log_odds(agreement)])


def _log_odds(probability: ArrayLike) -> Float64:
    odds: Float64 = logit(np.clip(np.asarray(probability, np.float64), _CLIP, 1 - _CLIP))
    return odds


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

    count = rows.shape[1]
    found = minimize(loss, _EQUAL[:count], jac=True, bounds=_LIMITS[:count])
    weights: Float64 = found.x
    return weights
