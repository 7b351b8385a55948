"""Opening Zarr stores, with errors of one line."""

import math
import os
from typing import Any

import zarr

from cathodeflow.errors import InputError
from cathodeflow.io.guard import MAX_PIECE, guarded
from cathodeflow.io.manifests import (
    check_store,
    locate,
)

LEVEL = "0"

# A store of others may lack files where all values are the same. Of more files than this, one in so many must exist:
# a damaged shape can stand for billions of files, each of which would be looked for.
_MAX_ABSENT, _MOST_ABSENT = 2**12, 64


def open_array(path: str | os.PathLike[str]) -> zarr.Array:
    """Open a store to read parts of it.

    Raises
    ------
    InputError
        As in `volumes.read_volume`.
    """
    store, manifest = locate(path)
    if os.path.exists(manifest):
        check_store(store, manifest)
    return array_of(store, *open_level(store))


def open_store(path: str | os.PathLike[str]) -> zarr.Group | zarr.Array:
    """Open a store of any program; if there is a manifest, the store must have exactly its files.

    Raises
    ------
    InputError
        There is no such store, or files of it are missing, changed or added.
    """
    store, manifest = locate(path)
    if os.path.exists(manifest):
        check_store(store, manifest)
    return open_level(store)[0]


def open_array_at(path: str | os.PathLike[str], array: Any) -> zarr.Array:
    """Return an array of a store if it has only numbers and each chunk fits in memory.

    Raises
    ------
    InputError
        It does not.
    """
    return array_of(os.fspath(path), array, "")


def open_level(store: str) -> tuple[zarr.Group | zarr.Array, str]:
    """Open a store, and name the array of its full resolution."""
    if not os.path.isdir(store):
        raise InputError(store, "a file" if os.path.exists(store) else "no such store", "a Zarr store")
    with guarded(store, "a readable Zarr store"):
        group = zarr.open(os.path.abspath(store), mode="r")
        ome = group.attrs.get("ome", group.attrs)
    try:
        return group, str(ome["multiscales"][0]["datasets"][0]["path"])
    except (KeyError, IndexError, TypeError):
        return group, LEVEL


def array_of(store: str, group: zarr.Group | zarr.Array, level: str) -> zarr.Array:
    """Return the array of a store if it has only numbers and each chunk fits in memory."""
    with guarded(store, "a readable Zarr array"):
        array = group[level] if isinstance(group, zarr.Group) else group
        if not isinstance(array, zarr.Array):
            raise InputError(store, f"no array {level}", "an array")
        if array.dtype.kind not in "biufc":
            raise InputError(store, f"values of type {array.dtype}", "numbers")
        codecs = [*(getattr(array.metadata, "filters", None) or ()), getattr(array.metadata, "compressor", None)]
        if any(getattr(codec, "codec_id", "") == "pickle" for codec in codecs):
            raise InputError(store, "pickled objects", "numbers")
        blocks = array.shards or array.chunks
        if min((*blocks, *array.chunks, *array.shape), default=0) < 1:
            raise InputError(store, f"{array.shape} values in chunks of {array.chunks}", "sides of at least 1")
        if math.prod(blocks) * array.dtype.itemsize > MAX_PIECE:
            raise InputError(store, f"files of {blocks} values", f"at most {MAX_PIECE} bytes")
        n_files = math.prod(-(-n // side) for n, side in zip(array.shape, blocks, strict=True))
        if n_files > _MAX_ABSENT and not _has_files(store, n_files // _MOST_ABSENT):
            raise InputError(store, f"metadata of {n_files} files, of which few exist", "a complete Zarr store")
        return array


def _has_files(store: str, count: int) -> bool:
    """Whether a store has at least so many files."""
    for _, _, names in os.walk(store):
        count -= len(names)
        if count <= 0:
            return True
    return False
