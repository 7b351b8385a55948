"""Match peak positions of network, fit and truth, and put them side by side."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

#: What is compared: distances are columns `network_fit`, ... [px] of the table of `compare_peaks`.
PAIRS = (("network", "fit"), ("network", "truth"), ("fit", "truth"))


class Match(NamedTuple):
    """Indices of the matched points in either set, and their distances [px], nearest first."""

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
        Points (row, col) [px]; those that are not finite match nothing.
    max_distance : float
        Largest distance of a pair [px].
    a_frame, b_frame : (n,), (m,) int, optional
        Frames of the points; without them all points are of one.

    Returns
    -------
    Match

    Examples
    --------
    >>> match([[0, 0], [0, 3]], [[0, 2], [0, 9]], max_distance=5).distance
    array([1.])
    """
    points = [_points(xy, frame, max_distance) for xy, frame in ((a, a_frame), (b, b_frame))]
    kept = [np.flatnonzero(np.isfinite(one).all(axis=1)) for one in points]
    points = [one[index] for one, index in zip(points, kept, strict=True)]
    if not (len(points[0]) and len(points[1])):
        return Match(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    trees = [cKDTree(one) for one in points]
    near = trees[0].sparse_distance_matrix(trees[1], max_distance, output_type="ndarray")
    near = near[np.lexsort((near["j"], near["i"], near["v"]))]
    free_a, free_b, chosen = np.ones(len(points[0]), bool), np.ones(len(points[1]), bool), []
    for index, (i, j, _) in enumerate(near.tolist()):
        if free_a[i] and free_b[j]:
            free_a[i] = free_b[j] = False
            chosen.append(index)
    near = near[chosen]
    return Match(kept[0][near["i"]], kept[1][near["j"]], near["v"].astype(np.float64))


def to_binned(truth: pd.DataFrame, binning: int) -> pd.DataFrame:
    """Truth in the pixels of frames binned by `binning`: positions and widths [px]."""
    positions = {axis: (truth[axis] + 0.5) / binning - 0.5 for axis in ("row", "col")}
    return truth.assign(**positions, **{width: truth[width] / binning for width in ("fwhm_row", "fwhm_col")})


def pair(fitted: pd.DataFrame, located: pd.DataFrame, *, max_distance: float, intensity: str) -> pd.DataFrame:
    """Put the fit's and the network's positions of the same peaks side by side.

    Tables that both have a column `candidate` are joined by it, however far apart the positions are; others by `match`.

    Parameters
    ----------
    fitted, located : DataFrame
        Columns frame, row, col [px]; `located`, which has a row for each peak found, also the column `intensity`.
    max_distance : float
        Largest distance of a match [px].
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
    """Distances between network, fit and truth, peak by peak.

    The truth of a peak is found from the mean of both positions, so that it favours neither; where they are further
    apart than `max_distance`, from the one that is nearer to a true peak.

    Parameters
    ----------
    pairs : DataFrame
        As `pair` returns it.
    truth : DataFrame, optional
        Columns frame, row, col [px], peak, amplitude [counts], isolated, in the pixels of `pairs`.
    max_distance : float
        Largest distance of a match [px].

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
        tree = cKDTree(_points(to, truth["frame"], max_distance))
        reach = [_reach(tree, _points(xy, table["frame"], max_distance)) for xy in (network, fit)]
        apart = np.hypot(*(network - fit).T)
        where = np.where((reach[1] < reach[0])[:, None], fit, network)
        where = np.where((apart <= max_distance)[:, None], (network + fit) / 2, where)
        found, true, _ = match(where, to, max_distance=max_distance, a_frame=table["frame"], b_frame=truth["frame"])
        for name, column in (("truth_row", "row"), ("truth_col", "col"), ("amplitude", "amplitude")):
            table[name] = _scatter(truth[column].to_numpy(np.float64)[true], found, len(table))
        table["peak"], table["isolated"] = np.int64(-1), False
        table.loc[found, "peak"] = truth["peak"].to_numpy()[true]
        table.loc[found, "isolated"] = truth["isolated"].to_numpy()[true]
    for one, other in PAIRS:
        if f"{other}_row" in table:
            rows, cols = (table[f"{one}_{axis}"] - table[f"{other}_{axis}"] for axis in ("row", "col"))
            table[f"{one}_{other}"] = np.hypot(rows, cols)
    return table


def _scatter(values: NDArray[np.float64], where: NDArray[np.int64], length: int) -> NDArray[np.float64]:
    column = np.full(length, np.nan)
    column[where] = values
    return column


def _points(xy: ArrayLike, frame: ArrayLike | None, max_distance: float) -> NDArray[np.float64]:
    """Points (frame, row, col), the frames so far apart that no pair within the distance crosses them."""
    rowcol = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
    number = np.zeros(len(rowcol)) if frame is None else np.asarray(frame, dtype=np.float64)
    return np.column_stack([number * 2 * (max_distance + 1), rowcol])


def _reach(tree: cKDTree, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each point to the nearest of the tree; infinite for none, and for points that are not finite."""
    reach, finite = np.full(len(points), np.inf), np.isfinite(points).all(axis=1)
    if tree.n and finite.any():
        reach[finite] = tree.query(points[finite])[0]
    return reach
