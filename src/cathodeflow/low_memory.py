"""Too little memory said in one line, also where a library crashes or ends the process by itself (`ulimit -v`)."""

import os
import resource
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable

from cathodeflow.errors import causes

# Says whose child a process is, which runs the command itself.
_CHILD = "CATHODEFLOW_MEMORY_CHILD_OF"
# Lines of libraries before a crash that are replaced by one.
_LAST_LINES = 20
# What libraries say when they get no memory, instead of raising MemoryError.
_WORDS = (
    "annot allocate memory", "an't allocate memory", "failed to map segment", "can't start new thread",
    "shared object file 'libllvmlite", "bad_alloc", "DefaultCPUAllocator", "out of memory", "Unable to allocate",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that caused it, means too little memory.

    Examples
    --------
    >>> is_out_of_memory(ImportError("libtorch.so: failed to map segment from shared object"))
    True
    """
    return any(isinstance(cause, MemoryError) or any(word in str(cause) for word in _WORDS) for cause in causes(error))


def limit_text() -> str:
    """Return the limit of this process's memory for a message, nothing where there is none."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return "" if limit == resource.RLIM_INFINITY else f"; memory is limited to {limit >> 20} MB (ulimit -v)"


def under_memory_limit(run: Callable[[], None]) -> None:
    """Run a command, where memory is limited in a child process whose crash is reported in one line.

    Parameters
    ----------
    run : callable
        May end the process.
    """
    if not limit_text() or os.environ.get(_CHILD) == str(os.getppid()):
        run()
        return
    command = [sys.executable, *sys.orig_argv[1:]]
    child = subprocess.Popen(command, env={**os.environ, _CHILD: str(os.getpid())}, stderr=subprocess.PIPE)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A terminal's Ctrl-C reaches the child by itself.
        signal.signal(number, lambda sent, _: None if sent == signal.SIGINT else child.send_signal(sent))
    last = _follow(child)
    if child.returncode < 0:
        words = next((line for line in map(bytes.strip, last) if line), b"").decode(errors="backslashreplace")
        name = signal.Signals(-child.returncode).name
        last = [f"out of memory: {name}{f' ({words})' if words else ''}{limit_text()}\n".encode()]
    for line in last:
        os.write(2, line)
    sys.exit(1 if child.returncode < 0 else child.returncode)


def _follow(child: "subprocess.Popen[bytes]") -> list[bytes]:
    """Pass on what a child prints, but for its last lines, until it ends; give those lines."""
    assert child.stderr is not None
    lines: deque[bytes] = deque()
    for line in child.stderr:
        lines.append(line)
        if len(lines) > _LAST_LINES:
            os.write(2, lines.popleft())
    child.wait()
    return list(lines)
