"""Parts of chunked arrays, read so that no chunk is decompressed for each of its slices."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Maximum bytes of chunks that are kept for the next part.
_KEPT = 256 * 2**20


def read_slabs(
    array: Any, chunks: Sequence[int] | None, indices: Iterable[tuple[int | slice, ...]]
) -> Iterator[NDArray[Any]]:
    """Yield the parts of a chunked array at some indices, with the chunks of the last part in memory.

    Parameters
    ----------
    array : h5py.Dataset or zarr.Array
    chunks : sequence of int, optional
        Shape of a chunk; None if the values follow each other.
    indices : iterable of tuple
        As for `cathodeflow.io.raw_format.VolumeReader`.
    """
    kept: tuple[tuple[slice, ...], NDArray[Any]] | None = None
    for index in indices:
        block = _chunks_around(array.shape, chunks, index)
        if chunks is None or math.prod(part.stop - part.start for part in block) * array.dtype.itemsize > _KEPT:
            yield np.asarray(array[index])
            continue
        if kept is None or kept[0] != block:
            kept = block, np.asarray(array[block])
        inner = tuple(
            part if isinstance(part, slice) else part - around.start for part, around in zip(index, block, strict=True)
        )
        yield np.array(kept[1][inner])


def _chunks_around(
    shape: Sequence[int], chunks: Sequence[int] | None, index: tuple[int | slice, ...]
) -> tuple[slice, ...]:
    """Return the smallest block of whole chunks around a part."""
    found = []
    for length, side, part in zip(shape, chunks or [1] * len(shape), index, strict=True):
        if isinstance(part, slice):
            found.append(slice(0, length))
        else:
            start = part // side * side
            found.append(slice(start, min(start + side, length)))
    return tuple(found)
