"""Exponential moving average (EMA) of a network's weights."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Copy a network's weights and buffers to the CPU."""
    return copy.deepcopy({name: value.detach().cpu() for name, value in model.state_dict().items()})


class ExponentialMovingAverage:
    """Exponential moving average of a model's weights and buffers over the training steps; a decay of 0 disables it.

    Parameters
    ----------
    model : nn.Module
        Model that is trained.
    decay : float
        Factor between the weights of successive steps, in [0, 1).

    Notes
    -----
    Checkpoints store `state`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self.state: dict[str, Any] = {**weights_of(model), "steps": 0} if decay else {}

    def update(self) -> None:
        """Update the average after a step; in the first steps it covers the last tenth of the steps."""
        if not self._decay:
            return
        self.state["steps"] += 1
        fraction = max(1 - self._decay, 10 / (9 + self.state["steps"]))
        for name, value in self._model.state_dict().items():
            old = self.state[name] = self.state[name].to(value.device)
            if value.is_floating_point():
                old.lerp_(value.detach(), fraction)
            else:
                old.copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the model, and restore the trained weights at the end of the block."""
        if not self._decay:
            yield
            return
        before = weights_of(self._model)
        self._model.load_state_dict({name: value for name, value in self.state.items() if name != "steps"})
        try:
            yield
        finally:
            self._model.load_state_dict(before)
