"""Several networks in one file: a network with its cross-fitted copies, or all networks of a method."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from cathodeflow.errors import InputError
from cathodeflow.fibsem.architectures import FAMILIES
from cathodeflow.fibsem.idk import PixelNetwork
from cathodeflow.fibsem.local import LCGAR
from cathodeflow.fibsem.local_baselines import LocalUNet, WindowResNet
from cathodeflow.io.models import load_model, restore, save_model


def save_bundle(path: str | os.PathLike[str], networks: Mapping[str, nn.Module], metadata: Mapping[str, Any]) -> None:
    """Write networks by name.

    Parameters
    ----------
    path : path
    networks : mapping
        Global networks (`architectures.FAMILIES`), `PixelNetwork` and local models, by names without a dot.
    metadata : mapping
        JSON data. `networks`, the kind and architecture of each network, is added.
    """
    weights = {
        f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()
    }
    kinds = {name: [type(network).__name__, network.architecture] for name, network in networks.items()}
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
        The file is missing, damaged or has other content.
    """
    weights, metadata = load_model(path)
    where, kinds = os.fspath(path), metadata.get("networks")
    if not isinstance(kinds, dict) or not all(map(_is_known, kinds.values())):
        raise InputError(where, "another model", "FIB-SEM networks of Cathodeflow")
    networks = {}
    for name, (kind, architecture) in kinds.items():
        prefix = f"{name}."
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        build = partial(_build, kind, architecture)
        networks[name] = restore(build, own, where=where, expected=f"the weights of the {kind} '{name}'")
    return networks, metadata


def _kinds() -> dict[str, type[nn.Module]]:
    return {kind.__name__: kind for kind in (*FAMILIES.values(), PixelNetwork, LCGAR, WindowResNet, LocalUNet)}


def _build(kind: str, architecture: Mapping[str, Any]) -> nn.Module:
    given = dict(architecture)
    if "edges" in given:  # in files of earlier versions
        given["padding"] = {"zero": "zeros", "seen": "image"}[given.pop("edges")]
    # Not in files of earlier versions, either.
    if kind == "UNet":
        given.setdefault("normalization", "batch")
    if kind == "SmpNetwork":
        given.setdefault("reduction", 1)
    return _kinds()[kind](**given)


def _is_known(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and entry[0] in _kinds()
