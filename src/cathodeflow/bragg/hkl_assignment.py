"""Which reflection each track is, from its lattice spacings in all states.

The spacing in one state is not enough where particles differ by more than the reflections are apart: the reflections
of a layered oxide then differ by how they move when c and a change. Both are in the probability of each allowed
reflection, under the model of `population_cell`; the cells of the population and the reflections of the tracks are
refined in turn.
"""

from typing import Any, NamedTuple

import numpy as np

from cathodeflow.bragg.cell_search import search_changes
from cathodeflow.bragg.phases import alternatives, merge_phases, resolve_phases
from cathodeflow.bragg.population_cell import (
    PRIOR,
    Floats,
    Ints,
    Population,
    Prior,
    Spacings,
    fit_population,
    offsets,
    start,
    variances,
)
from cathodeflow.cells import Lattice, Reflections, log_spacing

#: Values of `Assignment.reflection` of tracks without one: several are possible, or none is.
AMBIGUOUS, UNEXPLAINED = -1, -2
# Largest offset, and root mean square of the residuals, of an assigned track, in standard deviations.
_MAX_OFFSET, _MAX_RESIDUAL = 4.0, 4.0
_HUBER = 2.0
# Scatter that particles may have at least: reflections differ by much more, and the scatter of a state may be estimated
# from other reflections.
_MIN_SCATTER = 2e-4
# Scatter of the lattice parameters of particles before it is estimated, which covers the errors of the search.
FIRST_SCATTER = 0.0015


class Assignment(NamedTuple):
    """Reflections of tracks, and the cells of the population that go with them.

    Attributes
    ----------
    reflection : (tracks,) int64
        Index in the list of reflections; `AMBIGUOUS` or `UNEXPLAINED`.
    probability : (tracks,) float64
        Of the most probable reflection.
    population : Population
    group : (n,) int64
        State and phase of each row, after `resolve_phases`.
    weights : (n,) float64
        Weight of each row in the fit of the population; 0 of tracks without a reflection.
    """

    reflection: Ints
    probability: Floats
    population: Population
    group: Ints
    weights: Floats


def probabilities(
    spacings: Spacings, n_tracks: int, reflections: Reflections, population: Population, states: Ints
) -> tuple[Floats, Floats, Floats]:
    """Probability of each reflection for each track.

    The residuals count as in Huber's likelihood, so that a wrong link of one state does not decide.

    Parameters
    ----------
    spacings : Spacings
    n_tracks : int
    reflections : Reflections
    population : Population
    states : (g,) int64
        State of each group; a spot that may be in either phase of its state is in the one that fits.

    Returns
    -------
    probability, offset, residual : (tracks, h) float64
        Probability (equal before the measurement for all reflections); offset of the track from the population in
        standard deviations; root mean square of the standardised residuals.
    """
    tau, other = population.offset_scatter, alternatives(spacings, states)
    choice = other != spacings.group
    count = np.maximum(np.bincount(spacings.track, minlength=n_tracks), 1)
    loss, offset, size = (np.empty((n_tracks, len(reflections.d))) for _ in range(3))
    for index, parts in enumerate(reflections.coefficients):
        residual, variance = _residuals(spacings, parts, population)
        if choice.any():
            found = offsets(spacings, residual, tau, variance, np.where(choice, 0.0, 1.0), n_tracks)[spacings.track]
            there, spread = _residuals(spacings._replace(group=other), parts, population)
            better = choice & (np.square(there - found) / spread < np.square(residual - found) / variance)
            residual, variance = np.where(better, there, residual), np.where(better, spread, variance)
        weights = np.ones(len(residual))
        for _ in range(4):
            found = offsets(spacings, residual, tau, variance, weights, n_tracks)
            u = np.abs(residual - found[spacings.track]) / np.sqrt(variance)
            weights = np.minimum(1.0, _HUBER / np.maximum(u, _HUBER))
        huber = np.where(u < _HUBER, 0.5 * u * u, _HUBER * (u - 0.5 * _HUBER))
        offset[:, index] = found / tau
        loss[:, index] = np.bincount(spacings.track, huber + 0.5 * np.log(variance), n_tracks)
        loss[:, index] += 0.5 * offset[:, index] ** 2
        size[:, index] = np.sqrt(np.bincount(spacings.track, np.minimum(u, 10) ** 2, n_tracks) / count)
    odds = np.exp(loss.min(axis=1, keepdims=True) - loss)
    return odds / odds.sum(axis=1, keepdims=True), offset, size


