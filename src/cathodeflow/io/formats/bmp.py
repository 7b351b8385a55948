"""BMP: micrographs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cathodeflow.io.raw_format import ImageHeader, ImageReader, RawFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _image_header(path: str) -> ImageHeader:
    from cathodeflow.io import pillow

    return pillow.image_header(path, "BMP")


def _read_image(path: str) -> NDArray[Any]:
    from cathodeflow.io import pillow

    return pillow.read_image(path, "BMP")


def _settings(path: str) -> dict[str, Any]:
    from cathodeflow.io import pillow

    return pillow.exif_settings(path, "BMP")


FORMAT = RawFormat(
    name="BMP", magic=(b"BM",), suffixes=(".bmp",), micrograph=ImageReader(_image_header, _read_image, _settings)
)
