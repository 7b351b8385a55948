"""Descriptions of raw formats, one in each module of `cathodeflow.io.formats`: recognition and readers of files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class CountLimits(NamedTuple):
    """What a file says of the values of its pixels.

    Attributes
    ----------
    marks : tuple of float
        Values that stand for no count: gaps, dead pixels.
    lowest, highest : float, optional
        Least and greatest count that is valid.
    """

    marks: tuple[float, ...] = ()
    lowest: float | None = None
    highest: float | None = None


#: A file that says nothing.
NO_LIMITS = CountLimits()


class FrameConditions(NamedTuple):
    """What a file says of its frames, (n_frames,) float64; NaN where it says nothing.

    Attributes
    ----------
    omega
        Orientation angle of the sample, at the middle of the exposure where its range is known [deg].
    energy_kev
        Photon energy.
    """

    omega: NDArray[np.float64]
    energy_kev: NDArray[np.float64]


class FrameHeader(NamedTuple):
    """Detector frames of a file.

    Attributes
    ----------
    n_frames : int
    shape : (int, int)
        (row, col) of a frame [px].
    dtype : np.dtype
    dataset : str, optional
        Dataset of HDF5, or the group of several.
    format : str
        Name of the format; filled in by the caller.
    limits : CountLimits
        What the file says of the values of its pixels.
    n_masks : int
        Masks of bad pixels in the file: none, one for all frames, or one for each.
    linked : tuple of str
        Other files that hold the frames, which this one only links to.
    """

    n_frames: int
    shape: tuple[int, int]
    dtype: np.dtype
    dataset: str | None = None
    format: str = ""
    limits: CountLimits = NO_LIMITS
    n_masks: int = 0
    linked: tuple[str, ...] = ()


class ImageHeader(NamedTuple):
    """Rows and columns of an image [px], bits per value, channels, and whether each is a plane, all as stored."""

    rows: int
    cols: int
    bit_depth: int
    channels: int
    planes: bool = False


@dataclass(frozen=True)
class FrameReader:
    """Reader of the detector frames of a file.

    Any exception on a bad file becomes a one-line error that names the file; the text of an InputError is kept.

    Attributes
    ----------
    header : callable
        Path, and dataset or None, to `FrameHeader`; reads no pixels.
    read : callable
        Path, header and frame numbers (a range) to an iterator over the frames, (row, col) arrays, one at a time.
    mask : callable, optional
        Path, header and frame number to the (row, col) bool array of the bad pixels, where `n_masks` is not 0.
    conditions : callable, optional
        Path, header, and name of the sample's angle or None for the usual one, to `FrameConditions`.
    deferred : callable, optional
        As `read`, but gives functions that return the frames: they decompress them, in any thread, without the file.
    """

    header: Callable[[str, str | None], FrameHeader]
    read: Callable[[str, FrameHeader, range], Iterator[NDArray[Any]]]
    mask: Callable[[str, FrameHeader, int], NDArray[np.bool_]] | None = None
    conditions: Callable[[str, FrameHeader, str | None], FrameConditions] | None = None
    deferred: Callable[[str, FrameHeader, range], Iterator[Callable[[], NDArray[Any]]]] | None = None


@dataclass(frozen=True)
class ImageReader:
    """Reader of the micrograph of a file.

    Any exception on a bad file becomes a one-line error that names the file; the text of an InputError is kept.

    Attributes
    ----------
    header : callable
        Path to `ImageHeader`; reads no pixels.
    read : callable
        Path to the pixels, (row, col) or (row, col, channel), of any real type.
    settings : callable
        Path to the instrument's settings in the file, keys of `cathodeflow.io.instrument_settings.SETTINGS`.
    page : callable, optional
        Number of a page, from 0, to the reader of that page, in formats whose files may have several.
    """

    header: Callable[[str], ImageHeader]
    read: Callable[[str], NDArray[Any]]
    settings: Callable[[str], dict[str, Any]] = lambda path: {}
    page: Callable[[int], ImageReader] | None = None


class VoxelSize(NamedTuple):
    """Voxel size that a file states.

    Attributes
    ----------
    size : (float or None, float or None, float or None)
        Distances between slices, rows and columns [unit]; None where the file does not state one.
    unit : str, optional
        UDUNITS-2 name, such as `micrometer`; None if the file names none.
    origin : str
        Where the numbers come from, such as `ImageJ metadata`.
    convention : str, optional
        Unit that the format prescribes where a file names none.
    """

    size: tuple[float | None, float | None, float | None]
    unit: str | None
    origin: str
    convention: str | None = None


class VolumeHeader(NamedTuple):
    """A volume, or a part of one, in a file.

    Attributes
    ----------
    shape : tuple of int
        Lengths of the axes, as stored.
    dtype : np.dtype
    axes : str, optional
        A letter for each axis, as stored: z slices, y rows, x columns, c channels, t time points, s colours of one
        pixel, q others. None if the file does not name its axes.
    voxel : VoxelSize, optional
    palette : (n, 3) uint8, optional
        Colour of each value, in files with a palette.
    inverted_from : int, optional
        Intensity that is shown as black, in files where high values are dark; 0 for signed and floating-point values.
    dataset : str, optional
        Path inside the file.
    data : DataPart, optional
        Where the values are, in formats that describe it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    axes: str | None = None
    voxel: VoxelSize | None = None
    palette: NDArray[np.uint8] | None = None
    inverted_from: int | None = None
    dataset: str | None = None
    data: DataPart | None = None


