"""What an output may replace: a regular file, or a store that is known to be ours. Nothing else is ever lost.

A link is refused, not followed: what it leads to, such as raw data that somebody linked into a folder, has another
place and often another owner. Links among the folders above an output are followed, as by any program.
"""

import os
import shutil
import stat
from collections.abc import Callable

from cathodeflow.errors import InputError

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


def remove_output(path: _Path) -> None:
    """Remove a file, or a store with all that is in it."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.remove(path)
