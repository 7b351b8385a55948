"""Stage: correct and bin the raw frames of a scan."""

import logging

import numpy as np

from cathodeflow.bragg.binning import bin_mask, binned_shape
from cathodeflow.bragg.corrections import corrected_frames, detector_mask
from cathodeflow.bragg.options import Frames, require_apart
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.frames import open_series, read_frames, read_image, read_mean, unless_bad
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
        Mask image: 0 at good pixels, any other value at bad pixels and gaps.

    Raises
    ------
    InputError
        A line for every file or frame that cannot be used, and for a dark image or mask that does not fit.
    """
    require_apart({"frames": source, "dark": dark, "mask": mask})
    series = open_series(source, on_bad_file=options.on_bad_file)
    bad_pixels = read_image(mask, shape=series.shape) if mask else None
    dark_image = read_mean(dark, shape=series.shape) if dark else None
    bad: list[InputError] = []
    wanted = range(series.n_frames)[options.start : options.stop : options.step]
    first = next((raw for _, raw in read_frames(series, options.start, options.stop, options.step, bad=bad)), None)
    if first is None:
        raise InputErrors.of(bad)
    detector = detector_mask(first, bad=bad_pixels, gap_value=options.gap_value)
    if bad_pixels is not None and not np.isfinite(bad_pixels).all():
        raise InputError(str(mask), "NaN or infinity", "0 at good pixels and other numbers at bad ones")
    if detector.all():
        raise InputError(str(mask or source), "every pixel marked as bad", "a mask in which 0 means good")
    if dark_image is not None and (wrong := ~np.isfinite(dark_image) & ~detector).any():
        found = f"{np.count_nonzero(wrong)} pixels of NaN or infinity"
        raise InputError(str(dark), found, "finite counts on all pixels that are not masked")
    corrected = corrected_frames(
        read_frames(series, options.start, options.stop, options.step, bad=bad),
        options,
        source=source,
        mask=detector,
        dark_image=dark_image,
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
    log.info("%d frames of %d x %d pixels written, %d bad pixels", written, *binned.shape, int(binned.sum()))
    return Metrics(
        {
            "frames": written,
            "frames_left_out": len(wanted) - written,
            "files": len(series.files),
            "rows": binned.shape[0],
            "cols": binned.shape[1],
            "bad_pixels": int(binned.sum()),
        }
    )
