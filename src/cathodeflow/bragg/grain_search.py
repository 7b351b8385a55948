"""From the spots of a rotation scan to its grains: indexing, refinement, calibration, errors."""

import logging
from typing import NamedTuple

import gemmi
import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.grain_calibration import Instrument, apply, calibrate
from cathodeflow.bragg.grain_indexing import Crystal, crystal, find_orientations
from cathodeflow.bragg.grain_model import Fitted, Grain, fit_grain
from cathodeflow.bragg.grain_options import Grains
from cathodeflow.bragg.grain_refinement import Assigned, SeenRegion, added_sigma, align, observable, refine
from cathodeflow.bragg.reflections import FreeCell, free_cell, in_fundamental_zone
from cathodeflow.bragg.rotation_scans import RotationScan, diffracted_vectors

log = logging.getLogger("cathodeflow.bragg")

Floats = NDArray[np.float64]

# Share of the spots furthest out that do not set the smallest lattice spacing.
_OUTER = 5.0
# Rounds of calibration, each with spots assigned anew; rounds in which the final fits and their errors settle.
_CALIBRATIONS, _FINAL = 3, 6
# Radius of the assignment after a calibration, relative to the limit of outliers.
_WIDER = 3.0
# A grain that shares more of its spots than this with a better one is that one.
_SAME = 0.5


class Measured(NamedTuple):
    """Spots of a scan.

    Attributes
    ----------
    place, sigma : (n, 3) float64
        Row, col [px], without distortion, and omega [deg], and their standard errors.
    intensity : (n,) float64
    """

    place: Floats
    sigma: Floats
    intensity: Floats


class Solution(NamedTuple):
    """One grain.

    Attributes
    ----------
    fit : Fitted
        With the cell free.
    strained : Fitted or None
        With the strain free, relative to the given cell; None where the spots are too few.
    spots : Assigned
    """

    fit: Fitted
    strained: Fitted | None
    spots: Assigned


class Found(NamedTuple):
    """Grains of a scan.

    Attributes
    ----------
    grains : list of Solution
        By descending number of spots.
    added : (3,) float64
        Standard deviation of rows, columns [px] and angles [deg] in addition to the errors of the spots.
    instrument : Instrument or None
        Changes of the instrument, if it was refined.
    d_min : float
        Smallest lattice spacing that was used [Angstrom].
    """

    grains: list[Solution]
    added: Floats
    instrument: Instrument | None
    d_min: float


def find_grains(
    scan: RotationScan,
    region: SeenRegion,
    spots: Measured,
    cell: Floats,
    group: gemmi.SpaceGroup,
    options: Grains,
) -> Found:
    """Find the grains of a scan.

    Parameters
    ----------
    scan : RotationScan
    region : SeenRegion
    spots : Measured
    cell : (6,) float64
        Known cell: a, b, c [Angstrom], alpha, beta, gamma [deg].
    group : gemmi.SpaceGroup
    options : Grains
    """
    g = diffracted_vectors(scan, spots.place)
    length = np.linalg.norm(g, axis=1)
    d_min = options.d_min or (float(1 / np.percentile(length, 100 - _OUTER)) if len(length) else np.inf)
    known, free = crystal(cell, group, d_min), free_cell(group)
    geometry = scan.geometry
    distance = abs(geometry.origin @ np.cross(geometry.row_step, geometry.col_step))
    distance *= 1e3 / np.linalg.norm(np.cross(geometry.row_step, geometry.col_step))
    pixel = 1e3 * min(np.linalg.norm(geometry.row_step), np.linalg.norm(geometry.col_step))
    inner = known.family < options.n_families
    tolerance = options.max_offset / (distance * scan.wavelength) + (
        np.deg2rad(options.omega_tolerance) / 2 + options.max_strain
    ) * np.linalg.norm(known.g[inner], axis=1).max(initial=0.0)
    away = (options.max_offset + options.max_strain * pixel * max(region.shape)) / pixel + 2.0
    radius = np.array([away, away, options.omega_tolerance])
    indexed = []
    for orientation, _ in find_orientations(
        g,
        spots.intensity,
        known,
        observable=lambda vectors: observable(scan, region, vectors),
        tolerance=tolerance,
        n_families=options.n_families,
        n_partners=options.n_partners,
        max_failures=options.max_failures,
        min_completeness=options.min_completeness,
        min_spots=options.min_spots,
    ):
        grain = align(Grain(orientation, np.zeros(3), cell, np.zeros((3, 3))), known, g, tolerance)
        grain = grain._replace(orientation=in_fundamental_zone(grain.orientation, cell, group))
        refined = _refined(scan, region, grain, known, spots, free, radius, options)
        indexed.append(refined)
        log.info("grain %d: %d of %d reflections", len(indexed), len(refined[1].spot), refined[1].expected)
    indexed = _distinct(indexed, options.min_spots, options.min_completeness)
    fits, kept, added = settle(scan, indexed, spots, free, options)
    instrument = None
    if options.calibrate and fits:
        before = scan, spots
        for _ in range(_CALIBRATIONS):
            known_cell = [fit.grain._replace(cell=cell) for fit in fits]
            sigma = np.hypot(spots.sigma, added)
            shape = {"shape": region.shape, "modules": options.modules}
            instrument = calibrate(before[0], known_cell, kept, before[1].place, sigma, **shape)
            scan, place = apply(instrument, before[0], before[1].place, **shape)
            spots = before[1]._replace(place=place)
            near = _WIDER * options.max_deviation * np.median(sigma, axis=0)
            again = [_refined(scan, region, grain, known, spots, free, near, options) for grain in known_cell]
            fits, kept, added = settle(scan, _distinct(again, options.min_spots, 0.0), spots, free, options)
    solutions = []
    for fit, one in zip(fits, kept, strict=True):
        strained = None
        if 3 * len(one.spot) > 12 + 6:
            sigma = np.hypot(spots.sigma[one.spot], added)
            start = fit.grain._replace(cell=cell)
            strained = fit_grain(scan, start, one.hkl, one.branch, spots.place[one.spot], sigma, strain=True)
        solutions.append(Solution(fit, strained, one))
    solutions.sort(key=lambda solution: -len(solution.spots.spot))
    return Found(solutions, added, instrument, d_min)


