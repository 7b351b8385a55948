"""Fits of overlapping peaks with their neighbours as known intensity."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cathodeflow.bragg.patch_fits import COLUMNS, PAIRS, Floats, Pairs, fit_patches, of_neighbours
from cathodeflow.bragg.peak_options import Fit
from cathodeflow.bragg.profiles import profile

# Maximum number of passes over overlapping peaks, and shift of a centre below which it has converged [px].
_PASSES = 12
_MOVED = 5e-3


def refit_neighbours(
    results: Floats, patches: Floats, noise: Floats, positions: Floats, pairs: Pairs, options: Fit
) -> None:
    """Refit the candidates that have neighbours, with these as known intensity, until the centres converge.

    Parameters
    ----------
    results : (n, COLUMNS) float64
        First fits, centres in frame pixels; changed in place.
    patches, noise : (n, size, size) float64
        As for `patch_fits.fit_patches`.
    positions : (n, 2) float64
        Candidate pixels.
    pairs : (m, 2) int
        Candidates (own, other) whose patches overlap, ordered by the first.
    options : Fit
    """
    size = patches.shape[1]
    crowded = np.unique(pairs[:, 0])
    index = np.searchsorted(crowded, pairs)
    positions, patches, first = positions[crowded], patches[crowded], results[crowded]
    noise = noise[crowded] if len(noise) > 1 else noise
    tree = cKDTree(positions)
    # A fit that ended closer to another candidate found the peak of the latter, which must not be subtracted twice.
    settled = _settled(first, tree, np.arange(len(positions)))
    own, other = index[settled[index].all(axis=1)].T
    unsettled = index[settled[index[:, 0]] & ~settled[index[:, 1]]]
    patches = np.where(of_neighbours(positions, unsettled, size), np.nan, patches)

    current = first.copy()
    active = np.unique(own)
    for _ in range(_PASSES):
        if not len(active):
            break
        pair = np.isin(own, active)
        new = _with_neighbours(current, active, own[pair], other[pair], patches, noise, positions, options)
        kept = settled[active] & _settled(new, tree, active)
        new = np.where(kept[:, None], new, first[active])
        moved = np.zeros(len(crowded), dtype=bool)
        moved[active] = np.abs(new[:, :2] - current[active, :2]).max(axis=1) > _MOVED
        current[active] = new
        active = np.unique(own[moved[other]])
    results[crowded] = current


def _settled(results: Floats, tree: cKDTree, candidates: Pairs) -> NDArray[np.bool_]:
    """Whether each candidate's fit converged and ended closer to it than to any other."""
    converged = results[:, 15] == 1
    nearest = tree.query(np.where(converged[:, None], results[:, :2], 0))[1]
    return converged & (nearest == candidates)


def _with_neighbours(
    current: Floats,
    active: Pairs,
    own: Pairs,
    other: Pairs,
    patches: Floats,
    noise: Floats,
    positions: Floats,
    options: Fit,
) -> Floats:
    """Refit the active candidates with the current fits of their neighbours."""
    size = patches.shape[1]
    rows, cols = np.mgrid[:size, :size] - size // 2
    known = np.zeros((len(active), size, size))
    for begin in range(0, len(own), PAIRS):
        a, b = own[begin : begin + PAIRS], other[begin : begin + PAIRS]
        peaks = current[b, :7]
        peaks[:, 3] = 0
        here = positions[a, :, None, None]
        intensity = profile(peaks[:, None, None], here[:, 0] + rows, here[:, 1] + cols)
        np.add.at(known, np.searchsorted(active, a), intensity)
    corner = positions[active] - size // 2
    starts = current[active, :7]
    starts[:, :2] -= corner
    new = np.empty((len(active), COLUMNS))
    fit_patches(patches[active], noise[active] if len(noise) > 1 else noise, known, starts, new, options, 1.0)
    new[:, :2] += corner
    return new
