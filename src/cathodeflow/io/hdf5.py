"""HDF5 and NeXus files: written with checksums, opened with one-line errors, datasets found without leaving the folder.

Files are written in the layout of HDF5 1.10, where all metadata have checksums, and with the filter Fletcher32, which
adds them to the data: a flipped byte is an error for every reader, not another number.
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
# Bytes of frames that one read may hold; a chunk that spans more frames is read in pieces.
_BLOCK_BYTES = 64 * 2**20
_MAX_LINKS = 16
# No filter of ours makes data smaller than this part of them; gzip reaches 1/1032.
_MOST_COMPRESSED = 2000


@contextmanager
def new_hdf5(path: _Path) -> Iterator["NewFile"]:
    """Give a new file to be filled; it appears whole or not at all.

    Where the disk is full this is known at the end of the block; long loops ask with `require_room`.
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
        """Raise the error of the disk, if something could not be written.

        Raises
        ------
        OSError
            There is no room, or the disk is broken.
        """
        self._target.require_room()


class _Target:
    """A new file that HDF5 writes to, which takes whatever comes and remembers the first error.

    HDF5 itself crashes after a write has failed, when it closes the file or forgets a dataset.
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
    """Make a dataset with checksums and without the time of day, so that equal contents give equal bytes."""
    if data is not None and (data.ndim == 0 or data.size == 0):
        return group.create_dataset(name, data=data, track_times=False)
    chunks = keywords.pop("chunks", True)
    return group.create_dataset(name, data=data, chunks=chunks, fletcher32=True, track_times=False, **keywords)


@contextmanager
def open_hdf5(path: _Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Raises
    ------
    InputError
        It is missing, truncated, or no HDF5 file.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise InputError(name, "a folder" if os.path.isdir(name) else "no such file", "an HDF5 file")
    try:
        file = h5py.File(name, "r", locking="best-effort")
    except OSError as error:
        if not h5py.is_hdf5(name) and "Permission" not in str(error):
            raise InputError(name, "no HDF5 signature", "an HDF5 file") from error
        found = "a truncated file" if "truncated file" in str(error) else one_line(error)
        raise InputError(name, found, "a readable HDF5 file") from error
    with file:
        yield file


def contents(file: h5py.File) -> str:
    """List what a file has at its top, for a message."""
    with guarded(file.filename, "a readable HDF5 file"):
        return ", ".join(sorted(file)) or "none"


def find_node(file: h5py.File, path: str) -> h5py.Group | h5py.Dataset | None:
    """Return what lies at a path; None where there is nothing.

    Links into other files are followed only to files beside or below the one that has them: whoever made a file must
    not choose what else of this machine is read.

    Raises
    ------
    InputError
        A link leads nowhere or elsewhere, links lead round in circles, or the file is damaged.
    """
    where = f"{file.filename}::{path}"
    with guarded(where, "a readable file"):
        return _follow(file["/"], path, where, 0)


def read_array(file: h5py.File, path: str) -> NDArray[Any]:
    """Read a whole dataset of numbers, whose size fits that of what is stored.

    Raises
    ------
    InputError
        There is no such dataset, it is damaged, holds no numbers, or declares far more than it stores.
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
            raise InputError(where, found, "all of its data")
        return np.asarray(dataset[()])


def find_dataset(file: h5py.File, dataset: str | None) -> h5py.Dataset:
    """Return the named dataset of frames, or without a name the NeXus default or the only one that can hold frames.

    Returns
    -------
    h5py.Dataset
        (row, col) or (frame, row, col) of real numbers.

    Raises
    ------
    InputError
        It is missing, ambiguous, of another rank or type, compressed by a filter that is not there, or its data lie in
        a file that is missing or outside the folder.
    """
    if dataset is None:
        with guarded(file.filename, "a readable HDF5 file"):
            found = _nexus_default(file)
            names = _candidates(file) if found is None else []
        if found is None:
            if len(names) != 1:
                listed = f"{len(names)} datasets that could be frames ({', '.join(names[:8])})" if names else "none"
                raise InputError(file.filename, listed, "one 2-D or 3-D dataset of numbers, or its name as FILE::/PATH")
            found = file[names[0]]
        return _checked(found)
    where = f"{file.filename}::{dataset}"
    node = find_node(file, dataset)
    if node is None:
        with guarded(where, "a readable HDF5 file"):
            listed = ", ".join(_candidates(file)[:8])
        raise InputError(where, "no such dataset", f"one of {listed}" if listed else "a dataset")
    if not isinstance(node, h5py.Dataset):
        raise InputError(where, "a group", "a dataset")
    return _checked(node)


