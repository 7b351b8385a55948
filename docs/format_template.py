"""RAW16, an invented format, as an example: 8 bytes of magic, three uint32 (frames, rows, columns), then uint16 pixels.

Copy this file to src/cathodeflow/io/formats/ under the name of your format; docs/formats.md says what to change.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cathodeflow.errors import InputError
from cathodeflow.io.raw_format import FrameHeader, FrameReader, ImageHeader, ImageReader, RawFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC = b"RAW16\0\0\0"
_START = len(_MAGIC) + 12


def _header(path: str, dataset: str | None) -> FrameHeader:
    import numpy as np

    with open(path, "rb") as file:
        n_frames, rows, cols = struct.unpack("<8x3I", file.read(_START))
    size, needed = os.path.getsize(path), _START + 2 * n_frames * rows * cols
    if size < needed:
        raise InputError(path, f"a truncated file of {size} bytes", f"at least {needed} bytes")
    return FrameHeader(n_frames, (rows, cols), np.dtype(np.uint16))


def _read(path: str, header: FrameHeader, indices: range) -> Iterator[NDArray[Any]]:
    import numpy as np

    rows, cols = header.shape
    for index in indices:
        yield np.fromfile(path, "<u2", rows * cols, offset=_START + 2 * index * rows * cols).reshape(rows, cols)


def _image_header(path: str) -> ImageHeader:
    header = _header(path, None)
    if header.n_frames != 1:
        raise InputError(path, f"{header.n_frames} frames", "one image per file")
    return ImageHeader(*header.shape, bit_depth=16, channels=1)


def _read_image(path: str) -> NDArray[Any]:
    return next(_read(path, _header(path, None), range(1)))


FORMAT = RawFormat(
    name="RAW16",
    magic=(_MAGIC,),
    suffixes=(".raw16",),
    frames=FrameReader(_header, _read),
    micrograph=ImageReader(_image_header, _read_image),
)
