"""Atomic outputs, also after power loss, and the list of files that a process wrote.

A file gets its name when its content is on the disk, and the writer continues when the name is on the disk, too:
`fsync` before and after the rename, also for folders, which store the names. Without the first, a crash can leave an
empty file under the final name; without the second, the old file together with later outputs that were made from the
new one.
"""

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cathodeflow.errors import causes
from cathodeflow.io.outputs import IsOurs, require_replaceable

#: Files and folders that this process wrote, in order; its record lists them with their digests.
WRITTEN: dict[str, None] = {}
_LOCK = "lock"
# What lies beside the lock in the folder that an output is made in; its name ends in letters of `tempfile`.
_PARTS = re.compile(r"lock(\.new)?|partial.*|replaced")
_RANDOM = re.compile(r"[a-z0-9_]{8}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Errors of file systems that cannot sync folders.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP)
# Parts of the messages of torch when it cannot write; they do not give the reason.
_TORCH = ("PytorchStreamWriter", "inline_container")


class FullDiskError(OSError):
    """The disk is full; `filename` is the file that was being written."""


def is_first_process() -> bool:
    """Whether this process writes files; in a training with several processes only the first one does."""
    return all(int(os.environ.get(name) or 0) == 0 for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


@contextmanager
def atomic_path(
    path: str | os.PathLike[str], *, is_ours: IsOurs | None = None, manifest: str | None = None
) -> Iterator[Path]:
    """Return a temporary name in the folder of `path`; rename it to `path` if the block succeeds.

    The temporary name has the suffix of `path`, so writers that choose a format by suffix work. When the block raises,
    the temporary file is removed and `path` is left unchanged. Leftovers of killed processes that wrote the same output
    are removed first. Only a file is replaced, or a store that is ours, no link, device or other folder.

    Parameters
    ----------
    path : path
        Final name; missing parent folders are created. In a training with several processes, only the first writes it.
    is_ours : callable, optional
        For a store, which is a folder: whether a folder in its place is one of ours. By default a file is made.
    manifest : str, optional
        File that describes the store in this place. It is removed first: a manifest never stands beside a store that it
        does not describe, after power loss neither.

    Raises
    ------
    InputError
        Something at `path` would be lost.
    FullDiskError
        The disk is full, with any error of the writer in the block.
    """
    path = Path(path)
    require_replaceable(path, is_ours=is_ours)
    if manifest:
        require_replaceable(manifest)
    new_folders = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name[:80]}."
    remove_remains(path)
    with _full_disk_named(path):
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    temporary = folder / f"partial{path.suffix}"
    try:
        # Locked until the process ends in any way. The file is renamed after it is locked, as another process that
        # writes the same output would otherwise treat the folder as abandoned.
        with _full_disk_named(path), (folder / f"{_LOCK}.new").open("w") as lock:
            _try_lock(lock.fileno())
            os.rename(lock.name, folder / _LOCK)
            yield temporary
            if not is_first_process():
                return
            with _full_disk_named(path):
                _sync_all(temporary)
            require_replaceable(path, is_ours=is_ours)  # it may have been made in the meantime
            if manifest and os.path.lexists(manifest):
                require_replaceable(manifest)
                os.remove(manifest)
                sync_folder(path.parent)
            if path.is_dir():
                # Moved, which is faster than removing it, so that the store is missing only for a moment.
                os.replace(path, folder / "replaced")
            os.replace(temporary, path)
            sync_folder(path.parent)
            for made in new_folders:
                sync_folder(made.parent)
            WRITTEN[os.path.abspath(path)] = None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Wait until the names in a folder are on the disk, if the file system supports it."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _sync_all(path: Path) -> None:
    """Wait until a file, or a folder with all its contents, is on the disk."""
    if not path.is_dir():
        _sync(path)
        return
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            _sync(os.path.join(folder, name))
        sync_folder(folder)


def _sync(path: str | os.PathLike[str]) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def remove_remains(path: str | os.PathLike[str]) -> None:
    """Remove what killed processes left of an output that they were writing, and nothing else."""
    path = Path(path)
    prefix = f".{path.name[:80]}."
    for rest in path.parent.glob(f"{_escaped(prefix)}*/{_LOCK}"):
        folder = rest.parent
        if not _RANDOM.fullmatch(folder.name[len(prefix) :]) or folder.is_symlink() or rest.is_symlink():
            continue
        with suppress(OSError), rest.open("r+b") as lock:
            if all(map(_PARTS.fullmatch, os.listdir(folder))) and _try_lock(lock.fileno()):
                shutil.rmtree(folder, ignore_errors=True)


def _escaped(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def _try_lock(number: int) -> bool:
    """Lock an open file; on file systems without locks, no folder is treated as abandoned."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Convert errors caused by a full disk to one that names the file; pass on other errors."""
    try:
        yield
    except Exception as error:
        if isinstance(error, FullDiskError) or not _is_full(error, path):
            raise
        text = "found no space left on the disk, expected room for the file; free some space and run the command again"
        raise FullDiskError(errno.ENOSPC, text, str(path)) from error


def _is_full(error: BaseException, path: Path) -> bool:
    """Return whether an error or its cause means a full disk; libraries report it by different errors and texts."""
    return any(
        getattr(link, "errno", None) in _FULL
        or "No space left" in str(link)
        or "errno = 28" in str(link)
        or (any(word in str(link) for word in _TORCH) and _no_room(path))
        for link in causes(error)
    )


def _no_room(path: Path) -> bool:
    return shutil.disk_usage(path.parent).free < 2**20
