"""Initial weights of the FIB-SEM networks, by seed."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from cathodeflow.seeds import derived_seed

N = TypeVar("N", bound=nn.Module)
_INITIALISATION = 2**32 - 1


def initialised(make: Callable[[], N], seed: int) -> N:
    """Build a network whose initial weights depend only on the seed; the global random state is unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(derived_seed(seed, _INITIALISATION))
        return make()
