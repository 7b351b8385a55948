"""One pair of functions per image format: the header of a file, and its frames one by one.

Whatever a decoder raises on a bad file is turned into one line by `cathodeflow.io.formats`, which is what to call.
"""

import copy
import logging
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import fabio
import fabio.fabioimage
import numpy as np
import tifffile
from fabio.edfimage import EdfImage
from numpy.typing import NDArray
from PIL import Image

from cathodeflow.errors import InputError
from cathodeflow.io import cbf
from cathodeflow.io.guard import MAX_PIECE, require_inside
from cathodeflow.io.hdf5 import find_dataset, open_hdf5, read_dataset_frames

# What they complain about is raised as InputError, or is harmless.
logging.getLogger("fabio").setLevel(logging.CRITICAL)
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

Frames = Iterator[NDArray[Any]]

_PILLOW_TYPES = {"1": "bool", "L": "uint8", "I;16": "uint16", "I;16B": "uint16", "I": "int32", "F": "float32"}


class Header(NamedTuple):
    """What a file holds: number of frames, their (row, col) shape and dtype, format, and HDF5 dataset."""

    n_frames: int
    shape: tuple[int, int]
    dtype: np.dtype
    format: str
    dataset: str | None = None


def _tiff_header(path: str, dataset: str | None) -> Header:
    size = os.path.getsize(path)
    with tifffile.TiffFile(path) as tiff:
        n_pages, first = len(tiff.pages), tiff.pages[0]
        for number, page in enumerate(tiff.pages):
            if len(page.shape) != 2:
                raise InputError(path, f"a page of shape {page.shape}", "grey pages, one number per pixel")
            if (page.shape, page.dtype) != (first.shape, first.dtype):
                found = f"page {number} of {page.shape} pixels, {page.dtype}"
                raise InputError(path, found, f"{first.shape} pixels, {first.dtype} as in page 0")
            if any(at + n > size for at, n in zip(page.dataoffsets, page.databytecounts, strict=False)):
                raise InputError(path, f"a truncated file (page {number} ends beyond its {size} bytes)", "a whole TIFF")
        if first.dtype is None:
            raise InputError(path, "a sample format that is unknown", "integers or floats")
        stack = _contiguous_stack(tiff)
        if stack is not None:
            n_pages = math.prod(stack.shape[:-2])
            if stack.dataoffset + stack.nbytes > size:
                raise InputError(path, f"a truncated file of {size} bytes", f"{n_pages} whole frames")
        return Header(n_pages, first.shape, first.dtype, "TIFF")


def _contiguous_stack(tiff: tifffile.TiffFile) -> tifffile.TiffPageSeries | None:
    """Return the series of a file that names one page only while the other frames follow it (ImageJ does so)."""
    if len(tiff.pages) > 1 or not (tiff.is_imagej or tiff.is_shaped):
        return None
    series = tiff.series[0]
    more = len(series.shape) > 2 and series.shape[-2:] == tiff.pages[0].shape and math.prod(series.shape[:-2]) > 1
    return series if more and series.dataoffset is not None else None


def _tiff_frames(path: str, header: Header, indices: range) -> Frames:
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


def _pillow_header(path: str, dataset: str | None) -> Header:
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        if image.mode not in _PILLOW_TYPES:
            raise InputError(path, f"an image of mode {image.mode}", "a grey image, one number per pixel")
        return Header(1, (image.height, image.width), np.dtype(_PILLOW_TYPES[image.mode]), "PNG or JPEG")


def _pillow_frames(path: str, header: Header, indices: range) -> Frames:
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        yield np.asarray(image)


def _hdf5_header(path: str, dataset: str | None) -> Header:
    with open_hdf5(path) as file:
        found = find_dataset(file, dataset)
        n_frames = 1 if found.ndim == 2 else found.shape[0]
        return Header(n_frames, found.shape[-2:], found.dtype, "HDF5", dataset or found.name)


def _hdf5_frames(path: str, header: Header, indices: range) -> Frames:
    with open_hdf5(path) as file:
        yield from read_dataset_frames(find_dataset(file, header.dataset), indices)


def _npy_header(path: str, dataset: str | None) -> Header:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim not in (2, 3):
        raise InputError(path, f"a {array.ndim}-D array", "a (row, col) or (frame, row, col) array")
    return Header(1 if array.ndim == 2 else len(array), array.shape[-2:], array.dtype, "npy")


def _npy_frames(path: str, header: Header, indices: range) -> Frames:
    for index in indices:
        # Mapped anew for each frame: pages of a map that stays would add up in the process's memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        yield np.array(array if array.ndim == 2 else array[index])


