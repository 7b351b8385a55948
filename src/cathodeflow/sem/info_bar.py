"""The information bar that instruments print beside a micrograph, mostly below it: detected, or as it is given."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.sem.usable_area import SIDES, UsableArea

Grey = NDArray[np.uint8] | NDArray[np.uint16]

#: Maximum height of a bar, as a fraction of the image's rows.
_MAX_SHARE = 0.35
_MIN_ROWS = 5
#: Variation of a uniform background after JPEG compression, in grey levels of 0 to 255; and beside text.
_EVEN, _RINGING = 8, 24
#: Minimum fraction of a row without text within these variations: the rest is ringing of text in neighbouring rows.
_EVEN_SHARE, _RINGING_SHARE = 0.8, 0.95
#: Rows over which JPEG ringing may extend from the image into the bar.
_BLOCK = 8
#: Rows of a line that does not span the whole bar.
_LINE_ROWS = 4
#: Stretches of the columns in which the background is measured, to find a gradient.
_STRETCHES = 16
#: Minimum fraction of the pixels next to a bar at the top, left or right that differ from its background.
_STRAIGHT = 0.4


class Bar(NamedTuple):
    """An information bar.

    rows : int, thickness [px]: rows at the bottom or top, columns at the left or right; 0 without a bar.
    side : {"bottom", "top", "left", "right", "none"}
    source : {"option", "instrument", "image"}, what says so.
    """

    rows: int
    side: str
    source: str

    def area(self, shape: tuple[int, ...]) -> UsableArea:
        """Return the area beside it in an image of this shape; InputError if none is left."""
        return UsableArea.beside_bar(shape, self.rows, self.side)


def find_info_bar(image: Grey, at: str = "bottom") -> int:
    """Find the number of rows of the information bar at one side of a micrograph.

    A bar spans the whole side and has a uniform background of any grey level, or a slight gradient, with or without
    text, lines and boxes, and a straight edge. Regions that are dark or saturated by chance have no rows that are
    uniform throughout; text and scale bars in the picture itself are no bar.

    Parameters
    ----------
    image : (row, col) uint8 or uint16
    at : {"bottom", "top", "left", "right"}
        Side of the image.

    Returns
    -------
    int
        Thickness of the bar [px], of one at the left or right its columns; 0 without a bar.

    Examples
    --------
    >>> image = np.random.default_rng(0).integers(40, 200, (100, 120), dtype=np.uint8)
    >>> image[88:] = 0
    >>> find_info_bar(image), find_info_bar(image, "top")
    (12, 0)
    """
    turned: Grey = {"bottom": image, "top": image[::-1], "left": image.T[::-1], "right": image.T}[at]
    rows = turned.shape[0]
    first = rows - int(_MAX_SHARE * rows)
    if rows - first < _MIN_ROWS:
        return 0
    # Text may be brighter than any pixel of the image above it.
    white = _quantile(turned[:first], 0.999) if first else 1
    # Most sides have no bar, which the last rows tell.
    for height in (2**power for power in range(6, 32)):
        part = turned[max(first - 1, rows - height) :]
        grey = np.minimum(part.astype(np.float32) * np.float32(255 / white), 255)
        found, top = _edge_of_bar(grey, at)
        if height > rows - first or top >= 2 * _BLOCK:
            break
    return found if np.ptp(grey) else 0


def _quantile(image: Grey, fraction: float) -> int:
    """Return the grey level, at least 1, up to which this fraction of the pixels lies."""
    counts = np.bincount(image.ravel(order="K"))
    return max(1, int(np.searchsorted(np.cumsum(counts), fraction * image.size)))


def _edge_of_bar(grey: NDArray[np.float32], at: str) -> tuple[int, int]:
    """Return the number of rows of the bar at the end of an image, 0 without one, and the first row that counted."""
    difference = np.abs(grey - _background(grey))
    even = np.mean(difference <= _EVEN, axis=1)
    same = np.abs(grey - np.median(grey, axis=1, keepdims=True)) <= _EVEN
    # Lines of a frame are uniform rows too, though not of the grey level of the background.
    line = same.mean(axis=1) >= 0.95
    partial_line = np.mean(same | (difference <= _EVEN), axis=1) >= 0.9
    clean = ((even >= _EVEN_SHARE) & (np.mean(difference <= _RINGING, axis=1) >= _RINGING_SHARE)) | line
    of_bar = clean | (even >= 0.35)
    best, missing, top = 0, 0, 0
    for start in range(len(grey) - 1, 0, -1):
        missing = 0 if of_bar[start] else missing + 1
        if missing > (_LINE_ROWS if partial_line[start] else 0):
            top = start
            break
        if start > len(grey) - _MIN_ROWS:
            continue
        edge = even[max(0, start - _BLOCK) : start].min() < 0.8 and not line[start - 1]
        if clean[start] and edge and _is_bar(even[start:], clean[start:]):
            best = start
    if not best:
        return 0, top
    best = _sharpest(grey, best)
    # The upper line of a table need not span the whole bar.
    for _ in range(_LINE_ROWS):
        best -= bool(best > 1 and partial_line[best - 1] and not clean[best - 1])
    if at != "bottom" and even[max(0, best - 3) : best].min() > 1 - _STRAIGHT:
        # Elsewhere than at the bottom bars are rare, and empty margins more likely.
        return 0, top
    return len(grey) - best, top


def bar_of(image: Grey, settings: Mapping[str, Any], given: int | None, side: str) -> Bar:
    """Return the information bar and what says so: the user, else the instrument, else the image.

    Parameters
    ----------
    image : (row, col) uint8 or uint16
    settings : mapping
        Of the instrument, `bar_rows` among them where it knows.
    given : int, optional
        Rows that the user gave.
    side : {"auto", "none", "bottom", "top", "left", "right"}
        Side that the user gave; `auto` takes the first at which there is a bar, in the order of `SIDES`.

    Raises
    ------
    InputError
        A bar as thick as the image.
    """
    if side == "none" or given == 0:
        return Bar(0, "none", "option")
    if given is not None:
        place = "bottom" if side == "auto" else side
        UsableArea.beside_bar(image.shape, given, place)
        return Bar(given, place, "option")
    rows = settings.get("bar_rows")
    # Instruments write the height of the bar at the bottom.
    if side in ("auto", "bottom") and rows is not None and 0 <= rows <= _MAX_SHARE * image.shape[0]:
        return Bar(int(rows), "bottom" if rows else "none", "instrument")
    for place in SIDES if side == "auto" else (side,):
        if found := find_info_bar(image, place):
            return Bar(found, place, "image")
    return Bar(0, "none", "image")


def _background(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the background of a bar (row, col), which may have a gradient along its rows and across them."""
    last = grey[-_MIN_ROWS:]
    cols = grey.shape[1]
    trend = np.zeros(cols, np.float32)
    if cols >= 4 * _STRETCHES:
        levels = np.array([np.median(part) for part in np.array_split(last, _STRETCHES, axis=1)])
        centres = (np.arange(_STRETCHES) + 0.5) / _STRETCHES
        slope, intercept = np.polyfit(centres, levels, 1)
        # Text and lines move single stretches off a straight line, a micrograph moves all.
        if np.mean(np.abs(levels - slope * centres - intercept) <= _EVEN / 4) >= 0.7:
            trend = (slope * ((np.arange(cols) + 0.5) / cols - 0.5)).astype(np.float32)
    level = _commonest(last - trend)
    levels_up = np.empty(len(grey), np.float32)
    for row in range(len(grey) - 1, -1, -1):
        flat = grey[row] - trend
        near = flat[np.abs(flat - level) <= _EVEN]
        # In a bar most pixels of a row are background, which may change slowly from row to row.
        if len(near) >= 0.5 * cols:
            level = float(np.median(near))
        levels_up[row] = level
    return levels_up[:, None] + trend


def _commonest(grey: NDArray[np.float32]) -> float:
    counts = np.bincount(np.rint(np.clip(grey, 0, 255)).astype(np.intp).ravel(), minlength=256)
    return float(np.argmax(np.convolve(counts, np.ones(_EVEN + 1), mode="same")))


def _is_bar(even: NDArray[np.floating], clean: NDArray[np.bool_]) -> bool:
    # Above, between and below lines of text the background is visible.
    return float(even.mean()) >= 0.55 and float(clean.mean()) >= 0.2


def _sharpest(grey: NDArray[np.float32], start: int) -> int:
    """Move an edge up to the largest difference between rows, past JPEG ringing in the bar."""
    above = max(start - _BLOCK + 1, 1)
    steps = np.abs(np.diff(grey[above - 1 : start + 1], axis=0)).mean(axis=1)
    return above + int(np.argmax(steps))
