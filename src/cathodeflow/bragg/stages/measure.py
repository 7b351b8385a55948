"""Stage: raw frames to fitted peaks in one pass."""

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.candidate_table import COLUMNS, candidate_columns, search_figures
from cathodeflow.bragg.fitted_peaks import FittedPeaks, pixel_variance
from cathodeflow.bragg.peak_options import Measure
from cathodeflow.bragg.peak_search import candidates as search
from cathodeflow.bragg.prepared_frames import prepared_frame
from cathodeflow.bragg.raw_scan import each_frame, open_scan, report
from cathodeflow.errors import InputError
from cathodeflow.io.frames import unless_bad
from cathodeflow.io.frames_writer import StoredFrame, storable, write_frames, write_overview
from cathodeflow.io.peaks import write_peaks
from cathodeflow.io.tables import write_table
from cathodeflow.parallel import thread_count
from cathodeflow.progress import progress
from cathodeflow.stage import Metrics, OutputFile, Source, stage

log = logging.getLogger("cathodeflow.bragg")


class _Searched(NamedTuple):
    """A corrected frame, also as frames.h5 holds it, its bad pixels, and its candidates."""

    number: int
    counts: NDArray[np.float32]
    stored: StoredFrame
    bad: NDArray[np.bool_]
    found: NDArray[np.void]


@stage("bragg.measure")
def measure(
    source: Source,
    *,
    out: OutputFile,
    candidates: OutputFile | None = None,
    frames_out: OutputFile | None = None,
    overview: OutputFile | None = None,
    dark: Source | None = None,
    flat: Source | None = None,
    mask: Source | None = None,
    omega: Source | None = None,
    energy_kev: float | None = None,
    options: Measure,
) -> Metrics:
    """Correct the raw frames of SOURCE, find their peaks and fit them, in one pass.

    The results are those of `frames`, `find-peaks` and `fit`, one after the other, to the last bit, without the file of
    frames in between.

    Parameters
    ----------
    source : path
        Raw frames: a file, a folder, a glob pattern, or FILE.h5::/DATASET.
    out : path
        File of the fitted peaks to write (peaks.h5).
    candidates : path
        Table of the candidate peaks to write (Parquet), as of `find-peaks`. Default: not written.
    frames_out : path
        Frames file to write (frames.h5), as of `frames`. Default: not written.
    overview : path
        Frames file to write with the pixels of the frame with the most peaks only, and all else: enough for `geometry`
        and `figures`. Default: not written.
    dark : path
        Dark image, or a series of dark images, whose mean is subtracted.
    flat : path
        Flat field, dark subtracted, or a series of them: the frames are divided by their mean, scaled to a median of 1.
        Pixels at which it is not above 0 are bad.
    mask : path
        Mask image: 0 at good pixels, any other value at bad pixels and gaps; the other way round with
        `--frames-invert-mask`. `FILE.h5::/DATASET` may lie in the file of the frames; its own `pixel_mask` is used
        without this option.
    omega : path
        Orientation angle of the sample, and the photon energy, of each raw frame, for `frames_out`, instead of those in
        the raw files: a table with the columns `omega` [deg], `energy_kev` or both; FILE.h5::/DATASET; or FILE::NUMBER,
        a scan of a SPEC file.
    energy_kev : float
        Photon energy of all frames [keV], for `frames_out`, instead of that in the raw files.

    Raises
    ------
    InputError
        A line for every file or frame that cannot be used, and for a dark image, flat field, mask or table that does
        not fit.
    """
    scan = open_scan(source, options.frames, dark=dark, flat=flat, mask=mask, omega=omega, energy_kev=energy_kev)
    binning = options.frames.binning
    variance = pixel_variance(scan.dark, scan.dark_frames, binning, options.fit)
    fitted, bad = FittedPeaks(options.fit), list[InputError]()
    found: list[NDArray[np.void]] = []
    numbers: list[int] = []
    invalid: list[NDArray[np.intp]] = []
    saturated: list[NDArray[np.intp]] = []
    busiest, most = 0, -1
    kept: NDArray[np.float32] | None = None

    def prepare(number: int, raw: NDArray[Any]) -> _Searched:
        counts = prepared_frame(number, raw, scan.correction)
        stored = storable(counts, scan.mask, scan.saturation)
        bad_pixels = stored.bad_pixels(scan.mask)
        return _Searched(number, counts, stored, bad_pixels, search(stored.pixels, options.find_peaks, mask=bad_pixels))

    def measured() -> Iterator[tuple[int, NDArray[np.float32]]]:
        nonlocal busiest, most, kept
        frames = each_frame(scan, prepare, workers=thread_count(), bad=bad)
        if options.frames.on_bad_file == "fail":
            frames = unless_bad(frames, bad)
        for frame in progress(frames, "measuring", total=len(scan.wanted)):
            n_converged = 0
            if len(frame.found):
                full = frame.stored.saturated_pixels()
                at = frame.found["row"], frame.found["col"]
                n_converged = fitted.add(frame.stored.pixels, *at, mask=frame.bad, saturated=full, variance=variance)
            if n_converged > most:
                busiest, most, kept = len(found), n_converged, frame.stored.pixels
            found.append(frame.found)
            numbers.append(frame.number)
            invalid.append(frame.stored.invalid)
            saturated.append(frame.stored.saturated)
            yield frame.number, frame.counts

    if frames_out:
        write_frames(frames_out, measured(), **scan.layout())
    else:
        for _ in measured():
            pass
        if not found:
            raise InputError(source, "no frame", "at least one frame")
    peaks = candidate_columns(found)
    table, figures = fitted.table({name: peaks[name] for name in COLUMNS}, binning)
    if candidates:
        write_table(candidates, peaks)
    if overview and kept is not None:
        write_overview(overview, numbers, {busiest: kept}, invalid=invalid, saturated=saturated, **scan.layout())
    write_peaks(out, **table)
    marked = {"invalid": sum(map(len, invalid)), "saturated": sum(map(len, saturated))}
    of_scan = report(scan, bad, written=len(found), **marked)
    log.info("%d peaks found and fitted, %d converged, %d good", *fitted.counts())
    if not fitted.counts()[0]:
        lowest = options.find_peaks.min_value
        log.warning("no peak above %g counts in %s: is min_value, or the mask, the right one?", lowest, source)
    return Metrics(of_scan | search_figures(found) | figures)
