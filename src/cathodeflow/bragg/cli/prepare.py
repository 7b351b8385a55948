"""Commands that make frames and patches."""

import logging

import click

from cathodeflow.bragg.cli.shared import group, outputs, require_inside
from cathodeflow.bragg.options import Frames, Patches, Simulate, require_apart
from cathodeflow.commands import progress, stage_command

log = logging.getLogger("cathodeflow.bragg")


@stage_command(group, Simulate)
@click.argument("folder")
@click.option("--state-of-charge", type=float, required=True, help="0 discharged, 1 charged.")
def simulate(folder: str, state_of_charge: float, options: Simulate) -> None:
    """Write raw frames with known peaks to FOLDER."""
    from cathodeflow.bragg import simulate as stage
    from cathodeflow.errors import InputError
    from cathodeflow.io.simulated import write_nexus_series, write_tiff, write_tiff_series
    from cathodeflow.io.tables import write_table

    if not 0 <= state_of_charge <= 1:
        raise InputError("--state-of-charge", str(state_of_charge), "0 to 1")
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
    import numpy as np

    from cathodeflow.bragg.frames import bin_mask, binned_shape, corrected_frames, detector_mask
    from cathodeflow.errors import InputError, InputErrors
    from cathodeflow.io.frames import open_series, read_frames, read_image, read_mean, unless_bad
    from cathodeflow.io.frames_file import write_frames
    from cathodeflow.record import write_record

    require_apart({"frames": source, "dark": dark, "mask": mask})
    series = open_series(source, on_bad_file=options.on_bad_file)
    bad_pixels = read_image(mask, shape=series.shape) if mask else None
    dark_level = read_mean(dark, shape=series.shape) if dark else None
    bad: list[InputError] = []
    wanted = range(series.n_frames)[options.start : options.stop : options.step]
    first = next((raw for _, raw in read_frames(series, options.start, options.stop, options.step, bad=bad)), None)
    if first is None:
        raise InputErrors.of(bad)
    detector = detector_mask(first, bad=bad_pixels, gap_value=options.gap_value)
    if bad_pixels is not None and not np.isfinite(bad_pixels).all():
        raise InputError(str(mask), "NaN or infinity", "0 at good pixels and other numbers at bad ones")
    if detector.all():
        raise InputError(str(mask or source), "no good pixel", "0 at good pixels")
    if dark_level is not None and (wrong := ~np.isfinite(dark_level) & ~detector).any():
        found = f"{np.count_nonzero(wrong)} pixels of NaN or infinity"
        raise InputError(str(dark), found, "finite counts on all pixels that are not masked")
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


@stage_command(group, Patches)
@click.argument("frames_file")
@click.argument("peaks_file")
@outputs
def patches(frames_file: str, peaks_file: str, sample: str, out: str, record: str, options: Patches) -> None:
    """Cut training patches around the peaks of PEAKS_FILE from the frames of FRAMES_FILE."""
    import numpy as np

    from cathodeflow.bragg.patches import cut_training_patches
    from cathodeflow.io.frames_file import read_frames_file
    from cathodeflow.io.patches import write_patches
    from cathodeflow.io.peaks import read_peaks
    from cathodeflow.record import write_record

    peaks = read_peaks(peaks_file)
    columns = [peaks[name] for name in ("peak_fidx", "peak_row", "peak_col", "deviations", "npeaks")]
    with read_frames_file(frames_file) as file:
        # Fits that failed (inf) or overlap others (-1) are not cut out, wherever they ended.
        placed = (columns[3] >= 0) & np.isfinite(columns[3])
        require_inside(columns[1][placed], columns[2][placed], file.frames.shape[1:], peaks_file)
        parts = cut_training_patches(file.frames, *columns, **options.model_dump())
        written = write_patches(out, progress(parts, "cutting patches"), **options.model_dump())
    metrics = {
        "patches": written,
        "peaks": len(columns[0]),
        "share": written / len(columns[0]) if len(columns[0]) else None,
    }
    write_record(record, stage="bragg.patches", sample=sample, options=options, metrics=metrics)
    log.info("%d training patches from %d peaks", written, len(columns[0]))
