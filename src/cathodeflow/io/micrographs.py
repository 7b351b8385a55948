"""Read micrographs of any usual format as grey images, and what is stored beside their pixels."""

import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cathodeflow.errors import InputError
from cathodeflow.io import rosetta
from cathodeflow.io.guard import MAX_PIXELS, guarded, one_line
from cathodeflow.io.image_lists import EXTRA_SUFFIXES, image_files, sidecar_file
from cathodeflow.io.instrument_settings import parse_fei, parse_sidecar, parse_time, parse_zeiss

Grey = NDArray[np.uint8] | NDArray[np.uint16]

_TESCAN_TAG = 50431
_MAX_SIDECAR = 2**20

_MAGIC = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
)
_SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
_PILLOW_CHANNELS = {"1": 1, "L": 1, "P": 1, "I;16": 1, "I;16B": 1, "LA": 2, "PA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}


class Header(NamedTuple):
    """Rows and columns of an image [px], bits of a value, channels, and whether each is a plane, all as stored."""

    rows: int
    cols: int
    bit_depth: int
    channels: int
    planes: bool = False


def list_micrographs(source: str) -> list[str]:
    """List the images of a folder, a pattern, a table or a file, in natural order.

    Raises
    ------
    InputError
        There is none.
    """
    return image_files(source)


def micrograph_header(path: str) -> Header:
    """Read what an image file holds, without its pixels.

    Parameters
    ----------
    path : str
        JPEG, PNG, TIFF or BMP, told by its content; with the extra `sem-formats` also what rosettasciio reads.

    Raises
    ------
    InputError
        No such file, empty, of another content than its suffix says, damaged, more than one image, or more than
        `MAX_PIXELS`.
    """
    kind = _kind(path)
    with guarded(path, _expected(kind)):
        header = _HEADERS[kind](path)
    if not 0 < header.rows * header.cols <= MAX_PIXELS or header.rows < 0:
        found = f"{header.rows} x {header.cols} pixels"
        raise InputError(path, found, f"an image of 1 to {MAX_PIXELS} pixels")
    return header


def read_micrograph(path: str) -> Grey:
    """Read an image as one channel of grey.

    Alpha is dropped; colour becomes its luminance (ITU-R BT.601), unchanged where all channels are equal. 8 and 16 bits
    are kept, fewer bits are spread to 8, and any other numbers are brought from their least and greatest to 16 bits.

    Parameters
    ----------
    path : str
        See `micrograph_header`.

    Returns
    -------
    (row, col) uint8 or uint16

    Raises
    ------
    InputError
        As `micrograph_header`; or the pixels cannot be decoded, of a truncated file for one, or are not finite.
    """
    micrograph_header(path)
    kind = _kind(path)
    with guarded(path, _expected(kind)):
        return _to_grey(_READERS[kind](path), path)


def embedded_settings(path: str) -> dict[str, Any]:
    """Read the instrument's settings that are stored in the image file itself.

    Known are the TIFF tags of FEI and Thermo Fisher, Zeiss and TESCAN, the texts of Hitachi and JEOL in the description
    of a TIFF, the date of TIFF and EXIF, and what rosettasciio tells.

    Returns
    -------
    dict
        With those keys of `cathodeflow.io.instrument_settings.SETTINGS` that are known.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    kind = _kind(path)
    with guarded(path, _expected(kind)):
        if kind == "TIFF":
            return _tiff_settings(path)
        return rosetta.settings(path) if kind == "rosettasciio" else _exif_settings(path)


def pixel_size(path: str) -> float | None:
    """Read the size of a pixel [nm] from the sidecar or the file itself; None where neither tells.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    text = sidecar_text(path)
    size = parse_sidecar(text).get("pixel_nm") if text else None
    return size or embedded_settings(path).get("pixel_nm")


def sidecar_text(path: str) -> str | None:
    """Read the text file that the instrument wrote beside an image; None where there is none.

    UTF-8, UTF-16 with its mark, Korean (cp949) or, failing these, Latin-1; see
    `cathodeflow.io.image_lists.sidecar_file` for its names.

    Raises
    ------
    InputError
        It cannot be read.
    """
    name = sidecar_file(path)
    if name is None:
        return None
    try:
        with open(name, "rb") as file:
            data = file.read(_MAX_SIDECAR)
    except OSError as error:
        raise InputError(name, f"an error ({one_line(error)})", "a readable text file") from error
    first = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    for encoding in (first, "cp949"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def _kind(path: str) -> str:
    if not os.path.isfile(path):
        raise InputError(path, "a folder" if os.path.isdir(path) else "no such file", "an image")
    suffix = os.path.splitext(path)[1].lower()
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise InputError(path, f"an error ({one_line(error)})", "a readable file") from error
    if not head:
        raise InputError(path, "an empty file", "an image")
    if suffix in EXTRA_SUFFIXES:
        rosetta.require(path)
        return "rosettasciio"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    what = "text" if all(31 < byte < 127 or byte in b"\t\r\n" for byte in head) else "unknown content"
    expected = f"{_SUFFIXES[suffix]} content, as the suffix says" if suffix in _SUFFIXES else "JPEG, PNG, TIFF or BMP"
    raise InputError(path, what, expected)


def _expected(kind: str) -> str:
    return f"a whole, readable {kind} image"


def _pillow_header(path: str) -> Header:
    with Image.open(path, formats=("JPEG", "BMP")) as image:
        if image.mode not in _PILLOW_CHANNELS:
            raise InputError(path, f"an image of mode {image.mode}", "grey or colour")
        return Header(image.height, image.width, 1 if image.mode == "1" else 8, _PILLOW_CHANNELS[image.mode])


def _read_pillow(path: str) -> NDArray[Any]:
    with Image.open(path, formats=("JPEG", "BMP")) as image:
        return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))


