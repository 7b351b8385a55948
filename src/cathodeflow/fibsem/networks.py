"""Initial weights of the networks of this technique, by seed."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from cathodeflow.checkpoints import derived_seed

N = TypeVar("N", bound=nn.Module)
_INITIALISATION = 2**32 - 1


def initialised(make: Callable[[], N], seed: int) -> N:
    """Make a network whose initial weights depend on the seed alone; global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(derived_seed(seed, _INITIALISATION))
        return make()
