"""Stage: correct and bin the raw frames of a scan."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.binning import bin_frame, bin_mask, binned_shape
from cathodeflow.bragg.corrections import corrected_frames, detector_mask, invalid_pixels, saturation_level
from cathodeflow.bragg.options import Frames, require_apart
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.correction_images import correction_source, read_mask, read_mean
from cathodeflow.io.frames import (
    FrameSeries,
    count_limits,
    open_series,
    read_frames,
    stored_masks,
    unless_bad,
)
from cathodeflow.io.frames_file import write_frames
from cathodeflow.progress import progress
from cathodeflow.stage import Metrics, OutputFile, Source, stage

log = logging.getLogger("cathodeflow.bragg")


@stage("bragg.frames")
def frames(
    source: Source, *, out: OutputFile, dark: Source | None = None, mask: Source | None = None, options: Frames
) -> Metrics:
    """Correct and bin the raw frames of SOURCE: a file, a folder, a glob pattern, or FILE.h5::/DATASET.

    Parameters
    ----------
    source : path
        Raw frames.
    out : path
        Frames file to write (frames.h5).
    dark : path
        Dark image, or a series of dark images, whose mean is subtracted.
    mask : path
        Mask image: 0 at good pixels, any other value at bad pixels and gaps. `FILE.h5::/DATASET` may lie in the file of
        the frames; its own `pixel_mask` is used without this option.

    Raises
    ------
    InputError
        A line for every file or frame that cannot be used, and for a dark image or mask that does not fit.
    """
    require_apart({"frames": source, "dark": dark, "mask": mask})
    series = open_series(source, on_bad_file=options.on_bad_file)
    bad_pixels = read_mask(mask, shape=series.shape) if mask else None
    dark_image = read_mean(dark, shape=series.shape) if dark else None
    bad: list[InputError] = []
    wanted = range(series.n_frames)[options.start : options.stop : options.step]
    limits = count_limits(series)
    mask_of = stored_masks(series) if options.stored_mask else None

    def find_invalid(number: int, raw: NDArray[Any]) -> NDArray[np.bool_]:
        invalid = invalid_pixels(raw, options, limits)
        stored = mask_of(number) if mask_of is not None else None
        return invalid if stored is None else invalid | stored

    samples = _samples(series, options)
    detector = detector_mask([find_invalid(*sample) for sample in samples], bad=bad_pixels)
    if bad_pixels is not None and bad_pixels.all():
        raise InputError(str(mask), "every pixel marked as bad", "a mask in which 0 means good")
    if detector.all():
        raise InputError(source, "no pixel with a count that is not masked", "counts")
    without = detector_mask([invalid_pixels(raw, options, limits) for _, raw in samples])
    if dark_image is not None and (wrong := ~np.isfinite(dark_image) & ~detector).any():
        found = f"{np.count_nonzero(wrong)} pixels of NaN or infinity, or without a count"
        raise InputError(str(dark), found, "finite counts on all pixels that are not masked")
    corrected = corrected_frames(
        read_frames(series, options.start, options.stop, options.step, bad=bad),
        options,
        source=source,
        mask=detector,
        find_invalid=find_invalid,
        limits=limits,
        dark_image=dark_image,
        bad=bad,
    )
    if options.on_bad_file == "fail":
        corrected = unless_bad(corrected, bad)
    binned = bin_mask(detector, options.binning)
    written, invalid, saturated = write_frames(
        out,
        progress(corrected, "frames", total=len(wanted)),
        shape=binned_shape(series.shape, options.binning),
        mask=binned,
        binning=options.binning,
        source=source,
        raw_shape=series.shape,
        compression=options.compression,
        saturation=saturation_level(samples[0][1].dtype, options, limits) * options.binning**2,
        dark=None if dark_image is None else bin_frame(np.where(detector, 0, dark_image), options.binning),
        dark_frames=open_series(correction_source(dark)).n_frames if dark else 1,
    )
    for problem in (*series.bad, *bad):
        log.warning("left out: %s", problem)
    log.info("%d frames of %d x %d pixels written, %d bad pixels", written, *binned.shape, int(binned.sum()))
    if saturated:
        log.info("%d saturated pixels, left out of the fits", saturated)
    if without.any():
        shown = " to ".join(f"{value:.10g}" for value in dict.fromkeys(_ends(samples[0][1][without])))
        log.info("%d pixels without a count in all frames, which hold %s", np.count_nonzero(without), shown)
    if invalid:
        log.info("%d pixels without a count in single frames, masked there", invalid)
    return Metrics(
        {
            "frames": written,
            "frames_left_out": len(wanted) - written,
            "files": len(series.files),
            "rows": binned.shape[0],
            "cols": binned.shape[1],
            "bad_pixels": int(binned.sum()),
            "invalid_pixels": invalid,
            "saturated_pixels": saturated,
        }
    )


def _ends(values: NDArray[Any]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _samples(series: FrameSeries, options: Frames) -> list[tuple[int, NDArray[Any]]]:
    """Read the first, the middle and the last of the wanted frames, as far as they can be read, or else any.

    Raises
    ------
    InputError
        None can be read.
    """
    bad: list[InputError] = []
    wanted = range(series.n_frames)[options.start : options.stop : options.step]
    numbers = sorted({wanted[0], wanted[len(wanted) // 2], wanted[-1]}) if wanted else []
    samples = [sample for number in numbers for sample in read_frames(series, number, number + 1, bad=bad)]
    if not samples:
        bad.clear()
        every = read_frames(series, options.start, options.stop, options.step, bad=bad)
        samples = [sample for sample in [next(every, None)] if sample is not None]
    if not samples:
        raise InputErrors.of(bad)
    return samples
