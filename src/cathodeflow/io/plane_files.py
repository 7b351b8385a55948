"""Parts of volumes whose values follow each other in a file, plain or compressed, read without the rest in memory."""

import gzip
import math
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import require_memory
from cathodeflow.io.raw_format import DataPart, VolumeHeader

# Bytes that are decompressed at a time where they are passed over.
_SKIP = 2**20


def require_size(path: str, header: VolumeHeader) -> None:
    """Require that a file that is not compressed holds all values.

    Raises
    ------
    InputError
        It is missing, or too short.
    """
    part = header.data
    assert part is not None
    if not os.path.isfile(part.path):
        raise InputError(path, f"the data file {part.path}, which is missing", "both files in the same folder")
    needed, size = math.prod(header.shape) * header.dtype.itemsize, os.path.getsize(part.path)
    if not part.compression and part.offset + needed > size:
        found = f"{size} bytes, {part.offset} of them before the data"
        shape = " x ".join(map(str, header.shape))
        raise InputError(part.path, found, f"{needed} bytes of data for {shape} values of type {header.dtype}")


def read_parts(path: str, header: VolumeHeader, indices: Iterable[tuple[int | slice, ...]]) -> Iterator[NDArray[Any]]:
    """Yield the parts of a volume at some indices; see `cathodeflow.io.raw_format.VolumeReader`.

    Compressed data are read in one pass where the parts follow each other, and as a whole otherwise.

    Raises
    ------
    InputError
        The data end early, or need more memory than there is.
    """
    assert header.data is not None
    part = header.data
    if part.compression:
        found = _decompressed(header, part, indices)
    else:
        found = (_mapped(header, part)[index] for index in indices)
    for values in found:
        if part.slope != 1.0 or part.intercept != 0.0:
            yield (values * np.float64(part.slope) + part.intercept).astype(np.float32)
        else:
            yield np.array(values)


def _mapped(header: VolumeHeader, part: DataPart) -> NDArray[Any]:
    # Mapped again for each part, as the pages of a permanent map would add up in the memory of the process.
    return np.memmap(part.path, header.dtype, "r", part.offset, header.shape)


def _decompressed(
    header: VolumeHeader, part: DataPart, indices: Iterable[tuple[int | slice, ...]]
) -> Iterator[NDArray[Any]]:
    whole: NDArray[Any] | None = None
    with _opened(part) as file:
        at = 0
        for index in indices:
            leading = [axis for axis in index if not isinstance(axis, slice)]
            depth = len(leading)
            start = 0
            for length, number in zip(header.shape, leading, strict=False):
                start = start * length + int(number)
            shape = header.shape[depth:]
            length = math.prod(shape) * header.dtype.itemsize
            if whole is None and (any(isinstance(axis, slice) for axis in index[:depth]) or start * length < at):
                require_memory(part.path, math.prod(header.shape) * header.dtype.itemsize)
                with _opened(part) as again:
                    whole = _values(again, header, header.shape, part.path)
            if whole is not None:
                yield whole[index]
                continue
            while at < start * length:
                at += len(_exactly(file, min(_SKIP, start * length - at), part.path))
            yield _values(file, header, shape, part.path)
            at += length


@contextmanager
def _opened(part: DataPart) -> Iterator[Any]:
    """Open the values as a stream of bytes without compression."""
    if part.compression == "gzip file":
        with gzip.open(part.path) as file:
            file.seek(part.offset)
            yield file
        return
    with open(part.path, "rb") as raw:
        raw.seek(part.offset)
        yield gzip.GzipFile(fileobj=raw) if part.compression == "gzip" else _Zlib(raw)


class _Zlib:
    """A stream of zlib, which the standard library only decompresses in pieces."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._stream = file, zlib.decompressobj()

    def read(self, count: int) -> bytes:
        """Read so many bytes, or fewer at the end."""
        parts = []
        while count > 0 and not self._stream.eof:
            data = self._stream.unconsumed_tail or self._file.read(_SKIP)
            made = self._stream.decompress(data, count)
            if not data and not made:
                break
            parts.append(made)
            count -= len(made)
        return b"".join(parts)


def _exactly(file: Any, count: int, path: str) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise InputError(path, "data that end early", "a complete file")
    return data


def _values(file: Any, header: VolumeHeader, shape: tuple[int, ...], path: str) -> NDArray[Any]:
    data = _exactly(file, math.prod(shape) * header.dtype.itemsize, path)
    return np.frombuffer(data, header.dtype).reshape(shape)
