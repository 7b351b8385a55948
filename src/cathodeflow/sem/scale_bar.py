"""Scale bars that are printed in the information bar of a micrograph, or into the picture: lines and their labels."""

import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from cathodeflow.io.text_recognition import Text

#: Text of an image (row, col) uint8.
Recognizer = Callable[[NDArray[np.uint8]], Text]

_NM = {"n": 1.0, "m": 1e6}
# Micro signs, and what they are taken for.
_MICRO = "uµμpyjUPYJ"
_DIGITS = str.maketrans("OolI|,:", "00111..")
_LABEL = re.compile(rf"\D?([\dOolI|]+(?:[.,:][\dOo]+)?)\s*([nm{_MICRO}])\s?(?:m|M|rn)\W?")
# Length of a scale bar as a fraction of the columns, and its maximum thickness as a fraction of its length.
_SHORTEST, _LONGEST, _THICK = 0.04, 0.6, 0.2
# Minimum probability of the characters of a label.
_CERTAIN = 0.6
# Labels that are tried per line, and lines per image.
_LABELS, _LINES = 4, 6


class Line(NamedTuple):
    """A line that may be a scale bar: its box, and the error of its length by the width of its end ticks [px].

    `gap` are the first and end column at which a label interrupts it.
    """

    row0: int
    row1: int
    col0: int
    col1: int
    error: float
    gap: tuple[int, int] | None = None


class ScaleBar(NamedTuple):
    """A scale bar that was read.

    Attributes
    ----------
    text : str
        Its label, such as `10 um`.
    nm : float
        Length by the label.
    pixels, error : float
        Length in the image and its error: one pixel, or the width of the ticks at its ends, as instruments measure to
        their middle or outside.
    """

    text: str
    nm: float
    pixels: float
    error: float

    @property
    def pixel_nm(self) -> float:
        """Pixel size [nm]."""
        return self.nm / self.pixels

    @property
    def error_nm(self) -> float:
        """Error of the pixel size [nm]."""
        return self.pixel_nm * self.error / self.pixels


def read_scale_bar(region: NDArray[np.uint8], recognize: Recognizer, *, burnt_in: bool = False) -> ScaleBar | None:
    """Read the scale bar in a part of an image.

    Parameters
    ----------
    region : (row, col) uint8
        Information bar, or a picture into which the scale bar was burnt, black or white.
    recognize : callable
    burnt_in : bool
        Whether it is a picture.

    Returns
    -------
    ScaleBar or None
        None if there is no line beside a label such as `10 um`.
    """
    for ink, letters in _inks(region, burnt_in=burnt_in):
        halves: list[int] = []
        for line in find_lines(ink)[:_LINES]:
            boxes = _labels(letters, line)[:_LABELS]
            if line.gap and boxes:
                halves += [line.col0, line.gap[1]]
            elif not line.gap and line.col0 in halves:
                continue
            for box in boxes:
                if found := _read(region, box, recognize):
                    return ScaleBar(f"{found[0]}", found[1], line.col1 - line.col0, line.error)
    return None


def parse_label(text: str) -> float | None:
    """Return the length of a label in nm; None for other texts, and for numbers that scale bars do not have.

    Examples
    --------
    >>> parse_label("10 um"), parse_label("500nm"), parse_label("207 um"), parse_label("x500")
    (10000.0, 500.0, None, None)
    """
    found = _LABEL.fullmatch(unicodedata.normalize("NFKC", text).strip())
    if not found:
        return None
    number = float(found[1].translate(_DIGITS))
    # Scale bars are of one digit, or of two with a five: fields of view and working distances seldom are.
    digits = f"{number:.3e}"[:5].replace(".", "")
    if number == 0 or digits[1] not in "05" or set(digits[2:]) - {"0"}:
        return None
    return number * _NM.get(found[2], 1e3)


