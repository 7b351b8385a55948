"""Volumes in HDF5 files: axes from the tags of ilastik (vigra) or the labels of HDF5, and the voxel size."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import find_node, open_hdf5, require_plain
from cathodeflow.io.hdf5_cache import find_cache
from cathodeflow.io.hdf5_search import find_frames, walk
from cathodeflow.io.raw_format import VolumeHeader, VoxelSize
from cathodeflow.io.slabs import read_slabs
from cathodeflow.io.voxel_sizes import stated_voxel

_MAX_NAMED = 8


def volume_header(path: str, name: str | None) -> VolumeHeader | None:
    """Read the header of the volume in a file.

    Parameters
    ----------
    path : str
    name : str, optional
        Path of the dataset. Default: the one with tags of its axes, the frames that NeXus names, or the only array.

    Returns
    -------
    VolumeHeader or None
        None for frames in several datasets.

    Raises
    ------
    InputError
        There is no array, or several are equally likely.
    """
    with open_hdf5(path) as file:
        if find_cache(file, name) is not None:
            return None
        found = name or _find(file)
        if found is None:
            return None
        where = f"{path}::{found}"
        with guarded(where, "a readable dataset"):
            node = find_node(file, found)
            if isinstance(node, h5py.Group):
                return None
            if node is None or node.ndim < 2 or node.dtype.kind not in "biuf":
                what = "no such dataset" if node is None else f"a {node.ndim}-D dataset of {node.dtype}"
                raise InputError(where, what, "an array of numbers with at least two axes")
            require_plain(node, where)
            return VolumeHeader(node.shape, node.dtype, _axes(node), _voxel(node), dataset=found)


def read_volume_parts(
    path: str, header: VolumeHeader, indices: Iterable[tuple[int | slice, ...]]
) -> Iterator[NDArray[Any]]:
    """Yield the parts at some indices."""
    with open_hdf5(path) as file:
        dataset = find_node(file, header.dataset or "/")
        assert isinstance(dataset, h5py.Dataset)
        yield from read_slabs(dataset, dataset.chunks, indices)


def _find(file: h5py.File) -> str | None:
    """Path of the volume; None for frames in several datasets."""
    nodes = [node for node in walk(file, "", images_only=False)[0] if node.dataset.dtype.kind in "biuf"]
    tagged = [node.path for node in nodes if "axistags" in node.dataset.attrs]
    if len(tagged) == 1:
        return tagged[0]
    if len(tagged) > 1:
        raise InputError(file.filename, ", ".join(tagged[:_MAX_NAMED]), "the name of the dataset as FILE::/PATH")
    try:
        paths = find_frames(file, None).paths
        return paths[0] if len(paths) == 1 else None
    except InputError:
        # Arrays of four and more axes are no frames.
        large = [node.path for node in nodes if node.dataset.ndim > 3]
        if len(large) == 1:
            return large[0]
        if large:
            named = ", ".join(large[:_MAX_NAMED])
            raise InputError(file.filename, named, "the name of the dataset as FILE::/PATH") from None
        raise


def _axes(dataset: h5py.Dataset) -> str | None:
    with suppress(KeyError, ValueError, TypeError, AttributeError):
        tags = json.loads(dataset.attrs["axistags"])["axes"]
        keys = "".join(str(tag["key"])[:1] for tag in tags)
        if len(keys) == dataset.ndim:
            return keys
    labels = [str(axis.label) for axis in dataset.dims]
    return "".join(labels) if all(len(label) == 1 for label in labels) else None


def _voxel(dataset: h5py.Dataset) -> VoxelSize | None:
    """Voxel size that plugins of ImageJ write (element_size_um), or ilastik (resolution and axis_units)."""
    with suppress(KeyError, ValueError, TypeError):
        steps = [float(step) for step in np.asarray(dataset.attrs["element_size_um"]).ravel()]
        if len(steps) == 3:
            return stated_voxel(steps, "um", "element_size_um of the dataset")
    with suppress(KeyError, ValueError, TypeError, AttributeError):
        tags = {tag["key"]: float(tag["resolution"]) for tag in json.loads(dataset.attrs["axistags"])["axes"]}
        units = json.loads(dataset.attrs["axis_units"])
        return stated_voxel([tags.get(axis) for axis in "zyx"], units.get("x"), "axis tags of ilastik")
    return None
