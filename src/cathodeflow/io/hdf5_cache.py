"""Frame caches of hexrd in HDF5 (.fch5): the pixels above a threshold of each frame.

`data` (n, 1) and `indices` (n, 2) hold values, rows and columns of all frames one after another, not always in their
order; `frame_ids` (2 * frames,) where each frame begins and ends in them (hexrd, `imageseries.save`).
"""

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.hdf5 import find_node, require_plain
from cathodeflow.io.raw_format import FrameHeader

_VERSION = "HEXRD_FRAMECACHE_VERSION"
_MEMBERS = ("shape", "nframes", "dtype", "data", "indices", "frame_ids")


def find_cache(file: h5py.File, name: str | None) -> h5py.Group | None:
    """Return the group of a frame cache: the one that is named, or the top of the file; None if it is no cache."""
    group = find_node(file, name or "/")
    return group if isinstance(group, h5py.Group) and _VERSION in group.attrs else None


def cache_header(cache: h5py.Group, path: str) -> FrameHeader:
    """Read number, shape and type of the frames of a cache.

    Raises
    ------
    InputError
        The cache is of another version, or its members do not fit each other.
    """
    where = f"{path}::{cache.name}"
    if cache.attrs[_VERSION] != 1:
        raise InputError(where, f"a frame cache of version {cache.attrs[_VERSION]}", "version 1")
    linked = {name: find_node(cache.file, f"{cache.name}/{name}") for name in _MEMBERS}
    nodes = {name: node for name, node in linked.items() if isinstance(node, h5py.Dataset)}
    if missing := [name for name in _MEMBERS if name not in nodes]:
        raise InputError(where, f"no {missing[0]}", f"a hexrd frame cache with {', '.join(_MEMBERS)}")
    for name in ("data", "indices", "frame_ids"):
        require_plain(nodes[name], f"{path}::{nodes[name].name}")
    n_frames, shape = int(nodes["nframes"][()]), tuple(int(side) for side in nodes["shape"][()])
    data, indices, ranges = (nodes[name] for name in ("data", "indices", "frame_ids"))
    expected = f"rows, columns and values of {n_frames} 2-D frames"
    if len(shape) != 2 or ranges.size != 2 * n_frames or indices.shape != (data.size, 2) or data.ndim > 2:
        found = f"shape {shape}, frame_ids {ranges.shape}, indices {indices.shape}, data {data.shape}"
        raise InputError(where, found, expected)
    ends = _ranges(cache)
    if n_frames and (np.any(ends[:, 0] > ends[:, 1]) or ends.max() > data.size):
        raise InputError(where, f"frame_ids beyond {data.size} values", expected)
    text = nodes["dtype"][()]
    dtype = np.dtype(text.decode() if isinstance(text, bytes) else str(text))
    return FrameHeader(n_frames, (shape[0], shape[1]), dtype, cache.name)


def read_cache(cache: h5py.Group, header: FrameHeader, path: str, indices: range) -> Iterator[NDArray[Any]]:
    """Yield the frames `indices` of a cache.

    Raises
    ------
    InputError
        A pixel lies outside the frame.
    """
    ranges = _ranges(cache)
    for index in indices:
        start, end = map(int, ranges[index])
        at = cache["indices"][start:end]
        if len(at) and (at.min() < 0 or np.any(at.max(axis=0) >= header.shape)):
            raise InputError(f"{path}, frame {index}", "pixels outside the frame", f"indices within {header.shape}")
        frame = np.zeros(header.shape, header.dtype)
        frame[at[:, 0], at[:, 1]] = cache["data"][start:end].reshape(-1)
        yield frame


def _ranges(cache: h5py.Group) -> NDArray[np.int64]:
    return np.asarray(cache["frame_ids"][()]).reshape(-1, 2).astype(np.int64)
