"""Files of slices of any format: where their slices lie, and their pixels, one slice at a time."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.formats import detect_format, named
from cathodeflow.io.frames import iterate_file, read_header
from cathodeflow.io.guard import MAX_PIXELS, guarded
from cathodeflow.io.micrographs import micrograph_header
from cathodeflow.io.plane_files import read_parts, require_size
from cathodeflow.io.raw_format import DataPart, FrameHeader, RawFormat, VolumeHeader, VoxelSize
from cathodeflow.io.sources import is_store
from cathodeflow.io.volume_axes import Choice, Planes, axis_letters, find_planes

_RAW = (".raw", ".vol", ".bin", ".dat", ".img")
# A damaged header may name any length, and each slice needs a little memory.
_MAX_LENGTH = 2**20
_CONVERT = "a format that is read, such as TIFF; convert it (docs/fibsem.md lists all formats)"


class SliceFile(NamedTuple):
    """A file of slices.

    Attributes
    ----------
    path : str
    format : str
        Name of the format; `raw` for a file without a header.
    n : int
        Number of slices.
    shape : (int, int)
        Rows and columns [px].
    dtype : np.dtype
    coloured : bool
        Whether each pixel has a colour.
    volume : (VolumeHeader, Planes), optional
        For files that are read as volumes.
    frames : FrameHeader, optional
        For files that are read as detector frames; files with neither are single images.
    """

    path: str
    format: str
    n: int
    shape: tuple[int, int]
    dtype: np.dtype
    coloured: bool
    volume: tuple[VolumeHeader, Planes] | None
    frames: FrameHeader | None

    @property
    def voxel(self) -> VoxelSize | None:
        """Voxel size that the file states."""
        return self.volume[0].voxel if self.volume else None

    @property
    def palette(self) -> NDArray[np.uint8] | None:
        """Colours (n, 3) of the values."""
        return self.volume[0].palette if self.volume else None


def open_slice_file(path: str, dataset: str | None, choice: Choice, *, alone: bool) -> SliceFile:
    """Read the header of a file.

    Parameters
    ----------
    path : str
        File, or Zarr store.
    dataset : str, optional
        Path inside an HDF5 file or a store.
    choice : Choice
        What is read of files with several stacks.
    alone : bool
        Whether all slices are in this file.

    Raises
    ------
    InputError
        The file cannot be read, or its axes are ambiguous; or a single file has slices marked as colours.
    """
    if path.lower().endswith(_RAW) and not is_store(path):
        header = _raw_header(path, choice)
        return _as_volume(path, "raw", header, choice)
    found = named("Zarr") if is_store(path) else _detected(path)
    if dataset is not None and not found.has_datasets:
        raise InputError(f"{path}::{dataset}", f"a file of format {found.name}", "an HDF5 file or a Zarr store")
    if found.volume is not None:
        with guarded(path, f"a readable {found.name} file"):
            volume = found.volume.header(path, dataset)
        if volume is not None:
            return _as_volume(path, found.name, volume, choice)
    if found.micrograph is not None:
        try:
            image = micrograph_header(path)
        except InputError:
            if found.frames is None:
                raise
        else:
            if image.channels > 1 or found.frames is None:
                if alone and image.planes:
                    # Some programs write three or four slices like this; as colours they would be mixed to one slice.
                    text = f"{image.channels} planes marked as the colours of one image"
                    raise InputError(path, text, "slices: pages marked as grey (tifffile: photometric='minisblack')")
                dtype = np.dtype(np.uint16 if image.bit_depth > 8 else np.uint8)
                return SliceFile(path, found.name, 1, (image.rows, image.cols), dtype, image.channels > 2, None, None)
    frames = _frames(path, dataset, found)
    return SliceFile(path, found.name, frames.n_frames, frames.shape, frames.dtype, False, None, frames)


def read_slice_file(file: SliceFile, indices: range, *, values: bool) -> Iterator[NDArray[Any]]:
    """Yield slices of a file as stored: (row, col), or (row, col, 3) if pixels have colours.

    Parameters
    ----------
    file : SliceFile
    indices : range
    values : bool
        Whether stored values are wanted, as of labels, also where a file shows high values as dark.

    Raises
    ------
    InputError
        A slice cannot be decoded.
    """
    if file.volume is not None:
        header, planes = file.volume
        reader = named(file.format).volume if file.format != "raw" else None
        wanted = (planes.at(number) for number in indices)
        parts = reader.read(file.path, header, wanted) if reader else read_parts(file.path, header, wanted)
        for number in indices:
            with guarded(f"{file.path}, slice {number}", f"readable {file.format} slices"):
                part = next(parts).transpose(planes.order)
            if header.inverted_from is not None and not values:
                part = header.inverted_from - part if header.inverted_from else -part.astype(np.float32)
            yield part[..., :3] if part.ndim == 3 else part
    elif file.frames is not None:
        yield from iterate_file(file.path, file.frames, indices)
    else:
        image = named(file.format).micrograph
        assert image is not None
        for _ in indices:
            with guarded(file.path, f"a complete, readable {file.format} image"):
                pixels = image.read(file.path)
            if pixels.ndim == 3:
                pixels = pixels[..., 0] if pixels.shape[-1] < 3 else pixels[..., :3]
            yield pixels


def _detected(path: str) -> RawFormat:
    try:
        return detect_format(path, "slices")
    except InputError as error:
        if error.found in ("no such file", "a folder", "an empty file"):
            raise
        raise InputError(path, error.found, _CONVERT) from None


def _frames(path: str, dataset: str | None, found: RawFormat) -> FrameHeader:
    try:
        return read_header(path, dataset)
    except InputError as error:
        if not found.fallback:
            raise
        raise InputError(path, "a file of unknown format", _CONVERT) from error


def _as_volume(path: str, name: str, header: VolumeHeader, choice: Choice) -> SliceFile:
    where = f"{path}::{header.dataset}" if header.dataset else path
    if header.dtype.kind not in "biuf":
        raise InputError(where, f"values of type {header.dtype}", "real numbers")
    if min(header.shape, default=0) < 1 or max(header.shape, default=0) > _MAX_LENGTH:
        lengths = " x ".join(map(str, header.shape))
        raise InputError(where, f"axes of the lengths {lengths}", f"lengths of 1 to {_MAX_LENGTH}")
    planes = find_planes(header.shape, header.axes, choice, where)
    if header.axes is not None and header.voxel is not None:
        letters = axis_letters(header.shape, header.axes, choice, where)
        header = header._replace(voxel=_along(header.voxel, header.axes.lower(), letters))
    if planes.shape[0] * planes.shape[1] > MAX_PIXELS:
        raise InputError(where, "slices of {} x {} pixels".format(*planes.shape), f"at most {MAX_PIXELS} pixels")
    coloured = len(planes.order) == 3
    dtype = header.dtype.newbyteorder("=")
    return SliceFile(path, name, planes.n, planes.shape, dtype, coloured, (header, planes), None)


def _along(voxel: VoxelSize, stated: str, letters: str) -> VoxelSize:
    """Return a voxel size along other axes than the file states."""
    step = dict(zip("zyx", voxel.size, strict=True))
    own = {letter: step.get(axis) for axis, letter in zip(stated, letters, strict=True)}
    slices, rows, cols = (own.get(axis) for axis in "zyx")
    return voxel._replace(size=(slices, rows, cols))


def _raw_header(path: str, choice: Choice) -> VolumeHeader:
    """Describe a file without a header by the options."""
    if choice.raw is None:
        expected = "its contents in the options `raw.shape` (slices, rows, columns) and `raw.data_type`"
        raise InputError(path, "a file without a header", expected)
    layout = choice.raw
    dtype = np.dtype(layout.dtype).newbyteorder(">" if layout.big_endian else "<")
    header = VolumeHeader(layout.shape, dtype, "zyx", data=DataPart(path, layout.offset))
    require_size(path, header)
    return header
