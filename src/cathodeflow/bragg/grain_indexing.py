"""Orientations of crystals from their reflections: candidates from pairs of spots, scored by completeness.

Two reflections with known hkl fix an orientation (Busing and Levy, Acta Cryst. 22, 457, 1967). Each spot of an inner
ring is combined with others; the orientation that explains the largest fraction of the reflections that the detector
could have seen is kept (as in GrainSpotter: Schmidt, J. Appl. Cryst. 47, 276, 2014, and hexrd: Bernier et al., J.
Strain Anal. Eng. Des. 46, 527, 2011), its spots are set aside, and the search goes on with the others.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import gemmi
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cathodeflow.bragg.reflections import allowed_hkls, families, reciprocal_axes

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]

# Directions closer than this [sine of the angle] fix no orientation.
_PARALLEL = 0.3
# Reflections of the first, quick score, the fraction of `min_completeness` that it must reach, and the number of
# candidates that go on.
_QUICK, _QUICK_SHARE, _QUICK_BEST = 40, 0.7, 20
# Candidates that are scored at once, to bound the memory.
_BATCH = 256


class Crystal(NamedTuple):
    """Reflections of the known crystal.

    Attributes
    ----------
    hkl : (n, 3) int64
        Allowed reflections by descending lattice spacing.
    g : (n, 3) float64
        Their reciprocal vectors in the crystal's frame [1/Angstrom].
    family : (n,) int64
        The same number for equivalent reflections, from 0 at the largest lattice spacing.
    """

    hkl: Integers
    g: Floats
    family: Integers


def crystal(cell: ArrayLike, group: gemmi.SpaceGroup, d_min: float) -> Crystal:
    """List the reflections of a crystal down to a lattice spacing [Angstrom]."""
    hkl = allowed_hkls(cell, group, d_min)
    return Crystal(hkl, hkl @ reciprocal_axes(cell).T, families(hkl, group))


def busing_levy(first: Floats, second: Floats, crystal_first: Floats, crystal_second: Floats) -> Floats:
    """Return orientations that turn two vectors of the crystal into two of the sample.

    The first is met exactly, the second in the plane of both.

    Parameters
    ----------
    first, second, crystal_first, crystal_second : (..., 3) float64

    Returns
    -------
    (..., 3, 3) float64
        Rotation matrices.

    Examples
    --------
    >>> x, y = np.eye(3)[:2]
    >>> busing_levy(y, -x, x, y).round(6).tolist()
    [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    return np.asarray(_triad(first, second) @ np.swapaxes(_triad(crystal_first, crystal_second), -1, -2))


def find_orientations(
    spots: Floats,
    strength: Floats,
    known: Crystal,
    *,
    observable: Callable[[Floats], Bools],
    tolerance: float,
    n_families: int,
    n_partners: int,
    max_failures: int,
    min_completeness: float,
    min_spots: int,
) -> Iterator[tuple[Floats, Integers]]:
    """Find the orientations of the grains, strongest spots first.

    Parameters
    ----------
    spots : (n, 3) float64
        Reciprocal vectors of the spots in the sample [1/Angstrom].
    strength : (n,) float64
        Integrated intensities.
    known : Crystal
    observable : callable
        From reciprocal vectors (..., 3) to bool (...,): whether the detector could have seen the reflection.
    tolerance : float
        Maximum distance between a spot and its reflection [1/Angstrom].
    n_families : int
        Number of families of reflections, from the inside, whose spots are combined in pairs.
    n_partners : int
        Maximum number of spots that each is combined with.
    max_failures : int
        The search ends after this many spots in a row that lead to no grain.
    min_completeness : float
        Minimum fraction of the observable reflections that are found.
    min_spots : int
        Minimum number of spots of a grain.

    Yields
    ------
    (3, 3) float64, (m,) int64
        Orientation of a grain, and the spots near its reflections, which are no longer used.
    """
    length = np.linalg.norm(spots, axis=1)
    inner = known.family < n_families
    low = Crystal(known.hkl[inner], known.g[inner], known.family[inner])
    low_length = np.linalg.norm(low.g, axis=1)
    # Spots on the inner rings, strongest first.
    order = np.argsort(-strength, kind="stable")
    order = order[(np.abs(length[order, None] - low_length) < tolerance).any(axis=1)]
    free = np.ones(len(spots), bool)
    representatives = np.unique(low.family, return_index=True)[1]
    tree, failures = cKDTree(spots), 0
    for seed in order:
        if not free[seed]:
            continue
        if failures >= max_failures:
            return
        failures += 1
        partners = order[free[order] & (order != seed)][:n_partners]
        candidates = _candidates(spots[seed], spots[partners], low, representatives, tolerance)
        if not len(candidates):
            continue
        best = _best(candidates, tree, known, observable, tolerance, min_completeness)
        if best is None:
            continue
        distance, _ = cKDTree(known.g @ best.T).query(spots, distance_upper_bound=tolerance)
        of_grain = np.flatnonzero(np.isfinite(distance))
        # Fewer new spots than old ones: a grain that was found before.
        if np.count_nonzero(free[of_grain]) < max(min_spots, len(of_grain) / 2):
            continue
        free[of_grain], failures = False, 0
        yield best, of_grain


def completeness(
    orientations: Floats, tree: cKDTree, g: Floats, observable: Callable[[Floats], Bools], tolerance: float
) -> Floats:
    """Return the fraction of the observable reflections of each of (m, 3, 3) orientations that have a spot near by."""
    predicted = np.einsum("mij,nj->mni", orientations, g)
    seen = observable(predicted)
    near = np.zeros(seen.shape, bool)
    near[seen] = np.isfinite(tree.query(predicted[seen], distance_upper_bound=tolerance)[0])
    return np.asarray(near.sum(axis=1) / np.maximum(seen.sum(axis=1), 1))


def _best(
    candidates: Floats,
    tree: cKDTree,
    known: Crystal,
    observable: Callable[[Floats], Bools],
    tolerance: float,
    least: float,
) -> Floats | None:
    """Return the orientation of the highest completeness, if that is at least `least`."""

    def scores(orientations: Floats, g: Floats) -> Floats:
        parts = np.split(orientations, range(_BATCH, len(orientations), _BATCH))
        return np.concatenate([completeness(part, tree, g, observable, tolerance) for part in parts])

    quick = scores(candidates, known.g[:_QUICK])
    ranked = np.argsort(-quick, kind="stable")[:_QUICK_BEST]
    candidates = candidates[ranked[quick[ranked] >= _QUICK_SHARE * least]]
    if not len(candidates):
        return None
    found = scores(candidates, known.g)
    return candidates[np.argmax(found)] if found.max() >= least else None


def _candidates(seed: Floats, partners: Floats, low: Crystal, representatives: Integers, tolerance: float) -> Floats:
    """Return the orientations of all pairs of reflections that the seed and its partners can be."""
    length, low_length = np.linalg.norm(seed), np.linalg.norm(low.g, axis=1)
    partner_length = np.linalg.norm(partners, axis=1)
    cosine = partners @ seed / (length * partner_length)
    apart = np.sqrt(np.clip(1 - cosine**2, 0, None)) > _PARALLEL
    angle = np.arccos(np.clip(cosine, -1, 1))
    found = []
    # The seed is one of each family: the others give equivalent orientations.
    for first in representatives[np.abs(low_length[representatives] - length) < tolerance]:
        direction = low.g[first] / low_length[first]
        angles = np.arccos(np.clip(low.g @ direction / low_length, -1, 1))
        fits = np.abs(partner_length[:, None] - low_length) < tolerance
        allowed = tolerance * (1 / length + 1 / partner_length)[:, None]
        fits &= apart[:, None] & (np.abs(angle[:, None] - angles) < allowed)
        which, second = np.nonzero(fits)
        count = (len(which), 3)
        found.append(
            busing_levy(
                np.broadcast_to(seed, count), partners[which], np.broadcast_to(low.g[first], count), low.g[second]
            )
        )
    return np.concatenate(found) if found else np.empty((0, 3, 3))


def _triad(first: Floats, second: Floats) -> Floats:
    x = first / np.linalg.norm(first, axis=-1, keepdims=True)
    z = np.cross(first, second)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], axis=-1)