def read_dataset_frames(dataset: h5py.Dataset, indices: range) -> Iterator[NDArray[Any]]:
    """Yield the frames `indices` of a (row, col) or (frame, row, col) dataset, a chunk of frames per read."""
    if dataset.ndim == 2:
        if 0 in indices:
            yield dataset[()]
        return
    frame_bytes = max(1, dataset.shape[1] * dataset.shape[2] * dataset.dtype.itemsize)
    block = min(dataset.chunks[0] if dataset.chunks else 1, max(1, _BLOCK_BYTES // frame_bytes))
    position = 0
    while position < len(indices):
        first = indices[position]
        end = (first // block + 1) * block  # blocks begin where chunks begin
        count = len(range(first, min(end, indices.stop), indices.step))
        yield from dataset[first : first + (count - 1) * indices.step + 1 : indices.step]
        position += count


def require_plain(dataset: h5py.Dataset, where: str, depth: int = 0) -> None:
    """Refuse a dataset that cannot be read here, or that is read from files that its own file may not name.

    Raises
    ------
    InputError
        Naming the filter that is not there, the file that is missing or elsewhere, or a chunk that is too large.
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
            raise InputError(where, f"data in the file {name}, which is missing", f"{name} beside it")
    if dataset.is_virtual:
        # HDF5 itself gives fill values, without a word, where a file of a virtual dataset is missing.
        for name, path in sorted({(part.file_name, part.dset_name) for part in dataset.virtual_sources()}):
            target = dataset.file.filename if name == "." else require_inside(where, name.replace("%", "_"), folder)
            if "%" in name:
                continue
            if not os.path.exists(target):
                raise InputError(where, f"a virtual dataset without its file {name}", f"{name} beside it")
            with h5py.File(target, "r", locking="best-effort") as other:
                part = _follow(other["/"], path, where, depth + 1)
                if isinstance(part, h5py.Dataset):
                    require_plain(part, where, depth + 1)


def _checked(dataset: h5py.Dataset) -> h5py.Dataset:
    where = f"{dataset.file.filename}::{dataset.name}"
    with guarded(where, "a readable dataset"):
        if dataset.ndim not in (2, 3):
            raise InputError(where, f"a {dataset.ndim}-D dataset", "a (row, col) or (frame, row, col) dataset")
        if dataset.dtype.kind not in "biuf":
            raise InputError(where, f"values of type {dataset.dtype}", "real numbers")
        require_plain(dataset, where)
    return dataset


def _follow(start: h5py.Group, path: str, where: str, depth: int) -> h5py.Group | h5py.Dataset | None:
    node: Any = start.file["/"] if path.startswith("/") else start
    if depth > _MAX_LINKS:
        raise InputError(where, "links that lead round in circles", "a dataset")
    for part in path.split("/"):
        if part in ("", "."):
            continue
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            return None
        if isinstance(link, h5py.SoftLink):
            node = _follow(node, link.path, where, depth + 1)
        elif isinstance(link, h5py.ExternalLink):
            target = require_inside(where, link.filename, os.path.dirname(os.path.abspath(node.file.filename)))
            found = f"a link to {link.filename} that leads nowhere"
            if not os.path.isfile(target):
                raise InputError(where, found, "a dataset")
            # HDF5 would follow further links there without asking.
            with h5py.File(target, "r", locking="best-effort") as other:
                if _follow(other["/"], link.path, where, depth + 1) is None:
                    raise InputError(where, found, "a dataset")
            node = node[part]
        else:
            node = node[part]
    return node


def _nexus_default(file: h5py.File) -> h5py.Dataset | None:
    """Follow the attributes `default` down to a group, then `signal` to its dataset (NeXus manual, NXdata)."""
    node: Any = file["/"]
    for _ in range(8):
        name = node.attrs.get("signal") if "signal" in node.attrs else node.attrs.get("default")
        if not isinstance(name, str | bytes):
            return None
        node = _follow(node, name.decode() if isinstance(name, bytes) else name, file.filename, 0)
        if isinstance(node, h5py.Dataset):
            return node
        if node is None:
            return None
    return None


def _candidates(file: h5py.File) -> list[str]:
    names: list[str] = []

    def collect(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Dataset) and node.ndim in (2, 3) and node.dtype.kind in "biuf":
            names.append("/" + name)

    file.visititems(collect)
    return sorted(names)


def linked_files(path: str, dataset: str | None) -> list[str]:
    """List the files that hold the data of a dataset but are reached through another, as a beamline's master file does.

    Parameters
    ----------
    path : str
        HDF5 file.
    dataset : str, optional
        Dataset in it; without one every link in the file is followed.

    Returns
    -------
    list of str
        Targets of external links on the way to the dataset, and the sources of a virtual dataset, with their own links;
        nothing where the file cannot be read, which the stage itself reports.
    """
    found: list[str] = []
    try:
        with h5py.File(path, "r") as file:
            names = [dataset] if dataset else _paths(file["/"])
            for name in names:
                parts = [part for part in name.split("/") if part]
                for depth in range(1, len(parts) + 1):
                    link = file.get("/".join(parts[:depth]), getlink=True)
                    if isinstance(link, h5py.ExternalLink):
                        found.append(link.filename)
                        break
                else:
                    item = file.get(name)
                    if isinstance(item, h5py.Dataset) and item.is_virtual:
                        found += [source.file_name for source in item.virtual_sources()]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError):
        return []
    folder = os.path.dirname(path)
    files = [os.path.join(folder, name) for name in dict.fromkeys(found) if name != "."]
    return [name for name in files if os.path.isfile(name) and not os.path.samefile(name, path)]


def _paths(group: h5py.Group) -> list[str]:
    """List all that lies in a group and below, without following links into other files."""
    names = []
    for name in group:
        names.append(f"{group.name.rstrip('/')}/{name}")
        if isinstance(group.get(name, getlink=True), h5py.HardLink) and isinstance(group[name], h5py.Group):
            names += _paths(group[name])
    return names
