"""Link the spots of all states of a series to tracks of particles, by global assignment."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.signal import argrelmin
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from cathodeflow.bragg.pair_model import Gates, PairModel, Pairs, fit_pairs
from cathodeflow.bragg.series_options import Tracks

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Logarithm of the odds that a spot is missed in a state: cost of a gap.
_MISSED = -2.3
# Highest fraction of the spots that are taken to have a partner.
_FOUND = 0.95
# Standard errors of a difference by which the gates are widened.
_ERRORS = 4.0


class Links(NamedTuple):
    """Tracks of spots: number of the track, of the ring in its state, and the partner of the other phase (-1: none)."""

    track: Integers
    ring: Integers
    partner: Integers


def link_spots(spots: pd.DataFrame, options: Tracks) -> Links:
    """Link spots to tracks.

    1. Spots of a state are grouped to rings, of nearly equal lattice spacing.
    2. Two spots at the same azimuth and angle, at a distance in strain common to many such pairs of a ring, are the two
       phases of one particle.
    3. Pairs of spots of successive states, and across gaps of up to `max_gap` states, get the odds of belonging to one
       particle from the motions common to a ring (`pair_model.fit_pairs`).
    4. Every particle has at most one successor and one predecessor. The set of links with the highest total odds over
       all states at once is a maximum-weight matching of spots with their successors [1]_.

    Parameters
    ----------
    spots : DataFrame
        `state` (int, in the order of time), `strain` (logarithm of the lattice spacing), `azimuth` [deg], `angle` [deg]
        or frames, `intensity` [counts], and `strain_err`, `azimuth_err`, `angle_err`.
    options : Tracks

    Returns
    -------
    Links

    References
    ----------
    .. [1] K. Jaqaman et al., Nature Methods 5, 695 (2008)
    """
    gates = Gates(options.max_strain, options.max_azimuth, options.max_angle)
    state = spots["state"].to_numpy(np.int64)
    states = np.unique(state)
    ring = np.zeros(len(spots), np.int64)
    for number in states:
        here = np.flatnonzero(state == number)
        ring[here] = find_rings(spots["strain"].to_numpy()[here], options.ring_width)
    partner = np.full(len(spots), -1, np.int64)
    for number in states:
        here = np.flatnonzero(state == number)
        pairs = find_pairs(spots, here, here, gates)
        # The phases may be so far apart that each has a ring of its own.
        pairs = pairs.take(pairs.strain > 0)
        for part, model in _by_ring(pairs, ring, here, gates, signed=False):
            one, other = assign(part.i, part.j, model.odds)
            # A spot may be the upper of one pair and the lower of another one: the likelier pair counts.
            for k in np.argsort(-_odds_of(part, model, one, other), kind="stable"):
                if partner[one[k]] < 0 and partner[other[k]] < 0:
                    partner[one[k]], partner[other[k]] = other[k], one[k]
    node = np.where(partner >= 0, np.minimum(partner, np.arange(len(spots))), np.arange(len(spots)))
    edges = []
    for first in range(len(states)):
        here = np.flatnonzero(state == states[first])
        for second in range(first + 1, min(first + 2 + options.max_gap, len(states))):
            there = np.flatnonzero(state == states[second])
            pairs = find_pairs(spots, here, there, gates)
            for part, model in _by_ring(pairs, ring, here, gates, signed=True):
                odds = model.odds + _MISSED * (second - first - 1)
                edges.append(np.stack([node[part.i], node[part.j], odds]))
    track = np.arange(len(spots))
    if edges:
        one, other, odds = np.concatenate(edges, axis=1)
        one, other = assign(one.astype(np.int64), other.astype(np.int64), odds)
        track = _chains(one, other, len(spots))
    track = track[node]
    _, numbers = np.unique(track, return_inverse=True)
    return Links(numbers.astype(np.int64), ring, partner)


def find_rings(strain: Floats, width: float) -> Integers:
    """Group the spots of a state to rings, divided at the minima of the density of the logarithm of their spacings.

    Parameters
    ----------
    strain : (n,) float64
        Logarithm of the lattice spacing.
    width : float
        Smoothing of the density (standard deviation): rings nearer than about twice this are one.

    Examples
    --------
    >>> find_rings(np.log([2.40, 2.41, 2.39, 2.03, 2.04]), 0.01)
    array([1, 1, 1, 0, 0])
    """
    if not len(strain):
        return np.zeros(0, np.int64)
    grid = np.arange(strain.min() - 3 * width, strain.max() + 3 * width, width / 4)
    counts, _ = np.histogram(strain, np.append(grid, grid[-1] + width / 4))
    reach = np.arange(-16, 17)
    density = np.convolve(counts, np.exp(-0.5 * (reach / 4) ** 2), mode="same")
    # Between rings far apart the density is zero: the middle of each flat valley divides.
    starts = np.flatnonzero(np.diff(density, prepend=np.nan) != 0)
    ends = np.append(starts[1:], len(density))
    valleys = argrelmin(density[starts])[0]
    middles = grid[(starts[valleys] + ends[valleys]) // 2]
    return np.searchsorted(middles, strain).astype(np.int64)


def find_pairs(spots: pd.DataFrame, here: Integers, there: Integers, gates: Gates) -> Pairs:
    """Return all pairs of spots `here` and `there` within the gates, without those of a spot with itself."""
    names = ("strain", "azimuth", "angle")
    values = {name: spots[name].to_numpy(np.float64) for name in names}
    variance = {name: spots[f"{name}_err"].to_numpy(np.float64) ** 2 for name in names}
    intensity = np.log(np.maximum(spots["intensity"].to_numpy(np.float64), 1e-3))
    widest = [
        gate + (0 if name == "strain" else _ERRORS * np.sqrt(2 * np.median(variance[name])))
        for name, gate in zip(names, gates, strict=True)
    ]
    points = np.stack([values[name] / gate for name, gate in zip(names, widest, strict=True)], axis=1)
    empty = np.zeros(0, np.int64)
    i, j = empty, empty
    if len(here) and len(there):
        found = cKDTree(points[here]).query_ball_tree(cKDTree(points[there]), 1.0, p=np.inf)
        i = np.repeat(here, [len(of) for of in found])
        j = there[np.concatenate([np.asarray(of, np.int64) for of in found])] if len(i) else empty
    i, j = i[i != j], j[i != j]
    differences = [values[name][j] - values[name][i] for name in names]
    variances = [variance[name][i] + variance[name][j] for name in names]
    return Pairs(
        i,
        j,
        strain=differences[0],
        azimuth=differences[1],
        angle=differences[2],
        intensity=intensity[j] - intensity[i],
        strain_var=variances[0],
        azimuth_var=variances[1],
        angle_var=variances[2],
    )


def assign(one: Integers, other: Integers, odds: Floats) -> tuple[Integers, Integers]:
    """Return the one-to-one set of pairs with the highest sum of odds; pairs of negative odds are never taken.

    Parameters
    ----------
    one, other : (n,) int64
        Pairs; one that occurs several times counts with its highest odds.
    odds : (n,) float64

    Examples
    --------
    >>> assign(np.array([0, 0, 1]), np.array([5, 6, 5]), np.array([3.0, 2.5, 2.0]))
    (array([0, 1]), array([6, 5]))
    """
    use = odds > 0
    one, other, odds = one[use], other[use], odds[use]
    if not len(one):
        return one, other
    rows, i = np.unique(one, return_inverse=True)
    cols, j = np.unique(other, return_inverse=True)
    graph = coo_matrix((np.ones(len(i)), (i, j + len(rows))), shape=(len(rows) + len(cols),) * 2)
    component = connected_components(graph, directed=False)[1][i]
    chosen_one, chosen_other = [], []
    order = np.argsort(component, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(component[order])) + 1):
        left, a = np.unique(i[part], return_inverse=True)
        right, b = np.unique(j[part], return_inverse=True)
        gain = np.zeros((len(left), len(right)))
        np.maximum.at(gain, (a, b), odds[part])
        picked = linear_sum_assignment(gain, maximize=True)
        real = gain[picked] > 0
        chosen_one.append(rows[left[picked[0][real]]])
        chosen_other.append(cols[right[picked[1][real]]])
    result = np.concatenate(chosen_one), np.concatenate(chosen_other)
    sort = np.argsort(result[0], kind="stable")
    return result[0][sort], result[1][sort]


def _by_ring(
    pairs: Pairs, ring: Integers, here: Integers, gates: Gates, *, signed: bool
) -> list[tuple[Pairs, PairModel]]:
    """Fit the pairs of each ring of the first state."""
    found = []
    for number in np.unique(ring[here]):
        part = pairs.take(ring[pairs.i] == number)
        count = int(np.sum(ring[here] == number))
        model = fit_pairs(part, gates, count, signed=signed)
        # A pair competes with other pairs in the assignment. If it is not taken, both spots must be without a partner,
        # which is the rarer the more spots have one.
        partners = sum(motion.pairs for motion in model.motions) * (1 if signed else 2) / count
        alone = -2 * np.log(1 - min(partners, _FOUND))
        found.append((part, model._replace(odds=model.odds + alone)))
    return found


def _odds_of(pairs: Pairs, model: PairModel, one: Integers, other: Integers) -> Floats:
    odds = {(int(i), int(j)): value for i, j, value in zip(pairs.i, pairs.j, model.odds, strict=True)}
    return np.array([odds[int(i), int(j)] for i, j in zip(one, other, strict=True)])


def _chains(one: Integers, other: Integers, count: int) -> Integers:
    """Return the number of the chain that each node belongs to."""
    graph = coo_matrix((np.ones(len(one)), (one, other)), shape=(count, count))
    labels: Integers = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels
