"""HDF5, NeXus and CXI: frames of one dataset, the NeXus default one or one that is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cathodeflow.io.raw_format import FrameHeader, FrameReader, RawFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _header(path: str, dataset: str | None) -> FrameHeader:
    from cathodeflow.io.hdf5 import open_hdf5
    from cathodeflow.io.hdf5_frames import find_dataset

    with open_hdf5(path) as file:
        found = find_dataset(file, dataset)
        n_frames = 1 if found.ndim == 2 else found.shape[0]
        return FrameHeader(n_frames, found.shape[-2:], found.dtype, dataset or found.name)


def _read(path: str, header: FrameHeader, indices: range) -> Iterator[NDArray[Any]]:
    from cathodeflow.io.hdf5 import open_hdf5
    from cathodeflow.io.hdf5_frames import find_dataset, read_dataset_frames

    with open_hdf5(path) as file:
        yield from read_dataset_frames(find_dataset(file, header.dataset), indices)


FORMAT = RawFormat(
    name="HDF5",
    magic=(b"\x89HDF\r\n\x1a\n",),
    suffixes=(".h5", ".hdf5", ".hdf", ".nxs", ".cxi"),
    has_datasets=True,
    frames=FrameReader(_header, _read),
)
