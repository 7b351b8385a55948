"""Sums over the faces between phases, compiled for CPUs.

The kernels are serial and release the interpreter lock: blocks are worked on beside each other. They go through a block
slice by slice and keep what the regression needs of the slices around, so that memory does not grow with the block.
Every value is computed in the same order whatever the block, so that blocks change nothing.
"""

from typing import Any

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def add_faces(
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
