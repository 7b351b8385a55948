"""Areas of the interfaces between phases, without the steps of the voxels."""

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from cathodeflow.fibsem.microstructure.blocks import Block, Labels, over_blocks, present

Floats = NDArray[np.float32]

# Standard deviation and radius of the weights around a voxel that its normal is found with [voxel].
_SIGMA, _RADIUS = 1.5, 5


def interface_areas(labels: da.Array, size: Sequence[float], n_classes: int) -> NDArray[np.float64]:
    """Compute the area of the interface of each pair of phases, per volume of the sample.

    The faces between voxels of two phases are added up, each times the cosine of the angle between the face and the
    interface, which is what the steps of a digital surface add to its area [1]_. The normal of the interface is the
    direction of the steepest change of the difference between the two phases, by a linear regression with Gaussian
    weights (sigma 1.5 voxels) that ends at the edges of the volume. Planes of all orientations, spheres and films of
    a single voxel get their area; sharp edges are rounded.

    Parameters
    ----------
    labels : (z, y, x) dask array of uint8
    size : (3,)
        Size of a voxel along z, y, x [length].
    n_classes : int

    Returns
    -------
    (n_classes, n_classes) float64
        Symmetric, with a diagonal of 0 [1/length]. The edges of the volume are no interface. For a single slice, the
        length of the boundaries per area.

    References
    ----------
    .. [1] D. Coeurjolly, F. Flin, O. Teytaud, L. Tougne, Multigrid convergence and surface area estimation, LNCS 2616
       (2003) 101, doi:10.1007/3-540-36586-9_7
    """

    def areas(part: Labels, block: Block) -> NDArray[np.float64]:
        return _block_areas(part, block, np.asarray(size, np.float64), n_classes)

    total = np.zeros((n_classes, n_classes))
    for _, found in over_blocks(labels, areas, before=_RADIUS + 1, after=_RADIUS + 1):
        total += found
    return (total + total.T) / float(np.prod(labels.shape))


def _block_areas(part: Labels, block: Block, size: NDArray[np.float64], n_classes: int) -> NDArray[np.float64]:
    """Sum, over the faces after the voxels of a block, the cosines over the voxel size along the axis of the face."""
    total = np.zeros((n_classes, n_classes))
    phases = present(part, n_classes)
    if len(phases) < 2:
        return total
    place = np.full(256, -1, np.int64)
    place[phases] = range(len(phases))
    edges = [_regression(side) for side in part.shape]
    weights = np.exp(-0.5 * (np.arange(_RADIUS + 1) / _SIGMA) ** 2).astype(np.float32)
    inner = np.array([[one.start, one.stop] for one in block.inner])
    found = np.zeros((len(phases), len(phases)))
    _add_faces(part, place, inner, weights, *edges, size, found)
    total[np.ix_(phases, phases)] = found
    return total


def _regression(side: int) -> Floats:
    """Mean and one over the variance of the distances that a regression has inside a volume: (2, side)."""
    steps = np.arange(-_RADIUS, _RADIUS + 1).astype(np.float64)
    weights = np.exp(-0.5 * (steps / _SIGMA) ** 2)
    sums = [correlate1d(np.ones(side), weights * steps**power, mode="constant") for power in range(3)]
    centre = sums[1] / sums[0]
    variance = sums[2] / sums[0] - centre**2
    return np.stack([centre, np.where(variance > 0, 1 / np.where(variance > 0, variance, 1), 0)]).astype(np.float32)


# The kernels go through a block slice by slice and keep what the regression needs of the slices around: memory does not
# grow with the block. Every value is computed in the same order whatever the block, so that blocks change nothing.


@njit(nogil=True, cache=True)
def _add_faces(
    part: Any, place: Any, inner: Any, weights: Any, z_edge: Any, y_edge: Any, x_edge: Any, size: Any, total: Any
) -> None:
    """Add the faces of a block to `total`, by the pair of phases with the smaller one first."""
    depth, rows, cols = part.shape
    n = total.shape[0]
    radius = weights.size - 1
    kept = 2 * radius + 1
    # Sums along rows and columns of a slice: weights along both, moment along y, moment along x.
    sums = np.empty((kept, n, 3, rows, cols), np.float32)
    slopes = np.zeros((2, n, 3, rows, cols), np.float32)
    line = np.zeros(cols + 2 * radius, np.float32)
    along = np.empty((2, rows, cols), np.float32)
    first, last = max(inner[0, 0] - radius, 0), min(inner[0, 1] + radius, depth - 1)
    for z in range(first, last + radius + 1):
        if z <= last:
            for k in range(n):
                _slice_sums(part[z], place, k, weights, line, along, sums[z % kept, k])
        middle = z - radius
        if middle < inner[0, 0] or middle > min(inner[0, 1], depth - 1):
            continue
        own = slopes[middle % 2]
        for k in range(n):
            _slice_slopes(sums, k, middle, depth, weights, z_edge[:, middle], y_edge, x_edge, own[k])
        if middle > inner[0, 0]:
            before = slopes[(middle - 1) % 2]
            _slice_faces(part[middle - 1], part[middle], before, own, 0, 0, 0, place, inner, size, total)
        if middle < inner[0, 1]:
            _slice_faces(part[middle], part[middle], own, own, 1, 1, 0, place, inner, size, total)
            _slice_faces(part[middle], part[middle], own, own, 2, 0, 1, place, inner, size, total)


