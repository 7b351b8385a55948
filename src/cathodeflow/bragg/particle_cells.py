"""Strain and lattice parameters of every particle in every state.

Strain is d / d_reference - 1 of a track. A single reflection gives one lattice parameter, if the others are those of
the population in this state and phase: 1/p_k^2 = (1/d^2 - sum over the others of coefficient / p^2) / coefficient_k.
With `relative` spacings, d is the population's in the reference state times (1 + strain), so that the position of
the particle along the beam and its own cell in that state do not count. Several reflections of one particle are
fitted together.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.population_cell import Floats, Ints, Population, Spacings
from cathodeflow.cells import log_spacing


class Strains(NamedTuple):
    """Strain of spots, (n,) each; NaN without a reference."""

    strain: Floats
    error: Floats


class ParticleCells(NamedTuple):
    """Lattice parameters of spots.

    Attributes
    ----------
    log_parameters, error : (n, p) float64
        Logarithms of the lattice parameters [Angstrom] and their standard errors; NaN where they are not known.
    own_error : (n, p) float64
        The part of the errors that is not common to all particles.
    gradient : (n, p, g, p) float64
        Derivatives of these logarithms by those of the population's.
    """

    log_parameters: Floats
    error: Floats
    own_error: Floats
    gradient: NDArray[np.float64]


def strains(spacings: Spacings, reference_row: Ints) -> Strains:
    """Strain of every spot against another one of its track.

    Parameters
    ----------
    spacings : Spacings
    reference_row : (n,) int64
        Row of the reference spot; -1 without one.

    Returns
    -------
    Strains
        Both errors are in that of the strain, which is 0 for the reference itself.
    """
    change, variance = _changes(spacings, reference_row)
    strain = np.expm1(change)
    return Strains(strain, (1 + strain) * np.sqrt(variance))


def particle_cells(
    spacings: Spacings,
    parts: Floats,
    reference_row: Ints,
    population: Population,
    *,
    relative: bool,
    min_weight: float,
    particle: Ints | None = None,
) -> ParticleCells:
    """Lattice parameters of the particle of every spot.

    Parameters
    ----------
    spacings : Spacings
    parts : (n, p) float64
        Coefficients of 1/d^2 of each spot's reflection; NaN without one.
    reference_row : (n,) int64
        As in `strains`.
    population : Population
    relative : bool
        Take the spacings relative to those in the reference state.
    min_weight : float
        Minimum derivative of ln d by the logarithm of a lattice parameter for a spot to give that one.
    particle : (n,) int64, optional
        Number of the particle of each spot, if it is known; negative if not. Spots of one particle and group are fitted
        together where they determine all parameters.

    Returns
    -------
    ParticleCells
        The errors contain those of both spacings and of the population's cells, not that a single particle may differ
        from the population in the other lattice parameters.
    """
    group, (groups, p) = spacings.group, population.log_parameters.shape
    of_population, slopes = log_spacing(parts, population.log_parameters[group])
    gradient = np.zeros((len(group), groups, p))
    rows = np.arange(len(group))
    if relative:
        change, variance = _changes(spacings, reference_row)
        there = group[reference_row]
        log_d, reference_slopes = log_spacing(parts, population.log_parameters[there])
        log_d = log_d + change
        gradient[rows, there] = reference_slopes
    else:
        log_d, variance = spacings.log_d, np.square(spacings.error)
    determined = population.determined
    values, own_error = np.full((len(group), p), np.nan), np.full((len(group), p), np.nan)
    by_population = np.zeros((len(group), p, groups, p))
    with np.errstate(invalid="ignore", divide="ignore"):
        terms = parts * np.exp(-2 * population.log_parameters[group])
        for k in range(p):
            others = [j for j in range(p) if j != k]
            values[:, k] = -0.5 * np.log((np.exp(-2 * log_d) - terms[:, others].sum(axis=1)) / parts[:, k])
            known = (determined[group][:, others] | (slopes[:, others] < 1e-9)).all(axis=1)
            known &= slopes[:, k] >= min_weight
            values[~known, k] = np.nan
            own = gradient.copy()
            own[rows[:, None], group[:, None], others] -= slopes[:, others]
            by_population[:, k] = own / slopes[:, k, None, None]
            own_error[:, k] = np.sqrt(variance) / slopes[:, k]
    values[~np.isfinite(of_population)] = np.nan
    if particle is not None:
        joint = _joint(log_d, variance, parts, group, particle, population, slopes)
        for members, log_p, own in joint:
            values[members] = log_p
            by_population[members] = 0
            reference = group[reference_row[members[0]]]
            if relative:
                by_population[members, :, reference] = np.eye(p)
            own_error[members] = np.sqrt(own)
    own_error[~np.isfinite(values)] = np.nan
    by_population[~np.isfinite(values)] = 0
    common = np.stack([_variance(by_population[:, k], population) for k in range(p)], axis=1)
    return ParticleCells(values, np.sqrt(np.square(own_error) + common), own_error, by_population)


def _changes(spacings: Spacings, reference_row: Ints) -> tuple[Floats, Floats]:
    """Logarithm of d / d_reference, and its variance."""
    rows = np.arange(len(reference_row))
    known, own = reference_row >= 0, reference_row == rows
    change = np.where(known, spacings.log_d - spacings.log_d[reference_row], np.nan)
    variance = np.square(spacings.error) + np.square(spacings.error[reference_row])
    return change, np.where(own, 0.0, variance)


def _variance(gradient: Floats, population: Population) -> Floats:
    """Variance (n,) of a quantity with this gradient (n, g, p) by the population's parameters."""
    flat = gradient.reshape(len(gradient), -1)
    return np.asarray(np.einsum("nm,nm->n", flat @ population.covariance, flat))


def _joint(
    log_d: Floats,
    variance: Floats,
    parts: Floats,
    group: Ints,
    particle: Ints,
    population: Population,
    slopes: Floats,
) -> list[tuple[Ints, Floats, Floats]]:
    """Rows, logarithmic parameters and their variances of the particles with enough reflections."""
    usable = (particle >= 0) & np.isfinite(log_d) & np.isfinite(slopes).all(axis=1)
    rows = np.flatnonzero(usable)
    _, index = np.unique(np.column_stack([particle[rows], group[rows]]), axis=0, return_inverse=True)
    found = []
    for number in range(int(index.max()) + 1 if len(rows) else 0):
        members = rows[index.ravel() == number]
        singular = np.linalg.svd(slopes[members], compute_uv=False)
        if len(members) < slopes.shape[1] or len(singular) < slopes.shape[1] or singular[-1] < 0.05:
            continue
        # An exact spacing, as that of the reference itself, must not make the others count for nothing.
        weight = 1 / np.sqrt(np.maximum(variance[members], 1e-14))
        log_p = population.log_parameters[group[members[0]]]
        for _ in range(5):
            expected, derivative = log_spacing(parts[members], log_p)
            design = derivative * weight[:, None]
            step, *_ = np.linalg.lstsq(design, (log_d[members] - expected) * weight)
            log_p = log_p + step
        own = np.diag(np.linalg.inv(design.T @ design)) if variance[members].any() else np.zeros(len(log_p))
        found.append((members, log_p, own))
    return found
