"""Initial weights by seed, and files, of the networks of this technique."""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from cathodeflow.checkpoints import derived_seed
from cathodeflow.errors import InputError
from cathodeflow.io.models import load_model, save_model

N = TypeVar("N", bound=nn.Module)
_INITIALISATION = 2**32 - 1


def initialised(make: Callable[[], N], seed: int) -> N:
    """Make a network whose initial weights depend on the seed alone; global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(derived_seed(seed, _INITIALISATION))
        return make()


def save_network(path: str | os.PathLike[str], network: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write a `UNet`, `PixelNetwork` or `LCGAR` with all that using it needs.

    Parameters
    ----------
    path : path
    network : nn.Module
    metadata : mapping
        What JSON can hold: classes, threshold, options. `network` and `architecture` are added.
    """
    architecture = {"network": type(network).__name__, "architecture": network.architecture}
    save_model(path, network.state_dict(), {**metadata, **architecture})


def load_network(path: str | os.PathLike[str], kind: type[N]) -> tuple[N, dict[str, Any]]:
    """Read what `save_network` wrote.

    Parameters
    ----------
    path : path
    kind : type
        `UNet`, `PixelNetwork` or `LCGAR`, whichever it must be.

    Returns
    -------
    network : nn.Module
        On the CPU, in evaluation mode.
    metadata : dict
        As it was given, with `network` and `architecture`.

    Raises
    ------
    InputError
        When the file is missing, damaged or holds something else.
    """
    expected = f"a {kind.__name__} of this program"
    weights, metadata = load_model(path)
    if metadata.get("network") != kind.__name__:
        raise InputError(path, f"weights of {metadata.get('network', 'an unnamed network')}", expected)
    try:
        network = kind(**metadata["architecture"])
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(path, lines[min(1, len(lines) - 1)].rstrip(". "), expected) from None
    return network.eval(), metadata
