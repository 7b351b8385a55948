"""npy: frames of one NumPy array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cathodeflow.errors import InputError
from cathodeflow.io.raw_format import FrameHeader, FrameReader, RawFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _header(path: str, dataset: str | None) -> FrameHeader:
    import numpy as np

    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim not in (2, 3):
        raise InputError(path, f"a {array.ndim}-D array", "a (row, col) or (frame, row, col) array")
    return FrameHeader(1 if array.ndim == 2 else len(array), array.shape[-2:], array.dtype)


def _read(path: str, header: FrameHeader, indices: range) -> Iterator[NDArray[Any]]:
    import numpy as np

    for index in indices:
        # Mapped again for each frame, as the pages of a permanent map would add up in the memory of the process.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        yield np.array(array if array.ndim == 2 else array[index])


FORMAT = RawFormat(name="npy", magic=(b"\x93NUMPY",), suffixes=(".npy",), frames=FrameReader(_header, _read))
