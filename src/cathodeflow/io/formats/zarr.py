"""Zarr stores (v2 and v3), with or without OME-NGFF metadata; a store is a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cathodeflow.io.raw_format import RawFormat, VolumeHeader, VolumeReader

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _header(path: str, dataset: str | None) -> VolumeHeader:
    from cathodeflow.io.zarr_volume import volume_header

    return volume_header(path, dataset)


def _read(path: str, header: VolumeHeader, indices: Iterable[tuple[int | slice, ...]]) -> Iterator[NDArray[Any]]:
    from cathodeflow.io.zarr_volume import read_volume_parts

    return read_volume_parts(path, header, indices)


FORMAT = RawFormat(name="Zarr", suffixes=(".zarr",), has_datasets=True, volume=VolumeReader(_header, _read))
