"""Stage: cut the training patches of a scan."""

import logging

import numpy as np

from cathodeflow.bragg.candidate_table import require_inside
from cathodeflow.bragg.network_options import Patches
from cathodeflow.bragg.training_patches import cut_training_patches
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.patches import write_patches
from cathodeflow.io.peaks import read_peaks
from cathodeflow.progress import progress
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bragg")


@stage("bragg.patches")
def patches(frames: InputFile, peaks: InputFile, *, out: OutputFile, options: Patches) -> Metrics:
    """Cut labelled training patches around the fitted PEAKS on FRAMES.

    Parameters
    ----------
    frames : path
        Frames file (frames.h5).
    peaks : path
        Fitted peaks (peaks.h5).
    out : path
        File of the patches to write (patches.h5).
    """
    fitted = read_peaks(peaks, None)
    # Peaks of BraggNN's own files have no flags.
    if "good" in fitted:
        fitted["deviations"] = np.where(fitted["good"] != 0, fitted["deviations"], np.inf)
    columns = [fitted[name] for name in ("peak_fidx", "peak_row", "peak_col", "deviations", "npeaks")]
    n_peaks = len(columns[0])
    with read_frames_file(frames) as file:
        # Failed or flagged fits (inf) and overlapping peaks (-1) are not used: their positions may be off the frame.
        usable = (columns[3] >= 0) & np.isfinite(columns[3])
        require_inside(columns[1][usable], columns[2][usable], file.frames.shape[1:], peaks)
        errors = np.stack([fitted.get(name, np.full(n_peaks, np.nan)) for name in ("row_err", "col_err")], axis=1)
        parts = cut_training_patches(file.frames, *columns, errors=errors, options=options)
        written = write_patches(out, progress(parts, "cutting patches"), **options.model_dump())
    log.info("%d training patches cut from %d peaks", written, n_peaks)
    return Metrics({"patches": written, "peaks": n_peaks, "share": written / n_peaks if n_peaks else None})
