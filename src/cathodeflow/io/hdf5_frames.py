"""Frames in HDF5 and NeXus files of others: which dataset holds them, in which files it lies, and its frames."""

import os
from collections.abc import Iterator
from typing import Any

import h5py
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import find_node, follow, require_plain

# Bytes of frames that one read may hold; a chunk that spans more frames is read in pieces.
_BLOCK_BYTES = 64 * 2**20


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
            names = _possible_datasets(file) if found is None else []
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
            listed = ", ".join(_possible_datasets(file)[:8])
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


def _checked(dataset: h5py.Dataset) -> h5py.Dataset:
    where = f"{dataset.file.filename}::{dataset.name}"
    with guarded(where, "a readable dataset"):
        if dataset.ndim not in (2, 3):
            raise InputError(where, f"a {dataset.ndim}-D dataset", "a (row, col) or (frame, row, col) dataset")
        if dataset.dtype.kind not in "biuf":
            raise InputError(where, f"values of type {dataset.dtype}", "real numbers")
        require_plain(dataset, where)
    return dataset


def _nexus_default(file: h5py.File) -> h5py.Dataset | None:
    """Follow the attributes `default` down to a group, then `signal` to its dataset (NeXus manual, NXdata)."""
    node: Any = file["/"]
    for _ in range(8):
        name = node.attrs.get("signal") if "signal" in node.attrs else node.attrs.get("default")
        if not isinstance(name, str | bytes):
            return None
        node = follow(node, name.decode() if isinstance(name, bytes) else name, file.filename)
        if isinstance(node, h5py.Dataset):
            return node
        if node is None:
            return None
    return None


def _possible_datasets(file: h5py.File) -> list[str]:
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
