"""Structure of small patches of slices, and how far those of new slices are from all patches of the training slices.

Features of whole slices (`image_features`) vary much where slices have large parts of different looks, such as the
layers of a coating; their patches still resemble each other.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from cathodeflow.fibsem.image_features import SCALES

Float64 = NDArray[np.float64]

# Side of a patch, and of the part of a slice from whose middle patches are taken [px].
_PATCH, _SIDE = 32, 1024
# Patches of a volume that are kept.
_KEPT = 4096
# Differences that patches of one material may have anyway, in the units of the features.
_FLOOR = 0.1
# Blocks of training slices that are compared with the others, and multiple of their median distance that is usual.
_BLOCKS, _USUAL = 4, 3.0


class PatchDistance(NamedTuple):
    """Median distance of the patches of a slice from the nearest patch of the training slices, and its usual limit."""

    value: float
    limit: float

    @property
    def far(self) -> bool:
        """Whether the slice is unlike the training."""
        return self.value > self.limit


def patch_features(image: NDArray[Any], mean: float, deviation: float) -> Float64:
    """Compute the features of the patches of one slice, whose intensity is matched to that of the training.

    Parameters
    ----------
    image : (row, col) real
        Intensity [grey].
    mean, deviation : float
        Of the intensity of the training slices [grey].

    Returns
    -------
    (patch, feature) float64
        Mean of the normalised intensity, and the logarithm of its standard deviation in each band of size
        (`image_features.SCALES`).
    """
    middle = tuple(slice(max(0, (side - _SIDE) // 2), (side + _SIDE) // 2) for side in image.shape)
    z = (np.asarray(image[middle], np.float64) - mean) / deviation
    z = np.clip(z, *np.quantile(z, (0.002, 0.998)))
    smooth = [gaussian_filter(z, scale, mode="reflect") for scale in SCALES]
    powers = [_averages((fine - coarse) ** 2) for fine, coarse in pairwise(smooth)]
    return np.stack([_averages(z), *(0.5 * np.log(np.maximum(power, 1e-8)) for power in powers)], axis=1)


def patch_reference(slices: Sequence[Float64]) -> dict[str, Any]:
    """Summarise the patches of the training slices.

    Parameters
    ----------
    slices : sequence of (patch, feature)
        Of `patch_features`, one per slice, in the order of the stack.

    Returns
    -------
    dict
        JSON data: `patches`, at most 4096 of them; `scale` of each feature; and `limit` of the distance: three times
        the median distance of slices from those of the other blocks of a stack that is divided into four.
    """
    everything = np.concatenate(slices)
    distances: list[float] = []
    if len(slices) > 1:
        # Neighbouring slices resemble each other, so whole blocks of them are compared with the rest.
        for block in np.array_split(np.arange(len(slices)), min(_BLOCKS, len(slices))):
            rest = _Patches.of([slices[k] for k in range(len(slices)) if k not in block])
            distances += [rest.distance(slices[k]) for k in block]
    kept = _Patches.of(slices)
    # Of a single slice, or copies of one, distances say nothing about others.
    usual = _USUAL * float(np.median(distances)) if distances else 0.0
    limit = usual if usual > 0 else float(np.sqrt(everything.shape[1]))
    return {"patches": kept.values.round(4).tolist(), "scale": kept.scale.tolist(), "limit": limit}


def patch_distances(slices: Sequence[Float64], references: Sequence[Mapping[str, Any]]) -> list[PatchDistance]:
    """Compute the distance of each slice from the training slices.

    Parameters
    ----------
    slices : sequence of (patch, feature)
        Of `patch_features`.
    references : sequence of mapping
        Of `patch_reference`, one for each volume; the nearest one counts.
    """
    known = [(_Patches(np.array(one["patches"]), np.array(one["scale"])), float(one["limit"])) for one in references]
    return [
        min((PatchDistance(own.distance(table), limit) for own, limit in known), key=lambda one: one.value / one.limit)
        for table in slices
    ]


class _Patches:
    """Patches (patch, feature) with a tree for the nearest one, and the scale of each feature."""

    def __init__(self, values: Float64, scale: Float64) -> None:
        self.values, self.scale = values, scale
        self._tree = KDTree(values / scale)

    @classmethod
    def of(cls, slices: Sequence[Float64]) -> "_Patches":
        """Patches of some slices, not more than are kept."""
        everything = np.concatenate(slices)
        chosen = np.unique(np.linspace(0, len(everything) - 1, min(len(everything), _KEPT)).astype(int))
        return cls(everything[chosen], np.hypot(everything.std(0), _FLOOR))

    def distance(self, table: Float64) -> float:
        """Median distance of the patches of a slice, as root mean square over the features."""
        near, _ = self._tree.query(table / self.scale)
        return float(np.median(near) / np.sqrt(table.shape[1]))


def _averages(values: Float64) -> Float64:
    """Mean of each patch."""
    sides = [min(_PATCH, side) for side in values.shape]
    rows, cols = (side // own for side, own in zip(values.shape, sides, strict=True))
    cut = values[: rows * sides[0], : cols * sides[1]]
    return cut.reshape(rows, sides[0], cols, sides[1]).mean((1, 3)).ravel()
