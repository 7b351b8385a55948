"""Match the peak positions of network, fit and truth, and join them in one table."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

#: Compared pairs; the distances are the columns `network_fit`, ... [px] of the table of `compare_peaks`.
PAIRS = (("network", "fit"), ("network", "truth"), ("fit", "truth"))


class Match(NamedTuple):
    """Indices of the matched points in each set, and their distances [px], nearest first."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    distance: NDArray[np.float64]


def match(
    a: ArrayLike,
    b: ArrayLike,
    *,
    max_distance: float,
    a_frame: ArrayLike | None = None,
    b_frame: ArrayLike | None = None,
) -> Match:
    """Match points one to one, nearest pairs first, within each frame.

    Parameters
    ----------
    a, b : (n, 2), (m, 2) float
        Points (row, col) [px]; points that are not finite are never matched.
    max_distance : float
        Maximum distance of a pair [px].
    a_frame, b_frame : (n,), (m,) int, optional
        Frames of the points. Default: all points are on one frame.

    Returns
    -------
    Match

    Examples
    --------
    >>> match([[0, 0], [0, 3]], [[0, 2], [0, 9]], max_distance=5).distance
    array([1.])
    """
    points = [points_by_frame(xy, frame, max_distance) for xy, frame in ((a, a_frame), (b, b_frame))]
    kept = [np.flatnonzero(np.isfinite(found).all(axis=1)) for found in points]
    points = [found[index] for found, index in zip(points, kept, strict=True)]
    if not (len(points[0]) and len(points[1])):
        return Match(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    trees = [cKDTree(found) for found in points]
    near = trees[0].sparse_distance_matrix(trees[1], max_distance, output_type="ndarray")
    near = near[np.lexsort((near["j"], near["i"], near["v"]))]
    free_a, free_b, chosen = np.ones(len(points[0]), bool), np.ones(len(points[1]), bool), []
    for index, (i, j, _) in enumerate(near.tolist()):
        if free_a[i] and free_b[j]:
            free_a[i] = free_b[j] = False
            chosen.append(index)
    near = near[chosen]
    return Match(kept[0][near["i"]], kept[1][near["j"]], near["v"].astype(np.float64))


def points_by_frame(xy: ArrayLike, frame: ArrayLike | None, distance: float) -> NDArray[np.float64]:
    """Return points (frame, row, col) for a search of neighbours in frames.

    Frames are so far apart along the first axis that no pair within the distance has points in two frames.

    Parameters
    ----------
    xy : (n, 2) float
        Positions (row, col) [px].
    frame : (n,) int, optional
        Frame of each point. Default: all points are on one frame.
    distance : float
        Maximum distance of the search [px].

    Returns
    -------
    (n, 3) float64
    """
    rowcol = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
    number = np.zeros(len(rowcol)) if frame is None else np.asarray(frame, dtype=np.float64)
    return np.column_stack([number * 2 * (distance + 1), rowcol])


def pair(fitted: pd.DataFrame, located: pd.DataFrame, *, max_distance: float, intensity: str) -> pd.DataFrame:
    """Join the positions of the same peaks from the fit and the network.

    If both tables have a column `candidate` they are joined by it, at any distance; otherwise with `match`.

    Parameters
    ----------
    fitted, located : DataFrame
        Columns frame, row, col [px]; `located`, which has a row for each peak found, also the column `intensity`.
    max_distance : float
        Maximum distance of a match [px].
    intensity : str
        Column of `located` to report as intensity [counts].

    Returns
    -------
    DataFrame
        A row for each of `located`: frame, intensity, network_row, network_col, fit_row, fit_col (NaN without a fit).
    """
    if "candidate" in fitted and "candidate" in located:
        of_fit = pd.Index(fitted["candidate"]).get_indexer(pd.Index(located["candidate"]))
        found, in_fit = np.flatnonzero(of_fit >= 0), of_fit[of_fit >= 0]
    else:
        ab = [table[["row", "col"]].to_numpy(np.float64) for table in (located, fitted)]
        found, in_fit, _ = match(*ab, max_distance=max_distance, a_frame=located["frame"], b_frame=fitted["frame"])
    table = pd.DataFrame({"frame": located["frame"].to_numpy(), "intensity": located[intensity].to_numpy(np.float64)})
    for axis in ("row", "col"):
        table[f"network_{axis}"] = located[axis].to_numpy(np.float64)
        table[f"fit_{axis}"] = _scatter(fitted[axis].to_numpy(np.float64)[in_fit], found, len(table))
    return table


def compare_peaks(pairs: pd.DataFrame, truth: pd.DataFrame | None = None, *, max_distance: float) -> pd.DataFrame:
    """Compute the distances between network, fit and truth of every peak.

    The true peak is searched from the mean of both positions, which favours neither; if these are more than
    `max_distance` apart, from the position that is closer to a true peak.

    Parameters
    ----------
    pairs : DataFrame
        As `pair` returns it.
    truth : DataFrame, optional
        Columns frame, row, col [px], peak, amplitude [counts], isolated, in the pixels of `pairs`.
    max_distance : float
        Maximum distance of a match [px].

    Returns
    -------
    DataFrame
        `pairs` with network_fit [px] and, with a truth, truth_row, truth_col [px], amplitude [counts] (NaN without a
        match), peak (-1), isolated (False), network_truth and fit_truth [px].
    """
    table = pairs.copy()
    if truth is not None:
        network, fit = (table[[f"{who}_row", f"{who}_col"]].to_numpy(np.float64) for who in ("network", "fit"))
        to = truth[["row", "col"]].to_numpy(np.float64)
        tree = cKDTree(points_by_frame(to, truth["frame"], max_distance))
        reach = [_reach(tree, points_by_frame(xy, table["frame"], max_distance)) for xy in (network, fit)]
        apart = np.hypot(*(network - fit).T)
        where = np.where((reach[1] < reach[0])[:, None], fit, network)
        where = np.where((apart <= max_distance)[:, None], (network + fit) / 2, where)
        found, true, _ = match(where, to, max_distance=max_distance, a_frame=table["frame"], b_frame=truth["frame"])
        for name, column in (("truth_row", "row"), ("truth_col", "col"), ("amplitude", "amplitude")):
            table[name] = _scatter(truth[column].to_numpy(np.float64)[true], found, len(table))
        table["peak"], table["isolated"] = np.int64(-1), False
        table.loc[found, "peak"] = truth["peak"].to_numpy()[true]
        table.loc[found, "isolated"] = truth["isolated"].to_numpy()[true]
    for first, second in PAIRS:
        if f"{second}_row" in table:
            rows, cols = (table[f"{first}_{axis}"] - table[f"{second}_{axis}"] for axis in ("row", "col"))
            table[f"{first}_{second}"] = np.hypot(rows, cols)
    return table


def _scatter(values: NDArray[np.float64], where: NDArray[np.int64], length: int) -> NDArray[np.float64]:
    column = np.full(length, np.nan)
    column[where] = values
    return column


def _reach(tree: cKDTree, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each point to the nearest of the tree; infinite without any, and for points that are not finite."""
    reach, finite = np.full(len(points), np.inf), np.isfinite(points).all(axis=1)
    if tree.n and finite.any():
        reach[finite] = tree.query(points[finite])[0]
    return reach
