"""Sums over the blocks of a volume of labels, each with the voxels around it, so that the blocks change no result."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple, TypeVar

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]
R = TypeVar("R")
#: Voxels around a block: the same along all axes, or those along each.
Halo = int | tuple[int, int, int]

#: Maximum side of a block of large volumes: 16 MB of labels, and some 64 times as much while it is computed.
SIDE = 256
# Blocks that are computed at a time: their results are added before the next ones are read.
_TOGETHER = 16


class Block(NamedTuple):
    """Place of a block.

    start, stop : (3,) int
        Its voxels in the volume.
    before, after : (3,) int
        Number of voxels around it that were read as well, before and after it along each axis.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def inner(self) -> tuple[slice, ...]:
        """The block itself in the voxels that were read."""
        return tuple(slice(b, b + q - p) for b, p, q in zip(self.before, self.start, self.stop, strict=True))


def as_labels(labels: Any) -> da.Array:
    """Return labels (z, y, x) uint8 as a dask array with blocks of at most `SIDE` along each axis.

    Parameters
    ----------
    labels : array or dask array
        (z, y, x), or (y, x) of a single slice; class indices, 255 for voxels without a label.
    """
    array = da.asarray(labels) if isinstance(labels, da.Array) else da.from_array(np.asarray(labels), chunks=SIDE)
    array = array[None] if array.ndim == 2 else array
    array = array.astype(np.uint8) if array.dtype != np.uint8 else array
    side = max(max(lengths) for lengths in array.chunks)
    return array.rechunk(SIDE) if side > SIDE else array


def blocks(labels: da.Array, before: Halo = 0, after: Halo = 0) -> Iterator[tuple[Block, da.Array]]:
    """Yield the blocks of labels with up to so many voxels before and after them, along all axes or along each."""
    edges = [np.concatenate([[0], np.cumsum(lengths)]).tolist() for lengths in labels.chunks]
    wide = [(halo,) * 3 if isinstance(halo, int) else halo for halo in (before, after)]
    for index in product(*(range(len(lengths)) for lengths in labels.chunks)):
        start = tuple(edge[k] for edge, k in zip(edges, index, strict=True))
        stop = tuple(edge[k + 1] for edge, k in zip(edges, index, strict=True))
        low = tuple(max(0, p - halo) for p, halo in zip(start, wide[0], strict=True))
        high = tuple(min(n, q + halo) for q, n, halo in zip(stop, labels.shape, wide[1], strict=True))
        block = Block(
            start,
            stop,
            tuple(p - a for p, a in zip(start, low, strict=True)),
            tuple(b - q for q, b in zip(stop, high, strict=True)),
        )
        yield block, labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]


def over_blocks(
    labels: da.Array, function: Callable[[Labels, Block], R], *, before: Halo = 0, after: Halo = 0
) -> Iterator[tuple[Block, R]]:
    """Apply a function to all blocks, some at a time, with the scheduler of Dask."""
    waiting: list[tuple[Block, Any]] = []
    for block, part in blocks(labels, before, after):
        waiting.append((block, dask.delayed(function)(part, block)))
        if len(waiting) == _TOGETHER:
            yield from _computed(waiting)
            waiting = []
    yield from _computed(waiting)


def _computed(waiting: Sequence[tuple[Block, Any]]) -> Iterator[tuple[Block, Any]]:
    if waiting:
        found = dask.compute(*(task for _, task in waiting))
        yield from zip((block for block, _ in waiting), found, strict=True)


def count_phases(labels: da.Array, n_classes: int) -> NDArray[np.int64]:
    """Count the voxels of each class in each slice: (z, n_classes); voxels without a label do not count.

    Examples
    --------
    >>> count_phases(as_labels(np.array([[[0, 1]], [[1, 1]]])), 2).tolist()
    [[1, 1], [0, 2]]
    """

    def count(part: Labels, block: Block) -> NDArray[np.int64]:
        return np.stack([np.bincount(image.ravel(), minlength=256)[:n_classes] for image in part])

    total = np.zeros((labels.shape[0], n_classes), np.int64)
    for block, counts in over_blocks(labels, count):
        total[block.start[0] : block.stop[0]] += counts
    return total


def present(part: Labels, n_classes: int) -> list[int]:
    """Classes that occur in some labels."""
    return [int(value) for value in np.flatnonzero(np.bincount(part.ravel(), minlength=256)[:n_classes])]
