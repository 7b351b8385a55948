"""TIFF files as volumes: axes, voxel size, palette and inversion from the metadata of ImageJ, OME and the tags."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from cathodeflow.errors import InputError
from cathodeflow.io.guard import require_memory
from cathodeflow.io.raw_format import FrameHeader, VolumeHeader, VoxelSize
from cathodeflow.io.voxel_sizes import NANOMETRES, stated_voxel, unit_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MINISWHITE, _PALETTE = 0, 3


def volume_header(path: str, frames: FrameHeader | None, pixel_nm: float | None) -> VolumeHeader | None:
    """Read the header of a TIFF file.

    Parameters
    ----------
    path : str
    frames : FrameHeader or None
        Checked pages of one grey value per pixel; None if the file is coloured.
    pixel_nm : float, optional
        Pixel size that the instrument wrote [nm].

    Returns
    -------
    VolumeHeader or None
        None for a single coloured image.

    Raises
    ------
    InputError
        The file is a part of several, or has images of different size.
    """
    with tifffile.TiffFile(path) as tiff:
        first, described = tiff.pages[0], tiff.is_imagej or tiff.is_ome or tiff.is_shaped
        if frames is None and len(tiff.pages) == 1 and not (described and len(tiff.series[0].shape) > 3):
            return None
        if described or frames is None:
            series = tiff.series[0]
            _require_one(path, tiff, series)
            shape, axes = tuple(map(int, series.shape)), series.axes.lower()
        else:
            shape = (frames.n_frames, *frames.shape) if frames.n_frames > 1 else frames.shape
            axes = "zyx"[-len(shape) :]
        dtype = first.dtype.newbyteorder("=") if frames is None else frames.dtype
        palette = None
        if first.photometric == _PALETTE and first.colormap is not None:
            # The colours of a palette always have 16 bits.
            palette = (np.asarray(first.colormap) >> 8).astype(np.uint8).T
        inverted = None
        if first.photometric == _MINISWHITE:
            inverted = 2 ** int(first.bitspersample) - 1 if dtype.kind in "bu" else 0
        return VolumeHeader(shape, dtype, axes, _voxel(tiff, pixel_nm), palette, inverted)


def read_volume_parts(
    path: str, header: VolumeHeader, indices: Iterable[tuple[int | slice, ...]]
) -> Iterator[NDArray[Any]]:
    """Yield the parts at some indices, a page at a time."""
    with tifffile.TiffFile(path) as tiff:
        # The series of other files would be found by reading the tags of all pages.
        series = tiff.series[0] if tiff.is_imagej or tiff.is_ome or tiff.is_shaped else None
        whole: NDArray[Any] | None = None
        page_axes = len(tiff.pages[0].shape)
        leading = header.shape[: len(header.shape) - page_axes]
        at = series.dataoffset if series is not None else None
        for index in indices:
            if at is not None:
                dtype = header.dtype.newbyteorder(tiff.byteorder)
                # Mapped again for each part, as the pages of a permanent map would add up in memory.
                yield np.array(np.memmap(path, dtype, "r", at, header.shape)[index])
                continue
            numbers = [number for number in index[: len(leading)] if not isinstance(number, slice)]
            if len(numbers) == len(leading):
                number = int(np.ravel_multi_index(numbers, leading)) if leading else 0
                page = tiff.pages[number] if series is None else series.pages[number]
                if page is None:
                    raise InputError(path, f"no page {number}", "a complete TIFF file")
                yield np.asarray(page.asarray())[index[len(leading) :]]
                continue
            if whole is None:
                require_memory(path, math.prod(header.shape) * header.dtype.itemsize)
                whole = np.asarray(tiff.series[0].asarray()).reshape(header.shape)
            yield np.array(whole[index])


def _require_one(path: str, tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    if len(tiff.series) > 1:
        shapes = ", ".join(" x ".join(map(str, one.shape)) for one in tiff.series[:4])
        raise InputError(path, f"{len(tiff.series)} images ({shapes})", "one stack; save it as a separate file")
    if getattr(series, "is_multifile", False):
        raise InputError(path, "a part of an OME-TIFF data set of several files", "all slices in one OME-TIFF file")


def _voxel(tiff: tifffile.TiffFile, pixel_nm: float | None) -> VoxelSize | None:
    if tiff.is_ome:
        return _ome_voxel(tiff.ome_metadata or "")
    if tiff.is_imagej:
        metadata, tags = tiff.imagej_metadata or {}, tiff.pages[0].tags
        steps = [_step(tags.valueof(code)) for code in (283, 282)]
        return stated_voxel((metadata.get("spacing"), *steps), str(metadata.get("unit", "")), "ImageJ metadata")
    return stated_voxel((None, pixel_nm, pixel_nm), "nm", "instrument settings in the TIFF tags")


def _step(resolution: Any) -> float | None:
    """Pixel size from the tag XResolution or YResolution, the pixels per unit as a fraction."""
    with suppress(TypeError, ValueError, ZeroDivisionError):
        pixels, units = resolution
        return float(units) / float(pixels)
    return None


def _ome_voxel(text: str) -> VoxelSize | None:
    """Voxel size of the first image of an OME-XML text (https://www.openmicroscopy.org/Schemas/OME/2016-06)."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None
    pixels = next((node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return None
    sizes: list[float | None] = []
    units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"]
    for axis in "ZYX":
        with suppress(ValueError, TypeError):
            sizes.append(float(pixels.get(f"PhysicalSize{axis}", "")))
            continue
        sizes.append(None)
    if len({unit for unit, size in zip(units, sizes, strict=True) if size is not None}) > 1:
        named = [unit_name(unit) for unit in units]
        sizes = [
            size * NANOMETRES[name] if size is not None and name is not None else None
            for size, name in zip(sizes, named, strict=True)
        ]
        return stated_voxel(sizes, "nm", "OME metadata")
    return stated_voxel(sizes, units[2], "OME metadata")
