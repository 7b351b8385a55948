"""Chord lengths: the runs of a phase along the lines of voxels."""

from typing import NamedTuple

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from cathodeflow.fibsem.microstructure.blocks import Block, Labels, over_blocks

# Lines of a block along each of the other two axes.
_LINES = 256


class Chords(NamedTuple):
    """Chords of all phases along an axis.

    histogram : (n_classes, n + 1) int
        Number of chords of each length [voxel] that end inside the volume on both sides.
    mean : (n_classes,) float
        Mean length of all chords [voxel]: voxels of the phase over half the number of the chords' ends, which the edges
        of the volume do not bias; NaN without an end.
    """

    histogram: NDArray[np.int64]
    mean: NDArray[np.float64]


def chord_lengths(labels: da.Array, axis: int, n_classes: int) -> Chords:
    """Measure the chords of all phases along an axis.

    Parameters
    ----------
    labels : (z, y, x) dask array of uint8
    axis : int
    n_classes : int

    Examples
    --------
    >>> lines = da.from_array(np.array([[[0, 1, 1, 0, 1]]], np.uint8))
    >>> chords = chord_lengths(lines, 2, 2)
    >>> chords.histogram.tolist(), chords.mean.tolist()
    ([[0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]], [1.3333333333333333, 2.0])
    """
    n = labels.shape[axis]

    def count(part: Labels, block: Block) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        lines = np.ascontiguousarray(np.moveaxis(part, axis, 2)).reshape(-1, n)
        changes = np.flatnonzero((lines[:, 1:] != lines[:, :-1]).ravel())
        line, place = np.divmod(changes, max(n - 1, 1))
        before, after = lines[line, place], lines[line, place + 1]
        ends = np.bincount(before, minlength=256)[:n_classes] + np.bincount(after, minlength=256)[:n_classes]
        whole = line[1:] == line[:-1]
        length, phase = (place[1:] - place[:-1])[whole], after[:-1][whole].astype(np.int64)
        known = phase < n_classes
        found = np.bincount(phase[known] * (n + 1) + length[known], minlength=n_classes * (n + 1))
        voxels = np.bincount(lines.ravel(), minlength=256)[:n_classes]
        return found.reshape(n_classes, n + 1), ends, voxels

    sides = {k: -1 if k == axis else min(_LINES, labels.shape[k]) for k in range(3)}
    histogram = np.zeros((n_classes, n + 1), np.int64)
    ends, voxels = np.zeros(n_classes, np.int64), np.zeros(n_classes, np.int64)
    for _, (found, own_ends, own_voxels) in over_blocks(labels.rechunk(sides), count):
        histogram += found
        ends += own_ends
        voxels += own_voxels
    mean = np.divide(2.0 * voxels, ends, out=np.full(n_classes, np.nan), where=ends > 0)
    return Chords(histogram, mean)