class DataPart(NamedTuple):
    """Place of the values of a volume in a file, one after the other, the last axis fastest.

    Attributes
    ----------
    path : str
    offset : int
        First byte: of the decompressed file for `gzip file`.
    compression : {"", "gzip", "zlib", "gzip file"}
        Of the data, or of the whole file.
    slope, intercept : float
        Stored values are multiplied by the one and increased by the other.
    """

    path: str
    offset: int
    compression: str = ""
    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True)
class VolumeReader:
    """Reader of volumes with named axes and a voxel size.

    Attributes
    ----------
    header : callable
        Path, and dataset or None, to `VolumeHeader`; reads no values. None where the file is to be read by the other
        readers of the format.
    read : callable
        Path, header and indices to an iterator over the parts at these indices. An index has an int or `slice(None)`
        for each stored axis; parts have the remaining axes in stored order.
    linked : callable, optional
        Path to the other files that hold the values, for headers that are files of their own.
    """

    header: Callable[[str, str | None], VolumeHeader | None]
    read: Callable[[str, VolumeHeader, Iterable[tuple[int | slice, ...]]], Iterator[NDArray[Any]]]
    linked: Callable[[str], list[str]] | None = None


@dataclass(frozen=True)
class RawFormat:
    """A raw format.

    Attributes
    ----------
    name : str
        Name in messages.
    magic : tuple of bytes
        First bytes of files, at most 16.
    suffixes : tuple of str
        In lower case, with the dot.
    by_suffix : bool
        Whether the suffix is sufficient, also before `.gz` and `.bz2`; otherwise files with a suffix of the format must
        begin with its magic.
    fallback : bool
        Whether files that no format recognises are read with this one.
    has_datasets : bool
        Whether files have several datasets, selected by `FILE::/PATH`.
    frames : FrameReader, optional
    micrograph : ImageReader, optional
    volume : VolumeReader, optional
        For slices; formats without it are read by the readers above.
    """

    name: str
    magic: tuple[bytes, ...] = ()
    suffixes: tuple[str, ...] = ()
    by_suffix: bool = False
    fallback: bool = False
    has_datasets: bool = False
    frames: FrameReader | None = None
    micrograph: ImageReader | None = None
    volume: VolumeReader | None = None