def settle(
    scan: RotationScan, indexed: list[tuple[Grain, Assigned]], spots: Measured, free: FreeCell, options: Grains
) -> tuple[list[Fitted], list[Assigned], Floats]:
    """Fit the grains until the additional variance and the outliers that it leaves are stable.

    Returns
    -------
    fits : list of Fitted
        Of the grains with enough spots.
    kept : list of Assigned
        Their spots without outliers.
    added : (3,) float64
        See `added_sigma`.
    """
    added = np.zeros(3)
    # Before the variance is known, errors that no spot is far from.
    scatter = np.array([0.2, 0.2, 0.1])
    current, starts = [one for _, one in indexed], [grain for grain, _ in indexed]
    fits: list[Fitted] = []
    for number in range(_FINAL):
        total = np.hypot(spots.sigma, added if number else scatter)
        enough = [
            index
            for index, one in enumerate(current)
            if len(one.spot) >= options.min_spots and 3 * len(one.spot) > 6 + len(free.names)
        ]
        current, starts = [current[index] for index in enough], [starts[index] for index in enough]
        if not current:
            return [], [], added
        fits = [
            fit_grain(scan, start, one.hkl, one.branch, spots.place[one.spot], total[one.spot], free=free)
            for start, one in zip(starts, current, strict=True)
        ]
        starts = [fit.grain for fit in fits]
        added = added_sigma(fits, [spots.sigma[one.spot] for one in current])
        if number == _FINAL - 1:
            break
        limit = np.hypot(spots.sigma, added) * options.max_deviation
        for index, one in enumerate(current):
            inside = (np.abs(fits[index].residuals) < limit[one.spot]).all(axis=1)
            current[index] = Assigned(one.spot[inside], one.hkl[inside], one.branch[inside], one.expected)
    return fits, current, added


def _refined(
    scan: RotationScan,
    region: SeenRegion,
    grain: Grain,
    known: Crystal,
    spots: Measured,
    free: FreeCell,
    radius: Floats,
    options: Grains,
) -> tuple[Grain, Assigned]:
    # Weights that do not depend on the counts, so that a few bright spots do not lead the search.
    sigma = np.hypot(spots.sigma, [0.2, 0.2, 0.1])
    return refine(
        scan, region, grain, known, spots.place, sigma, free=free, radius=radius, deviations=options.max_deviation
    )


def _distinct(
    indexed: list[tuple[Grain, Assigned]], min_spots: int, min_completeness: float
) -> list[tuple[Grain, Assigned]]:
    """Leave out grains found twice or with too few reflections, and spots that several grains claim."""
    kept: list[tuple[Grain, Assigned]] = []
    for grain, one in sorted(indexed, key=lambda pair: -len(pair[1].spot)):
        shared = max((np.isin(one.spot, other.spot).mean() for _, other in kept if len(one.spot)), default=0.0)
        enough = len(one.spot) >= max(min_spots, min_completeness * one.expected)
        if enough and shared < _SAME:
            kept.append((grain, one))
    owners = np.concatenate([one.spot for _, one in kept]) if kept else np.zeros(0, np.int64)
    spot, count = np.unique(owners, return_counts=True)
    claimed = spot[count > 1]
    result = []
    for grain, one in kept:
        own = ~np.isin(one.spot, claimed)
        result.append((grain, Assigned(one.spot[own], one.hkl[own], one.branch[own], one.expected)))
    return result
