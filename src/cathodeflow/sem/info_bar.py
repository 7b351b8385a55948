"""The information bar that instruments print below a micrograph: detected and cropped."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError

#: Maximum height of a bar, as a fraction of the image's rows.
_MAX_SHARE = 0.35
_MIN_ROWS = 5
#: Variation of a uniform background after JPEG compression, in grey levels of 0 to 255.
_EVEN = 8
#: Rows over which JPEG ringing may extend from the image into the bar.
_BLOCK = 8


def find_info_bar(image: NDArray[np.uint8] | NDArray[np.uint16]) -> int:
    """Find the number of rows of the information bar at the bottom of a micrograph.

    A bar spans the full width and has a uniform background of any grey level, with or without text, lines and boxes,
    and a straight upper edge. Regions that are dark or saturated by chance have no rows that are uniform throughout.

    Parameters
    ----------
    image : (row, col) uint8 or uint16

    Returns
    -------
    int
        Rows of the bar [px]; 0 without a bar.

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
    # Lines of a frame are uniform rows too, though not of the grey level of the background.
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


def bar_of(
    image: NDArray[np.uint8] | NDArray[np.uint16], settings: Mapping[str, Any], given: int | None
) -> tuple[int, str]:
    """Return the rows of the information bar and what says so.

    Parameters
    ----------
    image : (row, col) uint8 or uint16
    settings : mapping
        Of the instrument, `bar_rows` among them where it knows.
    given : int, optional
        Rows that the user gave.

    Returns
    -------
    rows : int
    source : {"option", "instrument", "image"}
    """
    if given is not None:
        return given, "option"
    rows = settings.get("bar_rows")
    if rows is not None and 0 <= rows <= _MAX_SHARE * image.shape[0]:
        return int(rows), "instrument"
    return find_info_bar(image), "image"


def crop_bar(image: NDArray[Any], bar_rows: int) -> NDArray[Any]:
    """Crop the information bar from an image.

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
        No row would be left.
    """
    if not 0 <= bar_rows < image.shape[0]:
        raise InputError("bar_rows", str(bar_rows), f"0 to {image.shape[0] - 1} of {image.shape[0]} rows")
    return image[: image.shape[0] - bar_rows]


def _commonest(grey: NDArray[np.float32]) -> float:
    counts = np.bincount(np.rint(grey).astype(np.intp).ravel(), minlength=256)
    return float(np.argmax(np.convolve(counts, np.ones(_EVEN + 1), mode="same")))


def _is_bar(even: NDArray[np.floating], clean: NDArray[np.bool_]) -> bool:
    # Above, between and below lines of text the background is visible.
    return float(even.mean()) >= 0.55 and float(clean.mean()) >= 0.2


def _sharpest(grey: NDArray[np.float32], start: int) -> int:
    """Move an edge up to the largest difference between rows, past JPEG ringing in the bar."""
    above = max(start - _BLOCK + 1, 1)
    steps = np.abs(np.diff(grey[above - 1 : start + 1], axis=0)).mean(axis=1)
    return above + int(np.argmax(steps))
