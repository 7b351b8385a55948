"""Areas of the interfaces between phases, without the steps of the voxels."""

from collections.abc import Sequence

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from cathodeflow.fibsem.microstructure.blocks import Block, Labels, over_blocks, present
from cathodeflow.fibsem.microstructure.surface_kernels import add_faces

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
    add_faces(part, place, inner, weights, *edges, size, found)
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
