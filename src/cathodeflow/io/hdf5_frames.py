"""Frames in HDF5 and NeXus files of others: number, shape and pixels, and the files in which they lie."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded, require_inside
from cathodeflow.io.hdf5 import find_node, open_hdf5, require_plain
from cathodeflow.io.hdf5_chunks import Load, chunk_reader
from cathodeflow.io.hdf5_search import find_frames, walk

# Maximum bytes of frames per read; chunks with more frames are read in pieces.
_BLOCK_BYTES = 64 * 2**20


class FrameStack(NamedTuple):
    """Frames of one dataset, or of several that follow each other.

    Attributes
    ----------
    name : str
        Path of the dataset, or of the group of the datasets.
    paths : tuple of str
        Paths of the datasets.
    datasets : tuple of h5py.Dataset
        (row, col) or (frame, row, col); further axes of length 1 before the rows do not count.
    """

    name: str
    paths: tuple[str, ...]
    datasets: tuple[h5py.Dataset, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(row, col) of a frame [px]."""
        return tuple(self.datasets[0].shape[-2:])

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels."""
        return self.datasets[0].dtype

    @property
    def n_frames(self) -> int:
        """Frames of all datasets."""
        return sum(map(count_frames, self.datasets))


def find_stack(file: h5py.File, name: str | None) -> FrameStack:
    """Find the frames in a file, as `cathodeflow.io.hdf5_search.find_frames`.

    Raises
    ------
    InputError
        They are missing, ambiguous, of another rank or type, compressed by a filter that is not there, or their data
        lie in a file that is missing or outside the folder.
    """
    found = find_frames(file, name)
    return FrameStack(found.name, found.paths, tuple(_checked(file, path) for path in found.paths))


def _checked(file: h5py.File, path: str) -> h5py.Dataset:
    where = f"{file.filename}::{path}"
    with guarded(where, "a readable dataset"):
        dataset = find_node(file, path)
        assert isinstance(dataset, h5py.Dataset)
        if dataset.ndim < 2 or sum(length != 1 for length in dataset.shape[:-2]) > 1:
            found = f"a {dataset.ndim}-D dataset {dataset.shape}" if dataset.ndim > 3 else f"a {dataset.ndim}-D dataset"
            raise InputError(where, found, "a (row, col) or (frame, row, col) dataset")
        if dataset.dtype.kind not in "biuf":
            raise InputError(where, f"values of type {dataset.dtype}", "real numbers")
        require_plain(dataset, where)
    return dataset


def count_frames(dataset: h5py.Dataset) -> int:
    """Count the frames of a dataset (row, col), (frame, row, col), or with further axes of length 1 before the rows."""
    return int(np.prod(dataset.shape[:-2], dtype=np.int64))


def read_stack_frames(stack: FrameStack, indices: range) -> Iterator[Load]:
    """Read the frames `indices` (ascending), a chunk of frames at a time.

    Yields
    ------
    callable
        Returns a frame, (row, col); what is left to decompress it does in any thread, without the file.
    """
    first = 0
    for dataset in stack.datasets:
        end = first + count_frames(dataset)
        skip = max(0, -((indices.start - first) // indices.step))
        start = indices.start + skip * indices.step
        here = range(start - first, min(indices.stop, end) - first, indices.step)
        chunk = chunk_reader(dataset)
        yield from map(chunk, here) if chunk else map(_loaded, _read(dataset, here))
        first = end


def _loaded(frame: NDArray[Any]) -> Load:
    return lambda: frame


def _read(dataset: h5py.Dataset, indices: range) -> Iterator[NDArray[Any]]:
    rows, cols = dataset.shape[-2:]
    if dataset.ndim == 2:
        if 0 in indices:
            yield dataset[()]
        return
    # The axis of the frames: the one that is longer than 1, if any.
    axis = next((axis for axis, length in enumerate(dataset.shape[:-2]) if length != 1), 0)
    frame_bytes = max(1, rows * cols * dataset.dtype.itemsize)
    block = min(dataset.chunks[axis] if dataset.chunks else 1, max(1, _BLOCK_BYTES // frame_bytes))
    position = 0
    while position < len(indices):
        first = indices[position]
        end = (first // block + 1) * block  # blocks are aligned with chunks
        count = len(range(first, min(end, indices.stop), indices.step))
        part = slice(first, first + (count - 1) * indices.step + 1, indices.step)
        yield from dataset[(slice(None),) * axis + (part,)].reshape(count, rows, cols)
        position += count


def linked_files(path: str, name: str | None) -> list[str]:
    """List further files with the data of a dataset, as those of a beamline's master file.

    Parameters
    ----------
    path : str
        HDF5 file.
    name : str, optional
        Dataset in it, or group of numbered datasets; without it every link in the file is followed.

    Returns
    -------
    list of str
        Targets of external links on the way to the datasets, and the sources of virtual datasets, with their own links;
        nothing where the file cannot be read, which the stage itself reports.
    """
    found: list[str] = []
    try:
        with open_hdf5(path) as file:
            # These follow links into the folder only, so that what comes after is safe.
            nodes = [] if name else walk(file, "", images_only=True)[0]
            paths = find_frames(file, name).paths if name else [node.path for node in nodes]
            found = files_behind(file, paths)
    except (InputError, OSError, RuntimeError, KeyError, ValueError, TypeError):
        pass
    own = os.path.realpath(path)
    files = {os.path.realpath(each): each for each in found if os.path.isfile(each)}
    return [each for real, each in files.items() if real != own]


def files_behind(file: h5py.File, paths: Iterable[str]) -> list[str]:
    """List the files that hold the values of datasets, and those on the way to them, without the file itself."""
    found: list[str] = []
    for path in paths:
        found += _files_on_the_way(file, path)
        node = find_node(file, path)
        if isinstance(node, h5py.Dataset):
            found += _files_of(node)
    return list(dict.fromkeys(found))


def _files_on_the_way(file: h5py.File, path: str) -> list[str]:
    """List the targets of the external links that a path leads through."""
    found: list[str] = []
    node: Any = file["/"]
    for part in filter(None, path.split("/")):
        link = node.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            found.append(os.path.join(os.path.dirname(node.file.filename), link.filename))
        node = node.get(part)
        if not isinstance(node, h5py.Group):
            break
    return found


def _files_of(dataset: h5py.Dataset, depth: int = 0) -> list[str]:
    """List the files that a dataset reads its values from: sources of a virtual one, and raw files outside HDF5."""
    folder = os.path.dirname(dataset.file.filename)
    found = [os.path.join(folder, os.fsdecode(name)) for name, _, _ in dataset.external or ()]
    if not dataset.is_virtual or depth > 8:
        return found
    for source, path in sorted({(each.file_name, each.dset_name) for each in dataset.virtual_sources()}):
        if source == ".":
            continue
        target = require_inside(dataset.name, source, folder)
        found.append(os.path.join(folder, source))
        if os.path.isfile(target):
            with open_hdf5(target) as file:
                found += _files_on_the_way(file, path)
                node = find_node(file, path)
                found += _files_of(node, depth + 1) if isinstance(node, h5py.Dataset) else []
    return found
