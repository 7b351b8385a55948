"""From tracks to the lattice parameters of particles and population over a series of states of charge."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.bragg.hkl_assignment import AMBIGUOUS, Assignment, assign
from cathodeflow.bragg.particle_cells import ParticleCells, particle_cells, strains
from cathodeflow.bragg.phases import join_phases
from cathodeflow.bragg.population_cell import Ints, Population, Spacings, offsets, variances
from cathodeflow.bragg.series_options import Lattice as LatticeOptions
from cathodeflow.cells import Lattice, Reflections, allowed_reflections, log_spacing
from cathodeflow.errors import InputError

#: Columns of the tracks that are read.
COLUMNS = ("track", "sample", "state_of_charge", "phase", "d", "d_err", "intensity", "good")
# Reflections within so much of the range of the measured spacings are candidates.
_MARGIN = 0.06


class LatticeSeries(NamedTuple):
    """Lattice parameters over a series.

    Attributes
    ----------
    table : DataFrame
        A row per spot: the columns of lattice.csv.
    rows : (n,) int64
        Row of each of them in what `usable_tracks` returns: of several spots of a track in one phase, one is kept.
    states : DataFrame
        A row per group: `sample`, `state_of_charge`, `phase` over all states.
    spacings : Spacings
        Of the rows of `table`, with the final groups.
    population : Population
    assignment : Assignment
    parts : (n, p) float64
        Coefficients of 1/d^2 of each row's reflection; NaN without one.
    cells : ParticleCells
    reference : int
        Group of the reference state, with the lower phase.
    reference_row : (n,) int64
    """

    table: pd.DataFrame
    rows: Ints
    states: pd.DataFrame
    spacings: Spacings
    population: Population
    assignment: Assignment
    parts: NDArray[np.float64]
    cells: ParticleCells
    reference: int
    reference_row: Ints


def usable_tracks(tracks: pd.DataFrame, where: str) -> pd.DataFrame:
    """Select the good spots with a spacing, one of each track, state and phase; sorted by charge and track.

    Raises
    ------
    InputError
        There are fewer than two states, or no spot has a lattice spacing with an error.
    """
    use = tracks["good"].astype(bool) & (tracks["track"] >= 0) & np.isfinite(tracks["d"]) & (tracks["d_err"] > 0)
    kept = tracks[use & np.isfinite(tracks["d_err"])]
    if not len(kept):
        raise InputError(where, "no good spot with a lattice spacing", "spots of scans with a geometry and an energy")
    if kept["sample"].nunique() < 2:
        raise InputError(where, "spots of one scan", "of two scans or more")
    kept = kept.sort_values(["state_of_charge", "sample", "track", "phase", "intensity"])
    return kept.drop_duplicates(["sample", "track", "phase"], keep="last").reset_index(drop=True)


def lattice_series(
    tracks: pd.DataFrame, lattice: Lattice, options: LatticeOptions, *, where: str = "tracks"
) -> LatticeSeries:
    """Assign hkl to tracks, fit the population's cells and compute strain and lattice parameters of particles.

    Parameters
    ----------
    tracks : DataFrame
        With `COLUMNS`, and `particle` where the particle of each track is known.
    lattice : Lattice
        The cell, as it is in the reference state.
    options : Lattice
    where : str
        Origin of the tracks, for messages.

    Raises
    ------
    InputError
        The reference is no scan of the series, or no track can be assigned.
    """
    kept = usable_tracks(tracks, where)
    samples = list(dict.fromkeys(kept["sample"]))
    if options.reference is not None and options.reference not in samples:
        found = f"{options.reference}, without good spots or not in the series"
        raise InputError("bragg.lattice.reference", found, ", ".join(samples))
    state = kept["sample"].map({name: number for number, name in enumerate(samples)}).to_numpy(np.int64)
    keys, group = np.unique(np.column_stack([state, kept["phase"]]), axis=0, return_inverse=True)
    names, track = np.unique(kept["track"], return_inverse=True)
    log_d, error = np.log(kept["d"].to_numpy(np.float64)), (kept["d_err"] / kept["d"]).to_numpy(np.float64)
    spacings = Spacings(track.astype(np.int64), group.ravel().astype(np.int64), log_d, error)
    low, high = kept["d"].min() * (1 - _MARGIN), kept["d"].max() * (1 + _MARGIN)
    reflections = allowed_reflections(lattice, float(low), float(high))
    if not reflections.hkl:
        found = f"no reflection between {low:.3f} and {high:.3f} Angstrom"
        raise InputError("bragg.lattice.cell", found, f"the cell of the particles in {where}")
    states = keys[:, 0].astype(np.int64)
    first = samples.index(options.reference) if options.reference else 0
    assignment = assign(
        spacings, len(names), np.flatnonzero(states == first), lattice, reflections, states=states,
        cell_error=options.cell_error, tolerance=options.particle_spread, min_probability=options.min_probability,
    )  # fmt: skip
    known = assignment.reflection >= 0
    if not known.any():
        found = f"no track of {len(names)} whose reflection is clear"
        expected = "spacings of the cell in bragg.lattice.cell within bragg.lattice.particle_spread"
        raise InputError(where, found, expected)
    # Phases that were merged leave an empty group, and particles with two spots in the other one.
    present, group = np.unique(assignment.group, return_inverse=True)
    population, states, keys = assignment.population.take(present), states[present], keys[present]
    spacings = spacings._replace(group=group.astype(np.int64))
    single = _single(spacings, assignment, reflections, population)
    kept, spacings = kept[single].reset_index(drop=True), spacings.take(single)
    assignment = assignment._replace(population=population, group=spacings.group, weights=assignment.weights[single])
    phases = join_phases(
        population,
        states,
        keys[:, 1].astype(np.int64),
        reflections.coefficients[np.unique(assignment.reflection[known])],
    )
    reflection = assignment.reflection[spacings.track]
    parts = np.where((reflection >= 0)[:, None], reflections.coefficients[reflection], np.nan)
    reference_row = _references(spacings, states, phases, first if options.reference else None)
    particle = kept["particle"].to_numpy(np.int64) if "particle" in kept else None
    cells = particle_cells(
        spacings, parts, reference_row, population, relative=options.spacing == "relative",
        min_weight=options.min_weight, particle=particle,
    )  # fmt: skip
    table = _table(kept, spacings, assignment, reflections, phases, reference_row, cells, lattice)
    of_groups = pd.DataFrame(
        {
            "sample": np.array(samples)[states],
            "state_of_charge": kept.groupby("sample")["state_of_charge"].first().loc[np.array(samples)[states]].values,
            "phase": phases,
        }
    )
    here = np.flatnonzero(states == first)
    reference = int(here[np.argmin(phases[here])])
    return LatticeSeries(
        table,
        np.flatnonzero(single),
        of_groups,
        spacings,
        population,
        assignment,
        parts,
        cells,
        reference,
        reference_row,
    )


def _single(
    spacings: Spacings, assignment: Assignment, reflections: Reflections, population: Population
) -> NDArray[np.bool_]:
    """Whether a spot is the only one of its track and group, or the one nearest to the population of several."""
    reflection = assignment.reflection[spacings.track]
    parts = reflections.coefficients[np.maximum(reflection, 0)]
    log_d, slopes = log_spacing(parts, population.log_parameters[spacings.group])
    residual, variance = spacings.log_d - log_d, variances(spacings, slopes, population.scatter)
    total, tracks = population.offset_scatter, len(assignment.reflection)
    found = offsets(spacings, residual, total, variance, np.ones(len(residual)), tracks)
    order = np.argsort(np.abs(residual - found[spacings.track]), kind="stable")
    first = np.unique(np.column_stack([spacings.track, spacings.group])[order], axis=0, return_index=True)[1]
    kept = np.zeros(len(order), dtype=bool)
    kept[order[first]] = True
    return kept


def _references(spacings: Spacings, states: Ints, phases: Ints, chosen: int | None) -> Ints:
    """Row of the reference spot of every row: the first state of its track, or the chosen state; -1 without one."""
    state, phase = states[spacings.group], phases[spacings.group]
    rows = np.lexsort((phase, state, spacings.track))
    if chosen is not None:
        rows = rows[state[rows] == chosen]
    tracks, first = np.unique(spacings.track[rows], return_index=True)
    of_track = np.full(int(spacings.track.max()) + 1, -1)
    of_track[tracks] = rows[first]
    return np.asarray(of_track[spacings.track], np.int64)


def _table(
    kept: pd.DataFrame,
    spacings: Spacings,
    assignment: Assignment,
    reflections: Reflections,
    phases: Ints,
    reference_row: Ints,
    cells: ParticleCells,
    lattice: Lattice,
) -> pd.DataFrame:
    reflection = assignment.reflection[spacings.track]
    labels = np.array([*reflections.hkl, "unexplained", "ambiguous"], dtype=object)
    columns = {
        "track": kept["track"],
        **({"particle": kept["particle"]} if "particle" in kept else {}),
        "sample": kept["sample"],
        "state_of_charge": kept["state_of_charge"],
        "phase": phases[spacings.group],
        "hkl": labels[np.where(reflection >= 0, reflection, np.where(reflection == AMBIGUOUS, -1, -2))],
        "hkl_probability": assignment.probability[spacings.track],
        "d": kept["d"],
        "d_err": kept["d_err"],
    }
    values = np.exp(cells.log_parameters)
    for k, name in enumerate(lattice.names):
        columns |= {name: values[:, k], f"{name}_err": values[:, k] * cells.error[:, k]}
    strain, error = strains(spacings, reference_row)
    reference = np.where(reference_row >= 0, kept["sample"].to_numpy()[reference_row], "")
    return pd.DataFrame(
        {**columns, "strain": strain, "strain_err": error, "reference": reference, "intensity": kept["intensity"]}
    )
