"""Which of two coexisting phases a spot is, from the cells of the population in both."""

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.population_cell import Floats, Ints, Population, Spacings, variances
from cathodeflow.cells import log_spacing

# Two phases differ in the spacings of their reflections by more than this, as the root of the mean square.
_SAME = 1e-3
# Particles with two spots, and their fraction, that a state needs for phases to be chosen again.
_MIN_PAIRS, _MIN_PAIR_FRACTION = 3, 0.1


def merge_phases(
    spacings: Spacings, assigned: NDArray[np.bool_], parts: Floats, population: Population, states: Ints
) -> Ints:
    """Give the spots of two phases that are none one group: if their cells hardly differ, or one has no known hkl.

    Links that split a particle by mistake make two phases of one.

    Parameters
    ----------
    spacings : Spacings
    assigned : (n,) bool
        Whether the hkl of a spot is known.
    parts : (k, p) float64
        Coefficients of 1/d^2 of the reflections that occur.
    population : Population
    states : (g,) int64
        State of each group.

    Returns
    -------
    (n,) int64
        Group of every row; merged groups have the number of the one with more spots of known hkl.
    """
    group = spacings.group.copy()
    for chosen in np.unique(states):
        members = [number for number in np.flatnonzero(states == chosen) if (group == number).any()]
        if len(members) == 2:
            first, second = (log_spacing(parts, population.log_parameters[number])[0] for number in members)
            count = [int(np.sum(assigned & (group == number))) for number in members]
            if not min(count) or np.sqrt(np.mean(np.square(first - second))) < _SAME:
                group[np.isin(group, members)] = members[int(np.argmax(count))]
    return group


def alternatives(spacings: Spacings, states: Ints) -> Ints:
    """Group that a spot may be in instead: that of the other phase, for the only spot of a particle in its state.

    Parameters
    ----------
    spacings : Spacings
    states : (g,) int64
        State of each group.

    Returns
    -------
    (n,) int64
        The group itself where there is no choice: in states with one phase, or with few particles that have both, as
        these say too little of the second phase.
    """
    found, state = spacings.group.copy(), states[spacings.group]
    for chosen in np.unique(states):
        here = np.flatnonzero(state == chosen)
        members = np.unique(spacings.group[here])
        tracks, index, count = np.unique(spacings.track[here], return_inverse=True, return_counts=True)
        if len(members) == 2 and np.sum(count == 2) >= max(_MIN_PAIRS, _MIN_PAIR_FRACTION * len(tracks)):
            single = here[count[index] == 1]
            found[single] = members.sum() - found[single]
    return found


def resolve_phases(spacings: Spacings, parts: Floats, population: Population, states: Ints) -> Ints:
    """Choose the phase of every spot in the states that have two.

    A particle with one spot in such a state is in either phase; one with two spots has one in each, in the order that
    fits better. The offset of the track comes from its spots in the other states.

    Parameters
    ----------
    spacings : Spacings
        With the phases so far, in `group`.
    parts : (n, p) float64
        Coefficients of 1/d^2 of each row's reflection.
    population : Population
        Cells of the groups.
    states : (g,) int64
        State of each group.

    Returns
    -------
    (n,) int64
        Group of every row.
    """
    group, state = spacings.group.copy(), states[spacings.group]
    other = alternatives(spacings, states)

    def residuals(groups: Ints) -> tuple[Floats, Floats]:
        log_d, slopes = log_spacing(parts, population.log_parameters[groups])
        return spacings.log_d - log_d, variances(spacings._replace(group=groups), slopes, population.scatter)

    now, variance = residuals(group)
    weight, n_tracks = 1 / variance, int(spacings.track.max()) + 1
    total = np.bincount(spacings.track, weight, n_tracks)
    moment = np.bincount(spacings.track, weight * now, n_tracks)
    for chosen in np.unique(state[other != group]):
        members = np.flatnonzero(states == chosen)
        here = np.flatnonzero(state == chosen)
        tracks, index, count = np.unique(spacings.track[here], return_inverse=True, return_counts=True)
        precision = total[tracks] - np.bincount(index, weight[here], len(tracks)) + population.offset_scatter**-2
        away = moment[tracks] - np.bincount(index, (weight * now)[here], len(tracks))
        cost = []
        for member in members:
            residual, spread = residuals(np.full(len(group), member))
            apart = residual[here] - (away / precision)[index]
            cost.append(np.square(apart) / (spread[here] + 1 / precision[index]))
        # How much better the second phase fits; of two spots, with the sign of the present order.
        better = cost[0] - cost[1]
        single = count[index] == 1
        group[here[single]] = np.where(better[single] > 0, members[1], members[0])
        present = np.where(group[here] == members[1], 1.0, -1.0)
        swap = np.bincount(index, np.where(single, 0.0, present * better), len(tracks)) < 0
        swapped = swap[index] & (count[index] == 2)
        group[here[swapped]] = members.sum() - group[here[swapped]]
    return group


def join_phases(population: Population, states: Ints, phases: Ints, coefficients: Floats) -> NDArray[np.int64]:
    """Phase of every group over all states: 0 is the one at low charge, 1 the other one.

    Where only one phase is present it has no number of its own: it gets that of the coexisting phase, in the nearest
    state with two, whose spacings are nearer; without such a state it stays 0.

    Parameters
    ----------
    population : Population
    states, phases : (g,) int64
        State, in order of charge, and phase of each group.
    coefficients : (k, p) float64
        Of the reflections that are compared.
    """
    found = phases.copy()
    double = [state for state in np.unique(states) if np.sum(states == state) == 2]
    if not double or not len(coefficients):
        return found
    log_d = np.array([log_spacing(coefficients, row)[0] for row in population.log_parameters])
    for group, state in enumerate(states):
        if state in double:
            continue
        nearest = min(double, key=lambda other: abs(other - state))
        pair = np.flatnonzero(states == nearest)
        distance = [float(np.median(np.abs(log_d[group] - log_d[other]))) for other in pair]
        found[group] = phases[pair[int(np.argmin(distance))]]
    return found
