"""Logits whose scale and classes are set right on validation, within the last layer of a network."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STEPS = 50


def calibrate_output(layer: nn.Linear, logits: Tensor, labels: Tensor) -> Tensor:
    """Fit one scale and an offset for each class to the cross-entropy, and put them into the layer.

    Vector scaling with a common scale (Guo et al., ICML 2017). Networks that learn from the logits of networks trained
    crosswise meet others later: those of a network trained on all slices. What these have more or less of a class is
    undone here, on slices that none of them was trained on, so that phase fractions come out right.

    Parameters
    ----------
    layer : nn.Linear
        The one that gives the logits; changed in place.
    logits : (n, n_classes) float
        That it gave for pixels of validation.
    labels : (n,) integer
        Their phases. Without any pixel of a class its offset stays, as there is nothing to learn it from.

    Returns
    -------
    (n_classes + 1,) float
        Scale and offsets.
    """
    seen = torch.bincount(labels, minlength=logits.shape[1]) > 0
    values = torch.zeros(logits.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    fixed, target = logits.double(), labels.long()
    optimizer = torch.optim.LBFGS([values], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def parts() -> tuple[Tensor, Tensor]:
        return values[0].exp(), torch.where(seen, values[1:], 0.0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        scale, offset = parts()
        loss = F.cross_entropy(fixed * scale + offset, target)
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        scale, offset = (one.float() for one in parts())
        layer.weight.mul_(scale)
        layer.bias.mul_(scale).add_(offset)
    return torch.cat([scale[None], offset])
