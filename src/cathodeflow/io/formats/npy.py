"""npy: frames of one NumPy array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cathodeflow.errors import InputError
from cathodeflow.io.raw_format import FrameHeader, FrameReader, RawFormat, VolumeHeader, VolumeReader

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _header(path: str, dataset: str | None) -> FrameHeader:
    import numpy as np

    array = np.load(path, mmap_mode="r", allow_pickle=False)
    # Axes of length 1 before the rows and columns do not count.
    if array.ndim < 2 or sum(length != 1 for length in array.shape[:-2]) > 1:
        raise InputError(path, f"a {array.ndim}-D array", "a (row, col) or (frame, row, col) array")
    return FrameHeader(int(np.prod(array.shape[:-2], dtype=np.int64)), array.shape[-2:], array.dtype)


def _read(path: str, header: FrameHeader, indices: range) -> Iterator[NDArray[Any]]:
    import numpy as np

    for index in indices:
        # Mapped again for each frame, as the pages of a permanent map would add up in the memory of the process.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        axis = next((axis for axis, length in enumerate(array.shape[:-2]) if length != 1), 0)
        frame = array if array.ndim == 2 else array[(slice(None),) * axis + (index,)]
        yield np.array(frame.reshape(array.shape[-2:]))


def _volume_header(path: str, dataset: str | None) -> VolumeHeader:
    import numpy as np

    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return VolumeHeader(array.shape, array.dtype)


def _read_volume(path: str, header: VolumeHeader, indices: Iterable[tuple[int | slice, ...]]) -> Iterator[NDArray[Any]]:
    import numpy as np

    for index in indices:
        yield np.array(np.load(path, mmap_mode="r", allow_pickle=False)[index])


FORMAT = RawFormat(
    name="npy",
    magic=(b"\x93NUMPY",),
    suffixes=(".npy",),
    frames=FrameReader(_header, _read),
    volume=VolumeReader(_volume_header, _read_volume),
)
