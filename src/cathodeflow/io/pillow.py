"""Images decoded by Pillow: shared functions for PNG, JPEG and BMP."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cathodeflow.errors import InputError
from cathodeflow.io.instruments.values import as_text, parse_time
from cathodeflow.io.orientation import TAG, upright, upright_shape
from cathodeflow.io.raw_format import FrameHeader, ImageHeader

_CHANNELS = {"1": 1, "L": 1, "P": 1, "I;16": 1, "I;16B": 1, "LA": 2, "PA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}
_TYPES = {"1": "bool", "L": "uint8", "I;16": "uint16", "I;16B": "uint16", "I": "int32", "F": "float32"}


def frame_header(path: str, kind: str) -> FrameHeader:
    """Read the header of a file with one frame; `kind` is Pillow's name of the format.

    Raises
    ------
    InputError
        The image is not grey.
    """
    with Image.open(path, formats=(kind,)) as image:
        if image.mode not in _TYPES:
            raise InputError(path, f"an image of mode {image.mode}", "a grey image (one value per pixel)")
        return FrameHeader(1, (image.height, image.width), np.dtype(_TYPES[image.mode]))


def read_frame(path: str, kind: str) -> NDArray[Any]:
    """Read the frame (row, col) as stored."""
    with Image.open(path, formats=(kind,)) as image:
        return np.asarray(image)


def image_header(path: str, kind: str) -> ImageHeader:
    """Read the header of an image.

    Raises
    ------
    InputError
        The image is neither grey nor colour.
    """
    with Image.open(path, formats=(kind,)) as image:
        if image.mode not in _CHANNELS:
            raise InputError(path, f"an image of mode {image.mode}", "a grey or colour image")
        rows, cols = upright_shape(image.height, image.width, image.getexif().get(TAG))
        return ImageHeader(rows, cols, 1 if image.mode == "1" else 8, _CHANNELS[image.mode])


def read_image(path: str, kind: str) -> NDArray[Any]:
    """Read an image, turned as it says itself, as grey (row, col) or as 8-bit colour (row, col, 3)."""
    with Image.open(path, formats=(kind,)) as image:
        pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        return upright(pixels, image.getexif().get(TAG))


def exif_settings(path: str, kind: str) -> dict[str, Any]:
    """Read the time when an image was taken, or else when it was last changed, from its EXIF data."""
    with Image.open(path, formats=(kind,)) as image:
        exif = image.getexif()
        date = exif.get_ifd(0x8769).get(0x9003) or exif.get(306)
        time = parse_time(as_text(date).replace(":", "-", 2))
        return {"time": time} if time else {}
