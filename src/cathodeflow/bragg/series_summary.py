"""Summary of every state and phase of a series: medians over particles with intervals, population's cell, fractions."""

from typing import Any

import numpy as np
import pandas as pd

from cathodeflow.bragg.lattice_series import LatticeSeries
from cathodeflow.bragg.population_cell import PRIOR, Floats, Ints, Prior, resampled_cells
from cathodeflow.bragg.series_statistics import draws, limits, phase_fraction, resampled_medians, width
from cathodeflow.cells import Lattice


def summarise(series: LatticeSeries, lattice: Lattice, *, samples: int, rng: np.random.Generator) -> pd.DataFrame:
    """Summarise every state and phase.

    The bootstrap draws particles (tracks, where the particles are not known) and repeats the fit of the population's
    cells with them, so that the intervals of a and c contain what is common to all particles.

    Parameters
    ----------
    series : LatticeSeries
    lattice : Lattice
    samples : int
        Number of bootstrap samples.
    rng : Generator

    Returns
    -------
    DataFrame
        A row per state and phase; columns in docs/bragg.md.
    """
    table, spacings = series.table, series.spacings
    group = spacings.group
    units = _units(table, spacings.track)
    times = draws(units, samples, rng)
    log_p = series.population.log_parameters
    moved = _resampled_population(series, lattice, times) - log_p
    strain_reference = str(series.states["sample"][series.reference])
    rows = []
    for index, of_group in enumerate(series.states.itertuples()):
        here = np.flatnonzero(group == index)
        row: dict[str, Any] = {"sample": of_group.sample, "state_of_charge": of_group.state_of_charge}
        row |= {"phase": of_group.phase, "particles": len(np.unique(units[here]))}
        state = np.flatnonzero((table["sample"] == of_group.sample).to_numpy())
        second = (table["phase"].to_numpy()[state] == of_group.phase) & (group[state] == index)
        value, drawn = phase_fraction(table["intensity"].to_numpy(np.float64)[state], second, times[:, state])
        row |= {"phase_fraction": value, **_named("phase_fraction", limits(drawn))}
        same = here[(table["reference"].to_numpy()[here] == strain_reference)]
        row |= _of_quantity("strain", table, same, table["strain_err"].to_numpy(np.float64)[same], times)
        for k, name in enumerate(lattice.names):
            gradient = series.cells.gradient[here, k].reshape(len(here), -1)
            shifts = table[name].to_numpy()[here] * (moved.reshape(samples, -1) @ gradient.T)
            errors = table[name].to_numpy()[here] * series.cells.own_error[here, k]
            row |= _of_quantity(name, table, here, errors, times, shifts)
        for k, name in enumerate(lattice.names):
            row |= _of_cell(series, k, name, index, moved)
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["state_of_charge", "sample", "phase"], ignore_index=True)


def _units(table: pd.DataFrame, track: Ints) -> Ints:
    """Return the number of the particle of every row; tracks without one are particles of their own."""
    if "particle" not in table:
        return track
    particle = table["particle"].to_numpy(np.int64)
    key = np.column_stack([np.where(particle >= 0, particle, -1), np.where(particle >= 0, 0, track)])
    return np.asarray(np.unique(key, axis=0, return_inverse=True)[1].ravel(), np.int64)


def _resampled_population(series: LatticeSeries, lattice: Lattice, times: Ints) -> Floats:
    known = np.asarray(np.isfinite(series.parts).all(axis=1))
    _, first, number = np.unique(series.spacings.track[known], return_index=True, return_inverse=True)
    spacings = series.spacings.take(known)._replace(track=number)
    prior = Prior(np.log(lattice.values), np.full(len(series.states), PRIOR))
    drawn = times[:, np.flatnonzero(known)[first]].astype(np.float64)
    return resampled_cells(
        spacings, series.parts[known], series.population, series.assignment.weights[known], prior, drawn=drawn
    )


def _of_quantity(
    name: str, table: pd.DataFrame, rows: Ints, errors: Floats, times: Ints, shifts: Floats | None = None
) -> dict[str, float]:
    """Median, intervals, width of the distribution and number of values of a column."""
    values = table[name].to_numpy(np.float64)[rows]
    use = np.isfinite(values)
    drawn = resampled_medians(values[use], times[:, rows[use]], None if shifts is None else shifts[:, use])
    middle = float(np.median(values[use])) if use.any() else float("nan")
    found = {f"{name}_median": middle, **_named(name, limits(drawn))}
    return found | {f"{name}_width": width(values[use], errors[use]), f"{name}_count": int(use.sum())}


def _of_cell(series: LatticeSeries, k: int, name: str, index: int, moved: Floats) -> dict[str, float]:
    """Lattice parameter of the population, and its relative change from the reference state, with errors."""
    population, first = series.population, series.reference
    log_p = population.log_parameters
    known = population.determined
    value = float(np.exp(log_p[index, k])) if known[index, k] else float("nan")
    # Half the width of the interval of 68 %, which outliers among the resamples do not widen.
    error = _half_width(moved[:, index, k]) * value
    change = float(np.expm1(log_p[index, k] - log_p[first, k])) if known[[index, first], k].all() else float("nan")
    change_error = _half_width(moved[:, index, k] - moved[:, first, k]) * (1 + change)
    return {
        f"cell_{name}": value,
        f"cell_{name}_err": error,
        f"cell_{name}_change": change,
        f"cell_{name}_change_err": change_error,
    }


def _half_width(samples: Floats) -> float:
    found = limits(samples)
    return (found["high68"] - found["low68"]) / 2


def _named(name: str, found: dict[str, float]) -> dict[str, float]:
    return {f"{name}_{key}": value for key, value in found.items()}
