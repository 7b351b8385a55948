"""Read micrographs of any supported format as grey images, and their metadata."""

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.formats import detect_format
from cathodeflow.io.guard import MAX_PIXELS, guarded, one_line
from cathodeflow.io.image_lists import image_files, sidecar_file
from cathodeflow.io.instrument_settings import parse_sidecar
from cathodeflow.io.instruments.encoding import decode
from cathodeflow.io.raw_format import ImageHeader, ImageReader

Grey = NDArray[np.uint8] | NDArray[np.uint16]

_MAX_SIDECAR = 2**20
# Fraction of the pixels at each end of the range that may be hot or dead, and how much wider the range then is.
_HOT, _OUTLYING = 1e-4, 20


def list_micrographs(source: str, refused: list[InputError] | None = None) -> list[str]:
    """List the images of a folder, a pattern, a table or a file, in natural order.

    Parameters
    ----------
    source : str
    refused : list of InputError, optional
        Errors of images with names that are no text are appended here, and these left out, instead of raised.

    Raises
    ------
    InputError
        There is none.
    """
    return image_files(source, refused)


def micrograph_header(path: str, page: int | None = None) -> ImageHeader:
    """Read the header of an image file, without pixels.

    Parameters
    ----------
    path : str
        JPEG, PNG, TIFF or BMP, recognised by content; with the extra `sem-formats` also formats of rosettasciio.
    page : int, optional
        Page of a TIFF file, from 0. Default: the only image of full size; files of other formats have one image.

    Raises
    ------
    InputError
        The file is missing, empty, damaged, does not match its suffix, or has more than one image or more than
        `MAX_PIXELS`.
    """
    reader, expected = open_reader(path, page)
    with guarded(path, expected):
        header = reader.header(path)
        # Damaged tags may be texts.
        rows, cols = operator.index(header.rows), operator.index(header.cols)
        if not 0 < rows * cols <= MAX_PIXELS or rows < 0:
            raise InputError(path, f"{rows} x {cols} pixels", f"an image of 1 to {MAX_PIXELS} pixels")
        return header


def read_micrograph(path: str, page: int | None = None) -> Grey:
    """Read an image as a single grey channel.

    Alpha is dropped; colour becomes its luminance (ITU-R BT.601), which is exact if all channels are equal. 8 and 16
    bits are kept, fewer bits are scaled to 8, and all other numbers are scaled from their range to 16 bits,
    where a few pixels far beyond it are clipped.

    Parameters
    ----------
    path, page
        See `micrograph_header`.

    Returns
    -------
    (row, col) uint8 or uint16

    Raises
    ------
    InputError
        As in `micrograph_header`; or the pixels cannot be decoded (truncated file), or are not finite.
    """
    micrograph_header(path, page)
    reader, expected = open_reader(path, page)
    with guarded(path, expected):
        return _to_grey(reader.read(path), path)


def embedded_settings(path: str, page: int | None = None) -> dict[str, Any]:
    """Read the instrument settings that are stored in the image file itself.

    Supported are the TIFF tags of FEI and Thermo Fisher, Phenom, Zeiss and TESCAN, the texts of Hitachi and JEOL in the
    description or at the end of a TIFF, the date of TIFF and EXIF, and the metadata that rosettasciio reads.

    Returns
    -------
    dict
        With the known keys of `cathodeflow.io.instrument_settings.SETTINGS`.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    reader, expected = open_reader(path, page)
    with guarded(path, expected):
        return reader.settings(path)


def instrument_settings(path: str, page: int | None = None) -> dict[str, Any]:
    """Read the instrument settings from the file itself and from its sidecar, which counts where both have them.

    Raises
    ------
    InputError
        A file cannot be read.
    """
    header = micrograph_header(path, page)
    return embedded_settings(path, page) | parsed_sidecar(path, (header.rows, header.cols))


def parsed_sidecar(path: str, shape: tuple[int, int]) -> dict[str, Any]:
    """Read the instrument settings from the sidecar of an image of this shape; none without a sidecar.

    Raises
    ------
    InputError
        The sidecar cannot be read.
    """
    text = sidecar_text(path)
    return parse_sidecar(text, shape) if text else {}


def sidecar_text(path: str) -> str | None:
    """Read the text file that the instrument wrote with an image; None if there is none.

    In any encoding of `cathodeflow.io.instruments.encoding`; see `cathodeflow.io.image_lists.sidecar_file` for its
    names.

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
    return decode(data)


def open_reader(path: str, page: int | None) -> tuple[ImageReader, str]:
    """Return the reader of an image file, or of a page of it, and what is expected of the file, for errors."""
    found = detect_format(path, "micrograph")
    assert found.micrograph is not None
    own = found.micrograph.page
    return found.micrograph if page is None or own is None else own(page), f"a complete, readable {found.name} image"


def _to_grey(pixels: NDArray[Any], path: str) -> Grey:
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if pixels.shape[-1] < 3 else luminance(pixels[..., :3])
    if pixels.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
    low, high = float(pixels.min()), float(pixels.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(path, "values that are not finite", "a finite number in every pixel")
    values = pixels.astype(np.float64)
    most = np.quantile(values, (_HOT, 1 - _HOT)) if pixels.size >= 1 / _HOT else (low, high)
    if high - low > _OUTLYING * (most[1] - most[0]) > 0:
        # A few hot or dead pixels would take the whole range.
        low, high = most
        values = np.clip(values, low, high)
    scale = 65535 / (high - low) if high > low else 0.0
    return np.rint((values - low) * scale).astype(np.uint16)


def luminance(colour: NDArray[Any]) -> NDArray[Any]:
    """Return the luminance (ITU-R BT.601) of colours (..., 3), exact if all channels are equal."""
    red, green, blue = (colour[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.rint(grey).astype(colour.dtype) if colour.dtype.kind in "ui" else grey
