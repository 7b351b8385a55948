"""Volumes and image sets: Zarr v3 stores with OME-NGFF metadata, and a manifest with the digest of every chunk.

Metadata: OME-NGFF 0.5 (https://ngff.openmicroscopy.org/0.5), one resolution level named `0`. The manifest
`STORE.manifest.json` is compared by the workflow instead of the store: equal data and layout give equal manifests.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from cathodeflow.errors import InputError
from cathodeflow.io.atomic import atomic_path
from cathodeflow.io.guard import guarded
from cathodeflow.io.manifests import (
    CREATOR,
    check_store,
    is_own_store,
    locate,
    manifest_path,
    store_digests,
    write_manifest,
)
from cathodeflow.io.zarr_stores import LEVEL, array_of, open_level

_UNITS = {"A": "angstrom", "nm": "nanometer", "um": "micrometer", "mm": "millimeter", "m": "meter", "s": "second"}
_TYPES = {"z": "space", "y": "space", "x": "space", "t": "time", "c": "channel"}
# Side of a chunk along the space axes [px], by their number: a chunk has 0.25 to 1 M pixels, and a slice needs few
# chunks.
_SIDES = {1: 65536, 2: 512, 3: 64}
_MAX_FILES = 64
_SHARD_BYTES = 64 * 2**20


class VolumeInfo(NamedTuple):
    """Description of a store: axes, size of a pixel along each, its unit, and further attributes."""

    axes: tuple[str, ...]
    scale: tuple[float, ...]
    unit: str | None
    attributes: dict[str, Any]


def write_volume(
    path: str | os.PathLike[str],
    array: da.Array | NDArray[Any],
    *,
    axes: Sequence[str] = ("z", "y", "x"),
    scale: Sequence[float] | None = None,
    unit: str | None = None,
    chunks: Sequence[int] | None = None,
    shards: Sequence[int] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write an array as a Zarr v3 store, one shard at a time, and then its manifest in the same folder.

    Parameters
    ----------
    path : path
        Folder of the store, replaced as a whole if it is a store of ours; any other folder is refused.
    array : dask or numpy array
        One axis for each of `axes`.
    axes : sequence of str
        Names in order: z, y, x for space, t for time, c for channels, any other for an index.
    scale : sequence of float, optional
        Distance of pixels along each axis [unit]. Default: 1.
    unit : str, optional
        Unit of the space axes: "nm", "um", ... or a UDUNITS-2 name.
    chunks : sequence of int, optional
        Shape of a chunk, the smallest part that is decompressed [px]. Default: 64 along three space axes, 512 along
        two, 1 along the others.
    shards : sequence of int, optional
        Shape of a file, in whole chunks [px]. Default: files of up to 64 MiB if there would be more than 64 files.
    attributes : mapping, optional
        Further attributes of the store.

    Raises
    ------
    ValueError
        Axes, scale, chunks or shards do not fit the array.
    """
    with new_volume(
        path, array.shape, array.dtype, axes=axes, scale=scale, unit=unit, chunks=chunks, shards=shards,
        attributes=attributes,
    ) as target:  # fmt: skip
        # Each file is written by a single task, so that no lock is needed.
        da.store(da.asarray(array).rechunk(target.shards or target.chunks), target, lock=False)


