"""Peaks of single frames: found, fitted, and kept as records between frames and peaks.h5."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.candidate_table import COLUMNS, candidate_columns
from cathodeflow.bragg.fitted_peaks import FittedPeaks, FrameFits, fit_and_flag
from cathodeflow.bragg.flags import FLAGS
from cathodeflow.bragg.peak_fits import PeakFits
from cathodeflow.bragg.peak_options import FindPeaks, Fit
from cathodeflow.bragg.peak_search import CANDIDATE, candidates


class FramePeaks(NamedTuple):
    """Candidates of one frame, (n,) of the type `CANDIDATE`, and their fits."""

    found: NDArray[np.void]
    fitted: FrameFits


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
    return FramePeaks(found, FrameFits(fits, {name: records[name].copy() for name in FLAGS}))


def table_of(frames: Sequence[FramePeaks], options: Fit, binning: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of `io.peaks.write_peaks` but the path, and the figures of merit; as `FittedPeaks.table`.

    Parameters
    ----------
    frames : sequence of FramePeaks
        In their order, at least one.
    options : Fit
    binning : int
        Side of the binned blocks [px].
    """
    fitted = FittedPeaks(options)
    for frame in frames:
        fitted.append(frame.fitted)
    columns = candidate_columns([frame.found for frame in frames])
    return fitted.table({name: columns[name] for name in COLUMNS}, binning)


def warm_up(search: FindPeaks, fit: Fit) -> None:
    """Load, and compile where that was not done before, all that peaks need: seconds before the first frame.

    Two peaks that overlap, and one at a saturated pixel, take all ways through the fits.
    """
    row, col = np.mgrid[:40, :40]
    height = 200 + 10 * search.min_persistence
    peaks = sum(np.exp(-((row - r) ** 2 + (col - c) ** 2) / 4) for r, c in ((12, 12), (12, 16), (28, 28)))
    frame = np.random.default_rng(0).poisson(search.min_value + height * np.asarray(peaks)).astype(np.float32)
    saturated = np.zeros(frame.shape, bool)
    saturated[28, 28] = True
    found = candidates(frame, search, mask=np.zeros(frame.shape, bool))
    at = found["row"], found["col"]
    fit_and_flag(frame, *at, fit, mask=np.zeros_like(saturated), saturated=saturated, variance=np.zeros(frame.shape))
