"""Batches of crops for training: from memory, or streamed in every epoch if they do not fit into it."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cathodeflow.learning import held
from cathodeflow.parallel import ordered_map

T = TypeVar("T")
Rows = NDArray[np.int64]
Batch = tuple[Tensor, Rows]

# Crops read together from a store without chunks, and the minimum number of batches that are mixed.
_TOGETHER, _LEAST_BATCHES = 64, 64
_READERS = 2


class Source:
    """Selected crops in batches of uint8, with their numbers; a thread reads the next batches ahead.

    Parameters
    ----------
    crops : (n, h, w) uint8
        NumPy, Zarr or Dask array.
    rows : (m,) int
        Numbers of the crops to use, ascending.
    batch_size : int
    memory : int
        Maximum size of crops that are kept in memory [bytes]; larger ones are streamed in every pass, each chunk once.
    device : torch.device, optional
        Crops that are kept in memory are kept on this device if they fit there (`cathodeflow.learning.held`).
    """

    def __init__(
        self, crops: Any, rows: Rows, *, batch_size: int, memory: int, device: torch.device | None = None
    ) -> None:  # fmt: skip
        self.crops, self.rows, self.batch_size = crops, rows, batch_size
        size = int(np.prod(crops.shape[1:])) * crops.dtype.itemsize
        self.chunks = _chunks(crops, rows)
        self.capacity = max(memory // size, _LEAST_BATCHES * batch_size, max(map(len, self.chunks)))
        self.kept: Tensor | None = None
        self.held_bytes = len(rows) * size if len(rows) * size <= memory else 0
        if self.held_bytes:
            self.kept = torch.empty(len(rows), *crops.shape[1:], dtype=torch.uint8)
            start = 0
            for chunk in self.chunks:
                self.kept[start : start + len(chunk)] = torch.from_numpy(self._read(chunk))
                start += len(chunk)
            if device is not None:
                (self.kept,) = held([self.kept], device)

    def digest(self) -> Tensor:
        """Crops that identify the data: all of them if they are in memory, otherwise one of each chunk."""
        if self.kept is not None:
            return self.kept
        return torch.from_numpy(np.concatenate([self._read(chunk[:1]) for chunk in self.chunks]))

    def in_order(self) -> Iterator[Batch]:
        """Batches in the order of the crops."""
        if self.kept is not None:
            return zip(self.kept.split(self.batch_size), np.split(self.rows, self._bounds()), strict=True)
        return _batches(self._stream(self.chunks), self.batch_size)

    def shuffled(self, random: torch.Generator) -> Iterator[Batch]:
        """Batches in random order.

        Crops that are streamed come in chunks in random order, mixed with as many others as fit into memory.
        """
        if self.kept is None:
            order = torch.randperm(len(self.chunks), generator=random).tolist()
            stream = self._stream([self.chunks[number] for number in order])
            return _batches(_mixed(stream, self.capacity, random), self.batch_size)
        kept = self.kept
        places = torch.randperm(len(kept), generator=random).split(self.batch_size)
        return ordered_map(
            lambda some: (kept.index_select(0, some.to(kept.device)), self.rows[some.numpy()]), places, workers=1
        )

    def _bounds(self) -> Rows:
        return np.arange(self.batch_size, len(self.rows), self.batch_size)

    def _stream(self, chunks: Sequence[Rows]) -> Iterator[tuple[NDArray[np.uint8], Rows]]:
        return ordered_map(lambda chunk: (self._read(chunk), chunk), chunks, workers=_READERS)

    def _read(self, chunk: Rows) -> NDArray[np.uint8]:
        first, last = int(chunk[0]), int(chunk[-1])
        block = np.asarray(self.crops[first : last + 1])
        # Always a copy, as the block may be a view of read-only memory.
        return block[chunk - first]


def timed(items: Iterable[T], clock: dict[str, float]) -> Iterator[T]:
    """Pass items on, and add to `clock` the seconds spent waiting for them and the total seconds."""
    began = time.perf_counter()
    asked = began
    for item in items:
        clock["waited"] += time.perf_counter() - asked
        yield item
        asked = time.perf_counter()
    clock["total"] += time.perf_counter() - began


def _chunks(crops: Any, rows: Rows) -> list[Rows]:
    """Group crops by the chunk of the store that they are in."""
    length = getattr(crops, "chunks", None)
    length = _TOGETHER if length is None else length[0]
    ends = np.cumsum(length) if isinstance(length, tuple) else np.arange(length, crops.shape[0] + length, length)
    return [part for part in np.split(rows, np.searchsorted(rows, ends)) if len(part)]


def _mixed(
    stream: Iterable[tuple[NDArray[np.uint8], Rows]], capacity: int, random: torch.Generator
) -> Iterator[tuple[NDArray[np.uint8], Rows]]:
    """Shuffle a stream of crops in a pool of up to `capacity` crops.

    Once the pool is an eighth full, half of the incoming crops are already passed on, so that training need not wait
    until it is full.
    """
    pool: NDArray[np.uint8] | None = None
    numbers, filled = np.zeros(capacity, np.int64), 0
    for images, rows in stream:
        if pool is None:
            pool = np.empty((capacity, *images.shape[1:]), np.uint8)
        count = max(filled + len(rows) - capacity, min(len(rows) // 2, filled) if filled >= capacity // 8 else 0)
        if count > 0:
            out = torch.randperm(filled, generator=random)[:count].numpy()
            yield pool[out], numbers[out]
            # The last crops that stay fill the holes among the first ones.
            filled -= count
            holes = out[out < filled]
            movers = np.setdiff1d(np.arange(filled, filled + count), out)
            pool[holes], numbers[holes] = pool[movers], numbers[movers]
        pool[filled : filled + len(rows)], numbers[filled : filled + len(rows)] = images, rows
        filled += len(rows)
    if pool is not None:
        for some in torch.randperm(filled, generator=random).split(_TOGETHER):
            yield pool[some.numpy()], numbers[some.numpy()]


def _batches(stream: Iterable[tuple[NDArray[np.uint8], Rows]], size: int) -> Iterator[Batch]:
    images: list[NDArray[np.uint8]] = []
    numbers: list[Rows] = []
    held = 0
    for block, rows in stream:
        images.append(block)
        numbers.append(rows)
        held += len(rows)
        if held >= size:
            together, which = np.concatenate(images), np.concatenate(numbers)
            for start in range(0, held - held % size, size):
                yield torch.from_numpy(together[start : start + size]), which[start : start + size]
            images, numbers, held = [together[held - held % size :]], [which[held - held % size :]], held % size
    if held:
        yield torch.from_numpy(np.concatenate(images)), np.concatenate(numbers)
