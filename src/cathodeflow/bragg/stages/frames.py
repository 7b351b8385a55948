"""Stage: correct and bin the raw frames of a scan."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.binning import bin_frame, bin_mask, binned_shape
from cathodeflow.bragg.corrections import corrected_frames, detector_mask, invalid_pixels, saturation_level
from cathodeflow.bragg.options import Frames, require_apart
from cathodeflow.bragg.scan_corrections import InvalidPixels, read_correction_images, sample_frames, scan_mask
from cathodeflow.errors import InputError
from cathodeflow.io.frames import FrameSeries, open_series, read_frames, unless_bad
from cathodeflow.io.frames_file import write_frames
from cathodeflow.io.raw_format import FrameConditions
from cathodeflow.io.series_conditions import read_conditions, series_conditions
from cathodeflow.progress import progress
from cathodeflow.stage import Metrics, OutputFile, Source, stage

log = logging.getLogger("cathodeflow.bragg")


@stage("bragg.frames")
def frames(
    source: Source,
    *,
    out: OutputFile,
    dark: Source | None = None,
    flat: Source | None = None,
    mask: Source | None = None,
    omega: Source | None = None,
    energy_kev: float | None = None,
    options: Frames,
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
    flat : path
        Flat field, dark subtracted, or a series of them: the frames are divided by their mean, scaled to a median of 1.
        Pixels at which it is not above 0 are bad.
    mask : path
        Mask image: 0 at good pixels, any other value at bad pixels and gaps; the other way round with `--invert-mask`.
        `FILE.h5::/DATASET` may lie in the file of the frames; its own `pixel_mask` is used without this option.
    omega : path
        Orientation angle of the sample, and the photon energy, of each raw frame, instead of those in the raw files:
        a table with the columns `omega` [deg], `energy_kev` or both; FILE.h5::/DATASET; or FILE::NUMBER, a scan of a
        SPEC file.
    energy_kev : float
        Photon energy of all frames [keV], instead of that in the raw files.

    Raises
    ------
    InputError
        A line for every file or frame that cannot be used, and for a dark image, flat field, mask or table that does
        not fit.
    """
    require_apart({"frames": source, "dark": dark, "flat": flat, "mask": mask})
    series = open_series(source, on_bad_file=options.on_bad_file)
    images = read_correction_images(series.shape, options, dark=dark, flat=flat, mask=mask)
    conditions = _conditions(series, omega, energy_kev, options)
    bad: list[InputError] = []
    wanted = range(series.n_frames)[options.start : options.stop : options.step]
    find_invalid = InvalidPixels(series, options)
    limits = find_invalid.limits
    samples = sample_frames(series, options)
    detector = scan_mask([find_invalid(*sample) for sample in samples], images, source)
    without = detector_mask([invalid_pixels(raw, options, limits) for _, raw in samples])
    corrected = corrected_frames(
        read_frames(series, options.start, options.stop, options.step, bad=bad),
        options,
        source=source,
        mask=detector,
        find_invalid=find_invalid,
        limits=limits,
        dark_image=images.dark_image,
        sensitivity=images.sensitivity,
        bad=bad,
    )
    if options.on_bad_file == "fail":
        corrected = unless_bad(corrected, bad)
    subtracted = images.subtracted()
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
        dark=None if subtracted is None else bin_frame(np.where(detector, 0, subtracted), options.binning),
        dark_frames=images.dark_frames,
        conditions=conditions,
    )
    for problem in (*series.bad, *bad):
        log.warning("left out: %s", problem)
    log.info("%d frames of %d x %d pixels written, %d bad pixels", written, *binned.shape, int(binned.sum()))
    if saturated:
        log.info("%d saturated pixels, left out of the fits", saturated)
    if 2 * np.count_nonzero(binned) > binned.size:
        log.warning("more than half of the pixels are bad: if the mask has 0 at bad pixels, set invert_mask")
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
            "with_omega": int(np.isfinite(conditions.omega).sum()),
            "with_energy": int(np.isfinite(conditions.energy_kev).sum()),
        }
    )


def _conditions(series: FrameSeries, omega: str | None, energy_kev: float | None, options: Frames) -> FrameConditions:
    """Find the angle and energy of each frame: as given, else in the given table, else in the raw files."""
    if omega is None:
        found = _stored_conditions(series, options.omega_name)
    else:
        given = read_conditions(omega, series.n_frames, options.omega_name)
        stored = _stored_conditions(series, None) if np.isnan(given).any() else given
        found = FrameConditions(*(np.where(np.isnan(a), b, a) for a, b in zip(given, stored, strict=True)))
    if energy_kev is None:
        return found
    if not 0 < energy_kev < np.inf:
        raise InputError("--energy-kev", f"{energy_kev:g}", "more than 0")
    return found._replace(energy_kev=np.full(series.n_frames, energy_kev))


def _stored_conditions(series: FrameSeries, omega_name: str | None) -> FrameConditions:
    """Find the angle and energy of each frame in the raw files; what was not asked for is no reason to stop."""
    try:
        return series_conditions(series, omega_name)
    except InputError as error:
        if omega_name is not None:
            raise
        log.warning("angle and energy of the frames are not kept: %s", error)
        return FrameConditions(*np.full((2, series.n_frames), np.nan))


def _ends(values: NDArray[Any]) -> tuple[float, float]:
    return float(values.min()), float(values.max())
