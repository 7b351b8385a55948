"""The bar of text that instruments print below a micrograph: found, not assumed, and cut off."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError

#: Bars are at most this share of an image's rows.
_MAX_SHARE = 0.35
_MIN_ROWS = 5
#: Grey levels, of 0 to 255, by which an even background varies after JPEG compression.
_EVEN = 8
#: Rows by which the ringing of JPEG blocks may reach from the image into the bar.
_BLOCK = 8


def find_info_bar(image: NDArray[np.uint8] | NDArray[np.uint16]) -> int:
    """Find how many rows at the bottom of a micrograph are an information bar.

    A bar runs over the full width, has an even background of any grey, with or without text, lines and boxes on it, and
    a straight upper edge. What is dark or saturated only by chance lacks rows that are even from side to side.

    Parameters
    ----------
    image : (row, col) uint8 or uint16

    Returns
    -------
    int
        Rows of the bar [px]; 0 if there is none.

    Examples
    --------
    >>> image = np.random.default_rng(0).integers(40, 200, (100, 120), dtype=np.uint8)
    >>> image[88:] = 0
    >>> find_info_bar(image)
    12
    """
    rows = image.shape[0]
    first = rows - int(_MAX_SHARE * rows)
    # Text may be brighter than any pixel of the image above it.
    white = max(1.0, float(np.quantile(image[:first], 0.999)) if first else 1.0)
    grey = np.minimum(image[first - 1 :].astype(np.float32) * np.float32(255 / white), 255)
    if rows - first < _MIN_ROWS or np.ptp(grey) == 0:
        return 0
    background = _commonest(grey[-_MIN_ROWS:])
    even = np.mean(np.abs(grey - background) <= _EVEN, axis=1)
    # Lines of a frame are even rows too, though not of the background's grey.
    line = np.mean(np.abs(grey - np.median(grey, axis=1, keepdims=True)) <= _EVEN, axis=1) >= 0.95
    clean = (even >= 0.97) | line
    of_bar = clean | (even >= 0.35)
    best = 0
    for start in range(len(grey) - _MIN_ROWS, 0, -1):
        if not of_bar[start:].all():
            break
        above = slice(max(0, start - _BLOCK), start)
        edge = even[above].min() < 0.8 and not line[start - 1]
        if clean[start] and edge and _is_bar(even[start:], clean[start:]):
            best = start
    return len(grey) - _sharpest(grey, best) if best else 0


def crop_bar(image: NDArray[Any], bar_rows: int) -> NDArray[Any]:
    """Cut the information bar off an image.

    Parameters
    ----------
    image : (row, col)
    bar_rows : int
        Rows of the bar at the bottom [px].

    Returns
    -------
    (row - bar_rows, col)
        A view.

    Raises
    ------
    InputError
        Nothing would be left.
    """
    if not 0 <= bar_rows < image.shape[0]:
        raise InputError("bar_rows", str(bar_rows), f"0 to {image.shape[0] - 1} of {image.shape[0]} rows")
    return image[: image.shape[0] - bar_rows]


def _commonest(grey: NDArray[np.float32]) -> float:
    counts = np.bincount(np.rint(grey).astype(np.intp).ravel(), minlength=256)
    return float(np.argmax(np.convolve(counts, np.ones(_EVEN + 1), mode="same")))


def _is_bar(even: NDArray[np.floating], clean: NDArray[np.bool_]) -> bool:
    # There is room above, between and below lines of text.
    return float(even.mean()) >= 0.55 and float(clean.mean()) >= 0.2


def _sharpest(grey: NDArray[np.float32], start: int) -> int:
    """Move an edge up to where rows differ most, past rows of the bar that ring from JPEG blocks."""
    above = max(start - _BLOCK + 1, 1)
    steps = np.abs(np.diff(grey[above - 1 : start + 1], axis=0)).mean(axis=1)
    return above + int(np.argmax(steps))
