"""Compare the peak positions of network, fit and truth: distances against intensity, recall and precision."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cathodeflow.bragg.binning import to_binned
from cathodeflow.bragg.matching import PAIRS, compare_peaks, match, pair
from cathodeflow.bragg.network_options import Compare
from cathodeflow.statistics import wilson

#: Percentiles of `summary`, by the name they have in the metrics.
PERCENTILES = {"median": 50.0, "p75": 75.0, "p95": 95.0, "p99_5": 99.5}


class Comparison(NamedTuple):
    """Result of `compare_positions`: tables and metrics.

    `peaks` has a row per peak; `by_intensity`, by the name of the distance, a row per intensity bin; `by_amplitude`,
    with a truth, a row per amplitude bin.
    """

    peaks: pd.DataFrame
    by_intensity: dict[str, pd.DataFrame]
    by_amplitude: pd.DataFrame | None
    metrics: dict[str, float | int | None]


def summary(distances: ArrayLike) -> dict[str, float | int | None]:
    """Return count, mean and percentiles of the finite distances [px]; None without any.

    Examples
    --------
    >>> summary([0.1, 0.3, float("nan")])["median"]
    0.2
    >>> summary([])["p95"] is None
    True
    """
    values = np.asarray(distances, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return {"count": 0, "mean": None, **dict.fromkeys(PERCENTILES)}
    percentiles = np.percentile(values, list(PERCENTILES.values()))
    return {
        "count": values.size,
        "mean": float(values.mean()),
        **dict(zip(PERCENTILES, map(float, percentiles), strict=True)),
    }


def error_by_intensity(
    distance: ArrayLike,
    intensity: ArrayLike,
    frame: ArrayLike,
    *,
    n_bins: int,
    n_resamples: int = 400,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Compute the median distance in intensity bins of equally many peaks, with 95 % bootstrap intervals.

    Frames are resampled, not peaks, since the peaks of a frame share background and neighbours [1]_.

    Parameters
    ----------
    distance, intensity, frame : (n,)
        Distance [px], intensity [counts] and frame of each peak; values that are not finite, and intensities of 0 or
        less, are left out.
    n_bins, n_resamples : int
    rng : Generator

    Returns
    -------
    DataFrame
        intensity_low, intensity, intensity_high [counts] (edges and median), count, median, low, high [px].

    References
    ----------
    .. [1] A. C. Davison, D. V. Hinkley, Bootstrap Methods and their Application, 1997, section 3.8
    """
    apart, counts = np.asarray(distance, dtype=np.float64), np.asarray(intensity, dtype=np.float64)
    use = np.isfinite(apart) & np.isfinite(counts) & (counts > 0)
    apart, counts = apart[use], counts[use]
    columns = ["intensity_low", "intensity", "intensity_high", "count", "median", "low", "high"]
    if not apart.size:
        return pd.DataFrame({name: np.zeros(0) for name in columns})
    frames, frame_index = np.unique(np.asarray(frame)[use], return_inverse=True)
    weights = rng.multinomial(len(frames), np.full(len(frames), 1 / len(frames)), size=n_resamples)
    edges = np.unique(np.quantile(counts, np.linspace(0, 1, n_bins + 1)))
    which = np.clip(np.searchsorted(edges, counts, side="right") - 1, 0, max(len(edges) - 2, 0))
    rows = []
    for index in np.unique(which):
        inside = which == index
        order = np.argsort(apart[inside], kind="stable")
        values = apart[inside][order]
        medians = _weighted_medians(values, weights[:, frame_index[inside][order]])
        low, high = np.percentile(medians, [2.5, 97.5]) if medians.size else (np.nan, np.nan)
        bounds = edges[index], np.median(counts[inside]), edges[min(index + 1, len(edges) - 1)]
        rows.append((*bounds, values.size, np.median(values), low, high))
    return pd.DataFrame(rows, columns=columns)


