"""Areas of the interfaces between phases, without the steps of the voxels."""

from collections.abc import Sequence

import dask.array as da
import numpy as np
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
    inner = block.inner
    # Faces of pairs (a < b) along each axis, as indices of the voxel before the face.
    faces: dict[tuple[int, int], list[tuple[int, NDArray[np.int64], NDArray[np.bool_]]]] = {}
    for axis in range(3):
        if part.shape[axis] < 2:
            continue
        first = part[inner]
        after = list(inner)
        after[axis] = slice(inner[axis].start + 1, inner[axis].stop + 1)
        second = part[tuple(after)]
        first = first[tuple(slice(0, n) for n in second.shape)]
        places = np.nonzero((first != second) & (first < n_classes) & (second < n_classes))
        pairs = np.stack([first[places], second[places]]).astype(np.int64)
        flat = np.ravel_multi_index(
            tuple(place + one.start for place, one in zip(places, inner, strict=True)), part.shape
        )
        low, high = pairs.min(0), pairs.max(0)
        for code in np.unique(low * n_classes + high).tolist():
            a, b = divmod(code, n_classes)
            own = (low == a) & (high == b)
            faces.setdefault((a, b), []).append((axis, flat[own], pairs[0, own] == b))
    if not faces:
        return total
    slopes: dict[int, list[Floats]] = {}
    strides = np.array(part.strides) // part.itemsize
    needed = [index for index in present(part, n_classes) if any(index in pair for pair in faces)]
    for index in needed:
        slopes[index] = _slopes(part == index)
    for (a, b), found in faces.items():
        for axis, flat, rising in found:
            normal = np.zeros((3, flat.size))
            for k in range(3):
                for phase, sign in ((a, 0.5), (b, -0.5)):
                    values = slopes[phase][k].reshape(-1)
                    normal[k] += sign * (values[flat] + values[flat + strides[axis]])
                normal[k] /= size[k]
            length = np.sqrt((normal**2).sum(0))
            # Along the axis, `a` becomes less where it comes first.
            cosine = np.where(rising, normal[axis], -normal[axis]) / np.where(length > 0, length, 1)
            total[a, b] += float(np.where(length > 0, cosine, 1).sum()) / size[axis]
    return total


def _slopes(mask: NDArray[np.bool_]) -> list[Floats]:
    """Slopes along z, y, x of the weighted linear regression of a mask around every voxel."""
    steps = np.arange(-_RADIUS, _RADIUS + 1).astype(np.float64)
    weights = np.exp(-0.5 * (steps / _SIGMA) ** 2)
    kernels = weights, weights * steps, weights * steps**2
    mean, moment = mask.astype(np.float32), [np.empty(0, np.float32)] * 3
    for axis in range(3):
        for k in range(axis):
            moment[k] = _convolved(moment[k], kernels[0], axis)
        moment[axis] = _convolved(mean, kernels[1], axis)
        mean = _convolved(mean, kernels[0], axis)
    for axis, n in enumerate(mask.shape):
        # Sums of the weights inside the volume, which are fewer at its edges.
        sums = [correlate1d(np.ones(n), kernel, mode="constant") for kernel in kernels]
        centre = sums[1] / sums[0]
        variance = sums[2] / sums[0] - centre**2
        shape = [-1 if k == axis else 1 for k in range(3)]
        moment[axis] -= (centre.reshape(shape) * mean).astype(np.float32)
        moment[axis] *= np.where(variance > 0, 1 / np.where(variance > 0, variance, 1), 0).reshape(shape)
    return moment


def _convolved(values: Floats, kernel: NDArray[np.float64], axis: int) -> Floats:
    found: Floats = correlate1d(values, kernel, axis=axis, mode="constant", output=np.float32)
    return found
