"""Frames of HDF5 datasets with a frame per chunk, decompressed outside of the HDF5 library.

HDF5 works for one thread at a time, and copies each chunk several times. Chunks as they are stored, decompressed by the
function that its own filter calls, take half the time, and in several threads at once.
"""

import ctypes
import math
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

_BITSHUFFLE = 32008
# Numbers of the filter's compressions, and the functions of its library that decompress them.
_FUNCTIONS = {2: "bshuf_decompress_lz4", 3: "bshuf_decompress_zstd"}
_HEADER = 12
# Elements are shuffled in groups; those of an incomplete one are stored as they are.
_GROUP = 8

Load = Callable[[], NDArray[Any]]


def chunk_reader(dataset: h5py.Dataset) -> Callable[[int], Load] | None:
    """Return a function that reads the chunk of a frame, or None where a frame is not one bitshuffled chunk.

    Returns
    -------
    callable
        Number of a frame to a function that decompresses it, (row, col), in any thread and after the file is closed. It
        raises ValueError if the chunk is damaged.
    """
    chunks, dtype = dataset.chunks, dataset.dtype
    whole = chunks is not None and chunks[-2:] == dataset.shape[-2:] and math.prod(chunks[:-2]) == 1
    if not whole or dataset.is_virtual or dtype.kind not in "iuf" or not dtype.isnative or sys.byteorder != "little":
        return None
    properties = dataset.id.get_create_plist()
    if properties.get_nfilters() != 1:
        return None
    code, _, values, _ = properties.get_filter(0)
    function = _functions().get(values[4]) if code == _BITSHUFFLE and len(values) > 4 else None
    if function is None:
        return None
    shape: tuple[int, int] = dataset.shape[-2:]
    axis = next((axis for axis, length in enumerate(dataset.shape[:-2]) if length != 1), 0)

    def read(number: int) -> Load:
        place = tuple(number if each == axis else 0 for each in range(dataset.ndim))
        if dataset.id.get_chunk_info_by_coord(place).byte_offset is None:
            frame = np.full(shape, dataset.fillvalue, dtype)  # never written
            return lambda: frame
        skipped, stored = dataset.id.read_direct_chunk(place)
        if skipped:
            return lambda: np.frombuffer(stored, dtype).reshape(shape).copy()
        return lambda: _decompressed(stored, shape, dtype, function)

    return read


@cache
def _functions() -> dict[int, Any]:
    """Return the functions of the filter's library by the number of the compression; none where it has none."""
    found: dict[int, Any] = {}
    path = hdf5plugin.get_config().registered_filters.get("bshuf")
    try:
        library = ctypes.CDLL(path) if path else None
        for number, name in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype = ctypes.c_int64
            function.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t]
            found[number] = function
    except (OSError, AttributeError):
        return {}
    return found


def _decompressed(stored: bytes, shape: tuple[int, int], dtype: np.dtype, function: Any) -> NDArray[Any]:
    """Decompress a chunk: 8 bytes with the size of the frame, 4 with that of the blocks, and the blocks."""
    frame = np.empty(shape, dtype)
    size, block = int.from_bytes(stored[:8], "big"), int.from_bytes(stored[8:_HEADER], "big")
    if len(stored) < _HEADER or size != frame.nbytes or not block or block % (_GROUP * dtype.itemsize):
        raise ValueError(f"a chunk of {size} bytes in blocks of {block}, expected {frame.nbytes} bytes")
    content = stored[_HEADER:]
    _require_whole(content, size, block, dtype.itemsize)
    used = function(content, frame.ctypes.data, frame.size, dtype.itemsize, block // dtype.itemsize)
    if used != len(content):
        raise ValueError("a damaged chunk")
    return frame


def _require_whole(content: bytes, size: int, block: int, itemsize: int) -> None:
    """Require that the lengths of all blocks fit the chunk: the library itself would read beyond its end."""
    rest = size % block % (_GROUP * itemsize)
    n_blocks = size // block + (size % block > rest)
    place = 0
    for _ in range(n_blocks):
        place += 4 + int.from_bytes(content[place : place + 4], "big")
        if place > len(content):
            break
    if place + rest != len(content):
        raise ValueError("a truncated or damaged chunk")
