"""EDF headers: the layout that fabio's reader gets wrong, and files of GE detectors with a header of EDF.

In an EDF header, `EDF_BinarySize` is the size of the pixels in the file, `Size` an older name of the same (P. Boesecke,
ESRF Data Format). Some programs write a wrong `Size`, and fabio believes it. At the Advanced Photon Source, files of GE
detectors have one EDF header of 8192 bytes, with the number of frames, and then all frames (fabio, issue 553).
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.raw_format import NO_LIMITS, CountLimits

_TYPES = {
    "UnsignedByte": "u1", "SignedByte": "i1", "UnsignedShort": "u2", "SignedShort": "i2", "UnsignedInteger": "u4",
    "SignedInteger": "i4", "UnsignedLong": "u4", "SignedLong": "i4", "Unsigned64": "u8", "Signed64": "i8",
    "FloatValue": "f4", "FLOATVALUE": "f4", "Float": "f4", "FloatIEEE32": "f4", "DoubleValue": "f8", "Double": "f8",
}  # fmt: skip
_GE_HEADER = 8192
#: Bytes that may follow the pixels of a frame, since blocks are of 512 bytes.
PADDING = 512
_MAX_AXES = 8
# Integers around `Dummy` that `DDummy` makes invalid as well.
_MAX_MARKS = 11


class GeStack(NamedTuple):
    """Frames of a GE detector behind one EDF header: their number, (row, col) shape, type, and the first byte."""

    n_frames: int
    shape: tuple[int, int]
    dtype: np.dtype
    start: int


def find_ge_stack(path: str) -> GeStack | None:
    """Recognise a file of many frames behind one EDF header, by the number of images in it; None if it is none.

    Raises
    ------
    InputError
        The header names frames that do not fill the file, or of an unknown type.
    """
    with open(path, "rb") as file:
        head = file.read(_GE_HEADER)
    end = head.find(b"}")
    if not head.lstrip().startswith(b"{") or end < 0 or b"Num_Images" not in head[:end]:
        return None
    fields = {
        name.lower(): value for name, value in re.findall(r"([\w~-]+)\s*=\s*([^;]*?)\s*;", head[:end].decode("latin-1"))
    }
    numbers = [fields.get(name, "") for name in ("num_images", "dim_2", "dim_1")]
    if not all(number.isdigit() for number in numbers) or fields.get("datatype") not in _TYPES:
        raise InputError(path, f"Num_Images, Dim_2, Dim_1 = {numbers}, {fields.get('datatype')}", "numbers and a type")
    n_frames, rows, cols = map(int, numbers)
    order = ">" if "High" in fields.get("byteorder", "") else "<"
    dtype = np.dtype(order + _TYPES[fields["datatype"]])
    size, frame = os.path.getsize(path), rows * cols * dtype.itemsize
    start = size - n_frames * frame
    given = fields.get("edf_headersize", str(_GE_HEADER))
    if start < end or start != int(given if given.isdigit() else _GE_HEADER):
        expected = f"{n_frames} frames of {frame} bytes after a header of {given} bytes, as it says"
        raise InputError(path, f"{size} bytes", expected)
    return GeStack(n_frames, (rows, cols), dtype, start)


def read_ge_stack(path: str, stack: GeStack, indices: range) -> Iterator[NDArray[Any]]:
    """Yield the frames `indices` as (row, col) arrays."""
    pixels = stack.shape[0] * stack.shape[1]
    for index in indices:
        offset = stack.start + index * pixels * stack.dtype.itemsize
        yield np.fromfile(path, stack.dtype, pixels, offset=offset).reshape(stack.shape)


@cache
def mend_fabio() -> None:
    """Let fabio take the size of an EDF frame from where it is right, and print nothing, in this process."""
    import fabio.edfimage
    import fabio.fabioimage

    frame_class = fabio.edfimage.EdfFrame
    extract = frame_class._extract_header_metadata

    def extract_with_size(frame: Any, *arguments: Any, **keywords: Any) -> None:
        extract(frame, *arguments, **keywords)
        if frame._data_compression is not None or frame.bfname is not None:
            return
        needed = bytes_of(frame)
        named = str(frame.header.get("EDF_BinarySize", "")).strip()
        if named.isdigit() and 0 <= int(named) - needed < PADDING:
            frame.blobsize = int(named)
        elif not 0 <= frame.blobsize - needed < PADDING and frame.start + needed == os.path.getsize(frame.file.name):
            frame.blobsize = needed

    frame_class._extract_header_metadata = extract_with_size
    rank_of = frame_class.get_data_rank

    def bounded_rank(*arguments: Any, **keywords: Any) -> int:
        # Fabio lists the sizes of as many axes as the highest number in a header, up to Dim_99999999999.
        rank = int(rank_of(*arguments, **keywords))
        if rank > _MAX_AXES:
            raise ValueError(f"size of axis {rank} in a header, expected at most {_MAX_AXES} axes")
        return rank

    frame_class.get_data_rank = staticmethod(bounded_rank)
    # A line for debugging that was left in some releases.
    fabio.fabioimage.print = lambda *_, **__: None


def bytes_of(frame: Any) -> int:
    """Bytes that the pixels of a fabio EDF frame fill."""
    return int(np.prod(frame.shape, dtype=np.int64)) * int(frame._dtype.itemsize)


def dummy_limits(header: dict[str, Any]) -> CountLimits:
    """Return the values that mark pixels without a count: those within `DDummy` of `Dummy`, unless that is 0.

    Examples
    --------
    >>> dummy_limits({"Dummy": "-10", "DDummy": "1.5"}).marks
    (-11.0, -10.0, -9.0)
    """
    fields = {name.lower(): str(value) for name, value in header.items()}
    try:
        dummy, around = float(fields["dummy"]), float(fields.get("ddummy", "0"))
    except (KeyError, ValueError):
        return NO_LIMITS
    if not dummy or not np.isfinite([dummy, around]).all():
        return NO_LIMITS
    near = [dummy + step for step in range(-int(around), int(around) + 1)] if 0 <= around < _MAX_MARKS / 2 else [dummy]
    return CountLimits(tuple(near))
