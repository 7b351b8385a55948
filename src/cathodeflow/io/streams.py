"""Stores of slices, written slice by slice, several stores at once."""

import math
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray

from cathodeflow.io.volumes import new_volume

# Slices per file, which are held in memory, and side of a chunk [px], which a reader of one slice also reads.
_DEPTH, _SIDE = 8, 128


class NewStore(NamedTuple):
    """A store to write.

    path : path
    shape : tuple of int, of the whole array; its last three axes are (slice, row, col).
    dtype : of the array.
    metadata : dict, further keywords of `volumes.new_volume`: axes, scale, unit, attributes.
    """

    path: str | os.PathLike[str]
    shape: tuple[int, ...]
    dtype: DTypeLike
    metadata: dict[str, Any]


def write_together(stores: Sequence[NewStore], blocks: Iterable[Sequence[NDArray[Any]]]) -> None:
    """Fill stores with blocks of slices in order; either all stores appear or none.

    Parameters
    ----------
    stores : sequence of NewStore
    blocks : iterable of sequences of array (..., slice, row, col)
        One array per store, together all slices. Slightly more slices than one block are in memory at a time.
    """
    with ExitStack() as stack:
        targets = []
        for path, shape, dtype, metadata in stores:
            layout = slice_layout(shape)
            keywords = {"chunks": layout[0], "shards": layout[1], **metadata}
            targets.append(stack.enter_context(new_volume(path, shape, dtype, **keywords)))
        waiting: list[list[NDArray[Any]]] = [[] for _ in targets]
        done = 0
        for block in blocks:
            for parts, slices in zip(waiting, block, strict=True):
                parts.append(slices)
            while sum(part.shape[-3] for part in waiting[0]) >= _DEPTH:
                waiting = [_put(target, parts, done, _DEPTH) for target, parts in zip(targets, waiting, strict=True)]
                done += _DEPTH
        for target, parts in zip(targets, waiting, strict=True):
            if parts:
                _put(target, parts, done, _DEPTH)


def slice_layout(shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of chunks and of files [px] for an array (..., slice, row, col) that is written slice by slice.

    Examples
    --------
    >>> slice_layout((3, 133, 224, 256))
    ((1, 8, 128, 128), (1, 8, 256, 256))
    """
    *leading, depth, rows, cols = shape
    chunk = (min(depth, _DEPTH), min(rows, _SIDE), min(cols, _SIDE))
    whole = [math.ceil(length / side) * side for length, side in zip((rows, cols), chunk[1:], strict=True)]
    ones = (1,) * len(leading)
    return (*ones, *chunk), (*ones, chunk[0], *whole)


def _put(target: zarr.Array, parts: list[NDArray[Any]], start: int, count: int) -> list[NDArray[Any]]:
    """Write the next slices, and return those that are left."""
    joined = np.concatenate(parts, axis=-3) if len(parts) > 1 else parts[0]
    some = joined[..., :count, :, :]
    target[..., start : start + some.shape[-3], :, :] = some.astype(target.dtype, copy=False)
    return [joined[..., count:, :, :]] if joined.shape[-3] > count else []