@contextmanager
def new_volume(
    path: str | os.PathLike[str],
    shape: Sequence[int],
    dtype: Any,
    *,
    axes: Sequence[str] = ("z", "y", "x"),
    scale: Sequence[float] | None = None,
    unit: str | None = None,
    chunks: Sequence[int] | None = None,
    shards: Sequence[int] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Iterator[zarr.Array]:
    """Create the array of a new store to be filled file by file; the store gets its name if the block succeeds.

    Parameters are those of `write_volume`, with the shape and the type of the array.
    """
    _require_lengths(len(shape), axes=axes, scale=scale, chunks=chunks, shards=shards)
    dtype = np.dtype(dtype)
    layout = tuple(chunks) if chunks is not None else default_chunks(shape, axes)
    files = tuple(shards) if shards is not None else default_shards(shape, layout, dtype.itemsize)
    metadata = _multiscales(os.path.basename(os.fspath(path)), axes, scale, unit)
    manifest = manifest_path(path)
    with atomic_path(path, is_ours=is_own_store, manifest=manifest) as temporary:
        # Absolute, as tasks may run in another folder or on another machine.
        group = zarr.create_group(
            os.path.abspath(temporary), zarr_format=3, attributes={**(attributes or {}), **CREATOR, "ome": metadata}
        )
        yield group.create_array(
            LEVEL,
            shape=tuple(shape),
            dtype=dtype,
            chunks=layout,
            shards=files if files != layout else None,
            compressors=ZstdCodec(level=0, checksum=True),
            dimension_names=list(axes),
        )
        digests = store_digests(str(temporary))
    layouts = {"shape": tuple(shape), "dtype": str(dtype), "chunks": layout, "shards": files}
    write_manifest(manifest, digests, layouts)


def read_volume(path: str | os.PathLike[str], *, verify: bool = False) -> da.Array:
    """Open a store as a dask array with one block per file.

    If there is a manifest, the store must have exactly its files, as Zarr silently reads zeros from a missing chunk.

    Parameters
    ----------
    path : path
        The store or its manifest. Stores of other programs, without a manifest, can be opened, too.
    verify : bool
        Whether to compare the digest of every file with the manifest, which is then required.

    Raises
    ------
    InputError
        There is no such store, or files of it are missing, changed or added, one line each.
    """
    store, manifest = locate(path)
    if os.path.exists(manifest) or verify or os.fspath(path) == manifest:
        check_store(store, manifest, verify=verify)
    group, level = open_level(store)
    source = _Source(array_of(store, group, level), store)
    return da.from_array(source, chunks=source.blocks, name=f"{store}-{uuid4().hex}", meta=np.empty(0, source.dtype))


class _Source:
    """Array of a store that reports damaged files by name when they are read."""

    def __init__(self, array: zarr.Array, store: str) -> None:
        self._array, self._store = array, store
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self.blocks = array.shards or array.chunks

    def __getitem__(self, index: Any) -> NDArray[Any]:
        try:
            with guarded(self._store, "readable chunks"):
                return np.asarray(self._array[index])
        except InputError:
            manifest = manifest_path(self._store)
            if os.path.exists(manifest):
                check_store(self._store, manifest, verify=True)
            raise


def read_volume_info(path: str | os.PathLike[str]) -> VolumeInfo:
    """Read axes, scale, unit and attributes of a store.

    Raises
    ------
    InputError
        There is no such store, or it has no OME-NGFF metadata.
    """
    store, _ = locate(path)
    group, _ = open_level(store)
    with guarded(store, "axes and scale of the array"):
        attributes = {key: value for key, value in group.attrs.items() if CREATOR.get(key) != value}
        ome = attributes.pop("ome", attributes)
        if not isinstance(ome, dict) or not ome.get("multiscales"):
            raise InputError(store, "no OME-NGFF multiscales metadata", "axes and scale of the array")
        scales = ome["multiscales"][0]
        axes = scales["axes"]
        transforms = scales["datasets"][0]["coordinateTransformations"]
        scale = next(transform["scale"] for transform in transforms if transform["type"] == "scale")
        unit = next((axis.get("unit") for axis in axes if axis.get("type") == "space"), None)
        return VolumeInfo(tuple(axis["name"] for axis in axes), tuple(map(float, scale)), unit, attributes)


def default_chunks(shape: Sequence[int], axes: Sequence[str]) -> tuple[int, ...]:
    """Return the shape of chunks [px] for an array with these axes.

    Examples
    --------
    >>> default_chunks((3, 200, 300, 40), ("c", "z", "y", "x"))
    (1, 64, 64, 40)
    """
    space = [_TYPES.get(axis) == "space" for axis in axes]
    side = _SIDES[min(3, max(1, sum(space)))]
    return tuple(max(1, min(n, side)) if spatial else 1 for n, spatial in zip(shape, space, strict=True))


def default_shards(shape: Sequence[int], chunks: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Return the shape of files [px]: chunks, doubled along the axis with the most files until files are few or large.

    Examples
    --------
    >>> default_shards((1024, 1024, 1024), (64, 64, 64), 1)
    (256, 256, 256)
    """
    shards = list(chunks)
    while True:
        n_files = [math.ceil(n / side) for n, side in zip(shape, shards, strict=True)]
        if math.prod(n_files) <= _MAX_FILES or 2 * math.prod(shards) * itemsize > _SHARD_BYTES:
            return tuple(shards)
        shards[int(np.argmax(n_files))] *= 2


def _require_lengths(ndim: int, **given: Sequence[Any] | None) -> None:
    for name, values in given.items():
        if values is not None and len(values) != ndim:
            raise ValueError(f"{len(values)} {name} for an array of {ndim} axes")


def _multiscales(name: str, axes: Sequence[str], scale: Sequence[float] | None, unit: str | None) -> dict[str, Any]:
    described = []
    for axis in axes:
        entry = {"name": axis}
        if axis in _TYPES:
            entry["type"] = _TYPES[axis]
        if unit is not None and entry.get("type") == "space":
            entry["unit"] = _UNITS.get(unit, unit)
        described.append(entry)
    transform = {"type": "scale", "scale": [float(step) for step in scale or [1.0] * len(axes)]}
    datasets = [{"path": LEVEL, "coordinateTransformations": [transform]}]
    return {"version": "0.5", "multiscales": [{"name": name, "axes": described, "datasets": datasets}]}