def detection(peaks: pd.DataFrame, truth: pd.DataFrame, *, max_distance: float, n_bins: int) -> pd.DataFrame:
    """Compute the recall of the true peaks by amplitude and the precision of the located peaks by intensity.

    True peaks near bad pixels are excluded from the recall, but a located peak that matches one is correct.

    Parameters
    ----------
    peaks : DataFrame
        Columns frame, network_row, network_col [px], intensity [counts].
    truth : DataFrame
        Columns frame, row, col [px], amplitude [counts], masked.
    max_distance : float
        Maximum distance of a match [px].
    n_bins : int
        Number of bins, equally wide in the logarithm of the counts.

    Returns
    -------
    DataFrame
        low, high [counts], true, recovered, found, correct, and recall and precision, with `_low` and `_high` for the
        ends of their 95 % Wilson intervals [1]_ (NaN where there is nothing to count).

    References
    ----------
    .. [1] E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927)
    """
    ab = peaks[["network_row", "network_col"]].to_numpy(np.float64), truth[["row", "col"]].to_numpy(np.float64)
    found, true, _ = match(*ab, max_distance=max_distance, a_frame=peaks["frame"], b_frame=truth["frame"])
    hit, seen = np.isin(np.arange(len(truth)), true), np.isin(np.arange(len(peaks)), found)
    counted = ~truth["masked"].to_numpy(bool)
    amplitude, intensity = truth["amplitude"].to_numpy(np.float64), peaks["intensity"].to_numpy(np.float64)
    both = np.concatenate([amplitude[counted], intensity])
    both = both[np.isfinite(both) & (both > 0)]
    # Slightly wider, so that rounding does not exclude the lowest or the highest value.
    edges = np.geomspace(both.min() * (1 - 1e-9), both.max() * (1 + 1e-9), n_bins + 1) if both.size else np.ones(1)
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:]})
    of = {
        "true": amplitude[counted],
        "recovered": amplitude[counted & hit],
        "found": intensity,
        "correct": intensity[seen],
    }
    for name, values in of.items():
        table[name] = np.histogram(values, edges)[0] if both.size else np.zeros(0, np.int64)
    for name, part, whole in (("recall", "recovered", "true"), ("precision", "correct", "found")):
        table[name] = table[part] / table[whole].where(table[whole] > 0)
        limits = [wilson(*counts) for counts in zip(table[part], table[whole], strict=True)]
        table[[f"{name}_low", f"{name}_high"]] = np.array(limits).reshape(-1, 2)
    return table


def compare_positions(
    fitted: pd.DataFrame, located: pd.DataFrame, truth: pd.DataFrame | None, options: Compare, *, binning: int
) -> Comparison:
    """Compare the positions of network, fit and truth.

    Parameters
    ----------
    fitted, located : DataFrame
        As for `pair`; the column `persistence` of `located` is the intensity [counts].
    truth : DataFrame or None
        In detector pixels, as `simulation.simulate_scan` returns it.
    options : Compare
    binning : int
        Binning of the frames in which the peaks were found.

    Returns
    -------
    Comparison
        Its `metrics` are None where there are no peaks to compute them from.
    """
    max_distance, n_bins, rng = options.max_distance, options.n_bins, np.random.default_rng(options.seed or 0)
    true = None if truth is None else to_binned(truth, binning)
    pairs = pair(fitted, located, max_distance=max_distance, intensity="persistence")
    peaks = compare_peaks(pairs, true, max_distance=max_distance)
    names = ["_".join(names) for names in PAIRS if "_".join(names) in peaks]
    by_intensity = {
        name: error_by_intensity(peaks[name], peaks["intensity"], peaks["frame"], n_bins=n_bins, rng=rng)
        for name in names
    }
    metrics: dict[str, float | int | None] = {"found": len(located), "fitted": len(fitted)}
    for first, second in PAIRS:
        name = f"{first}_{second}"
        if name in peaks:
            metrics |= {f"{name}_{key}": value for key, value in summary(peaks[name]).items()}
            for axis in ("row", "col"):
                metrics[f"{name}_bias_{axis}"] = _mean(peaks[f"{first}_{axis}"] - peaks[f"{second}_{axis}"])
            if true is not None:
                alone = summary(peaks.loc[peaks["isolated"], name])
                metrics |= {f"{name}_isolated_{key}": value for key, value in alone.items()}
    by_amplitude = None
    if true is not None:
        by_amplitude = detection(peaks, true, max_distance=max_distance, n_bins=n_bins)
        strong = true.assign(masked=true["masked"] | (true["amplitude"] < options.min_amplitude))
        counted = detection(peaks, strong, max_distance=max_distance, n_bins=1)
        metrics["recall"] = _ratio(counted["recovered"].sum(), counted["true"].sum())
        metrics["precision"] = _ratio(by_amplitude["correct"].sum(), by_amplitude["found"].sum())
    return Comparison(peaks, by_intensity, by_amplitude, metrics)


def _weighted_medians(values: NDArray[np.float64], weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """Medians of sorted `values` (n,) under each row of `weights` (resamples, n), where a row is not all zero."""
    cumulative = weights.cumsum(axis=1)
    total = cumulative[:, -1:]
    medians: NDArray[np.float64] = values[np.argmax(2 * cumulative >= total, axis=1)]
    return medians[total[:, 0] > 0]


def _ratio(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole else None


def _mean(values: pd.Series) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None
