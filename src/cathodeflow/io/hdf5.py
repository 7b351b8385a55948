"""HDF5 and NeXus files: written with checksums, read with one-line errors and without leaving the folder by links.

Files are written in the layout of HDF5 1.10, in which all metadata have checksums, and with the filter Fletcher32,
which adds them to the data: a flipped byte is an error for every reader instead of a wrong number.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters)
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.atomic import atomic_path
from cathodeflow.io.guard import MAX_PIECE, guarded, one_line, require_inside

_Path = str | os.PathLike[str]
_MAX_LINKS = 16
# Minimum compression ratio of the supported filters; gzip reaches 1/1032.
_MOST_COMPRESSED = 2000


@contextmanager
def new_hdf5(path: _Path) -> Iterator["NewFile"]:
    """Open a new file for writing; it gets its name when it is complete.

    A full disk is reported at the end of the block; long loops can check it by `require_room`.
    """
    with atomic_path(path) as temporary, _Target(temporary) as target:
        with NewFile(target) as file:
            yield file
        target.require_room()


class NewFile(h5py.File):  # type: ignore[misc]
    """A file that is being written."""

    def __init__(self, target: "_Target") -> None:
        super().__init__(target, "w", libver=("v110", "v110"))
        self._target = target

    def require_room(self) -> None:
        """Raise the error of the disk if something could not be written.

        Raises
        ------
        OSError
            The disk is full or broken.
        """
        self._target.require_room()


class _Target:
    """A new file for HDF5 to write to, which accepts all data and keeps the first error.

    HDF5 itself crashes after a failed write, when it closes the file or a dataset.
    """

    def __init__(self, path: _Path) -> None:
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115
        self.error: OSError | None = None

    def __enter__(self) -> "_Target":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        if self.error is None:
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                self.error = error
        return len(data)

    def truncate(self, size: int) -> int:
        return self._file.truncate(size) if self.error is None else size

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def require_room(self) -> None:
        if self.error is not None:
            raise self.error


def new_dataset(group: h5py.Group, name: str, data: NDArray[Any] | None = None, **keywords: Any) -> h5py.Dataset:
    """Create a dataset with checksums and without a time stamp, so that equal contents give equal bytes."""
    if data is not None and (data.ndim == 0 or data.size == 0):
        return group.create_dataset(name, data=data, track_times=False)
    chunks = keywords.pop("chunks", True)
    return group.create_dataset(name, data=data, chunks=chunks, fletcher32=True, track_times=False, **keywords)


# Number of blocks at work that read files which other programs are writing; also for the threads that they start.
_BESIDE_WRITERS: list[None] = []


@contextmanager
def beside_writers() -> Iterator[None]:
    """Read HDF5 files, in this block and its threads, while other programs write them.

    Files are not locked, as a writer that opens its file again would fail at our lock; and files that are open for
    single writer, multiple readers (SWMR) are opened as their readers.
    """
    _BESIDE_WRITERS.append(None)
    try:
        yield
    finally:
        _BESIDE_WRITERS.pop()


def _opened(path: _Path) -> h5py.File:
    if not _BESIDE_WRITERS:
        return h5py.File(path, "r", locking="best-effort")
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "already open for" not in str(error):
            raise
        return h5py.File(path, "r", locking=False, swmr=True)


@contextmanager
def open_hdf5(path: _Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Raises
    ------
    InputError
        The file is missing, truncated or not HDF5.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise InputError(name, "a folder" if os.path.isdir(name) else "no such file", "an HDF5 file")
    try:
        file = _opened(name)
    except OSError as error:
        if not h5py.is_hdf5(name) and "Permission" not in str(error):
            raise InputError(name, "no HDF5 signature", "an HDF5 file") from error
        found = "a truncated file" if "truncated file" in str(error) else one_line(error)
        raise InputError(name, found, "a readable HDF5 file") from error
    with file:
        yield file


def contents(file: h5py.File) -> str:
    """List the top-level names of a file, for messages."""
    with guarded(file.filename, "a readable HDF5 file"):
        return ", ".join(sorted(file)) or "none"


def find_node(file: h5py.File, path: str) -> h5py.Group | h5py.Dataset | None:
    """Return the node at a path, or None.

    Links to other files are only followed within the folder of the file or below: a file from others must not
    decide which other files of this machine are read.

    Raises
    ------
    InputError
        A link is broken, circular or leads out of the folder, or the file is damaged.
    """
    where = f"{file.filename}::{path}"
    with guarded(where, "a readable file"):
        return follow(file["/"], path, where)


def read_array(file: h5py.File, path: str) -> NDArray[Any]:
    """Read a whole dataset of numbers whose size is consistent with the stored data.

    Raises
    ------
    InputError
        The dataset is missing, damaged or not numeric, or declares far more data than it stores.
    """
    where = f"{file.filename}::{path}"
    dataset = find_node(file, path)
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(file.filename, f"datasets {contents(file)}", f"a dataset {path}")
    with guarded(where, "readable numbers"):
        require_plain(dataset, where)
        if dataset.dtype.kind not in "biufc" or dataset.dtype.itemsize > 16:
            raise InputError(where, f"values of type {dataset.dtype}", "numbers")
        if dataset.nbytes > 2**20 + _MOST_COMPRESSED * dataset.id.get_storage_size():
            found = f"{dataset.nbytes} bytes, of which {dataset.id.get_storage_size()} are stored"
            raise InputError(where, found, "a dataset with all of its data")
        return np.asarray(dataset[()])


def require_plain(dataset: h5py.Dataset, where: str, depth: int = 0) -> None:
    """Refuse a dataset that cannot be read here, or whose data are in files outside of the folder.

    Raises
    ------
    InputError
        A filter or file is missing, a file is elsewhere, or a chunk is too large.
    """
    folder = os.path.dirname(os.path.abspath(dataset.file.filename))
    properties = dataset.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            called = name.decode(errors="replace").split(";")[0].strip()
            raise InputError(where, f"compression by filter {code} ({called})", "a filter that hdf5plugin has")
    if dataset.chunks and math.prod(dataset.chunks) * dataset.dtype.itemsize > MAX_PIECE:
        raise InputError(where, f"chunks of {dataset.chunks} values", f"chunks of at most {MAX_PIECE} bytes")
    for name, _, _ in dataset.external or ():
        if not os.path.isfile(require_inside(where, name, folder)):
            raise InputError(where, f"data in the file {name}, which is missing", f"{name} in the same folder")
    if dataset.is_virtual:
        # HDF5 itself silently returns fill values if a file of a virtual dataset is missing.
        for name, path in sorted({(part.file_name, part.dset_name) for part in dataset.virtual_sources()}):
            target = dataset.file.filename if name == "." else require_inside(where, name.replace("%", "_"), folder)
            if "%" in name:
                continue
            if not os.path.exists(target):
                raise InputError(where, f"a virtual dataset whose file {name} is missing", f"{name} in the same folder")
            with _opened(target) as other:
                part = follow(other["/"], path, where, depth + 1)
                if isinstance(part, h5py.Dataset):
                    require_plain(part, where, depth + 1)


def follow(start: h5py.Group, path: str, where: str, depth: int = 0) -> h5py.Group | h5py.Dataset | None:
    """Return the node at a path below a group, or None, as in `find_node`; `depth` is the number of links so far."""
    node: Any = start.file["/"] if path.startswith("/") else start
    if depth > _MAX_LINKS:
        raise InputError(where, "a circular link", "a dataset")
    for part in path.split("/"):
        if part in ("", "."):
            continue
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            return None
        if isinstance(link, h5py.SoftLink):
            node = follow(node, link.path, where, depth + 1)
        elif isinstance(link, h5py.ExternalLink):
            target = require_inside(where, link.filename, os.path.dirname(os.path.abspath(node.file.filename)))
            found = f"a link to {link.filename} whose target is missing"
            if not os.path.isfile(target):
                raise InputError(where, found, "a dataset")
            # HDF5 would follow further links there without these checks.
            with _opened(target) as other:
                if follow(other["/"], link.path, where, depth + 1) is None:
                    raise InputError(where, found, "a dataset")
            node = node[part]
        else:
            node = node[part]
    return node
