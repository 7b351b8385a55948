"""From logits to phases: entropy, combination of global and local model, and the control without class weights."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cathodeflow.errors import InputError


def entropy(logits: Tensor) -> Tensor:
    """Entropy (n, ...) of the softmax of logits (n, n_classes, ...) [nat], from 0 to ln n_classes.

    Examples
    --------
    >>> entropy(torch.tensor([[0.0, 0.0], [0.0, 1000.0]])).tolist()
    [0.6931471824645996, 0.0]
    """
    logarithm = torch.log_softmax(logits, 1)
    # 0 ln 0 is 0: of finite logits, the logarithm is finite as well.
    return (logarithm.exp() * -logarithm).sum(1)


class Phases(NamedTuple):
    """A segmentation.

    labels : (n, row, col) uint8.
    probabilities : (n, n_classes, row, col) float32.
    uncertainty : (n, row, col) float32, entropy of the probabilities [nat].
    """

    labels: Tensor
    probabilities: Tensor
    uncertainty: Tensor


def assemble(logits: Tensor, idk: Tensor | None = None, local_logits: Tensor | None = None) -> Phases:
    """Combine the prediction of the local model at IDK pixels with that of the global model elsewhere.

    The paper's formula in section 3.4 has the two cases swapped; its text describes what is done here.

    Parameters
    ----------
    logits : (n, n_classes, row, col) float
        Of the global model.
    idk : (n, row, col) bool, optional
        IDK pixels. Without them the prediction is that of the global model.
    local_logits : (idk.sum(), n_classes) float, optional
        Of the local model at the IDK pixels, in the order of `idk.flatten().nonzero()`.

    Raises
    ------
    InputError
        The numbers of local logits and of IDK pixels differ.
    """
    merged = logits.float()
    if idk is not None:
        count = int(idk.sum())
        if local_logits is None or tuple(local_logits.shape) != (count, logits.shape[1]):
            shape = None if local_logits is None else tuple(local_logits.shape)
            raise InputError("local logits", f"shape {shape}", f"({count}, {logits.shape[1]})")
        merged = merged.movedim(1, -1).contiguous()
        merged[idk] = local_logits.float()
        merged = merged.movedim(-1, 1)
    labels = merged.argmax(1).to(torch.uint8)
    return Phases(labels, torch.softmax(merged, 1).contiguous(), entropy(merged))


def subtract_prior(logits: Tensor, weights: Sequence[float]) -> Tensor:
    """Remove the effect of class weights in the loss: the control `ugsm_prior`.

    A network trained with the weights w_c predicts probabilities proportional to w_c p_c; the logits without the
    weights are lower by ln w_c (Menon et al., ICLR 2021).

    Parameters
    ----------
    logits : (n, n_classes, row, col)
    weights : (n_classes,), all positive

    Raises
    ------
    InputError
        The number of weights is not that of the classes, or a weight is not positive.
    """
    if len(weights) != logits.shape[1] or min(weights) <= 0:
        raise InputError("class weights", str(list(weights)), f"{logits.shape[1]} positive numbers")
    return logits - torch.tensor(weights, dtype=logits.dtype, device=logits.device).log()[:, None, None]
