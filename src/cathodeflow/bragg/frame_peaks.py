"""Peaks of single frames, found and fitted, and the table of all of them as peaks.h5 has it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cathodeflow.bragg.binning import to_detector
from cathodeflow.bragg.flags import FLAGS, flag_peaks, is_good
from cathodeflow.bragg.options import FindPeaks, Fit
from cathodeflow.bragg.peak_fits import PeakFits, deviations, fit_frame, fit_peaks
from cathodeflow.bragg.peak_search import CANDIDATE, candidates

Bools = NDArray[np.bool_]


class FittedPeaks(NamedTuple):
    """Fits of the candidates of one frame, or of several, and their flags by name, (n,) bool each."""

    fits: PeakFits
    flags: dict[str, Bools]

    @property
    def good(self) -> Bools:
        """(n,) bool: converged and without a flag."""
        return is_good(self.fits, self.flags)


class FramePeaks(NamedTuple):
    """Candidates of one frame, (n,) of the type `CANDIDATE`, and their fits."""

    found: NDArray[np.void]
    fitted: FittedPeaks


_PREFIX = "candidate_"
#: Type of the peaks of a frame as one array: columns of the candidates, with a prefix, of the fits, and the flags.
RECORD = np.dtype(
    [(_PREFIX + name, CANDIDATE[name]) for name in CANDIDATE.names or ()]
    + [(name, "?" if name == "converged" else "f8") for name in PeakFits._fields]
    + [(name, "?") for name in FLAGS]
)


def as_records(peaks: FramePeaks) -> NDArray[np.void]:
    """Return the peaks of a frame as (n,) of the type `RECORD`."""
    records = np.empty(len(peaks.found), RECORD)
    for name in CANDIDATE.names or ():
        records[_PREFIX + name] = peaks.found[name]
    for name, values in (peaks.fitted.fits._asdict() | peaks.fitted.flags).items():
        records[name] = values
    return records


def from_records(records: NDArray[np.void]) -> FramePeaks:
    """Return the peaks of a frame; the inverse of `as_records`."""
    found = np.empty(len(records), CANDIDATE)
    for name in CANDIDATE.names or ():
        found[name] = records[_PREFIX + name]
    fits = PeakFits(**{name: records[name].copy() for name in PeakFits._fields})
    return FramePeaks(found, FittedPeaks(fits, {name: records[name].copy() for name in FLAGS}))


def fit_candidates(
    frame: NDArray[np.floating],
    rows: ArrayLike,
    cols: ArrayLike,
    options: Fit,
    *,
    mask: Bools,
    saturated: Bools,
    variance: ArrayLike,
) -> FittedPeaks:
    """Fit and flag the candidates of one frame; parameters are those of `fit_frame`."""
    fits = fit_frame(frame, rows, cols, options, mask=mask, saturated=saturated, variance=variance)
    return FittedPeaks(fits, flag_peaks(fits, rows, cols, options, mask=mask, saturated=saturated))


def measure_frame(
    frame: NDArray[np.floating],
    search: FindPeaks,
    fit: Fit,
    *,
    mask: Bools,
    saturated: Bools,
    variance: ArrayLike,
) -> FramePeaks:
    """Find and fit the peaks of one corrected frame.

    Parameters
    ----------
    frame : (row, col) floating
        Finite counts.
    search : FindPeaks
    fit : Fit
    mask, saturated : (row, col) bool
        Bad and saturated pixels.
    variance : float or (row, col) float
        As of `fit_frame`.
    """
    found = candidates(frame, search, mask=mask)
    given = {"mask": mask, "saturated": saturated, "variance": variance}
    return FramePeaks(found, fit_candidates(frame, found["row"], found["col"], fit, **given))


def warm_up(search: FindPeaks, fit: Fit) -> None:
    """Load, and compile where that was not done before, all that `measure_frame` needs: seconds before the first frame.

    Two peaks that overlap, one of them at a saturated pixel, take all ways through the fits.
    """
    row, col = np.mgrid[:40, :40]
    peaks = [200 * np.exp(-((row - r) ** 2 + (col - c) ** 2) / 4) for r, c in ((12, 12), (12, 16), (28, 28))]
    frame = np.float32(search.min_value + 10 * search.min_persistence + 50 + sum(peaks))
    frame = np.random.default_rng(0).poisson(frame).astype(np.float32)
    saturated = np.zeros(frame.shape, bool)
    saturated[28, 28] = True
    variance = np.zeros(frame.shape)
    measure_frame(frame, search, fit, mask=np.zeros(frame.shape, bool), saturated=saturated, variance=variance)


def join_fits(parts: Sequence[FittedPeaks], options: Fit) -> FittedPeaks:
    """Join the fits of frames in their order; of no frame, columns without rows."""
    # An empty patch stands for no peak at all, so that the columns keep their types.
    none = fit_peaks(np.empty((0, options.patch_size, options.patch_size)), options)
    every = [*parts, FittedPeaks(none, {name: np.zeros(0, bool) for name in FLAGS})]
    fits = {name: np.concatenate([getattr(part.fits, name) for part in every]) for name in PeakFits._fields}
    return FittedPeaks(PeakFits(**fits), {name: np.concatenate([part.flags[name] for part in every]) for name in FLAGS})


def join_frames(parts: Sequence[FramePeaks], options: Fit) -> tuple[dict[str, NDArray[Any]], FittedPeaks]:
    """Join the peaks of frames in their order.

    Returns
    -------
    dict of str to (n,) array
        `frame` (number in the sequence) and the columns of the candidates.
    FittedPeaks
    """
    found = np.concatenate([np.zeros(0, CANDIDATE), *(part.found for part in parts)])
    columns = {"frame": np.repeat(np.arange(len(parts)), [len(part.found) for part in parts])}
    columns |= {name: found[name] for name in CANDIDATE.names or ()}
    return columns, join_fits([part.fitted for part in parts], options)


def peak_columns(found: Any, fitted: FittedPeaks, options: Fit, *, binning: int) -> dict[str, Any]:
    """Return the arguments of `write_peaks` for fitted candidates.

    Parameters
    ----------
    found : DataFrame, or mapping of str to (n,) array
        Candidates with the columns `frame`, `row`, `col`, `npeaks`, `persistence` and `central`.
    fitted : FittedPeaks
    options : Fit
    binning : int
        Side of the blocks of raw pixels that were summed [px].
    """
    fits = fitted.fits
    rows, cols = np.asarray(found["row"]), np.asarray(found["col"])
    # A peak without a fit keeps the position of its pixel and is marked by an infinite deviation.
    row = np.where(np.isfinite(fits.row), fits.row, rows)
    col = np.where(np.isfinite(fits.col), fits.col, cols)
    columns = {name: values for name, values in fits._asdict().items() if name not in ("row", "col")}
    columns |= {"detector_row": to_detector(row, binning), "detector_col": to_detector(col, binning)}
    columns |= {name: np.asarray(found[name]) for name in ("persistence", "central")}
    columns |= {"candidate": np.arange(len(rows), dtype=np.uint32), **fitted.flags, "good": fitted.good}
    return {
        "fidx": found["frame"],
        "row": row,
        "col": col,
        "deviations": deviations(fits, rows, cols, found["npeaks"]),
        "npeaks": found["npeaks"],
        "columns": columns,
        "attributes": {"model": options.model, "binning": binning},
    }