def _read_jpeg(path: str) -> NDArray[Any]:
    # Decoders fill up with grey what a file lacks whose end was never written, as long as it has the right size.
    with open(path, "rb") as file:
        data = file.read()
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise InputError(path, "a JPEG file that breaks off", "a whole JPEG image")
    return _read_pillow(path)


def _png_header(path: str) -> Header:
    with open(path, "rb") as file:
        head = file.read(26)
    if head[12:16] != b"IHDR" or len(head) < 26:
        raise InputError(path, "a PNG file without a header", "a whole PNG image")
    cols, rows = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    return Header(rows, cols, head[24], {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[head[25]])


def _read_png(path: str) -> NDArray[Any]:
    header = _png_header(path)
    if header.bit_depth == 16:
        # Pillow would cut 16-bit colour to 8 bits.
        with open(path, "rb") as file:
            return imagecodecs.png_decode(file.read())
    with Image.open(path, formats=("PNG",)) as image:
        if header.channels > 2 or image.mode.startswith("P"):
            return np.asarray(image.convert("RGB"))
        return np.asarray(image.convert("L"))


def _tiff_page(tiff: tifffile.TiffFile, path: str) -> tifffile.TiffPage:
    """Return the one image of a TIFF file; reduced copies and masks do not count."""
    pages = [page for page in tiff.pages if not (page.subfiletype & 5)]
    count = max(len(pages), int((tiff.imagej_metadata or {}).get("images", 1)))
    if count != 1:
        raise InputError(path, f"{count} pages", "one image in a file; write every page as a file of its own")
    return pages[0]


def _tiff_header(path: str) -> Header:
    with tifffile.TiffFile(path) as tiff:
        page = _tiff_page(tiff, path)
        if page.axes not in ("YX", "YXS", "SYX") or page.photometric not in (0, 1, 2, 3, 6):
            found = f"axes {page.axes}, photometric {getattr(page.photometric, 'name', page.photometric)}"
            raise InputError(path, found, "a grey, palette or RGB image")
        if page.dtype is None or page.dtype.kind not in "buif":
            raise InputError(path, f"values of type {page.dtype}", "integers or floats")
        bits, planes = int(page.bitspersample), page.axes == "SYX"
        return Header(page.imagelength, page.imagewidth, bits, page.samplesperpixel, planes)


def _read_tiff(path: str) -> NDArray[Any]:
    size = os.path.getsize(path)
    with tifffile.TiffFile(path) as tiff:
        page = _tiff_page(tiff, path)
        parts = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        if not parts or any(at + length > size or not length for at, length in parts):
            raise InputError(path, f"a truncated file of {size} bytes", "a whole TIFF image")
        pixels = page.asarray()
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        if page.photometric == 3:
            # The colours of a palette have 16 bits whatever the image has.
            return (np.asarray(page.colormap)[:, pixels] >> 8).astype(np.uint8).transpose(1, 2, 0)
        bits = int(page.bitspersample)
        if bits < 8:
            pixels = (pixels.astype(np.uint16) * 255 // (2**bits - 1)).astype(np.uint8)
        if page.photometric == 0:
            pixels = (pixels.max() if pixels.dtype.kind == "f" else 2 ** max(bits, 8) - 1) - pixels
        return pixels


def _to_grey(pixels: NDArray[Any], path: str) -> Grey:
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if pixels.shape[-1] < 3 else _luminance(pixels[..., :3])
    if pixels.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
    low, high = float(pixels.min()), float(pixels.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(path, "values that are not finite", "a number for every pixel")
    scale = 65535 / (high - low) if high > low else 0.0
    return np.rint((pixels.astype(np.float64) - low) * scale).astype(np.uint16)


def _luminance(colour: NDArray[Any]) -> NDArray[Any]:
    red, green, blue = (colour[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.rint(grey).astype(colour.dtype) if colour.dtype.kind in "ui" else grey


def _tiff_settings(path: str) -> dict[str, Any]:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        settings = {"time": parse_time(_as_text(page.tags.valueof(306)).replace(":", "-", 2))}
        settings |= parse_sidecar(_as_text(page.tags.valueof(270)))
        settings |= parse_sidecar(_as_text(page.tags.valueof(_TESCAN_TAG)))
        settings |= parse_zeiss(tiff.sem_metadata) if tiff.is_sem else {}
        settings |= parse_fei(tiff.fei_metadata) if tiff.is_fei else {}
        return {key: value for key, value in settings.items() if value is not None}


def _exif_settings(path: str) -> dict[str, Any]:
    with Image.open(path, formats=("JPEG", "PNG", "BMP")) as image:
        exif = image.getexif()
        # When it was taken, or else when the file was last changed.
        date = exif.get_ifd(0x8769).get(0x9003) or exif.get(306)
        time = parse_time(_as_text(date).replace(":", "-", 2))
        return {"time": time} if time else {}


def _as_text(value: Any) -> str:
    return bytes(value).decode("latin-1") if isinstance(value, bytes | bytearray) else str(value or "")


_HEADERS: dict[str, Callable[[str], Header]] = {
    "JPEG": _pillow_header,
    "BMP": _pillow_header,
    "PNG": _png_header,
    "TIFF": _tiff_header,
    "rosettasciio": lambda path: Header(*rosetta.header(path)),
}
_READERS: dict[str, Callable[[str], NDArray[Any]]] = {
    "JPEG": _read_jpeg,
    "BMP": _read_pillow,
    "PNG": _read_png,
    "TIFF": _read_tiff,
    "rosettasciio": rosetta.read,
}
