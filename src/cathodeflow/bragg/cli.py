"""Commands of the Bragg stages: they read and write, the stages' modules do the work."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import click

from cathodeflow.bragg.options import FindPeaks, Fit, Frames, Patches, Simulate
from cathodeflow.commands import progress, stage_command, thread_count

log = logging.getLogger("cathodeflow.bragg")


@click.group(name="bragg")
def group() -> None:
    """Bragg peaks on X-ray detector frames: find, fit and locate them."""


def outputs(function: Callable[..., None]) -> Callable[..., None]:
    """Add the flags that every stage with results has."""
    flags = [
        click.option("--sample", required=True, help="Name of the scan."),
        click.option("--out", required=True, metavar="FILE", help="File to write."),
        click.option("--record", required=True, metavar="FILE", help="JSON file for options and figures."),
    ]
    for flag in reversed(flags):
        function = flag(function)
    return function


@stage_command(group, Simulate)
@click.argument("folder")
@click.option("--state-of-charge", type=float, required=True, help="0 discharged, 1 charged.")
def simulate(folder: str, state_of_charge: float, options: Simulate) -> None:
    """Write raw frames with known peaks to FOLDER."""
    from cathodeflow.bragg import simulate as stage
    from cathodeflow.io.simulated import write_nexus_series, write_tiff, write_tiff_series
    from cathodeflow.io.tables import write_table

    scan = stage.simulate_scan(
        state_of_charge=state_of_charge,
        n_frames=options.n_frames,
        shape=(options.rows, options.cols),
        n_peaks=options.n_peaks,
        amplitude=(options.amplitude_min, options.amplitude_max),
        background=options.background,
        ring=options.ring,
        dark=options.dark,
        bad_fraction=options.bad_fraction,
        gap=options.gap,
        seed=options.seed or 0,
    )
    frames = progress(stage.frames(scan), "frames", total=options.n_frames)
    if options.format == "tiff":
        write_tiff_series(folder, frames)
    else:
        shape = (options.rows, options.cols)
        write_nexus_series(f"{folder}/frames.h5", frames, n_frames=options.n_frames, shape=shape)
    write_tiff(f"{folder}/dark.tif", scan.dark)
    write_tiff(f"{folder}/mask.tif", scan.mask)
    write_table(f"{folder}/truth.parquet", scan.truth)
    log.info("%d frames with %d peaks", options.n_frames, len(scan.truth))


@stage_command(group, Frames)
@click.argument("source")
@click.option("--dark", help="Dark image or series.")
@click.option("--mask", help="Image that is not zero at bad pixels.")
@outputs
def frames(
    source: str, dark: str | None, mask: str | None, sample: str, out: str, record: str, options: Frames
) -> None:
    """Correct and bin the raw frames of SOURCE: a file, a folder, a pattern, or FILE.h5::/DATASET."""
    from cathodeflow.bragg.frames import bin_mask, binned_shape, corrected_frames, detector_mask
    from cathodeflow.errors import InputError
    from cathodeflow.io.frames import open_series, read_frames, read_image, read_mean, unless_bad
    from cathodeflow.io.frames_file import write_frames
    from cathodeflow.record import write_record

    series = open_series(source, on_bad_file=options.on_bad_file)
    bad_pixels = read_image(mask, shape=series.shape) if mask else None
    dark_level = read_mean(dark, shape=series.shape) if dark else None
    bad: list[InputError] = []
    wanted = range(series.n_frames)[options.start : options.stop : options.step]
    first = next(read_frames(series, options.start, options.stop, options.step))[1]
    detector = detector_mask(first, bad=bad_pixels, gap_value=options.gap_value)
    corrected = corrected_frames(
        read_frames(series, options.start, options.stop, options.step, bad=bad),
        source=source,
        mask=detector,
        dark=dark_level,
        gap_value=options.gap_value,
        binning=options.binning,
        allow_negative=options.allow_negative,
        saturation=options.saturation,
        max_saturated=options.max_saturated,
        bad=bad,
    )
    if options.on_bad_file == "fail":
        corrected = unless_bad(corrected, bad)
    binned = bin_mask(detector, options.binning)
    written = write_frames(
        out,
        progress(corrected, "frames", total=len(wanted)),
        shape=binned_shape(series.shape, options.binning),
        mask=binned,
        binning=options.binning,
        source=source,
        raw_shape=series.shape,
    )
    for problem in (*series.bad, *bad):
        log.warning("left out: %s", problem)
    metrics = {
        "frames": written,
        "frames_left_out": len(wanted) - written,
        "files": len(series.files),
        "rows": binned.shape[0],
        "cols": binned.shape[1],
        "bad_pixels": int(binned.sum()),
    }
    write_record(record, stage="bragg.frames", sample=sample, options=options, metrics=metrics)
    log.info("%d frames of %d x %d pixels, %d of them bad", written, *binned.shape, metrics["bad_pixels"])


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
        found = list(
            progress(ordered_map(find, file.frames, workers=thread_count()), "finding peaks", total=n_frames)
        )
    peaks = np.concatenate(found)
    table = {"frame": np.repeat(np.arange(n_frames), [len(rows) for rows in found])}
    table |= {name: peaks[name] for name in peaks.dtype.names or ()}
    write_table(out, table)
    alone = peaks["npeaks"] == 1
    metrics = {
        "peaks": len(peaks),
        "peaks_per_frame": len(peaks) / n_frames,
        "frames_without_peaks": sum(len(rows) == 0 for rows in found),
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

    from cathodeflow.bragg.fit import PeakFits, deviations, fit_frame
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
                    read_noise=options.read_noise,
                    max_iterations=options.max_iterations,
                )
            )
    fits = PeakFits(*(np.concatenate([np.empty(0), *columns]) for columns in zip(*parts, strict=True))) if parts else None
    if fits is None:
        fits = PeakFits(*(np.empty(0) for _ in PeakFits._fields))
    fits = fits._replace(converged=fits.converged.astype(bool))
    away = deviations(fits, found["row"], found["col"], found["npeaks"])
    # A peak that could not be fitted stays at its pixel, marked by its deviation.
    row = np.where(np.isfinite(fits.row), fits.row, found["row"])
    col = np.where(np.isfinite(fits.col), fits.col, found["col"])
    columns = {name: values for name, values in fits._asdict().items() if name not in ("row", "col")}
    columns |= {"detector_row": to_detector(row, binning), "detector_col": to_detector(col, binning)}
    columns |= {"persistence": found["persistence"].to_numpy(), "candidate": np.arange(len(found), dtype=np.uint32)}
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


@stage_command(group, Patches)
@click.argument("frames_file")
@click.argument("peaks_file")
@outputs
def patches(frames_file: str, peaks_file: str, sample: str, out: str, record: str, options: Patches) -> None:
    """Cut training patches around the peaks of PEAKS_FILE from the frames of FRAMES_FILE."""
    from cathodeflow.bragg.patches import cut_training_patches
    from cathodeflow.io.frames_file import read_frames_file
    from cathodeflow.io.patches import write_patches
    from cathodeflow.io.peaks import read_peaks
    from cathodeflow.record import write_record

    peaks = read_peaks(peaks_file)
    columns = [peaks[name] for name in ("peak_fidx", "peak_row", "peak_col", "deviations", "npeaks")]
    with read_frames_file(frames_file) as file:
        parts = cut_training_patches(file.frames, *columns, **options.model_dump())
        written = write_patches(out, progress(parts, "cutting patches"), **options.model_dump())
    metrics = {"patches": written, "peaks": len(columns[0]), "share": written / len(columns[0]) if len(columns[0]) else None}
    write_record(record, stage="bragg.patches", sample=sample, options=options, metrics=metrics)
    log.info("%d training patches from %d peaks", written, len(columns[0]))


def read_candidates(path: str) -> Any:
    """Read the table of candidates, ordered by frame."""
    from cathodeflow.io.tables import read_table

    return read_table(path, ["frame", "row", "col", "persistence", "npeaks"])


def by_frame(table: Any, n_frames: int, where: str) -> Iterator[tuple[int, slice]]:
    """Yield (frame, its rows) of a table ordered by frame, for the frames that have rows."""
    import numpy as np

    from cathodeflow.errors import InputError

    frame = table["frame"].to_numpy()
    if len(frame) and (np.diff(frame) < 0).any() or len(frame) and not 0 <= frame[0] <= frame[-1] < n_frames:
        raise InputError(where, f"frames {frame.min()} to {frame.max()}", f"ordered frames 0 to {n_frames - 1}")
    edges = np.flatnonzero(np.diff(frame)) + 1
    for start, stop in zip([0, *edges], [*edges, len(frame)], strict=True):
        if stop > start:
            yield int(frame[start]), slice(int(start), int(stop))


def median(values: Any) -> float | None:
    """Median, or None of nothing."""
    import numpy as np

    return float(np.median(values)) if len(values) else None
