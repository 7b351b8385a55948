"""Stage: find the peaks of all frames."""

import logging

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.candidate_table import candidate_columns, search_figures
from cathodeflow.bragg.peak_options import FindPeaks
from cathodeflow.bragg.peak_search import candidates
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.tables import write_table
from cathodeflow.parallel import ordered_map, thread_count
from cathodeflow.progress import progress
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bragg")


@stage("bragg.find_peaks")
def find_peaks(frames: InputFile, *, out: OutputFile, options: FindPeaks) -> Metrics:
    """Find the Bragg peaks on every frame of FRAMES.

    Parameters
    ----------
    frames : path
        Frames file (frames.h5).
    out : path
        Table of the candidate peaks to write (Parquet): one row per peak.
    """
    with read_frames_file(frames) as file:
        n_frames = len(file.frames)

        def find(item: tuple[int, NDArray[np.floating]]) -> NDArray[np.void]:
            index, frame = item
            return candidates(frame, options, mask=file.bad_pixels(index))

        searched = ordered_map(find, enumerate(file.frames), workers=thread_count())
        found = list(progress(searched, "finding peaks", total=n_frames))
    write_table(out, candidate_columns(found))
    figures = search_figures(found)
    log.info("%d peaks found on %d frames", figures["peaks"], n_frames)
    if not figures["peaks"]:
        log.warning(
            "no peak above %g counts in %s: is min_value, or the mask, the right one?", options.min_value, frames
        )
    return Metrics(figures)
