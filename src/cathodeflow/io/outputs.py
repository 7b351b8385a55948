"""What an output may replace: a regular file, or a store that is known to be ours. Nothing else is ever lost.

A link is refused, not followed: what it leads to, such as raw data that somebody linked into a folder, has another
place and often another owner. Links among the folders above an output are followed, as by any program.
"""

import glob
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from cathodeflow.errors import InputError, InputErrors

_Path = str | os.PathLike[str]
IsOurs = Callable[[str], bool]
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def require_replaceable(path: _Path, *, is_ours: IsOurs | None = None) -> None:
    """Refuse to write an output where something else would be lost; a name that is not taken is fine.

    Parameters
    ----------
    path : path
        Of the output.
    is_ours : callable, optional
        Of a store, which is a folder: whether a folder in its place was written by us and holds nothing else. By
        default the output is a file.

    Raises
    ------
    InputError
        There is a link, a device, or a folder or file that the output must not replace, or no folder to write into.
    """
    where = os.path.normpath(path)
    try:
        mode = os.lstat(where).st_mode
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise InputError(where, "a file among the folders above it", "a place in a folder") from None
    if stat.S_ISLNK(mode):
        expected = "the path that it leads to, or another name: outputs do not replace links"
        raise InputError(where, f"a symbolic link to {os.readlink(where)}", expected)
    if is_ours is None and not stat.S_ISREG(mode):
        expected = "a new name, or a file to replace: outputs replace nothing else"
        raise InputError(where, next((name for is_kind, name in _KINDS if is_kind(mode)), "no file"), expected)
    if is_ours is not None and not (stat.S_ISDIR(mode) and is_ours(where)):
        found = "a folder with other content" if stat.S_ISDIR(mode) else "no folder"
        raise InputError(where, found, "a new name, or a store that Cathodeflow wrote, to replace it")


def require_outputs(
    *, files: Iterable[str], stores: Iterable[str], folders: Iterable[str], inputs: Iterable[str], is_ours: IsOurs
) -> None:
    """Check all outputs of a stage before it computes anything.

    Parameters
    ----------
    files, stores, folders : iterable of str
        What it writes; a folder is one that files are written into.
    inputs : iterable of str
        What it reads: files, stores, folders, patterns.
    is_ours : callable
        As of `require_replaceable`, for the stores.

    Raises
    ------
    InputError
        A line for everything that would be lost, for an output that is also an input or inside a store, and for a name
        given twice.
    """
    errors: list[InputError] = []
    files, stores = list(files), list(stores)
    taken: set[str] = set()
    # Raw folders may hold 100,000 files, which need not be looked at where no output exists yet.
    sources = inputs if any(map(os.path.lexists, (*files, *stores))) else ()
    read = {os.path.realpath(path) for source in sources for path in _listed(source)}
    for path in (*files, *stores):
        try:
            require_replaceable(path, is_ours=is_ours if path in stores else None)
        except InputError as error:
            errors += error.errors
            continue
        place = os.path.realpath(path)
        above = [str(folder) for folder in Path(place).parents]
        if any(store in above for store in map(os.path.realpath, stores)) or any(map(_is_store, above)):
            errors.append(InputError(path, "a place inside a Zarr store", "a place beside it"))
        if place in read:
            errors.append(InputError(path, "an input of the same command", "another name for the output"))
        if place in taken:
            errors.append(InputError(path, "two outputs of this name", "a name for each output"))
        taken.add(place)
    for path in folders:
        if os.path.lexists(path) and not os.path.isdir(path):
            errors.append(InputError(path, "something else than a folder", "a folder for the outputs, or a new name"))
    if errors:
        raise InputErrors.of(errors)


def _is_store(folder: str) -> bool:
    return any(os.path.isfile(os.path.join(folder, name)) for name in ("zarr.json", ".zgroup", ".zarray"))


def remove_output(path: _Path) -> None:
    """Remove a file, or a store with all that is in it."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def _listed(source: str) -> list[str]:
    """Files and stores that a source stands for; an address stands for none here."""
    from cathodeflow.io.sources import is_remote, list_files, split_source  # `--help` has no time for natsort

    pattern, _ = split_source(source)
    if is_remote(pattern):
        return []
    found = [pattern, *glob.glob(pattern, recursive=True)]
    with suppress(InputError):  # what is wrong with an input, its reader says
        found += list_files(source)
    return found
