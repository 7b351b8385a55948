"""Pixels without a count, and the correction of raw frames: checks, dark image, flat field, masks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.peak_options import Frames
from cathodeflow.errors import InputError
from cathodeflow.io.invalid_pixels import find_invalid, usual_marks
from cathodeflow.io.raw_format import NO_LIMITS, CountLimits

Raw = NDArray[Any]
Mask = NDArray[np.bool_]
#: Pixels as a mask (row, col), or as places in the flattened frame.
Pixels = Mask | NDArray[np.intp]


def pixel_marks(dtype: np.dtype, options: Frames, limits: CountLimits = NO_LIMITS) -> tuple[float, ...]:
    """Return the values that mark pixels without a count in frames of a type.

    Examples
    --------
    >>> pixel_marks(np.dtype(np.uint16), Frames(gap_value=0))
    (65534, 65535, 0)
    """
    usual = usual_marks(dtype, negative=not options.allow_negative)
    return (*usual, *(options.gap_value or ()), *limits.marks)


def invalid_pixels(raw: Raw, options: Frames, limits: CountLimits = NO_LIMITS) -> Mask:
    """Find the pixels of a raw frame that hold no count: gaps, dead and saturated pixels.

    Parameters
    ----------
    raw : (row, col)
        Raw frame.
    options : Frames
        `gap_value`, `allow_negative` and `saturation`.
    limits : CountLimits
        What the file says of its values.

    Returns
    -------
    (row, col) bool

    Examples
    --------
    >>> invalid_pixels(np.array([[3, -1, -2, 9]]), Frames(gap_value=9))
    array([[False,  True,  True,  True]])
    """
    if options.saturation is not None:
        limits = limits._replace(highest=None)
    invalid = find_invalid(raw, pixel_marks(raw.dtype, options), limits)
    return invalid if options.saturation is None else invalid | (raw >= options.saturation)


def saturation_level(dtype: np.dtype, options: Frames, limits: CountLimits = NO_LIMITS) -> float:
    """Return the lowest count that is saturated: `saturation`, above the file's limit, or the top of 8 or 16 bits.

    Wider types and floating-point numbers have no level of their own (infinity): their highest values are marks.

    Examples
    --------
    >>> saturation_level(np.dtype(np.uint16), Frames())
    65535.0
    """
    if options.saturation is not None:
        return options.saturation
    if limits.highest is not None:
        return float(np.nextafter(limits.highest, np.inf))
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" and dtype.itemsize <= 2 else np.inf


def saturated_pixels(raw: Raw, options: Frames, limits: CountLimits = NO_LIMITS) -> Mask:
    """Find the saturated pixels of a raw frame: their counts are unknown, but high.

    Parameters are those of `invalid_pixels`.

    Examples
    --------
    >>> saturated_pixels(np.array([[3, 900, 2**32 - 1]], np.uint32), Frames(saturation=900))
    array([[False,  True, False]])
    """
    level = saturation_level(raw.dtype, options, limits)
    marks = (*usual_marks(raw.dtype), *(options.gap_value or ()), *limits.marks)
    return np.asarray((raw >= level) & ~np.isin(raw, [mark for mark in marks if mark != level]))


def extra_variance(
    dark_image: NDArray[np.floating] | None, n_dark: int, *, binning: int, read_noise: float, dark_gain: float
) -> NDArray[np.float64]:
    """Return the variance of binned pixels beyond counting noise and the read-out noise of one pixel [counts^2].

    Binning adds variances, and so does the subtraction of a dark image: its noise is that of the mean of its frames.

    Parameters
    ----------
    dark_image : (row, col) floating, optional
        The dark image that was subtracted, summed over binned pixels [counts].
    n_dark : int
        Number of its frames.
    binning : int
        Side of the binned blocks [px].
    read_noise : float
        Of a detector pixel [counts].
    dark_gain : float
        Counts per photon, if the dark was counted like photons; 0 for a constant offset.

    Examples
    --------
    >>> extra_variance(np.full((1, 1), 40.0), 10, binning=2, read_noise=3.0, dark_gain=1.0)
    array([[74.6]])
    """
    readouts = binning**2 * read_noise**2
    if dark_image is None:
        return np.array(readouts - read_noise**2)
    counted = dark_gain * np.maximum(np.asarray(dark_image, np.float64), 0)
    return np.asarray((readouts + counted) * (1 + 1 / n_dark) - read_noise**2)


def detector_mask(invalid: Sequence[Mask], *, bad: Raw | None = None) -> Mask:
    """Return the mask of bad raw pixels: those of the mask image, and those that are invalid in all of some frames.

    Parameters
    ----------
    invalid : sequence of (row, col) bool
        Invalid pixels of frames that are spread over the scan. A pixel that is saturated in one frame is not bad in
        all.
    bad : (row, col), optional
        Mask image; pixels that are not zero are bad.

    Returns
    -------
    (row, col) bool

    Examples
    --------
    >>> detector_mask([np.array([[True, True]]), np.array([[False, True]])])
    array([[False,  True]])
    """
    always = np.logical_and.reduce(list(invalid))
    return always if bad is None else always | (np.asarray(bad) != 0)


def check_frame(raw: Raw, invalid: Mask, options: Frames, *, where: str, mask: Mask | None = None) -> None:
    """Reject a raw frame with wrong counts or too many invalid pixels.

    Parameters
    ----------
    raw : (row, col)
        Counts.
    invalid : (row, col) bool
        Pixels without a count, as of `invalid_pixels`.
    options : Frames
        `allow_negative` and `max_saturated`.
    where : str
        File or frame that an error names.
    mask : (row, col) bool, optional
        Bad pixels of all frames, which may have any value.

    Raises
    ------
    InputError
        NaN, infinity or negative counts on a pixel that is neither bad nor invalid, or too many invalid pixels.
    """
    expected = np.ones(raw.shape, bool) if mask is None else ~mask
    good = expected & ~invalid
    if raw.dtype.kind == "f":
        wrong = good & ~np.isfinite(raw)
        if wrong.any():
            found = f"{np.count_nonzero(wrong)} pixels of NaN or infinity, the first at (row, col) = {_first(wrong)}"
            raise InputError(where, found, "finite counts on all pixels that are not masked")
    if raw.dtype.kind in "if" and not options.allow_negative:
        wrong = good & (raw < 0)
        if wrong.any():
            lowest = raw[wrong].min()
            found = f"{np.count_nonzero(wrong)} pixels below zero (lowest {lowest:g}), the first at {_first(wrong)}"
            # One or two values alone are marks, not noise: with allow_negative, gaps would become good pixels of 0.
            values = np.unique(raw[wrong]).tolist()
            marks = len(values) <= 2 and all(float(value).is_integer() for value in values)
            named = ", ".join(f"{value:.0f}" for value in values)
            fix = (
                f"gap_value [{named}] or a mask, where they mark gaps"
                if marks
                else "a mask for gaps, or allow_negative"
            )
            raise InputError(where, found, f"counts of at least 0 ({fix})")
    n_invalid, n_expected = np.count_nonzero(expected & invalid), np.count_nonzero(expected)
    if n_invalid > options.max_saturated * n_expected:
        values = raw[expected & invalid]
        found = f"{n_invalid} of {n_expected} pixels saturated or invalid ({_range(values)})"
        raise InputError(where, found, f"at most {options.max_saturated:g} of them (max_saturated)")


def flat_field(flat: NDArray[np.float64], *, where: str, bad: Mask | None = None) -> NDArray[np.float64]:
    """Scale a flat field to a median of 1; NaN at pixels that saw nothing.

    Parameters
    ----------
    flat : (row, col) float64
        Counts under uniform light, dark subtracted.
    where : str
        File that an error names.
    bad : (row, col) bool, optional
        Bad pixels, which do not enter the median.

    Raises
    ------
    InputError
        At most half of the good pixels are above 0.

    Examples
    --------
    >>> flat_field(np.array([[20.0, 10.0, 0.0, 30.0]]), where="flat.tif")
    array([[1. , 0.5, nan, 1.5]])
    """
    good = np.isfinite(flat) if bad is None else np.isfinite(flat) & ~bad
    lit = good & (flat > 0)
    if 2 * np.count_nonzero(lit) <= np.count_nonzero(good):
        raise InputError(where, f"{np.count_nonzero(lit)} of {np.count_nonzero(good)} pixels above 0", "a flat field")
    with np.errstate(invalid="ignore"):
        return np.where(flat > 0, flat / np.median(flat[lit]), np.nan)


def correct_frame(
    raw: Raw,
    *,
    dark_image: NDArray[np.floating] | None = None,
    sensitivity: NDArray[np.floating] | None = None,
    mask: Pixels | None = None,
    invalid: Pixels | None = None,
    saturated: Pixels | None = None,
) -> NDArray[np.float32]:
    """Subtract the dark image, divide by the flat field, and remove the values of bad pixels.

    Negative differences stay: without them, the mean of noise about zero, and with it the background, is too high.

    Parameters
    ----------
    raw : (row, col)
        Counts.
    dark_image : (row, col) floating, optional
        Counts without beam.
    sensitivity : (row, col) floating, optional
        Flat field, as of `flat_field`.
    mask : (row, col) bool or (n,) int, optional
        Bad pixels of all frames; they become 0. Here and below, integers are places in the flattened frame.
    invalid : (row, col) bool or (n,) int, optional
        Pixels without a count in this frame; they become NaN where `mask` does not cover them.
    saturated : (row, col) bool or (n,) int, optional
        Saturated pixels; they become infinite where `mask` does not cover them.

    Returns
    -------
    (row, col) float32

    Examples
    --------
    >>> correct_frame(np.array([[5, 9, 7]]), dark_image=np.full((1, 3), 6.0))
    array([[-1.,  3.,  1.]], dtype=float32)
    """
    counts = np.empty(raw.shape, np.float32)
    if dark_image is None:
        np.copyto(counts, raw, casting="unsafe")
    else:
        # The difference of large counts is taken in float64: float32 is exact to 2^24 only.
        np.subtract(raw, dark_image, out=counts, dtype=np.float64, casting="same_kind")
    if sensitivity is not None:
        np.divide(counts, sensitivity, out=counts, dtype=np.float64, casting="same_kind")
    flat = counts.reshape(-1)
    for pixels, value in ((invalid, np.nan), (saturated, np.inf), (mask, 0)):
        if pixels is not None:
            flat[pixels.reshape(-1)] = value
    return counts


def _first(wrong: Mask) -> tuple[int, int]:
    row, col = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    return int(row), int(col)


def _range(values: Raw) -> str:
    least, most = values.min(), values.max()
    return f"{least:.10g}" if least == most else f"{least:.10g} to {most:.10g}"
