"""Guards around decoders: any failure on a bad file becomes one line, and large files are refused before loading."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from cathodeflow.errors import InputError

#: Pixels of one image: larger ones are refused before memory is taken for them; four times 8192 x 8192.
MAX_PIXELS = 2**28
#: Bytes of what is decompressed as one piece: a chunk, a member of an archive, a compressed file.
MAX_PIECE = 2**31


@contextmanager
def guarded(where: str | os.PathLike[str], expected: str) -> Iterator[None]:
    """Run a decoder; whatever it raises on a bad file becomes one InputError.

    This is the one place that catches everything: decoders raise anything from KeyError to struct.error, and do so
    differently from version to version.
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
    """First line of an exception's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def require_memory(where: str | os.PathLike[str], n_bytes: int) -> None:
    """Refuse data that are larger than the memory of this machine, before they are read.

    Raises
    ------
    InputError
        More bytes than the machine has.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > memory:
        raise InputError(where, f"{n_bytes / 2**30:.0f} GiB of data", f"at most the memory, {memory / 2**30:.0f} GiB")


def require_inside(where: str | os.PathLike[str], target: str, folder: str) -> str:
    """Resolve a path stored in a file of `folder`, if it leads into the folder or below.

    Raises
    ------
    InputError
        It leads elsewhere: a file from others must not choose which other files are read.
    """
    path = os.path.realpath(os.path.join(folder, target))
    if not path.startswith(os.path.join(os.path.realpath(folder), "")):
        raise InputError(where, f"a link to {target}, outside its folder", "links to files in the same folder or below")
    return path
