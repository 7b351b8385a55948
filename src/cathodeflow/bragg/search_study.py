"""Comparison of search settings: binning, threshold and persistence against found, missed and false peaks."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.bragg.binning import bin_frame, bin_mask, to_detector
from cathodeflow.bragg.corrections import extra_variance
from cathodeflow.bragg.flags import flag_peaks, is_good
from cathodeflow.bragg.matching import match
from cathodeflow.bragg.peak_fits import PeakFits, fit_frame
from cathodeflow.bragg.peak_options import FindPeaks, Fit, Study
from cathodeflow.bragg.peak_search import candidates
from cathodeflow.statistics import wilson

Floats = NDArray[np.float64]

#: Columns of the settings, and of the counts of one frame with one setting.
SETTING = ("binning", "min_value", "min_persistence")
COUNTS = ("known", "found", "peaks", "false")
# Two settings whose scores differ by less are as good as each other.
_EQUAL = 0.005


class StudyFrame(NamedTuple):
    """A frame, its bad and saturated pixels (row, col), its dark image, if any, and the binning that it has."""

    counts: NDArray[np.float32]
    bad: NDArray[np.bool_]
    saturated: NDArray[np.bool_]
    dark: NDArray[np.float32] | None
    dark_frames: int
    binning: int


class Found(NamedTuple):
    """Peaks found: positions (n, 2) [detector px], which fits are good (n,), and the fits [px of the binned frame]."""

    position: Floats
    good: NDArray[np.bool_]
    fits: PeakFits | None


def fit_options(options: Study) -> Fit:
    """Return the options of the fits of the study."""
    return Fit(gain=options.gain, read_noise=options.read_noise)


def binned(frame: StudyFrame, binning: int) -> StudyFrame:
    """Bin a frame further, as `bragg.frames` does; a block with a bad pixel is bad."""
    factor = binning // frame.binning
    if factor == 1:
        return frame
    bad = bin_mask(frame.bad, factor)
    counts = np.where(bad, np.float32(0), bin_frame(frame.counts, factor))
    dark = None if frame.dark is None else bin_frame(frame.dark, factor)
    return StudyFrame(counts, bad, bin_mask(frame.saturated, factor) & ~bad, dark, frame.dark_frames, binning)


def search_all(
    frame: StudyFrame, options: Study, binnings: Sequence[int], *, fit: bool = True
) -> Iterator[tuple[tuple[float, ...], Found]]:
    """Search and fit the peaks of a frame with every setting; without `fit`, positions are those of the pixels.

    Yields
    ------
    (binning, min_value, min_persistence), Found
    """
    # Of all persistences the lowest is searched: the higher ones select among its peaks.
    lowest = min(options.min_persistence)
    fitting = fit_options(options)
    for binning in binnings:
        image = binned(frame, binning)
        variance = extra_variance(
            image.dark, image.dark_frames, binning=binning, read_noise=options.read_noise, dark_gain=0.0
        )
        # Different settings often give the same peaks, whose fits are the same, too.
        known: dict[bytes, Found] = {}
        for min_value in options.min_value:
            search = FindPeaks(min_value=min_value, min_persistence=lowest)
            peaks = candidates(image.counts, search, mask=image.bad)
            for min_persistence in options.min_persistence:
                chosen = peaks[peaks["persistence"] > min_persistence]
                rows, cols = chosen["row"].copy(), chosen["col"].copy()
                key = rows.tobytes() + cols.tobytes()
                if key not in known:
                    known[key] = _fit(image, rows, cols, fitting, variance) if fit else _unfitted(image, rows, cols)
                yield (binning, min_value, min_persistence), known[key]


def _fit(image: StudyFrame, rows: NDArray[np.int32], cols: NDArray[np.int32], options: Fit, variance: Floats) -> Found:
    pixels = {"mask": image.bad, "saturated": image.saturated}
    fits = fit_frame(image.counts, rows, cols, options, **pixels, variance=variance)
    good = is_good(fits, flag_peaks(fits, rows, cols, options, **pixels))
    position = np.stack(
        [np.where(fits.converged, fitted, pixel) for fitted, pixel in ((fits.row, rows), (fits.col, cols))], axis=1
    )
    return Found(np.asarray(to_detector(position, image.binning), np.float64), good, fits)


def _unfitted(image: StudyFrame, rows: NDArray[np.int32], cols: NDArray[np.int32]) -> Found:
    pixels = np.stack([rows, cols], axis=1).astype(np.float64)
    return Found(np.asarray(to_detector(pixels, image.binning), np.float64), np.zeros(len(rows), bool), None)


def count_known(
    found: Found, known: Floats, counted: NDArray[np.bool_], others: Floats, options: Study
) -> tuple[dict[str, int], Floats]:
    """Count the known peaks of one frame that were found, and the found ones that are none.

    Found peaks are matched with the known and other peaks one to one, nearest pairs first.

    Parameters
    ----------
    found : Found
    known : (n, 2) float64
        Positions of known peaks [detector px].
    counted : (n,) bool
        Which of them must be found: strong enough, and not at bad pixels.
    others : (m, 2) float64
        Positions of further peaks that are neither known nor false.
    options : Study

    Returns
    -------
    counts : dict
        `COUNTS`: known peaks that are counted, those found, all peaks found, and those that match nothing.
    errors : (k,) float64
        Distances of the good fits of counted peaks from their true positions [detector px].
    """
    points = np.concatenate([known.reshape(-1, 2), others.reshape(-1, 2)])
    pairs = match(found.position, points, max_distance=options.max_distance)
    hit = pairs.b < len(known)
    hit[hit] = counted[pairs.b[hit]]
    counts = {"known": int(counted.sum()), "found": int(hit.sum()), "peaks": len(found.position)}
    counts["false"] = len(found.position) - len(pairs.a)
    return counts, pairs.distance[hit & found.good[pairs.a]]


def measured_peaks(found: Found, known: Floats, others: Floats, options: Study) -> NDArray[np.bool_]:
    """Return which known peaks (n, 2) [detector px] were found with a good fit; arguments as for `count_known`."""
    pairs = match(found.position, np.concatenate([known, others]), max_distance=options.max_distance)
    mine = (pairs.b < len(known)) & found.good[pairs.a]
    measured = np.zeros(len(known), bool)
    measured[pairs.b[mine]] = True
    return measured


def summarise(rows: Sequence[tuple[tuple[float, ...], dict[str, int], Floats]]) -> pd.DataFrame:
    """Add the counts of all frames and compute fractions and errors, a row for each setting.

    Parameters
    ----------
    rows : sequence of (setting, counts, errors)
        As `search_all` and `count_known` give them.

    Returns
    -------
    DataFrame
        `SETTING`; `known`, `found`, `missed`, `peaks`, `false`; `found_fraction` of the known and `false_fraction` of
        all peaks found, with `_low` and `_high` for the ends of their 95 % Wilson intervals; `good_fraction` of the
        known peaks that were found and have a good fit; `error`, median distance of these from the truth [detector px];
        `score` and `recommended`, see `recommend`.
    """
    table = pd.DataFrame([{**dict(zip(SETTING, setting, strict=True)), **counts} for setting, counts, _ in rows])
    table = table.groupby([*SETTING], sort=True)[[*COUNTS]].sum().reset_index()
    errors: dict[tuple[float, ...], list[Floats]] = {}
    for setting, _, distances in rows:
        errors.setdefault(setting, []).append(distances)
    table["missed"] = table["known"] - table["found"]
    for part, whole in (("found", "known"), ("false", "peaks")):
        table[f"{part}_fraction"] = table[part] / table[whole].where(table[whole] > 0)
        limits = [wilson(*counts) for counts in zip(table[part], table[whole], strict=True)]
        table[[f"{part}_fraction_low", f"{part}_fraction_high"]] = limits
    joined = [np.concatenate(errors[setting]) for setting in table[[*SETTING]].itertuples(index=False, name=None)]
    table["good_fraction"] = [len(found) for found in joined] / table["known"].where(table["known"] > 0)
    table["error"] = [float(np.median(found)) if len(found) else np.nan for found in joined]
    true = 1 - table["false_fraction"]
    table["score"] = 2 * table["found_fraction"] * true / (table["found_fraction"] + true)
    table["recommended"] = False
    if (best := recommend(table)) is not None:
        table.loc[best, "recommended"] = True
    first = [*SETTING, "known", "found", "missed", "peaks", "false"]
    return table[[*first, *(name for name in table.columns if name not in first)]]


def recommend(table: pd.DataFrame) -> int | None:
    """Return the row of the recommended setting, or None if no setting finds a known peak.

    Of the settings whose score is within half a per cent of the highest, the one with the smallest median error. The
    score is the F score: the harmonic mean of the fraction of the known peaks that are found and the fraction of the
    found ones that are true.
    """
    usable = table[(table["found"] > 0) & table["error"].notna()]
    if not len(usable):
        return None
    best = usable[usable["score"] >= usable["score"].max() - _EQUAL]
    return int(best.sort_values(["error", "false_fraction"], kind="stable").index[0])
