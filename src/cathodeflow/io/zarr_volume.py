"""Volumes in Zarr stores of any program: OME-NGFF 0.4 and 0.5, the dimension names of Zarr v3 and xarray, or plain."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import zarr
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded
from cathodeflow.io.raw_format import VolumeHeader, VoxelSize
from cathodeflow.io.slabs import read_slabs
from cathodeflow.io.voxel_sizes import stated_voxel
from cathodeflow.io.zarr_stores import open_array_at, open_store

_MAX_NAMED = 8


def volume_header(path: str, name: str | None) -> VolumeHeader:
    """Read the header of a store.

    Parameters
    ----------
    path : str
        The store: an array, or a group with OME-NGFF metadata or one array.
    name : str, optional
        Path of an array or group in the store.

    Raises
    ------
    InputError
        There is no array, or several are equally likely.
    """
    group: Any = open_store(path)
    above: Mapping[str, Any] | None = None
    with guarded(path, "a readable Zarr store"):
        inside = (name or "").strip("/")
        if inside:
            group, above = _below(path, group, inside)
        # Some programs put each image into a numbered group of a group.
        while isinstance(group, zarr.Group):
            above = _multiscale(group)
            key = str(above["datasets"][0]["path"]) if above else _only(path, group)
            inside, group = f"{inside}/{key}".strip("/"), group[key]
        array = open_array_at(path, group)
        level = next((k for k, one in enumerate(above["datasets"]) if inside.endswith(one["path"])), 0) if above else 0
        axes = _axes(array, above)
        return VolumeHeader(tuple(array.shape), array.dtype, axes, _voxel(axes, above, level), dataset=inside)


def read_volume_parts(
    path: str, header: VolumeHeader, indices: Iterable[tuple[int | slice, ...]]
) -> Iterator[NDArray[Any]]:
    """Yield the parts at some indices."""
    found: Any = open_store(path)
    array = open_array_at(path, found[header.dataset] if header.dataset else found)
    return read_slabs(array, array.chunks, indices)


def _below(path: str, group: Any, inside: str) -> tuple[Any, Mapping[str, Any] | None]:
    """Return a member of a store, and the OME-NGFF metadata of the group around it."""
    if inside not in group:
        raise InputError(
            f"{path}::/{inside}", "no such array", "one of " + ", ".join(sorted(group.keys())[:_MAX_NAMED])
        )
    outer = group[inside.rpartition("/")[0]] if "/" in inside else group
    return group[inside], _multiscale(outer)


def _multiscale(group: Any) -> Mapping[str, Any] | None:
    """First image that the OME-NGFF metadata of a group describe (version 0.5 in `ome`, before at the top)."""
    found = group.attrs.get("ome", group.attrs).get("multiscales")
    return found[0] if found else None


def _only(path: str, group: Any) -> str:
    names = sorted(group.keys())
    if len(names) == 1 or "0" in names:
        return "0" if "0" in names else str(names[0])
    listed = ", ".join(names[:_MAX_NAMED])
    raise InputError(path, f"the arrays {listed}" if names else "an empty group", "the name of one as STORE::/NAME")


def _axes(array: zarr.Array, above: Mapping[str, Any] | None) -> str | None:
    if above and "axes" in above:
        named = [str(axis["name"] if isinstance(axis, Mapping) else axis) for axis in above["axes"]]
    elif above:
        # OME-NGFF before 0.3 always has these five.
        named = list("tczyx")
    else:
        named = list(getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS", []))
    if len(named) != array.ndim or None in named:
        return None
    return "".join(name.lower() if name.lower() in "tczyx" and len(name) == 1 else "q" for name in map(str, named))


def _voxel(axes: str | None, above: Mapping[str, Any] | None, level: int) -> VoxelSize | None:
    """Voxel size of a level, the product of its own scale and that of the image."""
    if above is None or axes is None or "axes" not in above:
        return None
    steps = dict.fromkeys(axes, 1.0)
    for source in (above["datasets"][level], above):
        for transform in source.get("coordinateTransformations") or []:
            if transform.get("type") == "scale":
                for axis, step in zip(axes, transform["scale"], strict=True):
                    steps[axis] *= float(step)
    units = [axis.get("unit") for axis in above["axes"] if isinstance(axis, Mapping) and str(axis.get("name")) in "zyx"]
    return stated_voxel([steps.get(axis) for axis in "zyx"], next(filter(None, units), None), "OME-NGFF metadata")
