"""Stage: fit the candidate peaks."""

import logging

import numpy as np

from cathodeflow.bragg.binning import to_detector
from cathodeflow.bragg.candidate_table import COLUMNS, by_frame
from cathodeflow.bragg.corrections import extra_variance
from cathodeflow.bragg.flags import FLAGS, flag_peaks, is_good
from cathodeflow.bragg.options import Fit
from cathodeflow.bragg.peak_fits import PeakFits, deviations, fit_frame, fit_peaks
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
    parts, flagged = [], []
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
            at = rows[part], cols[part]
            parts.append(fit_frame(file.frames[number], *at, options, **pixels, variance=variance))
            flagged.append(flag_peaks(parts[-1], *at, options, **pixels))
    # An empty patch stands for no peak at all, so that the columns keep their types.
    parts.append(fit_peaks(np.empty((0, options.patch_size, options.patch_size)), options))
    flagged.append({name: np.zeros(0, bool) for name in FLAGS})
    fits = PeakFits(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in PeakFits._fields})
    flags = {name: np.concatenate([part[name] for part in flagged]) for name in FLAGS}
    good = is_good(fits, flags)
    away = deviations(fits, rows, cols, found["npeaks"])
    # A peak without a fit keeps the position of its pixel and is marked by an infinite deviation.
    row = np.where(np.isfinite(fits.row), fits.row, rows)
    col = np.where(np.isfinite(fits.col), fits.col, cols)
    columns = {name: values for name, values in fits._asdict().items() if name not in ("row", "col")}
    columns |= {"detector_row": to_detector(row, binning), "detector_col": to_detector(col, binning)}
    columns |= {name: found[name].to_numpy() for name in ("persistence", "central")}
    columns |= {"candidate": np.arange(len(found), dtype=np.uint32), **flags, "good": good}
    attributes = {"model": options.model, "binning": binning}
    write_peaks(out, found["frame"], row, col, away, found["npeaks"], columns=columns, attributes=attributes)
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
