"""Stage: fit the candidate peaks."""

import logging

import numpy as np

from cathodeflow.bragg.candidate_table import COLUMNS, by_frame
from cathodeflow.bragg.corrections import extra_variance
from cathodeflow.bragg.frame_peaks import fit_candidates, join_fits, peak_columns
from cathodeflow.bragg.options import Fit
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.peaks import write_peaks
from cathodeflow.io.tables import read_table
from cathodeflow.progress import progress
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage
from cathodeflow.statistics import median

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
    parts = []
    with read_frames_file(frames) as file:
        binning = file.binning
        variance = extra_variance(
            file.dark,
            file.dark_frames,
            binning=binning,
            read_noise=options.read_noise,
            dark_gain=options.gain if options.dark_noise == "poisson" else 0.0,
        )
        for number, part in progress(by_frame(found, len(file.frames), candidates), "fitting"):
            pixels = {"mask": file.bad_pixels(number), "saturated": file.saturated_pixels(number)}
            frame = file.frames[number]
            parts.append(fit_candidates(frame, rows[part], cols[part], options, **pixels, variance=variance))
    fitted = join_fits(parts, options)
    fits, flags, good = *fitted, fitted.good
    written = peak_columns(found, fitted, options, binning=binning)
    away = written["deviations"]
    write_peaks(out, **written)
    log.info(
        "%d peaks fitted, %d converged, %d good", len(found), np.count_nonzero(fits.converged), np.count_nonzero(good)
    )
    return Metrics(
        {
            "peaks": len(found),
            "share_converged": float(fits.converged.mean()) if len(found) else None,
            "share_good": float(good.mean()) if len(found) else None,
            **{name: int(np.count_nonzero(values)) for name, values in flags.items()},
            "median_row_err": median(fits.row_err[good]),
            "median_col_err": median(fits.col_err[good]),
            "median_fwhm_row": median(fits.fwhm_row[good]),
            "median_fwhm_col": median(fits.fwhm_col[good]),
            "median_chi2": median(fits.chi2[good]),
            "for_training": int((good & (away >= 0) & (away < 1)).sum()),
        }
    )
