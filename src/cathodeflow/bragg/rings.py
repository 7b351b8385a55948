"""Lattice spacing per powder ring from single peaks, and its change: a quick look while a scan runs.

The lattice of each particle is the business of the stages for the series; here all particles of a ring are averaged.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]

# Peaks of neighbouring frames that are nearer than this belong to one reflection [px].
_REACH = 2.0
# A normal distribution has this standard deviation for a median absolute deviation of 1.
_SIGMA = 1.4826
# A ring may have moved by this fraction of q since the reference, as far as the next ring is further away.
_MOVED = 0.02
# Spots further from the median of their ring do not enter its mean [standard deviations].
_CLIP = 5.0


class Rings(NamedTuple):
    """Rings of a reference, in the order of q, (k,) each.

    Attributes
    ----------
    low, high
        Limits of q between which the ring is looked for [1/Angstrom].
    q
        2 pi / d.
    d, d_err
        Mean lattice spacing of the reference, and its standard error [Angstrom].
    spots
        Number of reflections in it.
    """

    low: Floats
    high: Floats
    q: Floats
    d: Floats
    d_err: Floats
    spots: NDArray[np.int64]


def join_spots(frame: NDArray[np.int64], row: Floats, col: Floats, d: Floats, d_err: Floats) -> tuple[Floats, Floats]:
    """Join the peaks of one reflection on neighbouring frames: a reflection counts once, not once per frame.

    Parameters
    ----------
    frame : (n,) int
        Ascending.
    row, col : (n,) float64
        Positions [px].
    d, d_err : (n,) float64
        Lattice spacings and their standard errors [Angstrom].

    Returns
    -------
    d, d_err : (m,) float64
        Weighted means of the spots. The errors are those of the best peak of each: errors of the frames of one spot
        have a common part (profile, pixel response), which averaging does not reduce.
    """
    spot = np.arange(len(frame))
    edges = np.flatnonzero(np.diff(frame)) + 1
    parts = np.split(np.arange(len(frame)), edges) if len(frame) else []
    for before, here in pairwise(parts):
        if frame[here[0]] - frame[before[0]] != 1:
            continue
        tree = cKDTree(np.stack([row[before], col[before]], axis=1))
        distance, nearest = tree.query(np.stack([row[here], col[here]], axis=1), distance_upper_bound=_REACH)
        near = np.isfinite(distance)
        spot[here[near]] = spot[before[nearest[near]]]
    _, spot = np.unique(spot, return_inverse=True)
    weight = d_err**-2.0
    count = int(spot.max()) + 1 if len(spot) else 0
    total = np.bincount(spot, weight, count)
    best = np.full(count, np.inf)
    np.minimum.at(best, spot, d_err)
    return np.bincount(spot, weight * d, count) / total, best


def find_rings(d: Floats, d_err: Floats, *, gap: float, min_spots: int) -> Rings:
    """Find the rings of spots: groups that are apart in q.

    Parameters
    ----------
    d, d_err : (n,) float64
        Lattice spacings and standard errors [Angstrom].
    gap : float
        Least distance in q between spots of different rings, as a fraction of q.
    min_spots : int
        Least number of spots of a ring.

    Returns
    -------
    Rings

    Examples
    --------
    >>> d = np.array([4.70, 4.702, 4.699, 2.45, 2.451, 3.3])
    >>> rings = find_rings(d, np.full(6, 0.001), gap=0.01, min_spots=2)
    >>> rings.d.round(3), rings.spots
    (array([4.7 , 2.45]), array([3, 2]))
    """
    order = np.argsort(-d)
    q = 2 * np.pi / d[order]
    parts = np.split(order, np.flatnonzero(np.diff(np.log(q)) > gap) + 1) if len(d) else []
    rows = []
    for part in parts:
        if len(part) >= min_spots:
            mean, error, count = ring_mean(d[part], d_err[part])
            ends = np.log(2 * np.pi / np.array([d[part].max(), d[part].min()]))
            rows.append((*ends, 2 * np.pi / mean, mean, error, count))
    low, high, middle_q, mean_d, mean_err, spots = np.array(rows, np.float64).reshape(-1, 6).T
    middle = (high[:-1] + low[1:]) / 2
    low = np.maximum(low - _MOVED, np.concatenate([[-np.inf], middle])[: len(low)])
    high = np.minimum(high + _MOVED, np.concatenate([middle, [np.inf]])[: len(high)])
    return Rings(np.exp(low), np.exp(high), middle_q, mean_d, mean_err, spots.astype(np.int64))


def ring_mean(d: Floats, d_err: Floats) -> tuple[float, float, int]:
    """Return the weighted mean of the spots of a ring, its standard error, and the number of spots in it.

    Particles differ: their scatter, as far as it exceeds the errors of the spots, is added to these. Outliers, such as
    spots of another ring, do not count.
    """
    middle = np.median(d)
    scatter = _SIGMA * np.median(np.abs(d - middle))
    kept = np.abs(d - middle) <= _CLIP * np.maximum(scatter, d_err)
    own = max(0.0, scatter**2 - float(np.median(d_err[kept] ** 2)))
    weight = 1 / (d_err[kept] ** 2 + own)
    return float((weight * d[kept]).sum() / weight.sum()), float(weight.sum() ** -0.5), int(np.count_nonzero(kept))


def ring_strain(rings: Rings, d: Floats, d_err: Floats) -> pd.DataFrame:
    """Compute the mean lattice spacing of each ring, and its strain d / d(reference) - 1.

    Parameters
    ----------
    rings : Rings
        Of the reference.
    d, d_err : (n,) float64
        Spots that are not in the reference [Angstrom].

    Returns
    -------
    DataFrame
        `ring` (from 1), `q`, `d_reference`, `d_reference_err`, `reference_spots`, `d`, `d_err`, `spots`, `strain`,
        `strain_err`; NaN for a ring with fewer than two spots.
    """
    q = 2 * np.pi / d
    rows = []
    for number in range(len(rings.q)):
        inside = (q >= rings.low[number]) & (q <= rings.high[number])
        here = ring_mean(d[inside], d_err[inside]) if np.count_nonzero(inside) > 1 else (np.nan, np.nan, 0)
        before, before_err = rings.d[number], rings.d_err[number]
        ratio = here[0] / before
        error = ratio * np.hypot(here[1] / here[0], before_err / before)
        rows.append((number + 1, rings.q[number], before, before_err, rings.spots[number], *here, ratio - 1, error))
    names = ["ring", "q", "d_reference", "d_reference_err", "reference_spots", "d", "d_err", "spots"]
    return pd.DataFrame(rows, columns=[*names, "strain", "strain_err"])
