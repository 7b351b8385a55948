"""Guards around decoders: any failure on a bad file becomes one line, and large files are refused before loading."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from cathodeflow.errors import InputError

#: Maximum number of pixels of an image, 4 x 8192 x 8192; larger ones are refused before memory is allocated.
MAX_PIXELS = 2**28
#: Maximum bytes of a piece of data that is decompressed at once: a chunk, an archive member, a compressed file.
MAX_PIECE = 2**31


@contextmanager
def guarded(where: str | os.PathLike[str], expected: str) -> Iterator[None]:
    """Run a decoder; any exception that it raises on a bad file becomes one InputError.

    This is the only place that catches all exceptions: decoders raise anything from KeyError to struct.error, depending
    on their version.
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(where, f"too little memory to read it ({one_line(error)})", expected) from error
    except Exception as error:
        raise InputError(where, f"an error ({one_line(error)})", expected) from error


def one_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def require_memory(where: str | os.PathLike[str], n_bytes: int) -> None:
    """Refuse data larger than the memory of this machine before they are read.

    Raises
    ------
    InputError
        The data need more bytes than the machine has.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > memory:
        raise InputError(where, f"{n_bytes / 2**30:.0f} GiB of data", f"at most the memory, {memory / 2**30:.0f} GiB")


def require_inside(where: str | os.PathLike[str], target: str, folder: str) -> str:
    """Resolve a path stored in a file of `folder` if it leads to the folder or below.

    Raises
    ------
    InputError
        It leads elsewhere: a file from others must not decide which other files are read.
    """
    path = os.path.realpath(os.path.join(folder, target))
    if not path.startswith(os.path.join(os.path.realpath(folder), "")):
        raise InputError(where, f"a link to {target}, outside its folder", "links to files in the same folder or below")
    return path
