"""Outputs appear whole or not at all, and what a process wrote is known to it."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Files and folders that this process wrote, in order; its record lists them with their digests.
WRITTEN: dict[str, None] = {}
_LOCK = "lock"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` when the block ends well.

    The temporary name has the suffix of `path`, so writers that choose a format by suffix work. A file or a directory
    may be made at it. When the block raises, what stands at the temporary name is removed and `path` is left as it was.
    What a killed process left of the same output is removed first.

    Parameters
    ----------
    path : path
        Final name; missing parent folders are made.

    Raises
    ------
    OSError
        The disk is full, whatever the writer in the block made of it; `filename` is `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name[:80]}."
    _remove_remains(path.parent, prefix)
    try:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    except OSError as error:
        raise _named(error, path) from error
    temporary = folder / f"partial{path.suffix}"
    try:
        # Held as long as the process lives, however it ends.
        with (folder / _LOCK).open("w") as lock:
            _try_lock(lock.fileno())
            yield temporary
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            os.replace(temporary, path)
            WRITTEN[os.path.abspath(path)] = None
    except Exception as error:
        raise _named(error, path) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_remains(folder: Path, prefix: str) -> None:
    for rest in folder.glob(f"{_escaped(prefix)}*/{_LOCK}"):
        with suppress(OSError), rest.open("w") as lock:
            if _try_lock(lock.fileno()):
                shutil.rmtree(rest.parent, ignore_errors=True)


def _escaped(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def _try_lock(number: int) -> bool:
    """Lock an open file; where the file system has no locks nothing is taken for abandoned."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _named(error: Exception, path: Path) -> Exception:
    """Return the error itself, or one that names the file where there is no room to write it."""
    cause: BaseException | None = error
    while cause is not None:
        # Libraries tell of a full disk in errors of their own, some in words alone.
        full = getattr(cause, "errno", None) in _FULL or "No space left" in str(cause) or "errno = 28" in str(cause)
        if full or (isinstance(cause, RuntimeError) and "PytorchStreamWriter" in str(cause) and _no_room(path)):
            text = "found no space left on the disk, expected room for the file; make some and run the same again"
            return OSError(errno.ENOSPC, text, str(path))
        cause = cause.__cause__ or cause.__context__
    return error


def _no_room(path: Path) -> bool:
    return shutil.disk_usage(path.parent).free < 2**20
