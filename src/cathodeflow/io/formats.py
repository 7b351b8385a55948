"""Files of detector frames: what a file is, what it holds, and its frames one by one."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io import cbf
from cathodeflow.io.decoders import FRAMES, HEADERS, Header
from cathodeflow.io.guard import MAX_PIXELS, guarded

_MAGIC = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\x89PNG\r\n\x1a\n", "PNG or JPEG"),
    (b"\xff\xd8\xff", "PNG or JPEG"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"\x93NUMPY", "npy"),
    (b"PK\x03\x04", "npz"),
    (cbf.MAGIC, "CBF"),
)
_SUFFIXES = {
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".png": "PNG or JPEG",
    ".jpg": "PNG or JPEG",
    ".jpeg": "PNG or JPEG",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
    ".hdf": "HDF5",
    ".nxs": "HDF5",
    ".cxi": "HDF5",
    ".npy": "npy",
    ".npz": "npz",
}


def read_header(path: str, dataset: str | None = None) -> Header:
    """Read what a file of frames holds, without its pixels.

    Parameters
    ----------
    path : str
    dataset : str, optional
        Path of the dataset in an HDF5 file.

    Raises
    ------
    InputError
        The file is missing, truncated, of no known format, empty, or holds anything but grey frames of real numbers.
    """
    kind = detect_format(path)
    if dataset is not None and kind != "HDF5":
        raise InputError(f"{path}::{dataset}", f"a file of format {kind}", "an HDF5 file")
    expected = f"a readable {kind} file" if kind != "fabio" else "a detector image of a format that fabio knows"
    with guarded(path, expected):
        header = HEADERS[kind](path, dataset)
    where = f"{path}::{header.dataset}" if header.dataset else path
    if header.dtype.kind not in "biuf":
        raise InputError(where, f"values of type {header.dtype}", "real numbers")
    if header.n_frames < 1 or 0 in header.shape:
        raise InputError(where, f"{header.n_frames} frames of {header.shape} pixels", "at least one frame")
    if min(header.shape) < 0 or header.shape[0] * header.shape[1] > MAX_PIXELS:
        raise InputError(where, f"frames of {header.shape} pixels", f"frames of at most {MAX_PIXELS} pixels")
    return header._replace(dtype=header.dtype.newbyteorder("="))


def iterate_file(path: str, header: Header, indices: range) -> Iterator[NDArray[Any]]:
    """Yield the frames `indices` of a file as (row, col) arrays, holding one frame or one HDF5 chunk at a time.

    Raises
    ------
    InputError
        The pixels of a frame cannot be decoded, or a frame differs from the header in shape or dtype.
    """
    frames = FRAMES[header.format](path, header, indices)
    expected = f"readable {header.format} frames"
    for index in indices:
        with guarded(f"{path}, frame {index}", expected):
            frame = next(frames, None)
        if frame is None:
            raise InputError(path, f"no frame {index}", f"{header.n_frames} frames")
        if frame.shape != header.shape or frame.dtype.newbyteorder("=") != header.dtype:
            found = f"{frame.dtype} of {frame.shape} pixels"
            raise InputError(f"{path}, frame {index}", found, f"{header.dtype} of {header.shape} as in frame 0")
        yield np.ascontiguousarray(frame, dtype=header.dtype)


def detect_format(path: str) -> str:
    """Tell a file's format from its first bytes; what is not recognised is left to fabio.

    Raises
    ------
    InputError
        The file cannot be read, is empty, or its content is not what its suffix says.
    """
    if not os.path.isfile(path):
        raise InputError(path, "a folder" if os.path.isdir(path) else "no such file", "a file of frames")
    with guarded(path, "a readable file"), open(path, "rb") as file:
        head = file.read(16)
    if not head:
        raise InputError(path, "an empty file", "a file of frames")
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    stem = path.lower().removesuffix(".gz").removesuffix(".bz2")
    if stem.endswith(".cbf"):
        return "CBF"
    kind = _SUFFIXES.get(os.path.splitext(path)[1].lower(), "fabio")
    if kind != "fabio":
        what = "text" if all(31 < byte < 127 or byte in b"\t\r\n" for byte in head) else "unknown content"
        raise InputError(path, what, f"{kind} content, as the suffix says")
    return kind


def _first_bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(16)
