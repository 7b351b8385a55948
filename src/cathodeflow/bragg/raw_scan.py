"""A raw scan: its frames, and everything that they are corrected with, read from the sources that the user names."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.binning import bin_frame, bin_mask, binned_shape
from cathodeflow.bragg.corrections import detector_mask, flat_field, invalid_pixels, saturation_level
from cathodeflow.bragg.options import require_apart
from cathodeflow.bragg.peak_options import Frames
from cathodeflow.bragg.prepared_frames import Correction, correction_of
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.file_arguments import Source
from cathodeflow.io.correction_images import read_mask, read_mean
from cathodeflow.io.frames import (
    FrameSeries,
    LazyFrame,
    count_limits,
    lazy_frames,
    open_series,
    read_frames,
    stored_masks,
)
from cathodeflow.io.raw_format import FrameConditions
from cathodeflow.io.series_conditions import read_conditions, series_conditions
from cathodeflow.parallel import ordered_map, read_ahead

log = logging.getLogger("cathodeflow.bragg")
R = TypeVar("R")


class RawScan(NamedTuple):
    """A scan of raw frames that is to be corrected.

    Attributes
    ----------
    series : FrameSeries
    wanted : range
        Numbers of the frames that are used.
    correction : Correction
    conditions : FrameConditions
        Angle and energy of all frames of the series.
    mask : (row, col) bool
        Bad pixels of the binned frames.
    saturation : float
        Count of a saturated pixel of the binned frames.
    dark : (row, col) float32, optional
        Dark image that is subtracted, in the pixels of the binned frames [counts].
    dark_frames : int
        Number of frames of which it is the mean.
    uncounted : (int, str)
        Pixels without a count in all frames, and the values that they hold.
    """

    series: FrameSeries
    wanted: range
    correction: Correction
    conditions: FrameConditions
    mask: NDArray[np.bool_]
    saturation: float
    dark: NDArray[np.float32] | None
    dark_frames: int
    uncounted: tuple[int, str]

    def layout(self) -> dict[str, Any]:
        """Return the keywords of `frames_writer.write_frames` that say what the frames are."""
        options = self.correction.options
        return {
            "shape": self.mask.shape,
            "mask": self.mask,
            "binning": options.binning,
            "source": self.series.source,
            "raw_shape": self.series.shape,
            "dtype": counts_type(self),
            "compression": options.compression,
            "saturation": self.saturation,
            "dark": self.dark,
            "dark_frames": self.dark_frames,
            "conditions": self.conditions,
        }


class Images(NamedTuple):
    """Images that the frames of a scan are corrected with; None without one.

    Attributes
    ----------
    bad_pixels : (row, col) bool or None
        Of the mask image, and where the flat field is not above 0.
    dark_image : (row, col) float64 or None
        [counts]
    dark_frames : int
        Number of frames of which it is the mean.
    sensitivity : (row, col) float64 or None
        Flat field, scaled to a median of 1.
    dark : str or None
        Source of the dark image, for errors.
    """

    bad_pixels: NDArray[np.bool_] | None
    dark_image: NDArray[np.float64] | None
    dark_frames: int
    sensitivity: NDArray[np.float64] | None
    dark: str | None


def counts_type(scan: RawScan) -> np.dtype:
    """Return the type in which frames.h5 holds the counts of a scan: integers take .6 of the space of float32.

    Counts are whole where no dark image is subtracted and no flat field divides them.
    """
    raw, correction = scan.series.dtype, scan.correction
    whole = correction.dark_image is None and correction.sensitivity is None and raw.kind in "iu" and raw.itemsize <= 4
    # Saturated pixels have the level as their count.
    if not whole or not (np.isinf(scan.saturation) or float(np.float32(scan.saturation)).is_integer()):
        return np.dtype(np.float32)
    small = correction.options.binning == 1 and raw.itemsize <= 2
    found = np.dtype(f"{raw.kind}{2 if small else 4}")
    fits = np.isinf(scan.saturation) or scan.saturation <= np.iinfo(found).max
    return found if fits else np.dtype(np.float32)


def open_scan(
    source: Source,
    options: Frames,
    *,
    dark: Source | None = None,
    flat: Source | None = None,
    mask: Source | None = None,
    omega: Source | None = None,
    energy_kev: float | None = None,
) -> RawScan:
    """Read all that frames are corrected with; parameters are those of the stage `bragg.frames`.

    Raises
    ------
    InputError
        A line for every file that cannot be used, and for a dark image, flat field, mask or table that does not fit.
    """
    require_apart({"frames": source, "dark": dark, "flat": flat, "mask": mask})
    series = open_series(source, on_bad_file=options.on_bad_file)
    images = read_images(series.shape, options, dark=dark, flat=flat, mask=mask)
    return scan_of(series, images, options, _conditions(series, omega, energy_kev, options))


def read_images(
    shape: tuple[int, int],
    options: Frames,
    *,
    dark: Source | None = None,
    flat: Source | None = None,
    mask: Source | None = None,
) -> Images:
    """Read dark image, flat field and mask for raw frames of a (row, col) shape, as far as they are given.

    Raises
    ------
    InputError
        One of them cannot be read or has another shape, or the mask leaves no pixel.
    """
    bad_pixels = read_mask(mask, shape=shape) if mask else None
    if bad_pixels is not None and options.invert_mask:
        bad_pixels = ~bad_pixels
    dark_image, dark_frames = read_mean(dark, shape=shape) if dark else (None, 1)
    sensitivity = None
    if flat:
        sensitivity = flat_field(read_mean(flat, shape=shape).image, where=flat, bad=bad_pixels)
        insensitive = np.isnan(sensitivity)
        bad_pixels = insensitive if bad_pixels is None else bad_pixels | insensitive
    if bad_pixels is not None and bad_pixels.all():
        raise InputError(str(mask or flat), "every pixel marked as bad", "a mask in which 0 means good (invert_mask)")
    return Images(bad_pixels, dark_image, dark_frames, sensitivity, dark)


def scan_of(series: FrameSeries, images: Images, options: Frames, conditions: FrameConditions) -> RawScan:
    """Put together a scan whose last frame is there, with the pixels that are bad in all its frames.

    Raises
    ------
    InputError
        No frame can be read, no pixel is left, or the dark image has no finite count at one that is.
    """
    limits = count_limits(series)
    mask_of = stored_masks(series) if options.stored_mask else None
    samples = _samples(series, options)
    invalid = [invalid_pixels(raw, options, limits) for _, raw in samples]
    stored = [None if mask_of is None else mask_of(number) for number, _ in samples]
    marked = [own if other is None else own | other for own, other in zip(invalid, stored, strict=True)]
    detector = detector_mask(marked, bad=images.bad_pixels)
    if detector.all():
        raise InputError(series.source, "no pixel with a count that is not masked", "counts")
    dark_image = images.dark_image
    if dark_image is not None and (wrong := ~np.isfinite(dark_image) & ~detector).any():
        found = f"{np.count_nonzero(wrong)} pixels of NaN or infinity, or without a count"
        raise InputError(str(images.dark), found, "finite counts on all pixels that are not masked")
    scan = scan_with(series, images, options, detector, conditions)
    return scan._replace(uncounted=_uncounted(samples[0][1], detector_mask(invalid)))


def scan_with(
    series: FrameSeries, images: Images, options: Frames, detector: NDArray[np.bool_], conditions: FrameConditions
) -> RawScan:
    """Put together a scan with given bad pixels of all raw frames, (row, col) bool; `uncounted` is left open."""
    limits, dark_image, sensitivity = count_limits(series), images.dark_image, images.sensitivity
    correction = correction_of(
        options,
        source=series.source,
        mask=detector,
        limits=limits,
        dark_image=dark_image,
        sensitivity=sensitivity,
        mask_of=stored_masks(series) if options.stored_mask else None,
    )
    subtracted = dark_image if dark_image is None or sensitivity is None else dark_image / sensitivity
    binned_shape(series.shape, options.binning)
    return RawScan(
        series,
        range(series.n_frames)[options.start : options.stop : options.step],
        correction,
        conditions,
        bin_mask(detector, options.binning),
        saturation_level(series.dtype, options, limits) * options.binning**2,
        None
        if subtracted is None
        else bin_frame(np.where(detector, 0, subtracted), options.binning).astype(np.float32),
        images.dark_frames,
        (0, ""),
    )


class _Failure(NamedTuple):
    """The error of a frame, and whether it was found when the frame was read."""

    error: InputError
    reading: bool


def each_frame(
    scan: RawScan,
    work: Callable[[int, NDArray[Any]], R],
    *,
    workers: int,
    bad: list[InputError],
) -> Iterator[R]:
    """Decode the frames of a scan in several threads, work on each in the same thread, and give the results in order.

    Files are read in one more thread; at most some four frames for each worker are in memory.

    Parameters
    ----------
    scan : RawScan
    work : callable
        Frame number and raw frame (row, col) to the result; releases the interpreter lock for most of its time.
    workers : int
    bad : list of InputError
        Collects the errors of frames that cannot be decoded, after which the rest of their file is left out, and of
        those for which `work` raises an InputError.
    """

    def run(frame: LazyFrame) -> tuple[str, R | _Failure]:
        try:
            raw = frame.load()
        except InputError as error:
            return frame.path, _Failure(error, True)
        try:
            return frame.path, work(frame.number, raw)
        except InputError as error:
            return frame.path, _Failure(error, False)

    options = scan.correction.options
    frames = read_ahead(lazy_frames(scan.series, options.start, options.stop, options.step), depth=2 * workers)
    damaged: set[str] = set()
    for path, result in ordered_map(run, frames, workers=workers):
        if path in damaged:
            continue
        if isinstance(result, _Failure):
            bad.append(result.error)
            if result.reading:
                damaged.add(path)
            continue
        yield result


def report(scan: RawScan, bad: list[InputError], *, written: int, invalid: int, saturated: int) -> dict[str, int]:
    """Log what was left out of a scan and how many pixels are bad; return the figures for the record."""
    binned = scan.mask
    for problem in (*scan.series.bad, *bad):
        log.warning("left out: %s", problem)
    log.info("%d frames of %d x %d pixels, %d bad pixels", written, *binned.shape, int(binned.sum()))
    if saturated:
        log.info("%d saturated pixels, left out of the fits", saturated)
    if 2 * np.count_nonzero(binned) > binned.size:
        log.warning("more than half of the pixels are bad: if the mask has 0 at bad pixels, set invert_mask")
    n_uncounted, values = scan.uncounted
    if n_uncounted:
        log.info("%d pixels without a count in all frames, which hold %s", n_uncounted, values)
    if invalid:
        log.info("%d pixels without a count in single frames, masked there", invalid)
    return {
        "frames": written,
        "frames_left_out": len(scan.wanted) - written,
        "files": len(scan.series.files),
        "rows": binned.shape[0],
        "cols": binned.shape[1],
        "bad_pixels": int(binned.sum()),
        "invalid_pixels": invalid,
        "saturated_pixels": saturated,
        "with_omega": int(np.isfinite(scan.conditions.omega).sum()),
        "with_energy": int(np.isfinite(scan.conditions.energy_kev).sum()),
    }


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


def _uncounted(raw: NDArray[Any], without: NDArray[np.bool_]) -> tuple[int, str]:
    """Count the pixels without a count in all frames, and name the range of their values."""
    if not without.any():
        return 0, ""
    values = raw[without]
    ends = dict.fromkeys((float(values.min()), float(values.max())))
    return int(np.count_nonzero(without)), " to ".join(f"{value:.10g}" for value in ends)
