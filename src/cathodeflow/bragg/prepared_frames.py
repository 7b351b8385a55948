"""Raw frames of a scan prepared for the peak search one by one: checked, dark-subtracted, masked and binned."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.binning import bin_frame, bin_mask
from cathodeflow.bragg.corrections import (
    Mask,
    Raw,
    check_frame,
    correct_frame,
    invalid_pixels,
    pixel_marks,
    saturated_pixels,
    saturation_level,
)
from cathodeflow.bragg.peak_options import Frames
from cathodeflow.io.raw_format import NO_LIMITS, CountLimits

Places = NDArray[np.intp]


class Correction(NamedTuple):
    """What the frames of a scan are corrected with, as `correction_of` makes it.

    Attributes
    ----------
    options : Frames
        Its `start`, `stop`, `step` and `on_bad_file` are for the caller.
    source : str
        Name of the series in errors.
    mask : (row, col) bool
        Bad pixels of all frames.
    limits : CountLimits
        What the files say of their values.
    dark_image : (row, col) float64, optional
        Counts without beam.
    sensitivity : (row, col) float64, optional
        Flat field, as of `corrections.flat_field`.
    mask_of : callable, optional
        Frame number to its (row, col) bool mask of bad pixels, or None.
    masked, masked_blocks : (n,) int
        Places of the bad pixels in the flattened frame, and in the binned one.
    """

    options: Frames
    source: str
    mask: Mask
    limits: CountLimits
    dark_image: NDArray[np.float64] | None
    sensitivity: NDArray[np.float64] | None
    mask_of: Callable[[int], Mask | None] | None
    masked: Places
    masked_blocks: Places


def correction_of(
    options: Frames,
    *,
    source: str,
    mask: Mask,
    limits: CountLimits = NO_LIMITS,
    dark_image: NDArray[np.floating] | None = None,
    sensitivity: NDArray[np.floating] | None = None,
    mask_of: Callable[[int], Mask | None] | None = None,
) -> Correction:
    """Prepare the correction of the frames of a scan; the parameters are attributes of `Correction`."""
    dark, flat = (
        None if image is None else image.astype(np.float64, copy=False) for image in (dark_image, sensitivity)
    )
    places = np.flatnonzero(mask), np.flatnonzero(bin_mask(mask, options.binning))
    return Correction(options, source, mask, limits, dark, flat, mask_of, *places)


def prepared_frame(number: int, raw: Raw, correction: Correction) -> NDArray[np.float32]:
    """Check, correct and bin a raw frame.

    Parameters
    ----------
    number : int
        Number of the frame in the series.
    raw : (row, col)
        Counts.
    correction : Correction

    Returns
    -------
    (row // binning, col // binning) float32
        Bad pixels, and blocks with any, are 0. Those that are invalid in this frame alone are NaN, and of the others,
        those with a saturated pixel are infinite.

    Raises
    ------
    InputError
        The frame is rejected by `corrections.check_frame`.
    """
    options, mask = correction.options, correction.mask
    invalid, saturated, doubted = _marked(number, raw, correction)
    if doubted:
        pixels = np.zeros(raw.shape, bool)
        pixels.reshape(-1)[invalid] = True
        check_frame(raw, pixels, options, where=f"{correction.source}, frame {number}", mask=mask)
    corrected = correct_frame(
        raw,
        dark_image=correction.dark_image,
        sensitivity=correction.sensitivity,
        mask=correction.masked,
        invalid=invalid,
        saturated=saturated,
    )
    counts = bin_frame(corrected, options.binning)
    counts.reshape(-1)[correction.masked_blocks] = 0
    return counts


def _marked(number: int, raw: Raw, correction: Correction) -> tuple[Places, Places, bool]:
    """Return where a frame is invalid and saturated, without its bad pixels, and whether `check_frame` may reject it.

    Few of the millions of pixels can be either: those are found first, by their range.
    """
    options, limits = correction.options, correction.limits
    values = raw.reshape(-1)
    places = _beyond_counts(values, options, limits)
    places = places[~correction.mask.reshape(-1)[places]]
    values = values[places]
    without = invalid_pixels(values, options, limits)
    with np.errstate(invalid="ignore"):
        wrong = ~without & (~np.isfinite(values) | (values < 0))
        saturated = places[saturated_pixels(values, options, limits)]
    invalid = places[without]
    stored = None if correction.mask_of is None else correction.mask_of(number)
    if stored is not None:
        invalid = np.union1d(invalid, np.flatnonzero(stored & ~correction.mask))
    too_many = invalid.size > options.max_saturated * (raw.size - correction.masked.size)
    return invalid, saturated, too_many or bool(wrong.any())


def _beyond_counts(values: Raw, options: Frames, limits: CountLimits) -> Places:
    """Return the places of all values, (n,), that may be invalid, saturated, negative or not finite, and some more."""
    kind = values.dtype.kind
    if kind == "b":
        return np.arange(values.size)
    marks = pixel_marks(values.dtype, options, limits)
    # Marks that are higher than usual counts are found by one comparison, the others one by one.
    top = np.iinfo(values.dtype).max if kind in "iu" else 2**32
    highest = min(
        saturation_level(values.dtype, options, limits),
        np.inf if limits.highest is None else limits.highest,
        *(mark for mark in marks if mark > top / 2),
    )
    least = float(np.finfo(values.dtype).min) if kind == "f" else -np.inf
    lowest = max(least if options.allow_negative else 0, least if limits.lowest is None else limits.lowest)
    among = [mark for mark in marks if lowest <= mark < highest]
    if kind in "iu":
        # Integers are compared with integers, which is several times as fast.
        highest, lowest = (edge if math.isinf(edge) else math.ceil(edge) for edge in (highest, lowest))
        if not among and values.size and values.min() >= lowest and values.max() < highest:
            return np.empty(0, np.intp)
    beyond = ~(values < highest)  # also where the value is NaN
    if kind != "u" or lowest > 0:
        beyond |= values < lowest
    for mark in among:
        beyond |= values == (int(mark) if float(mark).is_integer() else mark)
    return np.flatnonzero(beyond)
