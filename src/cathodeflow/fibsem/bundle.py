"""Several networks in one file: those trained crosswise, or all that a method needs."""

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from cathodeflow.errors import InputError
from cathodeflow.fibsem.idk import PixelNetwork
from cathodeflow.fibsem.local import LCGAR
from cathodeflow.fibsem.unet import UNet
from cathodeflow.io.models import load_model, save_model

_KINDS = {kind.__name__: kind for kind in (UNet, PixelNetwork, LCGAR)}


def save_bundle(path: str | os.PathLike[str], networks: Mapping[str, nn.Module], metadata: Mapping[str, Any]) -> None:
    """Write networks by name.

    Parameters
    ----------
    path : path
    networks : mapping
        `UNet`, `PixelNetwork` and `LCGAR`, by names without a dot.
    metadata : mapping
        What JSON can hold. `networks`, the kind and architecture of each, is added.
    """
    weights = {f"{name}.{key}": value for name, one in networks.items() for key, value in one.state_dict().items()}
    kinds = {name: [type(one).__name__, one.architecture] for name, one in networks.items()}
    save_model(path, weights, {**metadata, "networks": kinds})


def load_bundle(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `save_bundle` wrote.

    Returns
    -------
    networks : dict of nn.Module
        On the CPU, in evaluation mode.
    metadata : dict

    Raises
    ------
    InputError
        The file is missing, damaged or holds something else.
    """
    weights, metadata = load_model(path)
    kinds = metadata.get("networks")
    if not isinstance(kinds, dict) or not all(kind in _KINDS for kind, _ in kinds.values()):
        raise InputError(os.fspath(path), "a model of something else", "FIB-SEM networks of this program")
    networks = {}
    for name, (kind, architecture) in kinds.items():
        network = _KINDS[kind](**architecture)
        prefix = f"{name}."
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        try:
            network.load_state_dict(own)
        except RuntimeError as error:
            raise InputError(os.fspath(path), f"other weights than the {kind} '{name}' has", "a whole file") from error
        networks[name] = network.eval()
    return networks, metadata