@njit(nogil=True, cache=True)
def _slice_sums(image: Any, place: Any, phase: Any, weights: Any, line: Any, along: Any, out: Any) -> None:
    """Weighted sums and moments of a phase along the rows and columns of a slice; voxels outside count as 0."""
    rows, cols = image.shape
    radius = weights.size - 1
    for y in range(rows):
        for x in range(cols):
            line[radius + x] = place[image[y, x]] == phase
        plain, moment = along[0, y], along[1, y]
        own = line[radius : radius + cols]
        for x in range(cols):
            plain[x] = own[x]
            moment[x] = 0
        for t in range(1, radius + 1):
            weight, lever = weights[t], weights[t] * np.float32(t)
            low, high = line[radius - t : radius - t + cols], line[radius + t : radius + t + cols]
            for x in range(cols):
                plain[x] += weight * (low[x] + high[x])
                moment[x] += lever * (high[x] - low[x])
    for y in range(rows):
        both, by_y, by_x = out[0, y], out[1, y], out[2, y]
        plain, moment = along[0, y], along[1, y]
        for x in range(cols):
            both[x] = plain[x]
            by_y[x] = 0
            by_x[x] = moment[x]
        for t in range(1, radius + 1):
            weight, lever = weights[t], weights[t] * np.float32(t)
            for sign in (-1, 1):
                near = y + sign * t
                if 0 <= near < rows:
                    turned = np.float32(sign) * lever
                    plain, moment = along[0, near], along[1, near]
                    for x in range(cols):
                        both[x] += weight * plain[x]
                        by_y[x] += turned * plain[x]
                        by_x[x] += weight * moment[x]


@njit(nogil=True, cache=True)
def _slice_slopes(
    sums: Any, phase: Any, middle: Any, depth: Any, weights: Any, z_edge: Any, y_edge: Any, x_edge: Any, out: Any
) -> None:
    """Slopes of a phase along z, y, x in a slice, of the weighted linear regression around every voxel."""
    kept, _, _, rows, cols = sums.shape
    radius = weights.size - 1
    mean = np.empty(cols, np.float32)
    for y in range(rows):
        by_z, by_y, by_x = out[0, y], out[1, y], out[2, y]
        for x in range(cols):
            mean[x] = 0
            by_z[x] = 0
            by_y[x] = 0
            by_x[x] = 0
        for near in range(max(middle - radius, 0), min(middle + radius + 1, depth)):
            step = near - middle
            weight = weights[abs(step)]
            lever = weight * np.float32(step)
            own = sums[near % kept, phase]
            both, moment_y, moment_x = own[0, y], own[1, y], own[2, y]
            for x in range(cols):
                mean[x] += weight * both[x]
                by_z[x] += lever * both[x]
                by_y[x] += weight * moment_y[x]
                by_x[x] += weight * moment_x[x]
        for x in range(cols):
            by_z[x] = (by_z[x] - z_edge[0] * mean[x]) * z_edge[1]
            by_y[x] = (by_y[x] - y_edge[0, y] * mean[x]) * y_edge[1, y]
            by_x[x] = (by_x[x] - x_edge[0, x] * mean[x]) * x_edge[1, x]


@njit(nogil=True, cache=True)
def _slice_faces(
    first: Any, second: Any, before: Any, after: Any, axis: Any, down: Any, right: Any, place: Any, inner: Any,
    size: Any, total: Any,
) -> None:  # fmt: skip
    """Add the faces between voxels of a slice and those after them along an axis, in this slice or in the next one."""
    rows, cols = first.shape
    for y in range(inner[1, 0], min(inner[1, 1], rows - down)):
        for x in range(inner[2, 0], min(inner[2, 1], cols - right)):
            one, other = place[first[y, x]], place[second[y + down, x + right]]
            if one == other or one < 0 or other < 0:
                continue
            # Normal of the interface: where `one` becomes less.
            square, ahead = 0.0, 0.0
            for k in range(3):
                change = (
                    before[other, k, y, x] - before[one, k, y, x]
                    + after[other, k, y + down, x + right] - after[one, k, y + down, x + right]
                ) / size[k]  # fmt: skip
                square += change * change
                if k == axis:
                    ahead = change
            cosine = ahead / np.sqrt(square) if square > 0 else 1.0
            total[min(one, other), max(one, other)] += cosine / size[axis]
