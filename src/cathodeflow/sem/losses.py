"""Losses of a classification, class weights, and macro-F1."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

FOCUSING = 2.0


def classification_loss(
    logits: Tensor, labels: Tensor, *, loss: str, label_smoothing: float, weight: Tensor | None = None
) -> Tensor:  # fmt: skip
    """Mean loss of a batch.

    Parameters
    ----------
    logits : (n, k) float
    labels : (n,) int
    loss : {"cross_entropy", "focal"}
        Focal loss (Lin et al., ICCV 2017) multiplies the cross-entropy of each crop by (1 - p)^2, p being the
        probability of its class, which reduces the weight of crops that are already classified well.
    label_smoothing : float
        Fraction of each label spread over all classes.
    weight : (k,) float, optional
        Weights of the classes; the mean is weighted by them.
    """
    if loss == "cross_entropy":
        return F.cross_entropy(logits, labels, weight=weight, label_smoothing=label_smoothing)
    each = F.cross_entropy(logits, labels, weight=weight, label_smoothing=label_smoothing, reduction="none")
    right = torch.softmax(logits, 1).gather(1, labels[:, None])[:, 0]
    total = len(labels) if weight is None else weight[labels].sum()
    return ((1 - right) ** FOCUSING * each).sum() / total


def balanced_weights(labels: ArrayLike, classes: int) -> Tensor:
    """Weights (k,) that give all classes the same total weight; 1 if all classes have equally many samples."""
    counts = np.bincount(np.asarray(labels), minlength=classes)
    return torch.from_numpy(counts.sum() / (classes * counts)).float()


def macro_f1(labels: ArrayLike, predictions: ArrayLike, classes: int) -> float:
    """Macro-averaged F1 score over the classes that occur as label or prediction."""
    pairs = np.zeros((classes, classes))
    np.add.at(pairs, (np.asarray(labels), np.asarray(predictions)), 1)
    both = pairs.sum(0) + pairs.sum(1)
    return float((2 * np.diag(pairs)[both > 0] / both[both > 0]).mean())
