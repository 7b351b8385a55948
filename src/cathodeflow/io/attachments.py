"""Files inside a page: `data:` addresses of images and tables."""

import base64
import io
import mimetypes
import os
from pathlib import Path
from typing import NamedTuple

from cathodeflow.errors import InputError
from cathodeflow.io.guard import one_line

# A figure of two columns on a screen with doubled resolution.
_WIDEST = 1800
# Figures of lines are below this as PNG; above are images, which WebP stores in a tenth.
_LARGE = 300_000
_QUALITY = 86


class ImageAddress(NamedTuple):
    """An image as text: `data:` address, width and height [px]."""

    address: str
    width: int
    height: int


def image_address(path: str | os.PathLike[str]) -> ImageAddress:
    """Read an image as a `data:` address; a large one becomes WebP of at most 1800 pixels width.

    Raises
    ------
    InputError
        It cannot be read.
    """
    from PIL import Image

    content = _read(path)
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            kind, (width, height) = Image.MIME.get(image.format or "", "image/png"), image.size
            if len(content) <= _LARGE:
                return ImageAddress(_address(content, kind), width, height)
            scale = min(1.0, _WIDEST / image.width)
            shown = image.convert("RGB").resize((round(image.width * scale), round(image.height * scale)))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(path, f"an error ({one_line(error)})", "an image") from None
    stream = io.BytesIO()
    shown.save(stream, "WEBP", quality=_QUALITY, method=4)
    if stream.tell() >= len(content):
        return ImageAddress(_address(content, kind), width, height)
    return ImageAddress(_address(stream.getvalue(), "image/webp"), shown.width, shown.height)


def file_address(path: str | os.PathLike[str]) -> str:
    """Read a file as a `data:` address, for a link that saves it.

    Raises
    ------
    InputError
        It cannot be read.
    """
    return _address(_read(path), mimetypes.guess_type(os.fspath(path))[0] or "application/octet-stream")


def file_size(path: str | os.PathLike[str]) -> int | None:
    """Size of a file [bytes]; None if there is none."""
    place = Path(path)
    return place.stat().st_size if place.is_file() else None


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(path, f"an error ({one_line(error)})", "a file that can be read") from None


def _address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
