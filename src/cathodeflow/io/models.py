"""Files of weights and of interrupted trainings; nothing but tensors and plain values is ever unpickled."""

import json
import os
import pickle
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cathodeflow.cluster import is_first_process
from cathodeflow.errors import InputError
from cathodeflow.io.atomic import atomic_path

_Path = str | os.PathLike[str]
# An attribute, not an entry: the file stays a plain state_dict, which other programs load with strict names.
_ATTRIBUTE = "cathodeflow_metadata"
_UNREADABLE = (pickle.UnpicklingError, SafetensorError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError,
               KeyError, AttributeError, IndexError, TypeError, AssertionError)  # fmt: skip


def save_model(path: _Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write weights as a plain state_dict that also carries metadata.

    Parameters
    ----------
    path : path
        Usually `*.pth`.
    weights : mapping of str to Tensor
        A state_dict; written from the CPU.
    metadata : mapping
        What JSON can hold: the arguments of the network, the options of its training.
    """
    state = OrderedDict((name, tensor.detach().cpu().contiguous()) for name, tensor in weights.items())
    setattr(state, _ATTRIBUTE, json.dumps(dict(metadata), sort_keys=True))
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_model(path: _Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights written by `save_model`, or any state_dict saved by torch or safetensors (metadata is empty then).

    Raises
    ------
    InputError
        When the file is missing, damaged, or holds anything but named tensors.
    """
    expected = "weights saved by torch.save(state_dict) or in a .safetensors file"
    state = _load(path, expected)
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(path, "something other than named tensors", expected)
    metadata = json.loads(getattr(state, _ATTRIBUTE, "{}"))
    # Weights saved from a data-parallel model carry its prefix.
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}, metadata


def save_checkpoint(path: _Path, content: Mapping[str, Any]) -> None:
    """Write the state of a training; a process killed while writing leaves the previous one as it was."""
    with atomic_path(path) as temporary:
        torch.save(dict(content), temporary)


def load_checkpoint(path: _Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    InputError
        When the file is missing or damaged.
    """
    expected = "the checkpoint of a training"
    content = _load(path, expected)
    if not isinstance(content, dict):
        raise InputError(path, type(content).__name__, expected)
    return content


def discard_checkpoint(path: _Path) -> None:
    """Remove a checkpoint, and what killed processes left half-written beside it."""
    if not is_first_process():
        return
    path = Path(path)
    path.unlink(missing_ok=True)
    for rest in path.parent.glob(f".{path.name[:80]}.*"):
        shutil.rmtree(rest, ignore_errors=True)


def _load(path: _Path, expected: str) -> Any:
    if not os.path.isfile(path):
        raise InputError(path, "no file", expected)
    try:
        if os.fspath(path).endswith(".safetensors"):
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise InputError(path, f"an unreadable file ({reason})", expected) from None
