"""Local thickness of a film: the diameter of the largest sphere in the phase around each voxel."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage


def local_thickness(mask: NDArray[np.bool_], size: Sequence[float]) -> NDArray[np.float32]:
    """Compute the local thickness of a phase [1]_.

    Spheres have their centres in the voxels or halfway between two of them, so that films of odd and of even numbers of
    voxels both get their thickness; the surface of the phase lies halfway to the next voxel of another one.

    Parameters
    ----------
    mask : (z, y, x) bool
    size : (3,)
        Size of a voxel [length].

    Returns
    -------
    (n,) float32
        Thickness at each voxel of the phase, in the order of `mask.nonzero()` [length]. Empty without a boundary.

    References
    ----------
    .. [1] T. Hildebrand, P. Ruegsegger, J. Microsc. 185 (1997) 67, doi:10.1046/j.1365-2818.1997.1340694.x
    """
    if mask.all() or not mask.any():
        return np.empty(0, np.float32)
    nearest = ndimage.distance_transform_edt(mask, sampling=size, return_distances=False, return_indices=True)
    step = np.asarray(size, np.float64)
    thickness = np.zeros(mask.shape, np.float32)
    _paint(mask, nearest.astype(np.int32), step, thickness)
    return thickness[mask]


@njit(nogil=True, cache=True)
def _paint(mask: Any, nearest: Any, step: Any, thickness: Any) -> None:
    """Give each voxel the largest diameter of the spheres that contain it."""
    shape = mask.shape
    for z in range(shape[0]):
        for y in range(shape[1]):
            for x in range(shape[2]):
                if not mask[z, y, x]:
                    continue
                own = _distance(nearest, z, y, x, 1.0 * z, 1.0 * y, 1.0 * x, step)[0]
                contained = False
                for k in range(13 * 2):
                    # All 26 neighbours: a sphere inside the sphere of one of them adds nothing.
                    code = k if k < 13 else k + 1
                    a, b, c = z + code // 9 - 1, y + code // 3 % 3 - 1, x + code % 3 - 1
                    if min(a, b, c) < 0 or a >= shape[0] or b >= shape[1] or c >= shape[2] or not mask[a, b, c]:
                        continue
                    gap = (((a - z) * step[0]) ** 2 + ((b - y) * step[1]) ** 2 + ((c - x) * step[2]) ** 2) ** 0.5
                    other = _distance(nearest, a, b, c, 1.0 * a, 1.0 * b, 1.0 * c, step)[0]
                    if other >= own + gap - 1e-9:
                        contained = True
                        break
                for axis in range(3):
                    a, b, c = z + (axis == 0), y + (axis == 1), x + (axis == 2)
                    if a >= shape[0] or b >= shape[1] or c >= shape[2] or not mask[a, b, c]:
                        continue
                    middle = 0.5 * (z + a), 0.5 * (y + b), 0.5 * (x + c)
                    first = _distance(nearest, z, y, x, middle[0], middle[1], middle[2], step)
                    second = _distance(nearest, a, b, c, middle[0], middle[1], middle[2], step)
                    radius, half = first if first[0] < second[0] else second
                    if radius >= own + 0.5 * step[axis] - 1e-9:
                        contained = True
                        _sphere(thickness, mask, middle[0], middle[1], middle[2], radius, half, step)
                if not contained:
                    radius, half = _distance(nearest, z, y, x, 1.0 * z, 1.0 * y, 1.0 * x, step)
                    _sphere(thickness, mask, 1.0 * z, 1.0 * y, 1.0 * x, radius, half, step)


@njit(nogil=True, cache=True)
def _distance(nearest: Any, z: int, y: int, x: int, p: float, q: float, r: float, step: Any) -> Any:
    """Distance of a point to the voxel of another phase that is nearest to (z, y, x), and half a voxel that way."""
    d0 = (nearest[0, z, y, x] - p) * step[0]
    d1 = (nearest[1, z, y, x] - q) * step[1]
    d2 = (nearest[2, z, y, x] - r) * step[2]
    length = (d0 * d0 + d1 * d1 + d2 * d2) ** 0.5
    half = 0.5 * max(abs(d0) * step[0], abs(d1) * step[1], abs(d2) * step[2]) / length
    return length, half


@njit(nogil=True, cache=True)
def _sphere(thickness: Any, mask: Any, p: float, q: float, r: float, radius: float, half: float, step: Any) -> None:
    value = 2 * (radius - half)
    low0, high0 = int(np.ceil(p - radius / step[0])), int(np.floor(p + radius / step[0]))
    low1, high1 = int(np.ceil(q - radius / step[1])), int(np.floor(q + radius / step[1]))
    low2, high2 = int(np.ceil(r - radius / step[2])), int(np.floor(r + radius / step[2]))
    for z in range(max(low0, 0), min(high0, mask.shape[0] - 1) + 1):
        for y in range(max(low1, 0), min(high1, mask.shape[1] - 1) + 1):
            for x in range(max(low2, 0), min(high2, mask.shape[2] - 1) + 1):
                inside = ((z - p) * step[0]) ** 2 + ((y - q) * step[1]) ** 2 + ((x - r) * step[2]) ** 2
                if inside < radius * radius and mask[z, y, x] and thickness[z, y, x] < value:
                    thickness[z, y, x] = value
