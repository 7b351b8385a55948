"""Stage: fit the candidate peaks."""

import logging

from cathodeflow.bragg.candidate_table import COLUMNS, by_frame
from cathodeflow.bragg.fitted_peaks import FittedPeaks, pixel_variance
from cathodeflow.bragg.peak_options import Fit
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.peaks import write_peaks
from cathodeflow.io.tables import read_table
from cathodeflow.progress import progress
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bragg")


@stage("bragg.fit")
def fit(frames: InputFile, candidates: InputFile, *, out: OutputFile, options: Fit) -> Metrics:
    """Fit the peaks at CANDIDATES on FRAMES.

    Parameters
    ----------
    frames : path
        Frames file (frames.h5).
    candidates : path
        Table of candidate peaks that `find-peaks` wrote.
    out : path
        File of the fitted peaks to write (peaks.h5).
    """
    found = read_table(candidates, COLUMNS)
    rows, cols = found["row"].to_numpy(), found["col"].to_numpy()
    fitted = FittedPeaks(options)
    with read_frames_file(frames) as file:
        binning = file.binning
        variance = pixel_variance(file.dark, file.dark_frames, binning, options)
        for number, part in progress(by_frame(found, len(file.frames), candidates), "fitting"):
            pixels = {"mask": file.bad_pixels(number), "saturated": file.saturated_pixels(number)}
            fitted.add(file.frames[number], rows[part], cols[part], **pixels, variance=variance)
    columns = {name: found[name].to_numpy() for name in COLUMNS}
    table, figures = fitted.table(columns, binning)
    write_peaks(out, **table)
    log.info("%d peaks fitted, %d converged, %d good", *fitted.counts())
    return Metrics(figures)
