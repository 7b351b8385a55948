"""Everything that the correction of a scan's raw frames needs: images, limits of the counts, and bad pixels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.corrections import detector_mask, flat_field, invalid_pixels
from cathodeflow.bragg.options import Frames
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.correction_images import correction_source, read_mask, read_mean
from cathodeflow.io.frames import FrameSeries, count_limits, open_series, read_frames, stored_masks

Mask = NDArray[np.bool_]


class CorrectionImages(NamedTuple):
    """Images that correct the frames of a scan; None without one.

    Attributes
    ----------
    bad_pixels : (row, col) bool or None
        Bad pixels of the mask image, and pixels at which the flat field is not above 0.
    dark_image : (row, col) float64 or None
        [counts]
    sensitivity : (row, col) float64 or None
        Flat field, scaled to a median of 1.
    dark_frames : int
        Number of frames of which the dark image is the mean.
    mask, dark : str or None
        Sources that errors name.
    """

    bad_pixels: Mask | None
    dark_image: NDArray[np.float64] | None
    sensitivity: NDArray[np.float64] | None
    dark_frames: int
    mask: str | None
    dark: str | None

    def subtracted(self) -> NDArray[np.float64] | None:
        """Return the dark image in the counts of the corrected frames: divided by the flat field."""
        if self.dark_image is None or self.sensitivity is None:
            return self.dark_image
        return self.dark_image / self.sensitivity


def read_correction_images(
    shape: tuple[int, int], options: Frames, *, dark: str | None, flat: str | None, mask: str | None
) -> CorrectionImages:
    """Read dark image, flat field and mask of raw frames of a (row, col) shape, as far as their sources are given.

    Raises
    ------
    InputError
        One of them cannot be read or has another shape, or the mask leaves no pixel.
    """
    bad_pixels = read_mask(mask, shape=shape) if mask else None
    if bad_pixels is not None and options.invert_mask:
        bad_pixels = ~bad_pixels
    dark_image = read_mean(dark, shape=shape) if dark else None
    sensitivity = None
    if flat:
        sensitivity = flat_field(read_mean(flat, shape=shape), where=flat, bad=bad_pixels)
        insensitive = np.isnan(sensitivity)
        bad_pixels = insensitive if bad_pixels is None else bad_pixels | insensitive
    if bad_pixels is not None and bad_pixels.all():
        raise InputError(str(mask or flat), "every pixel marked as bad", "a mask in which 0 means good (invert_mask)")
    dark_frames = open_series(correction_source(dark)).n_frames if dark else 1
    return CorrectionImages(bad_pixels, dark_image, sensitivity, dark_frames, mask, dark)


class InvalidPixels:
    """Call with a frame number and the raw frame: (row, col) bool of its pixels without a count.

    They are those of `invalid_pixels` and, with the option `stored_mask`, those of the mask in the file itself.

    Parameters
    ----------
    series : FrameSeries
    options : Frames

    Attributes
    ----------
    limits : CountLimits
        What the files of the series say of their values.
    """

    def __init__(self, series: FrameSeries, options: Frames) -> None:
        self._options, self.limits = options, count_limits(series)
        self._mask_of = stored_masks(series) if options.stored_mask else None

    def stored(self, number: int) -> Mask | None:
        """Return the bad pixels that the file of a frame marks itself."""
        return self._mask_of(number) if self._mask_of is not None else None

    def __call__(self, number: int, raw: NDArray[Any]) -> Mask:
        """Return the pixels without a count of a frame."""
        invalid, stored = invalid_pixels(raw, self._options, self.limits), self.stored(number)
        return invalid if stored is None else invalid | stored


def sample_frames(series: FrameSeries, options: Frames) -> list[tuple[int, NDArray[Any]]]:
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


def scan_mask(invalid: Sequence[Mask], images: CorrectionImages, source: str) -> Mask:
    """Return the (row, col) bool mask of the pixels that are bad in all frames of a scan.

    Parameters
    ----------
    invalid : sequence of (row, col) bool
        Pixels without a count of frames that are spread over the scan.
    images : CorrectionImages
    source : str
        Source of the frames, for errors.

    Raises
    ------
    InputError
        No pixel is left, or the dark image has no finite count at one that is.
    """
    detector = detector_mask(invalid, bad=images.bad_pixels)
    if detector.all():
        raise InputError(source, "no pixel with a count that is not masked", "counts")
    dark_image = images.dark_image
    if dark_image is not None and (wrong := ~np.isfinite(dark_image) & ~detector).any():
        found = f"{np.count_nonzero(wrong)} pixels of NaN or infinity, or without a count"
        raise InputError(str(images.dark), found, "finite counts on all pixels that are not masked")
    return detector
