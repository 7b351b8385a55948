"""Raw detector frames prepared for the peak search: checked, dark-subtracted, masked and binned."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.binning import bin_frame, bin_mask
from cathodeflow.bragg.options import Frames
from cathodeflow.errors import InputError

Raw = NDArray[Any]
Mask = NDArray[np.bool_]


def detector_mask(first: Raw, *, bad: Raw | None = None, gap_value: int | None) -> Mask:
    """Return the mask of bad raw pixels: those of the mask image, and the gaps between detector modules.

    Parameters
    ----------
    first : (row, col)
        First raw frame of the scan.
    bad : (row, col), optional
        Mask image; pixels that are not zero are bad.
    gap_value : int or None
        Value that the detector writes into gaps (-1 in many CBF files, 4294967295 in those of Eiger); pixels of
        this value in the first frame are bad in all frames.

    Returns
    -------
    (row, col) bool

    Examples
    --------
    >>> detector_mask(np.array([[3, -1]]), gap_value=-1)
    array([[False,  True]])
    """
    mask = np.zeros(first.shape, bool) if bad is None else np.asarray(bad) != 0
    return mask if gap_value is None else mask | (first == gap_value)


def check_frame(raw: Raw, options: Frames, *, where: str, mask: Mask | None = None) -> None:
    """Reject a raw frame with invalid counts or too many saturated pixels.

    Parameters
    ----------
    raw : (row, col)
        Counts.
    options : Frames
        `gap_value`, `allow_negative`, `saturation` and `max_saturated`.
    where : str
        File or frame that an error names.
    mask : (row, col) bool, optional
        Bad pixels, which may have any value.

    Raises
    ------
    InputError
        NaN, infinity or negative counts on a pixel that is not bad, or too many saturated pixels.
    """
    good = np.ones(raw.shape, bool) if mask is None else ~mask
    if options.gap_value is not None:
        good &= raw != options.gap_value
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
            raise InputError(where, found, "counts of at least 0 (gap_value or a mask for gaps, or allow_negative)")
    saturation = options.saturation
    if saturation is None and raw.dtype.kind in "iu":
        saturation = float(np.iinfo(raw.dtype).max)
    if saturation is not None:
        n_saturated, n_good = np.count_nonzero(good & (raw >= saturation)), np.count_nonzero(good)
        if n_saturated > options.max_saturated * n_good:
            found = f"{n_saturated} of {n_good} pixels saturated (at least {saturation:g} counts)"
            raise InputError(where, found, f"at most {options.max_saturated:g} of them (max_saturated)")


def correct_frame(
    raw: Raw, options: Frames, *, dark_image: NDArray[np.floating] | None = None, mask: Mask | None = None
) -> NDArray[np.float32]:
    """Subtract the dark image and set bad pixels to 0.

    Negative differences are clipped to zero: the fit's Poisson likelihood needs counts >= 0, and BraggNN takes
    connected components of the pixels above zero.

    Parameters
    ----------
    raw : (row, col)
        Counts.
    options : Frames
        `gap_value`: pixels with this value become 0.
    dark_image : (row, col) floating, optional
        Counts without beam.
    mask : (row, col) bool, optional
        Bad pixels.

    Returns
    -------
    (row, col) float32

    Examples
    --------
    >>> correct_frame(np.array([[5, 9, 7]]), Frames(), dark_image=np.full((1, 3), 6.0))
    array([[0., 3., 1.]], dtype=float32)
    """
    # The difference of large counts is taken in float64: float32 is exact to 2^24 only.
    counts = raw.astype(np.float32) if dark_image is None else (raw - dark_image.astype(np.float64)).astype(np.float32)
    np.maximum(counts, 0, out=counts)
    if mask is not None:
        counts[mask] = 0
    if options.gap_value is not None:
        counts[raw == options.gap_value] = 0
    return counts


def corrected_frames(
    frames: Iterable[tuple[int, Raw]],
    options: Frames,
    *,
    source: str,
    mask: Mask,
    dark_image: NDArray[np.floating] | None = None,
    bad: list[InputError] | None = None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Check, correct and bin raw frames one by one.

    Parameters
    ----------
    frames : iterable of (int, (row, col) array)
        Frame numbers and raw frames.
    options : Frames
        Its `start`, `stop`, `step` and `on_bad_file` are for the caller.
    source : str
        Name of the series in errors.
    mask : (row, col) bool
        Bad pixels.
    dark_image : (row, col) floating, optional
        Counts without beam.
    bad : list of InputError, optional
        Collects the errors of rejected frames, which are then left out; without it the first one is raised.

    Yields
    ------
    (int, (row // binning, col // binning) float32)
        Bad pixels, and blocks with any, are 0.

    Raises
    ------
    InputError
        A frame is rejected by `check_frame`.
    """
    binned_mask = bin_mask(mask, options.binning)
    for number, raw in frames:
        try:
            check_frame(raw, options, where=f"{source}, frame {number}", mask=mask)
        except InputError as error:
            if bad is None:
                raise
            bad.append(error)
            continue
        counts = bin_frame(correct_frame(raw, options, dark_image=dark_image, mask=mask), options.binning)
        counts[binned_mask] = 0
        yield number, counts


def _first(wrong: Mask) -> tuple[int, int]:
    row, col = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    return int(row), int(col)
