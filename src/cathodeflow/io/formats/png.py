"""PNG: one grey frame, or a micrograph of up to 16 bits with the time in its EXIF data."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cathodeflow.errors import InputError
from cathodeflow.io.orientation import TAG, upright, upright_shape
from cathodeflow.io.raw_format import (
    FrameHeader,
    FrameReader,
    ImageHeader,
    ImageReader,
    RawFormat,
    VolumeHeader,
    VolumeReader,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Larger EXIF data are no orientation [bytes].
_MAX_EXIF = 2**20


def _frame_header(path: str, dataset: str | None) -> FrameHeader:
    from cathodeflow.io import pillow

    return pillow.frame_header(path, "PNG")


def _read_frames(path: str, header: FrameHeader, indices: range) -> Iterator[NDArray[Any]]:
    from cathodeflow.io import pillow

    yield pillow.read_frame(path, "PNG")


def _orientation(path: str) -> Any:
    """Return the tag that says how the image is stored, from its EXIF data; None without one. Pixels are not read."""
    from PIL import Image

    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
            size = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf" and size <= _MAX_EXIF:
                exif = Image.Exif()
                exif.load(file.read(size))
                return exif.get(TAG)
            file.seek(size + 4, 1)
    return None


def _image_header(path: str) -> ImageHeader:
    with open(path, "rb") as file:
        head = file.read(26)
    if head[12:16] != b"IHDR" or len(head) < 26:
        raise InputError(path, "a PNG file without a header", "a complete PNG image")
    cols, rows = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    rows, cols = upright_shape(rows, cols, _orientation(path))
    return ImageHeader(rows, cols, head[24], {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[head[25]])


def _read_image(path: str) -> NDArray[Any]:
    return upright(_read_stored(path), _orientation(path))


def _read_stored(path: str) -> NDArray[Any]:
    import imagecodecs
    import numpy as np
    from PIL import Image

    header = _image_header(path)
    if header.bit_depth == 16:
        # Pillow would cut 16-bit colour to 8 bits.
        with open(path, "rb") as file:
            data = file.read()
        _require_checksums(path, data)
        return imagecodecs.png_decode(data)
    with Image.open(path, formats=("PNG",)) as image:
        if header.channels > 2 or image.mode.startswith("P"):
            return np.asarray(image.convert("RGB"))
        return np.asarray(image.convert("L"))


def _require_checksums(path: str, data: bytes) -> None:
    """Compare the checksum of every chunk: the decoder itself prints what it finds on the terminal."""
    at = 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        content, stored = data[at + 4 : at + 8 + size], data[at + 8 + size : at + 12 + size]
        if zlib.crc32(content).to_bytes(4, "big") != stored:
            raise InputError(path, f"a damaged part at byte {at}", "a complete PNG image")
        if content[:4] == b"IEND":
            return
        at += 12 + size
    raise InputError(path, f"a truncated file of {len(data)} bytes", "a complete PNG image")


def _settings(path: str) -> dict[str, Any]:
    from cathodeflow.io import pillow

    return pillow.exif_settings(path, "PNG")


def _volume_header(path: str, dataset: str | None) -> VolumeHeader | None:
    """Header of an image with a palette; grey and coloured ones are read as such."""
    import numpy as np
    from PIL import Image

    with Image.open(path, formats=("PNG",)) as image:
        if image.mode != "P":
            return None
        palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        return VolumeHeader((image.height, image.width), np.dtype(np.uint8), "yx", palette=palette)


def _read_volume(path: str, header: VolumeHeader, indices: Iterable[tuple[int | slice, ...]]) -> Iterator[NDArray[Any]]:
    import numpy as np
    from PIL import Image

    for index in indices:
        with Image.open(path, formats=("PNG",)) as image:
            yield np.asarray(image)[index]


FORMAT = RawFormat(
    name="PNG",
    magic=(b"\x89PNG\r\n\x1a\n",),
    suffixes=(".png",),
    frames=FrameReader(_frame_header, _read_frames),
    micrograph=ImageReader(_image_header, _read_image, _settings),
    volume=VolumeReader(_volume_header, _read_volume),
)
