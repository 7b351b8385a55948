"""Connected parts of a phase, found block by block: how much of it is connected, and from which side to which."""

from typing import NamedTuple

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from cathodeflow.fibsem.microstructure.blocks import Block, Labels, over_blocks


class Components(NamedTuple):
    """Connected parts of a phase; voxels are connected by their faces.

    sizes : (n,) int, voxels of each part.
    touches : (n, 3, 2) bool, whether it reaches the first and the last slice, row and column.
    """

    sizes: NDArray[np.int64]
    touches: NDArray[np.bool_]

    @property
    def connected_fraction(self) -> float:
        """Fraction of the phase in its largest connected part; NaN without the phase."""
        return float(self.sizes.max() / self.sizes.sum()) if self.sizes.size else float("nan")

    def percolating_fraction(self, axis: int) -> float:
        """Fraction of the phase in parts that reach from one side of the volume to the other; NaN without the phase."""
        through = self.touches[:, axis].all(1)
        return float(self.sizes[through].sum() / self.sizes.sum()) if self.sizes.size else float("nan")


class _Part(NamedTuple):
    """Parts of a phase in a block: sizes, sides of the volume that they reach, numbers on the sides of the block."""

    sizes: NDArray[np.int64]
    touches: NDArray[np.bool_]
    sides: list[tuple[NDArray[np.int32], NDArray[np.int32]]]


def components(labels: da.Array, phase: int) -> Components:
    """Find the connected parts of a phase.

    Each block is labelled for itself; parts that meet on the sides of blocks are then joined.

    Parameters
    ----------
    labels : (z, y, x) dask array of uint8
    phase : int
        Class index.
    """
    shape = labels.shape

    def label(part: Labels, block: Block) -> _Part:
        numbers, n = ndimage.label(part == phase)
        sizes = np.bincount(numbers.ravel(), minlength=n + 1)[1:].astype(np.int64)
        touches, sides = np.zeros((n, 3, 2), np.bool_), []
        for axis in range(3):
            ends = tuple(np.array(numbers.take(k, axis), np.int32) for k in (0, -1))
            sides.append((ends[0], ends[1]))
            for k, reached in enumerate((block.start[axis] == 0, block.stop[axis] == shape[axis])):
                found = np.unique(ends[k]) if reached else np.empty(0, np.int32)
                touches[found[found > 0] - 1, axis, k] = True
        return _Part(sizes, touches, sides)

    sizes, touches, first = [], [], 0
    joined: list[NDArray[np.int64]] = []
    # Last sides of blocks, by axis and the place where the next block begins.
    open_sides: dict[tuple[int, tuple[int, ...]], tuple[NDArray[np.int32], int]] = {}
    for block, part in over_blocks(labels, label):
        for axis, (low, high) in enumerate(part.sides):
            before = open_sides.pop((axis, block.start), None)
            if before is not None:
                both = (before[0] > 0) & (low > 0)
                pairs = np.stack([before[0][both] + (before[1] - 1), low[both] + (first - 1)]).astype(np.int64)
                joined.append(np.unique(pairs, axis=1))
            if block.stop[axis] < shape[axis]:
                place = tuple(block.stop[k] if k == axis else block.start[k] for k in range(3))
                open_sides[axis, place] = (high, first)
        sizes.append(part.sizes)
        touches.append(part.touches)
        first += len(part.sizes)
    pairs = np.concatenate(joined, axis=1) if joined else np.empty((2, 0), np.int64)
    graph = coo_matrix((np.ones(pairs.shape[1], np.bool_), (pairs[0], pairs[1])), shape=(first, first))
    n, number = connected_components(graph, directed=False) if first else (0, np.empty(0, np.int64))
    found = Components(np.zeros(n, np.int64), np.zeros((n, 3, 2), np.bool_))
    np.add.at(found.sizes, number, np.concatenate([*sizes, np.empty(0, np.int64)]))
    np.logical_or.at(found.touches, number, np.concatenate([*touches, np.empty((0, 3, 2), np.bool_)]))
    return found


def percolating(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Voxels of a mask (z, y, x) that are connected to both its first and its last layer along an axis.

    Examples
    --------
    >>> percolating(np.array([[[True, True, True], [True, False, True]]]), 2).tolist()
    [[[True, True, True], [True, False, True]]]
    >>> percolating(np.array([[[True, False, True], [True, False, True]]]), 2).any()
    np.False_
    """
    numbers, n = ndimage.label(mask)
    through = np.intersect1d(numbers.take(0, axis), numbers.take(-1, axis))
    kept = np.zeros(n + 1, np.bool_)
    kept[through[through > 0]] = True
    chosen: NDArray[np.bool_] = kept[numbers]
    return chosen