def _npz_header(path: str, dataset: str | None) -> Header:
    with np.load(path, allow_pickle=False) as cache:
        names = set(cache.files)
        if not {"shape", "nframes", "dtype"} <= names:
            found = f"members {', '.join(sorted(names)[:6])}"
            raise InputError(path, found, "a hexrd frame cache with shape, nframes, dtype, 0_row, 0_col, 0_data ...")
        large = [one.filename for one in cache.zip.infolist() if one.file_size > MAX_PIECE]
        if large:
            raise InputError(path, f"{large[0]} of more than {MAX_PIECE} bytes", "members that a frame can have")
        n_frames, shape = int(cache["nframes"]), cache["shape"]
        # Not more than there are members, whatever number stands there.
        wanted = range(min(n_frames, len(names)))
        missing = {f"{i}_{part}" for i in wanted for part in ("row", "col", "data")} - names
        if missing or shape.shape != (2,):
            found = f"no {min(missing)}" if missing else f"shape {shape.tolist()}"
            raise InputError(path, found, f"rows, columns and data of {n_frames} 2-D frames")
        text = cache["dtype"][()]
        dtype = np.dtype(text.decode() if isinstance(text, bytes) else str(text))
        return Header(n_frames, (int(shape[0]), int(shape[1])), dtype, "npz")


def _npz_frames(path: str, header: Header, indices: range) -> Frames:
    with np.load(path, allow_pickle=False) as cache:
        for index in indices:
            frame = np.zeros(header.shape, header.dtype)
            row, col = cache[f"{index}_row"], cache[f"{index}_col"]
            if row.size and (row.min() < 0 or col.min() < 0):
                raise InputError(f"{path}, frame {index}", "pixels before the first", f"pixels of {header.shape}")
            frame[row, col] = cache[f"{index}_data"]
            yield frame


def _cbf_header(path: str, dataset: str | None) -> Header:
    section = cbf.read_section(path)
    return Header(1, section.shape, section.dtype, "CBF")


def _cbf_frames(path: str, header: Header, indices: range) -> Frames:
    yield cbf.decode(path, cbf.read_section(path))


def _fabio_header(path: str, dataset: str | None) -> Header:
    if os.path.splitext(path)[1].lower() in (".gz", ".bz2"):
        head = cbf.unpacked(path)[: len(cbf.MAGIC)]
        if head == cbf.MAGIC:
            raise InputError(path, "a compressed CBF file", "the suffix .cbf before that of its compression")
    # Some readers of fabio know shape and type from the header, the others only from the first frame.
    image = fabio.openheader(path)
    dtype = getattr(image, "_dtype", None) or _dtype_of(image)
    if dtype is None or not image.shape:
        image.close()
        image = fabio.open(path)
        dtype = _dtype_of(image)
    with image:
        if len(image.shape) != 2:
            raise InputError(path, f"an image of shape {image.shape}", "grey frames, one number per pixel")
        size, end = os.path.getsize(path), _data_end(image)
        if end > size and os.path.splitext(path)[1].lower() not in (".gz", ".bz2"):
            raise InputError(path, f"a truncated file of {size} bytes", f"at least {end} bytes")
        return Header(image.nframes, tuple(image.shape), np.dtype(dtype), "fabio")


def _dtype_of(image: fabio.fabioimage.FabioImage) -> Any:
    try:
        return np.dtype(image.dtype)
    except AttributeError:  # no frame was read yet
        return None


def _data_end(image: fabio.fabioimage.FabioImage) -> int:
    """Where the data end by the header; fabio itself fills up with zeros what a truncated EDF lacks."""
    if isinstance(image, EdfImage):
        last = image.get_frame(image.nframes - 1)
        for number in range(image.nframes):
            if name := image.get_frame(number).bfname:
                require_inside(image.filename, name, os.path.dirname(os.path.abspath(image.filename)))
        return int(last.start) + int(last.blobsize) if last.bfname is None else 0
    return 0


def _fabio_frames(path: str, header: Header, indices: range) -> Frames:
    with fabio.open(path) as image:
        for index in indices:
            # A copy, because frames of an EDF keep their pixels once they were read.
            frame = copy.copy(image.get_frame(index))
            pixels = frame.data
            if getattr(frame, "incomplete_data", False):
                raise InputError(f"{path}, frame {index}", "a truncated frame", "a whole frame")
            yield pixels


HEADERS: dict[str, Callable[[str, str | None], Header]] = {
    "TIFF": _tiff_header,
    "PNG or JPEG": _pillow_header,
    "HDF5": _hdf5_header,
    "npy": _npy_header,
    "npz": _npz_header,
    "CBF": _cbf_header,
    "fabio": _fabio_header,
}
FRAMES: dict[str, Callable[[str, Header, range], Frames]] = {
    "TIFF": _tiff_frames,
    "PNG or JPEG": _pillow_frames,
    "HDF5": _hdf5_frames,
    "npy": _npy_frames,
    "npz": _npz_frames,
    "CBF": _cbf_frames,
    "fabio": _fabio_frames,
}
