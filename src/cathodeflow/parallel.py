"""Work on a stream in several threads, in order and without reading far ahead."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(function: Callable[[T], R], items: Iterable[T], *, workers: int) -> Iterator[R]:
    """Apply a function that releases the interpreter lock to items as they come.

    At most twice as many items as there are workers are held at a time; results come in the order of the items.

    Examples
    --------
    >>> list(ordered_map(lambda x: x * x, range(5), workers=2))
    [0, 1, 4, 9, 16]
    """
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def read_ahead(items: Iterable[T], *, depth: int) -> Iterator[T]:
    """Take items in a thread of its own, at most `depth` ahead of their use, and pass them on in order.

    For items that come slowly, such as those read from a disk; what they raise is raised here.

    Examples
    --------
    >>> list(read_ahead(range(5), depth=2))
    [0, 1, 2, 3, 4]
    """
    queue: Queue[tuple[bool, T | BaseException | None]] = Queue(depth)
    ended = Event()

    def put(item: tuple[bool, T | BaseException | None]) -> None:
        while not ended.is_set():
            try:
                return queue.put(item, timeout=0.1)
            except Full:
                continue

    def take() -> None:
        try:
            for item in items:
                put((True, item))
                if ended.is_set():
                    return
            put((False, None))
        except BaseException as error:  # raised where the items are used
            put((False, error))

    thread = Thread(target=take, daemon=True)
    thread.start()
    try:
        while True:
            more, item = queue.get()
            if more:
                yield cast(T, item)
            elif isinstance(item, BaseException):
                raise item
            else:
                break
    finally:
        ended.set()
        thread.join()


def graphics_card() -> bool:
    """Return whether this machine has a GPU that torch may use, without importing torch."""
    return any(os.path.exists(f"/dev/{name}") for name in ("nvidiactl", "kfd", "dxg"))


def thread_count() -> int:
    """Return the number of threads that this process may use."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
