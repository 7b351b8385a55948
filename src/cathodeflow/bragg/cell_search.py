"""First estimate of how the cell changes from the reference state to every other one, before any hkl is known.

A track of reflection hkl moves by ln d - ln d_reference = w . (change of the logarithmic lattice parameters). The
change is searched on a grid: it is the one at which most tracks move as one of the reflections would that their
spacing in the reference state allows (a mixture likelihood with a bounded loss).
"""

from itertools import product

import numpy as np

from cathodeflow.bragg.population_cell import Floats, Ints, Spacings
from cathodeflow.cells import Reflections, log_spacing

#: Largest relative change of a lattice parameter.
MAX_CHANGE = 0.06
# Steps of the two grids, and the points of the second one on either side.
_COARSE, _FINE, _AROUND = 0.003, 0.0005, 6
# Tracks, and reflections of each, that enter: the grid is coarse, so a part is enough.
_TRACKS, _CANDIDATES = 200, 4
# Loss of a track that moves like none of its candidates, in units of chi-square.
_CUT = 12.0


def search_changes(
    spacings: Spacings, reference: Ints, n_groups: int, reflections: Reflections, centre: Floats, tolerance: float
) -> Floats:
    """Logarithms of the lattice parameters of every group, (g, p).

    Parameters
    ----------
    spacings : Spacings
    reference : (k,) int64
        Groups of the reference state.
    n_groups : int
    reflections : Reflections
    centre : (p,) float64
        Logarithms of the lattice parameters in the reference state.
    tolerance : float
        Standard deviation of the offsets of tracks.
    """
    found = np.tile(centre, (n_groups, 1))
    here = spacings.take(np.isin(spacings.group, reference))
    tracks, first = np.unique(here.track, return_index=True)
    log_d = here.log_d[first]
    expected, slopes = log_spacing(reflections.coefficients, centre)
    standard = (log_d[:, None] - expected) / tolerance
    candidates = np.argsort(np.abs(standard), axis=1)[:, :_CANDIDATES]
    cost = np.take_along_axis(np.square(standard), candidates, axis=1)
    for group in range(n_groups):
        rows = np.flatnonzero((spacings.group == group) & np.isin(spacings.track, tracks))
        if group in reference or not len(rows):
            continue
        rows = rows[:: max(len(rows) // _TRACKS, 1)]
        at = np.searchsorted(tracks, spacings.track[rows])
        moved, error = spacings.log_d[rows] - log_d[at], spacings.error[rows]
        best = _search(moved, error, slopes[candidates[at]], cost[at], np.zeros(len(centre)), _COARSE)
        found[group] += _search(moved, error, slopes[candidates[at]], cost[at], best, _FINE)
    return found


def _search(moved: Floats, error: Floats, slopes: Floats, cost: Floats, middle: Floats, step: float) -> Floats:
    points = _AROUND if step == _FINE else round(MAX_CHANGE / step)
    # Three parameters would make a million points: every second one then.
    stride = 2 if len(middle) > 2 and step == _COARSE else 1
    axis = step * np.arange(-points, points + 1, stride)
    grid = middle + np.array(list(product(axis, repeat=len(middle))))
    variance = np.square(error)[:, None] + (0.7 * step * stride) ** 2
    likelihood = np.empty(len(grid))
    for number, change in enumerate(grid):
        chi2 = np.minimum(np.square(moved[:, None] - slopes @ change) / variance, _CUT) + cost
        likelihood[number] = -np.sum(chi2.min(axis=1))
    return np.asarray(grid[int(np.argmax(likelihood))])
