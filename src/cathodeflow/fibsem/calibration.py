"""Calibration of logits on the validation set, within the last layer of a network."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STEPS = 50


def calibrate_output(layer: nn.Linear, logits: Tensor, labels: Tensor) -> Tensor:
    """Fit one scale, and one offset for each class, by cross-entropy, and fold them into the layer.

    Vector scaling with a common scale (Guo et al., ICML 2017). A local network is trained on out-of-fold logits, but
    applied to the logits of a network that was trained on all slices. A resulting bias of the classes is removed here,
    on slices that no network was trained on, so that phase fractions are unbiased.

    Parameters
    ----------
    layer : nn.Linear
        Output layer; changed in place.
    logits : (n, n_classes) float
        Its output for pixels of the validation set.
    labels : (n,) integer
        Reference classes of these pixels. A class without pixels keeps its offset.

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
        scale, offset = (part.float() for part in parts())
        layer.weight.mul_(scale)
        layer.bias.mul_(scale).add_(offset)
    return torch.cat([scale[None], offset])
