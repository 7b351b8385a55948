"""Pixels without a count: gaps between modules, dead pixels, overflow, as detectors mark them in the frames.

Dectris: the two highest values of unsigned integers (Eiger), -1 in gaps and -2 at dead pixels (Pilatus). What a file
says itself (`CountLimits`) comes on top.
"""

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cathodeflow.io.raw_format import CountLimits

_EIGER = (2**32 - 2, 2**32 - 1)
_PILATUS = (-2, -1)
# Bits of a mask that make a pixel bad; the others say what is special about a good one (NXdetector, pixel_mask).
_BAD_BITS = 0xFFFF


def usual_marks(dtype: np.dtype, *, negative: bool = True) -> tuple[int, ...]:
    """Return the values that mark pixels without a count in frames of a type, ascending.

    The highest value of an integer is no count: it is where counters overflow. Frames of 64 bits and of floating-point
    numbers may have been converted from 32-bit integers.

    Parameters
    ----------
    dtype : np.dtype
    negative : bool
        Whether -1 and -2 are among them; not, if negative counts are noise.

    Examples
    --------
    >>> usual_marks(np.dtype(np.uint16)), usual_marks(np.dtype(np.int32), negative=False)
    ((65534, 65535), (2147483647,))
    """
    marks: tuple[int, ...] = ()
    if dtype.kind == "f":
        marks = _EIGER if dtype.itemsize > 2 else ()
    elif dtype.kind in "iu":
        top = int(np.iinfo(dtype).max)
        marks = (top - 1, top) if dtype.kind == "u" and dtype.itemsize > 1 else (top,)
        marks += _EIGER if dtype.itemsize == 8 else ()
    return (_PILATUS if negative and dtype.kind in "if" else ()) + tuple(sorted(marks))


def find_invalid(raw: NDArray[np.number], marks: Iterable[float], limits: CountLimits) -> NDArray[np.bool_]:
    """Find the pixels that hold one of the marks, or a value outside the range of valid counts.

    Parameters
    ----------
    raw : (row, col) real
    marks : iterable of float
        Values that are no counts, as of `usual_marks`.
    limits : CountLimits
        What the file says.

    Returns
    -------
    (row, col) bool

    Examples
    --------
    >>> find_invalid(np.array([-2, -1, 0, 7, 8]), (-2, -1), CountLimits(highest=7)).tolist()
    [True, True, False, False, True]
    """
    invalid = np.zeros(raw.shape, bool)
    for mark in {*marks, *limits.marks}:
        invalid |= raw == (int(mark) if float(mark).is_integer() else mark)
    if limits.lowest is not None:
        invalid |= raw < limits.lowest
    if limits.highest is not None:
        invalid |= raw > limits.highest
    return invalid


def bad_values(values: NDArray[np.integer | np.bool_]) -> NDArray[np.bool_]:
    """Tell which values of a NeXus or CXI mask are those of bad pixels.

    Examples
    --------
    >>> bad_values(np.array([0, 1, 256, 2**31], np.uint32)).tolist()
    [False, True, True, False]
    """
    if values.dtype.itemsize <= 2:
        return np.asarray(values != 0)
    return np.asarray(values & values.dtype.type(_BAD_BITS) != 0)


def text_limits(text: str) -> CountLimits:
    """Find the range of valid counts in the header of a CBF file or of a TIFF file of Dectris.

    Examples
    --------
    >>> text_limits("# Count_cutoff 1071450 counts")
    CountLimits(marks=(), lowest=None, highest=1071450.0)
    >>> text_limits("_array_intensities.undefined_value -1").marks
    (-1.0,)
    """

    def number(pattern: str) -> float | None:
        match = re.search(rf"^\s*{pattern}\s+(-?\d+(?:\.\d*)?)(?:\s|$)", text, re.MULTILINE)
        return None if match is None else float(match[1])

    undefined = number(r"_array_intensities\.undefined_value")
    above = [number(pattern) for pattern in (r"#\s*Count_cutoff", r"_array_intensities\.overload")]
    highest = min((value for value in above if value is not None and value > 0), default=None)
    return CountLimits(() if undefined is None else (undefined,), number(r"_array_intensities\.underload"), highest)
