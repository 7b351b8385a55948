"""Several networks in one file: those trained crosswise, or all that a method needs."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from cathodeflow.errors import InputError
from cathodeflow.fibsem.architectures import FAMILIES
from cathodeflow.fibsem.idk import PixelNetwork
from cathodeflow.fibsem.local import LCGAR
from cathodeflow.io.models import load_model, restore, save_model


def save_bundle(path: str | os.PathLike[str], networks: Mapping[str, nn.Module], metadata: Mapping[str, Any]) -> None:
    """Write networks by name.

    Parameters
    ----------
    path : path
    networks : mapping
        Global networks (`architectures.FAMILIES`), `PixelNetwork` and `LCGAR`, by names without a dot.
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
    where, kinds = os.fspath(path), metadata.get("networks")
    if not isinstance(kinds, dict) or not all(map(_is_known, kinds.values())):
        raise InputError(where, "a model of something else", "FIB-SEM networks of this program")
    networks = {}
    for name, (kind, architecture) in kinds.items():
        prefix = f"{name}."
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        build = partial(_build, kind, architecture)
        networks[name] = restore(build, own, where=where, expected=f"the weights of the {kind} '{name}'")
    return networks, metadata


def _kinds() -> dict[str, type[nn.Module]]:
    return {kind.__name__: kind for kind in (*FAMILIES.values(), PixelNetwork, LCGAR)}


def _build(kind: str, architecture: Mapping[str, Any]) -> nn.Module:
    return _kinds()[kind](**architecture)


def _is_known(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and entry[0] in _kinds()