def assign(
    spacings: Spacings,
    n_tracks: int,
    reference: Ints,
    lattice: Lattice,
    reflections: Reflections,
    *,
    states: Ints,
    cell_error: float,
    tolerance: float,
    min_probability: float,
    iterations: int = 12,
) -> Assignment:
    """Assign a reflection to each track, and fit the cells of the population in turn.

    Begins with the changes of the cell that `search_changes` finds.

    Parameters
    ----------
    spacings : Spacings
    n_tracks : int
    reference : (k,) int64
        Groups of the reference state, in which the population has about the given cell.
    lattice : Lattice
        The given cell.
    reflections : Reflections
        The allowed ones.
    states : (g,) int64
        State of each group; in a state with two groups rows may change from one phase to the other.
    cell_error : float
        Relative standard error of the given lattice parameters, in the reference state.
    tolerance : float
        Standard deviation of the relative differences of d between particles, to begin with.
    min_probability : float
        Probability from which on a reflection is assigned.
    iterations : int
        Maximum number of iterations.
    """
    n_groups = len(states)
    prior = Prior(np.log(lattice.values), np.full(n_groups, PRIOR))
    near = prior._replace(width=np.where(np.isin(np.arange(n_groups), reference), cell_error, PRIOR))
    limits: dict[str, Any] = {"reference": reference, "tolerance": tolerance, "min_probability": min_probability}
    begin = search_changes(spacings, reference, n_groups, reflections, prior.centre, tolerance)
    population = start(begin, tolerance, FIRST_SCATTER)
    spacings = _resolved(spacings, n_tracks, reflections, population, states)
    reflection, probability = _decide(spacings, n_tracks, reflections, population, states, **limits)
    for _ in range(iterations):
        known = reflection[spacings.track] >= 0
        if not known.any():
            break
        population, _ = _fit(spacings.take(known), reflection, reflections, population, near)
        before = reflection, spacings.group
        parts = reflections.coefficients[np.unique(reflection[reflection >= 0])]
        everything = np.ones(len(known), dtype=bool)
        spacings = spacings._replace(group=merge_phases(spacings, everything, parts, population, states))
        spacings = _resolved(spacings, n_tracks, reflections, population, states)
        reflection, probability = _decide(spacings, n_tracks, reflections, population, states, **limits)
        if np.array_equal(before[0], reflection) and np.array_equal(before[1], spacings.group):
            break
    known, weights = reflection[spacings.track] >= 0, np.zeros(len(spacings.track))
    if known.any():
        # The given cell only serves to tell reflections apart: from here on it has no weight.
        population, weights[known] = _fit(spacings.take(known), reflection, reflections, population, prior)
        parts = reflections.coefficients[np.unique(reflection[reflection >= 0])]
        spacings = spacings._replace(group=merge_phases(spacings, known, parts, population, states))
    return Assignment(reflection, probability, population, spacings.group, weights)


def _residuals(spacings: Spacings, parts: Floats, population: Population) -> tuple[Floats, Floats]:
    log_d, slopes = log_spacing(parts, population.log_parameters[spacings.group])
    return spacings.log_d - log_d, variances(spacings, slopes, population.scatter)


def _resolved(
    spacings: Spacings, n_tracks: int, reflections: Reflections, population: Population, states: Ints
) -> Spacings:
    # Also of tracks that are not assigned: their phase may be what is wrong with them.
    best = probabilities(spacings, n_tracks, reflections, population, states)[0].argmax(axis=1)
    parts = reflections.coefficients[best[spacings.track]]
    return spacings._replace(group=resolve_phases(spacings, parts, population, states))


def _fit(
    known: Spacings, reflection: Ints, reflections: Reflections, before: Population, prior: Prior
) -> tuple[Population, Floats]:
    parts = reflections.coefficients[reflection[known.track]]
    _, numbers = np.unique(known.track, return_inverse=True)
    return fit_population(known._replace(track=numbers), parts, before, prior)


def _as_known(population: Population, reference: Ints, tolerance: float) -> Population:
    """Count the errors of the changes from the reference state as scatter of the population, within limits.

    Beyond the tolerance it is not the particles that differ but the cell that does not fit.
    """
    groups, p = population.log_parameters.shape
    errors = population.covariance.reshape(groups, p, groups, p).diagonal(axis1=1, axis2=3)
    own = np.einsum("ggp->gp", errors)
    first = int(reference[0])
    change = np.maximum(own + own[first] - errors[:, first] - errors[first], 0)
    return population._replace(
        scatter=np.clip(np.sqrt(np.square(population.scatter) + change), _MIN_SCATTER, tolerance)
    )


def _decide(
    spacings: Spacings,
    n_tracks: int,
    reflections: Reflections,
    population: Population,
    states: Ints,
    *,
    reference: Ints,
    tolerance: float,
    min_probability: float,
) -> tuple[Ints, Floats]:
    known = _as_known(population, reference, tolerance)
    probability, offset, size = probabilities(spacings, n_tracks, reflections, known, states)
    best = probability.argmax(axis=1)
    tracks = np.arange(n_tracks)
    highest = probability[tracks, best]
    explained = (np.abs(offset[tracks, best]) <= _MAX_OFFSET) & (size[tracks, best] <= _MAX_RESIDUAL)
    explained &= np.bincount(spacings.track, minlength=n_tracks) > 0
    found = np.where(highest >= min_probability, best, AMBIGUOUS)
    return np.where(explained, found, UNEXPLAINED).astype(np.int64), highest
