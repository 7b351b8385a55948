"""Particles of a phase, divided at their necks by a watershed, and their sizes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


class Particles(NamedTuple):
    """Sizes of the particles that do not touch the edges of the volume.

    diameters : (n,) float64
        Diameter of the sphere (or circle) of the same volume [length].
    weights : (n,) float64
        One over the probability that a particle of this size does not touch the edges.
    number : int
        Number of all particles, including those at the edges.
    """

    diameters: NDArray[np.float64]
    weights: NDArray[np.float64]
    number: int


def divide(mask: NDArray[np.bool_], size: Sequence[float], depth: float) -> NDArray[np.int32]:
    """Divide a phase into particles at its necks.

    The markers of the watershed are the maxima of the distance to the other phases, less those that rise above the neck
    to a higher one by less than `depth` (h-maxima).

    Parameters
    ----------
    mask : (z, y, x) bool
    size : (3,)
        Size of a voxel [length].
    depth : float
        Minimum difference between the distance inside a particle and in its necks [length].

    Returns
    -------
    (z, y, x) int32
        Numbers from 1; 0 outside the phase.
    """
    from skimage.morphology import reconstruction
    from skimage.segmentation import watershed

    if mask.all() or not mask.any():
        return mask.astype(np.int32)
    distance = ndimage.distance_transform_edt(mask, sampling=size).astype(np.float32)
    rise = distance - reconstruction(np.maximum(distance - np.float32(depth), 0), distance).astype(np.float32)
    domes, n = ndimage.label(rise > 0, np.ones((3, 3, 3)))
    # What rises by less, such as a particle smaller than the depth, is a maximum only if it is alone.
    heights = np.asarray(ndimage.maximum(rise, domes, np.arange(n + 1)))
    kept = np.flatnonzero(heights >= depth * (1 - 1e-4))
    number = np.zeros(n + 1, np.int32)
    number[kept[kept > 0]] = np.arange(1, np.count_nonzero(kept > 0) + 1)
    markers = number[domes]
    parts, n_parts = ndimage.label(mask)
    marked = np.zeros(n_parts + 1, np.bool_)
    marked[parts[markers > 0]] = True
    alone = ~marked
    alone[0] = False
    extra = np.cumsum(alone) + number.max()
    markers = np.where(alone[parts], extra[parts], markers).astype(np.int32)
    divided: NDArray[np.int32] = watershed(-distance, markers, mask=mask).astype(np.int32)
    return divided


def particle_sizes(divided: NDArray[np.int32], size: Sequence[float]) -> Particles:
    """Measure the particles that do not touch the edges of the volume.

    Large particles touch the edges more often; the weights make up for it [1]_.

    References
    ----------
    .. [1] C. Lantuejoul, J. Microsc. 120 (1980) 29 (Miles-Lantuejoul correction)
    """
    n = int(divided.max())
    volumes = np.bincount(divided.ravel(), minlength=n + 1)[1:] * math.prod(size)
    boxes = ndimage.find_objects(divided)
    flat = [axis for axis in range(3) if divided.shape[axis] == 1]
    diameters, weights = [], []
    for volume, box in zip(volumes, boxes, strict=True):
        ends = [
            (part.start, part.stop, length)
            for axis, (part, length) in enumerate(zip(box, divided.shape, strict=True))
            if axis not in flat
        ]
        if any(start == 0 or stop == length for start, stop, length in ends):
            continue
        if flat:
            area = volume / math.prod(size[axis] for axis in flat)
            diameters.append(2 * math.sqrt(area / math.pi))
        else:
            diameters.append((6 * volume / math.pi) ** (1 / 3))
        # A particle of this extent fits in so many places between the edges, of as many as its first voxel has.
        weights.append(math.prod(length / (length - (stop - start) - 1) for start, stop, length in ends))
    return Particles(np.array(diameters, np.float64), np.array(weights, np.float64), n)


def quantiles(values: NDArray[np.float64], weights: NDArray[np.float64], levels: Sequence[float]) -> list[float]:
    """Weighted quantiles: the smallest value with at least this fraction of the weights up to it.

    Examples
    --------
    >>> quantiles(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0]), [0.1, 0.5, 0.9])
    [1.0, 2.0, 3.0]
    """
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    at = np.searchsorted(total, np.asarray(levels) * total[-1] * (1 - 1e-12))
    return [float(value) for value in values[order][np.minimum(at, len(values) - 1)]]
