"""HDF5, NeXus and CXI: frames of the NeXus default or of a dataset that is named; and hexrd's frame caches of HDF5."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from cathodeflow.io.raw_format import (
    FrameConditions,
    FrameHeader,
    FrameReader,
    RawFormat,
    VolumeHeader,
    VolumeReader,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def _header(path: str, dataset: str | None) -> FrameHeader:
    from cathodeflow.io.hdf5 import open_hdf5
    from cathodeflow.io.hdf5_cache import cache_header, find_cache
    from cathodeflow.io.hdf5_detector import find_mask, read_limits
    from cathodeflow.io.hdf5_frames import files_behind, find_stack

    with open_hdf5(path) as file:
        if (cache := find_cache(file, dataset)) is not None:
            return cache_header(cache, path)
        stack = find_stack(file, dataset)
        mask = find_mask(file, stack)
        n_masks = 0 if mask is None else 1 if mask.dataset.ndim == 2 else len(mask.dataset)
        limits = read_limits(file, stack)
        header = FrameHeader(stack.n_frames, stack.shape, stack.dtype, stack.name, limits=limits, n_masks=n_masks)
        return header._replace(linked=tuple(files_behind(file, stack.paths)))


def _read(path: str, header: FrameHeader, indices: range) -> Iterator[NDArray[Any]]:
    return (load() for load in _deferred(path, header, indices))


def _deferred(path: str, header: FrameHeader, indices: range) -> Iterator[Callable[[], NDArray[Any]]]:
    from cathodeflow.io.hdf5 import open_hdf5
    from cathodeflow.io.hdf5_cache import find_cache, read_cache
    from cathodeflow.io.hdf5_frames import find_stack, read_stack_frames

    with open_hdf5(path) as file:
        if (cache := find_cache(file, header.dataset)) is not None:
            for frame in read_cache(cache, header, path, indices):
                yield partial(_same, frame)
        else:
            yield from read_stack_frames(find_stack(file, header.dataset), indices)


def _same(frame: NDArray[Any]) -> NDArray[Any]:
    return frame


def _mask(path: str, header: FrameHeader, number: int) -> NDArray[np.bool_]:
    from cathodeflow.io.hdf5 import open_hdf5
    from cathodeflow.io.hdf5_detector import bad_pixels, find_mask
    from cathodeflow.io.hdf5_frames import find_stack

    with open_hdf5(path) as file:
        mask = find_mask(file, find_stack(file, header.dataset))
        assert mask is not None
        return bad_pixels(mask.dataset, number)


def _conditions(path: str, header: FrameHeader, omega_name: str | None) -> FrameConditions:
    from cathodeflow.io.conditions import hdf5_conditions
    from cathodeflow.io.hdf5 import open_hdf5

    with open_hdf5(path) as file:
        return hdf5_conditions(file, header.n_frames, omega_name)


def _volume_header(path: str, dataset: str | None) -> VolumeHeader | None:
    from cathodeflow.io.hdf5_volume import volume_header

    return volume_header(path, dataset)


def _read_volume(path: str, header: VolumeHeader, indices: Iterable[tuple[int | slice, ...]]) -> Iterator[NDArray[Any]]:
    from cathodeflow.io.hdf5_volume import read_volume_parts

    return read_volume_parts(path, header, indices)


FORMAT = RawFormat(
    name="HDF5",
    magic=(b"\x89HDF\r\n\x1a\n",),
    suffixes=(".h5", ".hdf5", ".hdf", ".nxs", ".cxi", ".fch5"),
    has_datasets=True,
    frames=FrameReader(_header, _read, _mask, _conditions, _deferred),
    volume=VolumeReader(_volume_header, _read_volume),
)
