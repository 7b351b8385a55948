"""Objects of the scans of one particle brought to the same place and orientation, on cubic voxels."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, shift

from cathodeflow.bcdi.ambiguities import align
from cathodeflow.bcdi.strain_fields import Particle

Floats = NDArray[np.float32]
_T = TypeVar("_T", bound=np.generic)

# Free voxels around the largest particle on each side, so that no object extends across the edges when it is shifted.
_MARGIN = 4


class Aligned(NamedTuple):
    """Particle of a scan at the place and in the orientation of that of the scan before.

    Attributes
    ----------
    volume : (z, y, x) complex64
    support : (z, y, x) bool
    strain : (z, y, x) float32
        NaN where it is unknown.
    twin : bool
        Whether the object was replaced by its twin, conj(o(-r)).
    correlation : float
        |<a, b>| / (|a| |b|) with the object of the scan before; 1 for the first.
    margin : float
        This correlation minus that of the rejected orientation; near 0, the orientation is not known.
    overlap : float
        Dice coefficient of the support and that of the first scan.
    """

    volume: NDArray[np.complex64]
    support: NDArray[np.bool_]
    strain: Floats
    twin: bool
    correlation: float
    margin: float
    overlap: float


def aligned_particles(particles: Sequence[Particle]) -> list[Aligned]:
    """Align particles in their order, each to the one before, which is most like it.

    Global phase, shift and the twin ambiguity are resolved. The orientation of the first particle remains: the whole
    series may be the twin of the real one.

    Parameters
    ----------
    particles : sequence of Particle
        On voxels of the same size, with their centre at n // 2 of odd sides, as of `geometry.to_laboratory`.
    """
    sides = np.max([particle.volume.shape for particle in particles], axis=0) + 2 * _MARGIN
    found: list[Aligned] = []
    for particle in particles:
        volume = _padded(particle.volume, sides, 0)
        support = _padded(particle.support, sides, False)
        strain = _padded(particle.strain.values, sides, np.nan)
        if not found:
            found.append(Aligned(volume, support, strain, twin=False, correlation=1.0, margin=1.0, overlap=1.0))
            continue
        both = np.stack([volume, np.conj(volume[::-1, ::-1, ::-1])])
        made, alike = align(torch.from_numpy(both), torch.from_numpy(found[-1].volume), twin=False)
        better = int(alike.argmax())
        if better == 1:
            support, strain = support[::-1, ::-1, ::-1], strain[::-1, ::-1, ::-1]
        moved = _centre(made[better].numpy()) - _centre(both[better])
        support = shift(support.astype(np.float32), moved, order=1) >= 0.5
        first = found[0].support
        found.append(
            Aligned(
                np.where(support, made[better].numpy(), 0).astype(np.complex64),
                support,
                _moved_field(strain, moved),
                twin=better == 1,
                correlation=float(alike[better]),
                margin=float(alike[better] - alike[1 - better]),
                overlap=float(2 * (support & first).sum() / (support.sum() + first.sum())),
            )
        )
    return found


def _padded(values: NDArray[_T], sides: NDArray[np.integer], fill: float) -> NDArray[_T]:
    around = [((side - n) // 2, (side - n) // 2) for side, n in zip(sides, values.shape, strict=True)]
    return np.pad(values, around, constant_values=fill)


def _centre(volume: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    weights = np.abs(volume).astype(np.float64) ** 2
    total = weights.sum()
    return np.array(
        [(weights.sum(axis=tuple({0, 1, 2} - {axis})) @ np.arange(volume.shape[axis])) / total for axis in range(3)]
    )


def _moved_field(values: Floats, by: NDArray[np.float64]) -> Floats:
    """Shift a quantity; known values are continued beyond their edge, so that NaN does not spread."""
    known = np.isfinite(values)
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    inside = shift(known.astype(np.float32), by, order=1) >= 0.5
    return np.where(inside, shift(values[tuple(nearest)], by, order=1, mode="nearest"), np.float32(np.nan))
