"""Decoders that may hang, crash or take all memory on a damaged file, in a process of their own with limits.

Limits are of processor time, not of time on the clock: a slow network disk refuses no good file. Both grow with the
file. A process serves many files, one request at a time, as its start takes half a second.

Light to import, as the modules of formats are.
"""

import atexit
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from cathodeflow.errors import InputError
from cathodeflow.io.guard import one_line
from cathodeflow.io.raw_format import FrameConditions, FrameHeader, FrameReader

#: Processor time of one request: of any file [s], and of each further byte.
SECONDS, SECONDS_PER_BYTE = 2.0, 1e-6
#: Memory beyond that of the libraries: of any file, and of each of its bytes, unpacked and copied a few times.
BYTES, BYTES_PER_BYTE = 2**30, 64
_ARRAY = "array of"
_WHOLE = "a complete, undamaged file"
_SERVE = "import sys; from cathodeflow.io.decoder_process import serve; serve(int(sys.argv[1]))"


def isolated(reader: FrameReader, trusted: Callable[[str], bool]) -> FrameReader:
    """Return a reader whose functions are called in a process with limits, but for trusted files.

    Parameters
    ----------
    reader : FrameReader
        With functions of a module, which the other process imports by name.
    trusted : callable
        Path to whether the file is read in this process, which is faster.
    """

    def header(path: str, dataset: str | None) -> FrameHeader:
        if trusted(path):
            return reader.header(path, dataset)
        return next(ask(path, reader.header, path, dataset))

    def read(path: str, header: FrameHeader, indices: range) -> Iterator[Any]:
        if trusted(path):
            yield from reader.read(path, header, indices)
        else:
            yield from ask(path, reader.read, path, header, indices)

    def conditions(path: str, header: FrameHeader, omega_name: str | None) -> FrameConditions:
        assert reader.conditions is not None
        if trusted(path):
            return reader.conditions(path, header, omega_name)
        return FrameConditions(*ask(path, reader.conditions, path, header, omega_name))

    return replace(reader, header=header, read=read, conditions=reader.conditions and conditions)


def ask(path: str, function: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
    """Yield what a function returns, or the items of its iterator, each within the limits.

    Raises
    ------
    InputError
        That of the function, or the process ended at a limit or by a crash.
    RuntimeError
        With the words of any other exception of the function.
    """
    with _decoder() as decoder:
        limits = _Limits.of(path)
        request: Any = (os.getcwd(), limits, function, arguments)
        while True:
            kind, value = decoder.answer(request, path, limits)
            if kind == "memory":
                found = f"content that takes more than {limits.n_bytes / 2**30:.1f} GiB of memory"
                raise InputError(path, found, _WHOLE)
            if kind == "end":
                return
            if kind == "input error":
                raise InputError(*value)
            if kind == "error":
                raise RuntimeError(value)
            yield value
            request = "next"


class _Limits(NamedTuple):
    """Processor time [s] and memory of one request."""

    seconds: float
    n_bytes: int

    @classmethod
    def of(cls, path: str) -> "_Limits":
        size = os.path.getsize(path) if os.path.exists(path) else 0
        unpacked = 10 * size if path.lower().endswith((".gz", ".bz2")) else size
        return cls(SECONDS + SECONDS_PER_BYTE * unpacked, BYTES + BYTES_PER_BYTE * unpacked)


class _Link:
    """A connection that passes arrays without a copy of them."""

    def __init__(self, end: socket.socket) -> None:
        self._socket, self._objects = end, Connection(os.dup(end.fileno()))

    def send(self, value: Any) -> None:
        """Send anything that can be pickled, of arrays by itself the bytes."""
        import numpy as np

        if isinstance(value, np.ndarray) and value.size and value.dtype.kind in "biuf":
            value = np.ascontiguousarray(value)
            self._objects.send((_ARRAY, value.dtype.str, value.shape))
            self._socket.sendall(value.reshape(-1).view(np.uint8).data)
        else:
            self._objects.send(value)

    def receive(self) -> Any:
        """Receive what the other end sends."""
        import numpy as np

        value = self._objects.recv()
        if not (isinstance(value, tuple) and value[0] == _ARRAY):
            return value
        array = np.empty(value[2], value[1])
        rest = array.reshape(-1).view(np.uint8).data
        while rest:
            count = self._socket.recv_into(rest)
            if not count:
                raise EOFError
            rest = rest[count:]
        return array

    def close(self) -> None:
        """Close this end."""
        self._objects.close()
        self._socket.close()


class _Decoder:
    """A process that decodes, and the connection to it."""

    def __init__(self) -> None:
        here, there = socket.socketpair()
        path = os.pathsep.join(os.path.abspath(part) for part in sys.path)
        with there:
            # -P: no module of the current folder takes the place of a library.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _SERVE, str(there.fileno())], pass_fds=[there.fileno()],
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        self.connection = _Link(here)
        self.owner, self.waited_for = os.getpid(), False

    def answer(self, request: Any, path: str, limits: _Limits) -> tuple[str, Any]:
        """Send a request and wait for the answer."""
        self.waited_for = True
        try:
            self.connection.send(request)
            kind, value = self.connection.receive(), self.connection.receive()
            self.waited_for = False
            return kind, value
        except (EOFError, OSError):
            self.process.wait()
            code = -self.process.returncode
            if code == signal.SIGPROF:
                found = f"content that takes more than {limits.seconds:.0f} s of processor time"
            else:
                found = f"content at which the decoder ended ({signal.Signals(code).name if code > 0 else -code})"
            raise InputError(path, found, _WHOLE) from None

    def close(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


_IDLE: list[_Decoder] = []


@contextmanager
def _decoder() -> Iterator[_Decoder]:
    """Give a process that nobody else asks; one that owes no answer is kept for the next request."""
    while True:
        try:
            # Another thread may have taken the last one.
            decoder = _IDLE.pop()
        except IndexError:
            decoder = _Decoder()
            break
        # After a fork the process is that of the parent.
        if decoder.owner == os.getpid() and decoder.process.poll() is None:
            break
    try:
        yield decoder
    finally:
        if decoder.waited_for:
            decoder.close()
        else:
            _IDLE.append(decoder)


@atexit.register
def _close() -> None:
    for decoder in _IDLE:
        if decoder.owner == os.getpid():
            decoder.close()


def serve(number: int) -> None:
    """Answer requests on a socket until its other end is closed."""
    # The terminal's Ctrl-C is the parent's; it closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = _Link(socket.socket(fileno=number))
    items: Iterator[Any] = iter(())
    limits = _Limits(SECONDS, BYTES)
    with suppress(EOFError, OSError):
        while True:
            request = connection.receive()
            if request != "next":
                folder, limits, function, arguments = request
                os.chdir(folder)
                items = _items(function, arguments)
            for part in _next(items, limits):
                connection.send(part)


def _next(items: Iterator[Any], limits: _Limits) -> tuple[str, Any]:
    try:
        with _limited(limits):
            return "item", next(items)
    except StopIteration:
        return "end", None
    except InputError as error:
        return "input error", (error.where, error.found, error.expected)
    except MemoryError:
        return "memory", None
    except Exception as error:
        return "error", one_line(error)


def _items(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Iterator[Any]:
    result = function(*arguments)
    if isinstance(result, FrameHeader):
        yield result
    else:
        yield from result


@contextmanager
def _limited(limits: _Limits) -> Iterator[None]:
    """Limit processor time and memory while a block runs; at the end of the time the process ends by SIGPROF."""
    import psutil

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = psutil.Process().memory_info().vms + limits.n_bytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    signal.setitimer(signal.ITIMER_PROF, limits.seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
