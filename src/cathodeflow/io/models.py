"""Model weights and training checkpoints; only tensors and plain values are ever unpickled."""

import json
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cathodeflow.errors import InputError
from cathodeflow.io.atomic import atomic_path, is_first_process, remove_remains
from cathodeflow.io.guard import guarded
from cathodeflow.io.onnx_graphs import add_graph

_Path = str | os.PathLike[str]
# An attribute, not an entry, so that the file is a plain state_dict, which other programs can load with strict names.
_ATTRIBUTE = "cathodeflow_metadata"


def save_model(
    path: _Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any], *, graph: bytes | None = None
) -> None:
    """Write weights as a plain state_dict, with metadata.

    Parameters
    ----------
    path : path
        Usually `*.pth`.
    weights : mapping of str to Tensor
        A state_dict; written from the CPU.
    metadata : mapping
        JSON data: the arguments of the network, the options of its training.
    graph : bytes, optional
        The network as ONNX, for `io.onnx_graphs.read_graph`.
    """
    state = OrderedDict((name, tensor.detach().cpu().contiguous()) for name, tensor in weights.items())
    setattr(state, _ATTRIBUTE, json.dumps(dict(metadata), sort_keys=True))
    with atomic_path(path) as temporary:
        torch.save(state, temporary)
        if graph is not None:
            add_graph(temporary, graph)


def load_model(path: _Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights written by `save_model`, or any state_dict saved by torch or safetensors (with empty metadata).

    Raises
    ------
    InputError
        The file is missing or damaged, or has other content than named tensors.
    """
    expected = "weights saved by torch.save(state_dict) or in a .safetensors file"
    state = _load(path, expected)
    if not isinstance(state, Mapping) or not state or not all(map(_is_plain, state.values())):
        raise InputError(path, "something other than named tensors", expected)
    with guarded(path, "metadata in JSON"):
        metadata = json.loads(getattr(state, _ATTRIBUTE, "{}"))
    if not isinstance(metadata, dict):
        raise InputError(path, f"metadata of type {type(metadata).__name__}", "a mapping")
    # Weights saved from a data-parallel model have its prefix.
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}, metadata


def restore(build: Callable[[], nn.Module], weights: Mapping[str, Tensor], *, where: _Path, expected: str) -> nn.Module:
    """Build the network that a file describes, and load its weights.

    The network is first built without memory, so that a description with another size than the weights costs no memory.

    Parameters
    ----------
    build : callable
        Builds the network, with any weights.
    weights : mapping of str to Tensor
        The complete state_dict.
    where, expected
        File and expectation in errors.

    Returns
    -------
    nn.Module
        In evaluation mode.

    Raises
    ------
    InputError
        The description is invalid, or names and shapes of the weights differ from those of the network.
    """
    with guarded(where, expected):
        with torch.device("meta"):
            shapes = {name: value.shape for name, value in build().state_dict().items()}
        given = {name: value.shape for name, value in weights.items()}
        for name in [*shapes, *given]:
            if shapes.get(name) != given.get(name):
                found, needed = (tuple(known[name]) if name in known else "none" for known in (given, shapes))
                raise InputError(where, f"{name} of shape {found}", f"{needed}: {expected}")
        network = build()
        network.load_state_dict(dict(weights))
        return network.eval()


def save_checkpoint(path: _Path, content: Mapping[str, Any]) -> None:
    """Write the state of a training; if the process is killed while writing, the previous state is kept."""
    with atomic_path(path) as temporary:
        torch.save(dict(content), temporary)


def load_checkpoint(path: _Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    InputError
        The file is missing or damaged.
    """
    expected = "a training checkpoint"
    content = _load(path, expected)
    if not isinstance(content, dict):
        raise InputError(path, type(content).__name__, expected)
    return content


def discard_checkpoint(path: _Path) -> None:
    """Remove a checkpoint, and partial files of killed processes."""
    if not is_first_process():
        return
    Path(path).unlink(missing_ok=True)
    remove_remains(path)


def _load(path: _Path, expected: str) -> Any:
    if not os.path.isfile(path):
        raise InputError(path, "no such file", expected)
    with guarded(path, expected):
        if os.fspath(path).endswith(".safetensors"):
            return load_file(path)
        if zipfile.is_zipfile(path):
            # Torch does not verify the checksums.
            with zipfile.ZipFile(path) as archive:
                large = [entry.filename for entry in archive.infolist() if entry.file_size > os.path.getsize(path)]
                broken = large[0] if large else archive.testzip()
            if broken:
                raise InputError(path, f"a damaged part {broken}", expected)
        content = torch.load(path, map_location="cpu", weights_only=True)
        _require_stored(path, content, expected)
        return content


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_meta or value.is_quantized)


def _require_stored(path: _Path, content: Any, expected: str) -> None:
    """Refuse tensors that repeat few stored values, as `expand` makes them: a small file could fill the memory."""
    if isinstance(content, Mapping | list | tuple):
        for part in content.values() if isinstance(content, Mapping) else content:
            _require_stored(path, part, expected)
    elif isinstance(content, Tensor) and _is_plain(content):
        claimed, stored = content.numel() * content.element_size(), content.untyped_storage().nbytes()
        if claimed > stored:
            shape = tuple(content.shape)
            raise InputError(path, f"a tensor of shape {shape} with {stored} of {claimed} bytes stored", expected)
