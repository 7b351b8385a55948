"""Commands that find and fit peaks."""

import logging
from typing import Any

import click

from cathodeflow.bragg.cli.shared import by_frame, group, median, outputs, read_candidates
from cathodeflow.bragg.options import FindPeaks, Fit
from cathodeflow.commands import progress, stage_command, thread_count

log = logging.getLogger("cathodeflow.bragg")


@stage_command(group, FindPeaks)
@click.argument("frames_file")
@outputs
def find_peaks(frames_file: str, sample: str, out: str, record: str, options: FindPeaks) -> None:
    """Find the peaks on every frame of FRAMES_FILE."""
    import numpy as np

    from cathodeflow.bragg.find_peaks import candidates
    from cathodeflow.io.frames_file import read_frames_file
    from cathodeflow.io.tables import write_table
    from cathodeflow.parallel import ordered_map
    from cathodeflow.record import write_record

    with read_frames_file(frames_file) as file:

        def find(frame: Any) -> Any:
            return candidates(frame, **options.model_dump(), mask=file.mask)

        n_frames = len(file.frames)
        found = list(progress(ordered_map(find, file.frames, workers=thread_count()), "finding peaks", total=n_frames))
    peaks = np.concatenate(found)
    table = {"frame": np.repeat(np.arange(n_frames), [len(rows) for rows in found])}
    table |= {name: peaks[name] for name in peaks.dtype.names or ()}
    write_table(out, table)
    alone = peaks["npeaks"] == 1
    metrics = {
        "peaks": len(peaks),
        "peaks_per_frame": len(peaks) / n_frames,
        "frames_without_peaks": sum(len(rows) == 0 for rows in found),
        "share_central": float(peaks["central"].mean()) if len(peaks) else None,
        "share_alone": float(alone.mean()) if len(peaks) else None,
        "median_persistence": float(np.median(peaks["persistence"])) if len(peaks) else None,
    }
    write_record(record, stage="bragg.find_peaks", sample=sample, options=options, metrics=metrics)
    log.info("%d peaks on %d frames", len(peaks), n_frames)


@stage_command(group, Fit)
@click.argument("frames_file")
@click.argument("candidates_file")
@outputs
def fit(frames_file: str, candidates_file: str, sample: str, out: str, record: str, options: Fit) -> None:
    """Fit the peaks of CANDIDATES_FILE on the frames of FRAMES_FILE."""
    import numpy as np

    from cathodeflow.bragg.fit import PeakFits, deviations, fit_frame, fit_peaks
    from cathodeflow.bragg.pixels import to_detector
    from cathodeflow.io.frames_file import read_frames_file
    from cathodeflow.io.peaks import write_peaks
    from cathodeflow.record import write_record

    found = read_candidates(candidates_file)
    parts = []
    with read_frames_file(frames_file) as file:
        binning = file.binning
        for number, rows in progress(by_frame(found, len(file.frames), candidates_file), "fitting"):
            parts.append(
                fit_frame(
                    file.frames[number],
                    found["row"].to_numpy()[rows],
                    found["col"].to_numpy()[rows],
                    size=options.patch_size,
                    model=options.model,
                    neighbours=options.neighbours,
                    mask=file.mask,
                    threshold=options.threshold,
                    read_noise=options.read_noise,
                    max_iterations=options.max_iterations,
                )
            )
    # An empty patch stands for no peak at all, so that the columns keep their types.
    parts.append(fit_peaks(np.empty((0, options.patch_size, options.patch_size))))
    fits = PeakFits(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in PeakFits._fields})
    away = deviations(fits, found["row"], found["col"], found["npeaks"])
    # A peak that could not be fitted stays at its pixel, marked by its deviation.
    row = np.where(np.isfinite(fits.row), fits.row, found["row"])
    col = np.where(np.isfinite(fits.col), fits.col, found["col"])
    columns = {name: values for name, values in fits._asdict().items() if name not in ("row", "col")}
    columns |= {"detector_row": to_detector(row, binning), "detector_col": to_detector(col, binning)}
    columns |= {name: found[name].to_numpy() for name in ("persistence", "central")}
    columns |= {"candidate": np.arange(len(found), dtype=np.uint32)}
    attributes = {"model": options.model, "binning": binning}
    write_peaks(out, found["frame"], row, col, away, found["npeaks"], columns=columns, attributes=attributes)
    good = fits.converged
    metrics = {
        "peaks": len(found),
        "share_converged": float(good.mean()) if len(found) else None,
        "median_row_err": median(fits.row_err[good]),
        "median_col_err": median(fits.col_err[good]),
        "median_fwhm_row": median(fits.fwhm_row[good]),
        "median_fwhm_col": median(fits.fwhm_col[good]),
        "median_chi2": median(fits.chi2[good]),
        "for_training": int(((away >= 0) & (away < 1)).sum()),
    }
    write_record(record, stage="bragg.fit", sample=sample, options=options, metrics=metrics)
    log.info("%d peaks fitted, %.1f %% converged", len(found), 100 * (metrics["share_converged"] or 0))