def find_lines(ink: NDArray[np.bool_]) -> list[Line]:
    """Find horizontal lines, with ticks or without, interrupted by a label, or rows of ticks; the likeliest first.

    Parameters
    ----------
    ink : (row, col) bool
        Pixels that are printed.
    """
    cols = ink.shape[1]
    shortest, longest = max(12.0, _SHORTEST * cols), _LONGEST * cols
    lines = [*_solid_lines(ink, shortest / 3, longest)]
    found = [*lines, *_interrupted(lines), *_combs(ink)]
    # Halves of a line are shorter than the line.
    return sorted(
        (line for line in found if shortest <= line.col1 - line.col0 <= longest), key=lambda line: line.col0 - line.col1
    )


def _inks(region: NDArray[np.uint8], *, burnt_in: bool) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield the pixels of lines, and of letters, which are thinner and so less bright in images that were shrunk."""
    if burnt_in:
        yield region >= 235, region >= 200
        yield region <= 8, region <= 40
        return
    difference = np.abs(region.astype(np.int16) - int(np.median(region)))
    strongest = float(np.quantile(difference, 0.999))
    if strongest > 24:
        ink = difference > 0.45 * strongest
        yield ink, ink


def _solid_lines(ink: NDArray[np.bool_], shortest: float, longest: float) -> Iterator[Line]:
    """Yield lines, and boxes as thin as lines."""
    edges = np.diff(np.pad(ink, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    begins, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    runs = np.column_stack([begins, ends[:, 1]])
    runs = runs[(runs[:, 2] - runs[:, 1] >= shortest)]
    used = np.zeros(len(runs), bool)
    for first in range(len(runs)):
        if used[first]:
            continue
        row, col0, col1 = runs[first].tolist()
        last = row
        for other in range(first + 1, len(runs)):
            below, start, stop = runs[other].tolist()
            if below > last + 1:
                break
            if below == last + 1 and abs(start - col0) <= 3 and abs(stop - col1) <= 3:
                used[other], last = True, below
                col0, col1 = min(col0, start), max(col1, stop)
        # Frames and tables are as wide as the bar, letters as high as they are wide.
        if col1 - col0 <= longest and last + 1 - row <= max(4, _THICK * (col1 - col0)):
            yield _with_ticks(ink, row, last + 1, col0, col1)


def _with_ticks(ink: NDArray[np.bool_], row0: int, row1: int, col0: int, col1: int) -> Line:
    """Measure the ticks at the ends of a line, which may reach beyond it by their width."""
    near = ink[max(row0 - 4, 0) : row0], ink[row1 : row1 + 4]
    ticks = [0]
    for part in near:
        for at, step in ((col0, 1), (col1 - 1, -1)):
            width = 0
            while len(part) > 1 and 0 <= at + step * width < ink.shape[1] and part[:, at + step * width].mean() > 0.5:
                width += 1
            ticks.append(width if width < (col1 - col0) / 4 else 0)
    return Line(row0, row1, col0, col1, max(1.0, float(max(ticks))))


def _interrupted(lines: list[Line]) -> Iterator[Line]:
    """Yield pairs of lines of equal length between which there is room for a label."""
    for left in lines:
        for right in lines:
            a, b, gap = left.col1 - left.col0, right.col1 - right.col0, right.col0 - left.col1
            if 4 <= gap <= 6 * a and abs(a - b) <= max(3, 0.2 * a) and abs(left.row0 - right.row0) <= 1:
                error = max(left.error, right.error)
                yield Line(left.row0, left.row1, left.col0, right.col1, error, (left.col1, right.col0))


def _combs(ink: NDArray[np.bool_]) -> Iterator[Line]:
    """Yield rows of eleven equal ticks (Hitachi), from the middle of the first to that of the last."""
    edges = np.diff(np.pad(ink, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    seen: set[tuple[int, int]] = set()
    for row in range(0, len(ink), 2):
        starts, stops = np.flatnonzero(edges[row] == 1), np.flatnonzero(edges[row] == -1)
        middles = (starts + stops) / 2
        for first in range(len(middles) - 10):
            ticks = middles[first : first + 11]
            steps, widths = np.diff(ticks), (stops - starts)[first : first + 11]
            if np.ptp(steps) <= 2.5 and steps.min() >= 4 and np.ptp(widths) <= 2 and widths.max() < 0.4 * steps.min():
                found = (round(float(ticks[0])), round(float(ticks[-1])))
                if found not in seen:
                    seen.add(found)
                    yield Line(row, row + 1, *found, 1.0)


def _labels(ink: NDArray[np.bool_], line: Line) -> list[tuple[int, int, int, int]]:
    """Find lines of text beside a line, (row0, row1, col0, col1), the nearest first."""
    length = line.col1 - line.col0
    reach = int(min(max(0.6 * length, 40), 120))
    top, left = max(line.row0 - reach, 0), max(line.col0 - 2 * reach, 0)
    part = ink[top : line.row1 + reach, left : line.col1 + 2 * reach].copy()
    # The line, with its ticks, is none.
    regions, _ = label(part, np.ones((3, 3)))
    across = regions[line.row0 - top : line.row1 - top, line.col0 - left : line.col1 - left]
    if line.gap:
        across = np.delete(across, slice(line.gap[0] - line.col0, line.gap[1] - line.col0), axis=1)
    own = np.unique(across)
    boxes = []
    for number, (rows, cols) in enumerate(find_objects(regions), start=1):
        high, wide = rows.stop - rows.start, cols.stop - cols.start
        if number in own or high > 64 or wide > 3 * max(high, 12) or (high <= 2 and wide > 6):
            continue
        boxes.append((rows.start + top, rows.stop + top, cols.start + left, cols.stop + left))
    found = [box for box in _joined(boxes) if box[1] - box[0] >= 6 and box[3] - box[2] >= 1.2 * (box[1] - box[0])]
    if line.gap:
        # The label is in the gap, and reaches above and below the line.
        start, stop = line.gap
        found = [
            box for box in found if start <= box[2] and box[3] <= stop and box[0] < line.row0 and box[1] > line.row1
        ]
    return sorted(found, key=lambda box: _distance(box, line))


def _joined(boxes: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Join letters, and words, of one line of text."""
    lines: list[tuple[int, int, int, int]] = []
    # Dots and signs are joined to letters, not among each other.
    for box in sorted(boxes, key=lambda box: box[2]):
        for i, known in enumerate(lines):
            high = max(known[1] - known[0], box[1] - box[0])
            overlap = min(known[1], box[1]) - max(known[0], box[0])
            if overlap >= 0.5 * min(known[1] - known[0], box[1] - box[0]) and box[2] - known[3] <= 1.2 * high:
                lines[i] = (min(known[0], box[0]), max(known[1], box[1]), known[2], max(known[3], box[3]))
                break
        else:
            lines.append(box)
    return lines


def _distance(box: tuple[int, int, int, int], line: Line) -> float:
    down = max(box[0] - line.row1, line.row0 - box[1], 0)
    across = max(box[2] - line.col1, line.col0 - box[3], 0)
    return math.hypot(down, across)


def _read(region: NDArray[np.uint8], box: tuple[int, int, int, int], recognize: Recognizer) -> tuple[str, float] | None:
    """Read a label twice, with narrow and wide margins; None unless both readings agree."""
    row0, row1, col0, col1 = box
    texts, lengths = [], []
    for margin in (0.2, 0.4):
        pad = max(2, round(margin * (row1 - row0)))
        part = region[max(row0 - pad, 0) : row1 + pad, max(col0 - pad, 0) : col1 + pad]
        found = recognize(np.ascontiguousarray(part))
        length = parse_label(found.text)
        if length is None or found.confidence < _CERTAIN:
            return None
        texts.append(found.text.strip())
        lengths.append(length)
    return (texts[0], lengths[0]) if lengths[0] == lengths[1] else None
