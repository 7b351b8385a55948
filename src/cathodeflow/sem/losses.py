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
    each = crop_losses(logits, labels, loss=loss, label_smoothing=label_smoothing, weight=weight)
    return each.sum() / (len(labels) if weight is None else weight[labels].sum())


def crop_losses(
    logits: Tensor, labels: Tensor, *, loss: str, label_smoothing: float, weight: Tensor | None = None
) -> Tensor:  # fmt: skip
    """Losses (n,) of the crops, multiplied by the weights of their classes; parameters of `classification_loss`."""
    each: Tensor = F.cross_entropy(logits, labels, weight=weight, label_smoothing=label_smoothing, reduction="none")
    if loss == "cross_entropy":
        return each
    right = torch.softmax(logits, 1).gather(1, labels[:, None])[:, 0]
    return (1 - right) ** FOCUSING * each


def group_loss(losses: Tensor, groups: Tensor, weight: float) -> Tensor:
    """Average losses over groups, with more weight for groups of high loss.

    The weights of the groups of a batch are proportional to exp(weight * loss) and are not differentiated. So the loss
    of the worst group counts most, as in group-robust training [1]_, without a state from batch to batch (tilted
    losses [2]_).

    Parameters
    ----------
    losses : (n,) float
        Of the crops of a batch.
    groups : (n,) int
        Of each crop, such as a class in a session.
    weight : float
        0: all groups count equally, however many crops they have.

    References
    ----------
    .. [1] S. Sagawa et al., ICLR 2020, arXiv:1911.08731
    .. [2] T. Li et al., ICLR 2021, arXiv:2007.01162

    Examples
    --------
    >>> losses, groups = torch.tensor([1.0, 1.0, 1.0, 3.0]), torch.tensor([0, 0, 0, 1])
    >>> [round(float(group_loss(losses, groups, weight)), 3) for weight in (0.0, 1.0, 20.0)]
    [2.0, 2.762, 3.0]
    """
    _, number = torch.unique(groups, return_inverse=True)
    belongs = F.one_hot(number).to(losses)
    means = (losses @ belongs) / belongs.sum(0)
    return torch.softmax(weight * means.detach(), 0) @ means


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
