"""Losses of a training, chosen by name, and the figure that decides in validation."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

Loss = Literal["cross_entropy", "focal"]

FOCUSING = 2.0


def classification_loss(
    logits: Tensor, labels: Tensor, *, loss: Loss = "cross_entropy", weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """Mean loss of a batch.

    Parameters
    ----------
    logits : (n, k) float
    labels : (n,) int
    loss : {"cross_entropy", "focal"}
        Focal loss (Lin et al., ICCV 2017) multiplies each crop's cross-entropy by (1 - p)^2 with p the probability of
        its class, so that what is known already counts little.
    weight : (k,) float, optional
        Weights of the classes; the mean is over them.
    label_smoothing : float
        Share of each label spread over all classes.
    """
    if loss == "cross_entropy":
        return F.cross_entropy(logits, labels, weight=weight, label_smoothing=label_smoothing)
    each = F.cross_entropy(logits, labels, weight=weight, label_smoothing=label_smoothing, reduction="none")
    right = torch.softmax(logits, 1).gather(1, labels[:, None])[:, 0]
    total = len(labels) if weight is None else weight[labels].sum()
    return ((1 - right) ** FOCUSING * each).sum() / total


def balanced_weights(labels: ArrayLike, classes: int) -> Tensor:
    """Weights (k,) by which each class counts as much in the whole, 1 where all have as many samples."""
    counts = np.bincount(np.asarray(labels), minlength=classes)
    return torch.from_numpy(counts.sum() / (classes * counts)).float()


def macro_f1(labels: ArrayLike, predictions: ArrayLike, classes: int) -> float:
    """Mean over the classes that occur of the harmonic mean of precision and recall."""
    pairs = np.zeros((classes, classes))
    np.add.at(pairs, (np.asarray(labels), np.asarray(predictions)), 1)
    both = pairs.sum(0) + pairs.sum(1)
    return float((2 * np.diag(pairs)[both > 0] / both[both > 0]).mean())
