"""JPEG: one frame of 8 bits, or a micrograph with the time in its EXIF data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cathodeflow.errors import InputError
from cathodeflow.io.instrument_settings import END_BYTES, parse_end
from cathodeflow.io.raw_format import FrameHeader, FrameReader, ImageHeader, ImageReader, RawFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Markers of the end of the image, of fill bytes, and of those that no length follows: data, restarts, a start.
_END, _FILL = 0xD9, 0xFF
_WITHOUT_LENGTH = {0x00, 0x01, _FILL, *range(0xD0, 0xD9)}


def _frame_header(path: str, dataset: str | None) -> FrameHeader:
    from cathodeflow.io import pillow

    return pillow.frame_header(path, "JPEG")


def _read_frames(path: str, header: FrameHeader, indices: range) -> Iterator[NDArray[Any]]:
    from cathodeflow.io import pillow

    yield pillow.read_frame(path, "JPEG")


def _image_header(path: str) -> ImageHeader:
    from cathodeflow.io import pillow

    return pillow.image_header(path, "JPEG")


def _read_image(path: str) -> NDArray[Any]:
    from cathodeflow.io import pillow

    # Decoders fill missing pixels with grey if the end of a file was never written but the file has the right size.
    with open(path, "rb") as file:
        data = file.read()
    if not _is_complete(data):
        raise InputError(path, "a truncated JPEG file", "a complete JPEG image")
    return pillow.read_image(path, "JPEG")


def _is_complete(data: bytes) -> bool:
    """Whether the image has its end; what instruments write behind it does not count."""
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1:
        marker = data[at + 1]
        if marker == _END:
            return True
        if marker in _WITHOUT_LENGTH:
            at += 2 if marker != _FILL else 1
            continue
        # A segment; that of a scan is followed by its data, in which other bytes than markers come next.
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _settings(path: str) -> dict[str, Any]:
    from cathodeflow.io import pillow

    header = pillow.image_header(path, "JPEG")
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - END_BYTES))
        behind = parse_end(file.read(END_BYTES), (header.rows, header.cols))
    return pillow.exif_settings(path, "JPEG") | behind


FORMAT = RawFormat(
    name="JPEG",
    magic=(b"\xff\xd8\xff",),
    suffixes=(".jpg", ".jpeg"),
    frames=FrameReader(_frame_header, _read_frames),
    micrograph=ImageReader(_image_header, _read_image, _settings),
)
