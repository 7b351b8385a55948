"""ONNX graphs of networks: in files of their own, and inside model files, where they can be read without torch."""

import base64
import binascii
import io
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.atomic import atomic_path
from cathodeflow.io.guard import guarded

# Name of the graph in a model file, a ZIP archive with a single folder.
_ENTRY = "network.onnx"
_EXPECTED = "a network as ONNX, or a model file"


def write_graph(path: str | os.PathLike[str], graph: bytes) -> None:
    """Write a graph to a file of its own."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(graph)


def add_graph(path: str | os.PathLike[str], graph: bytes) -> None:
    """Add a graph to a model file that torch has written; torch itself ignores it."""
    with zipfile.ZipFile(path, "a") as archive:
        # Without a time of writing, so that the same network gives the same file.
        folder = archive.namelist()[0].partition("/")[0]
        archive.writestr(zipfile.ZipInfo(f"{folder}/{_ENTRY}"), graph)


def read_graph(path: str | os.PathLike[str]) -> bytes | None:
    """Read the graph of a file; None of a model file without one.

    Raises
    ------
    InputError
        The file is missing or damaged.
    """
    if not os.path.isfile(path):
        raise InputError(path, "no such file", _EXPECTED)
    with guarded(path, _EXPECTED):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if broken := archive.testzip():
                    raise InputError(path, f"a damaged part {broken}", _EXPECTED)
                entry = next((name for name in archive.namelist() if name.endswith(f"/{_ENTRY}")), None)
                return archive.read(entry) if entry else None
        if os.fspath(path).endswith(".onnx"):
            with open(path, "rb") as file:
                return file.read()
    return None


def arrays_to_text(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return arrays as a text, for the metadata of a graph."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return base64.b64encode(buffer.getvalue()).decode()


def arrays_from_text(text: str, where: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read what `arrays_to_text` made.

    Raises
    ------
    InputError
        The text is something else.
    """
    try:
        with np.load(io.BytesIO(base64.b64decode(text, validate=True)), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (binascii.Error, ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(where, "damaged metadata", _EXPECTED) from error
