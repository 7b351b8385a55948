"""Compare tracks with the truth of simulated scans."""

from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

Integers = NDArray[np.int64]

# A spot is that of a true one within this distance [px] and these frames.
_DISTANCE, _FRAMES = 2.0, 3.0


def true_particles(spots: pd.DataFrame, truth: pd.DataFrame) -> Integers:
    """Return the true particle of each spot of a scan, -1 where there is none or another spot is nearer to it.

    Parameters
    ----------
    spots : DataFrame
        `frame`, `row`, `col` [px].
    truth : DataFrame
        `frame`, `row`, `col` [px], `amplitude` [counts], `peak`, `phase`, as `simulation.simulate_scan` returns it.
    """
    weighted = truth.assign(frame=truth["frame"] * truth["amplitude"])
    true = weighted.groupby(["peak", "phase"]).agg({"row": "mean", "col": "mean", "frame": "sum", "amplitude": "sum"})
    true["frame"] /= true["amplitude"]
    particle = np.full(len(spots), -1, np.int64)
    if not len(true) or not len(spots):
        return particle
    scale = np.array([1 / _DISTANCE, 1 / _DISTANCE, 1 / _FRAMES])
    found, known = (table[["row", "col", "frame"]].to_numpy(np.float64) * scale for table in (spots, true))
    near = cKDTree(found).sparse_distance_matrix(cKDTree(known), 1.0, output_type="ndarray")
    distance = np.full((len(spots), len(true)), 2.0)
    distance[near["i"], near["j"]] = near["v"]
    spot, of = linear_sum_assignment(distance)
    real = distance[spot, of] <= 1
    particle[spot[real]] = true.index.get_level_values("peak").to_numpy()[of[real]]
    return particle


def link_quality(state: Integers, track: Integers, particle: Integers) -> pd.DataFrame:
    """Count the links between successive states, and how many of them are right.

    A link is a pair of spots of one track in successive states; where two phases coexist, both of their spots count. It
    is right if both belong to the same particle. The true links are all pairs of spots of one particle.

    Parameters
    ----------
    state, track, particle : (n,) int64
        Of each spot; `particle` -1 is a spot that belongs to none.

    Returns
    -------
    DataFrame
        A row per step: `state` (the first one), `links`, `right`, `true`.

    Examples
    --------
    >>> state, track = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    >>> link_quality(state, track, np.array([7, 8, 7, 9])).to_dict("records")
    [{'state': 0, 'links': 2, 'right': 1, 'true': 1}]
    """
    table = pd.DataFrame({"state": state, "track": track, "particle": particle})
    rows = []
    states = np.unique(state)
    for first, second in pairwise(states):
        one, other = (table[table["state"] == number] for number in (first, second))
        linked = one.merge(other, on="track")
        right = int(((linked["particle_x"] == linked["particle_y"]) & (linked["particle_x"] >= 0)).sum())
        true = len(one[one["particle"] >= 0].merge(other[other["particle"] >= 0], on="particle"))
        rows.append({"state": int(first), "links": len(linked), "right": right, "true": true})
    return pd.DataFrame(rows, columns=["state", "links", "right", "true"])
