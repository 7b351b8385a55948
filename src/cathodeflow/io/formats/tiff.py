"""TIFF: frames, one per page or consecutive (ImageJ), and micrographs with the tags of their instruments."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from cathodeflow.errors import InputError
from cathodeflow.io.instrument_settings import END_BYTES, parse_end, parse_tags
from cathodeflow.io.instruments.values import as_text
from cathodeflow.io.orientation import TAG, upright, upright_shape
from cathodeflow.io.raw_format import (
    FrameConditions,
    FrameHeader,
    FrameReader,
    ImageHeader,
    ImageReader,
    RawFormat,
    VolumeHeader,
    VolumeReader,
)

if TYPE_CHECKING:
    import tifffile
    from numpy.typing import NDArray

# Its warnings are harmless, or the same problem is raised as an InputError.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

# The plugin NDFileTIFF of areaDetector writes attributes as texts from this tag on.
_FIRST_ATTRIBUTE = 65010


def _frame_header(path: str, dataset: str | None) -> FrameHeader:
    import tifffile

    from cathodeflow.io.invalid_pixels import text_limits

    size = os.path.getsize(path)
    with tifffile.TiffFile(path) as tiff:
        pages = _pages(tiff, path)
        n_pages, first = len(pages), pages[0]
        for number, page in enumerate(pages):
            if len(page.shape) != 2:
                raise InputError(path, f"a page of shape {page.shape}", "grey pages (one value per pixel)")
            if (page.shape, page.dtype) != (first.shape, first.dtype):
                found = f"page {number} of {page.shape} pixels, {page.dtype}"
                raise InputError(path, found, f"{first.shape} pixels, {first.dtype} as in page 0")
            if any(at + n > size for at, n in zip(page.dataoffsets, page.databytecounts, strict=False)):
                raise InputError(
                    path, f"a truncated file (page {number} ends beyond its {size} bytes)", "a complete TIFF file"
                )
        if first.dtype is None:
            raise InputError(path, "an unknown sample format", "integers or floats")
        stack = _contiguous_stack(tiff)
        if stack is not None:
            n_pages = math.prod(stack.shape[:-2])
            if stack.dataoffset + stack.nbytes > size:
                raise InputError(path, f"a truncated file of {size} bytes", f"{n_pages} complete frames")
        # A detector of Dectris describes itself in the first page.
        limits = text_limits(as_text(first.tags.valueof(270)))
        return FrameHeader(n_pages, first.shape, first.dtype, limits=limits)


def _pages(tiff: tifffile.TiffFile, path: str) -> list[tifffile.TiffPage]:
    """List the pages of a file, each of which names the next: tifffile itself goes round in circles, and never ends."""
    pages: list[tifffile.TiffPage] = []
    offsets: set[int] = set()
    with suppress(IndexError):
        while True:
            page = tiff.pages[len(pages)]
            if page.offset in offsets:
                raise InputError(path, f"page {len(pages)} at the place of an earlier one", "a complete TIFF file")
            offsets.add(page.offset)
            pages.append(page)
    if not pages:
        raise InputError(path, "no page", "a complete TIFF file")
    return pages


def _contiguous_stack(tiff: tifffile.TiffFile) -> tifffile.TiffPageSeries | None:
    """Return the series of a file that has only one page, followed by the other frames (as written by ImageJ)."""
    if len(tiff.pages) > 1 or not (tiff.is_imagej or tiff.is_shaped):
        return None
    series = tiff.series[0]
    more = len(series.shape) > 2 and series.shape[-2:] == tiff.pages[0].shape and math.prod(series.shape[:-2]) > 1
    return series if more and series.dataoffset is not None else None


def _read_frames(path: str, header: FrameHeader, indices: range) -> Iterator[NDArray[Any]]:
    import numpy as np
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        stack = _contiguous_stack(tiff)
        if stack is None:
            for index in indices:
                yield tiff.pages[index].asarray()
            return
        dtype = header.dtype.newbyteorder(tiff.byteorder)
        pixels = math.prod(header.shape)
        for index in indices:
            at = stack.dataoffset + index * pixels * dtype.itemsize
            yield np.fromfile(path, dtype, pixels, offset=at).reshape(header.shape)


def _conditions(path: str, header: FrameHeader, omega_name: str | None) -> FrameConditions:
    import numpy as np
    import tifffile

    from cathodeflow.io.header_text import conditions_of, text_fields

    with tifffile.TiffFile(path) as tiff:
        found = []
        for page in tiff.pages:
            # The description, and the attributes of areaDetector.
            fields: dict[str, str] = {}
            for tag in page.tags.values():
                if (tag.code == 270 or tag.code >= _FIRST_ATTRIBUTE) and isinstance(tag.value, str | bytes):
                    fields |= text_fields(as_text(tag.value))
            found.append(conditions_of(fields, omega_name))
    if len(found) != header.n_frames:
        found = [(np.nan, np.nan)] * header.n_frames
    return FrameConditions(*np.array(found).T)


def _image_page(tiff: tifffile.TiffFile, path: str, number: int | None = None) -> tifffile.TiffPage:
    """Return a page of a TIFF file; by default the only one of full size, without reduced copies and masks."""
    every = _pages(tiff, path)
    if number is not None:
        if number >= len(every):
            raise InputError(path, f"{len(every)} pages", f"a page {number} (the first is 0)")
        return every[number]
    pages = [page for page in every if not (page.subfiletype & 5)]
    largest = max((page.imagelength * page.imagewidth for page in pages), default=0)
    # Instruments store a thumbnail beside the image, not always marked as one.
    pages = [page for page in pages if 2 * page.imagelength * page.imagewidth > largest]
    count = max(len(pages), int((tiff.imagej_metadata or {}).get("images", 1)))
    if count != 1:
        raise InputError(
            path, f"{count} pages", "one image of full size per file, or the number of its page (option `page`)"
        )
    return pages[0]


def _image_header(path: str, number: int | None = None) -> ImageHeader:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = _image_page(tiff, path, number)
        if page.axes not in ("YX", "YXS", "SYX") or page.photometric not in (0, 1, 2, 3, 5, 6):
            found = f"axes {page.axes}, photometric {getattr(page.photometric, 'name', page.photometric)}"
            raise InputError(path, found, "a grey, palette, RGB or CMYK image")
        if page.dtype is None or page.dtype.kind not in "buif":
            raise InputError(path, f"values of type {page.dtype}", "integers or floats")
        bits, planes = int(page.bitspersample), page.axes == "SYX"
        rows, cols = upright_shape(page.imagelength, page.imagewidth, page.tags.valueof(TAG))
        return ImageHeader(rows, cols, bits, page.samplesperpixel, planes)


def _read_image(path: str, number: int | None = None) -> NDArray[Any]:
    import numpy as np
    import tifffile

    size = os.path.getsize(path)
    with tifffile.TiffFile(path) as tiff:
        page = _image_page(tiff, path, number)
        parts = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        if not parts or any(at + length > size or not length for at, length in parts):
            raise InputError(path, f"a truncated file of {size} bytes", "a complete TIFF image")
        pixels = page.asarray()
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        pixels = upright(pixels, page.tags.valueof(TAG))
        if page.photometric == 5 and pixels.dtype.kind == "u":
            # Inks cover the paper one after the other.
            white = np.iinfo(pixels.dtype).max
            inks = 1 - pixels[..., :4].astype(np.float64) / white
            return np.rint(inks[..., :3] * inks[..., 3:] * white).astype(pixels.dtype)
        if page.photometric == 3:
            # The colours of a palette always have 16 bits.
            return (np.asarray(page.colormap)[:, pixels] >> 8).astype(np.uint8).transpose(1, 2, 0)
        bits = int(page.bitspersample)
        if bits < 8:
            pixels = (pixels.astype(np.uint16) * 255 // (2**bits - 1)).astype(np.uint8)
        if page.photometric == 0:
            pixels = (pixels.max() if pixels.dtype.kind == "f" else 2 ** max(bits, 8) - 1) - pixels
        return pixels


def _settings(path: str, number: int | None = None) -> dict[str, Any]:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = _image_page(tiff, path, number)
        shape = upright_shape(page.imagelength, page.imagewidth, page.tags.valueof(TAG))
        # Some files have the tags of the instrument in their first page alone.
        tags = {tag.code: _value(tiff, tag) for tag in (*tiff.pages[0].tags, *page.tags)}
        settings = parse_tags(tags, shape)
        tiff.filehandle.seek(max(0, os.path.getsize(path) - END_BYTES))
        return parse_end(tiff.filehandle.read(END_BYTES), shape) | settings


def _page_reader(number: int) -> ImageReader:
    return ImageReader(
        partial(_image_header, number=number), partial(_read_image, number=number), partial(_settings, number=number)
    )


def _value(tiff: tifffile.TiffFile, tag: tifffile.TiffTag) -> Any:
    """Return the value of a tag, as bytes where tifffile expects a text of keys and finds none."""
    if tag.code not in (34680, 34682) or tag.value:
        return tag.value
    tiff.filehandle.seek(tag.valueoffset)
    return tiff.filehandle.read(tag.valuebytecount)


def _volume_header(path: str, dataset: str | None) -> VolumeHeader | None:
    import tifffile

    from cathodeflow.io.tiff_volume import volume_header

    with tifffile.TiffFile(path) as tiff:
        coloured = _pages(tiff, path)[0].samplesperpixel > 1
    size = None
    with suppress(Exception):
        # Damaged settings of the instrument are no reason to refuse the pixels.
        size = _settings(path).get("pixel_nm")
    return volume_header(path, None if coloured else _frame_header(path, None), size)


def _read_volume(path: str, header: VolumeHeader, indices: Iterable[tuple[int | slice, ...]]) -> Iterator[NDArray[Any]]:
    from cathodeflow.io.tiff_volume import read_volume_parts

    return read_volume_parts(path, header, indices)


FORMAT = RawFormat(
    name="TIFF",
    magic=(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    suffixes=(".tif", ".tiff"),
    frames=FrameReader(_frame_header, _read_frames, conditions=_conditions),
    micrograph=ImageReader(_image_header, _read_image, _settings, _page_reader),
    volume=VolumeReader(_volume_header, _read_volume),
)
