"""Optimizers by name."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from cathodeflow.training.base_options import OptimizerName

_MOMENTUM = 0.9


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    name: OptimizerName,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    exempt: bool = True,
) -> Optimizer:
    """Make an optimizer.

    Parameters
    ----------
    parameters : iterable of Parameter
    name : {"adam", "adamw", "sgd"}
        SGD has Nesterov momentum of 0.9.
    learning_rate : float
    weight_decay : float
        Decoupled for AdamW (Loshchilov and Hutter, ICLR 2019), added to the gradient for Adam and SGD.
    exempt : bool
        Biases and the parameters of normalization layers (at most one axis) do not decay.
    """
    listed = list(parameters)
    # One group, in the order of the network, if all parameters decay: the norm by which gradients are clipped is a sum
    # in the order of the groups.
    groups = [{"params": listed, "weight_decay": weight_decay}]
    if exempt and weight_decay:
        groups = [
            {"params": [parameter for parameter in listed if parameter.ndim > 1], "weight_decay": weight_decay},
            {"params": [parameter for parameter in listed if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=_MOMENTUM, nesterov=True)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, lr=learning_rate)
