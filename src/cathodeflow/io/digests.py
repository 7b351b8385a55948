"""Digests of files and of the contents of JSON files."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from cathodeflow.io.atomic import WRITTEN
from cathodeflow.io.sources import matching

#: Minimum size of files whose digests are cached; they are hashed again if size, time of change or inode differ.
REMEMBERED_BYTES = 2**20
#: A file that was changed so little ago [s] may change again within the resolution of its time.
SETTLED_S = 2.0
_DATASET = "::"


class Facts(NamedTuple):
    """What the system says of a file without reading it.

    A program can set the time of a file's content (`mtime_ns`) to what it was, as `cp -p`, `rsync -t` and `tar` do. The
    time of its last change of any kind (`ctime_ns`) it cannot set, and a file in another's place has another inode.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> "Facts":
        """Ask the system; links are followed."""
        status = os.stat(path)
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    @property
    def settled(self) -> bool:
        """Whether the last change is so long ago that another one would have another time."""
        return time.time() - max(self.mtime_ns, self.ctime_ns) / 1e9 >= SETTLED_S


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, without reading a large file again if it has not changed.

    Digests are cached by path, size, time of change and inode in `$XDG_CACHE_HOME/cathodeflow/digests`.
    """
    facts = Facts.of(path)
    if facts.size < REMEMBERED_BYTES or not facts.settled:
        return file_digest(path)
    key = content_digest({"file": [os.path.realpath(path), *facts]})
    note = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "cathodeflow", "digests", key[:2], key)
    with suppress(OSError, ValueError):
        known = note.read_text(encoding="ascii")
        if is_digest(known):
            return known
    digest = file_digest(path)
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False, encoding="ascii") as file:
            file.write(digest)
        os.replace(file.name, note)
    return digest


def is_digest(value: Any) -> bool:
    """Whether a value is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def input_digests(paths: Iterable[str | os.PathLike[str]]) -> dict[str, str | None]:
    """Return the digests of the inputs of a job, by path.

    The digest of a store is that of its manifest; of another folder or a glob pattern that of the names and digests of
    all its files; of `file.h5::/data` that of the file. None means that there is no file, as for an address.
    """
    return {os.fspath(path): _input_digest(os.fspath(path).split(_DATASET)[0]) for path in paths}


def _input_digest(path: str) -> str | None:
    manifest = f"{path.rstrip('/')}.manifest.json"
    if os.path.isfile(path):
        return remembered_digest(path)
    if os.path.isfile(manifest):
        return file_digest(manifest)
    found = Path(path).rglob("*") if os.path.isdir(path) else map(Path, matching(path))
    files = {file.as_posix(): remembered_digest(file) for file in sorted(found) if file.is_file()}
    return content_digest(files) if files else None


def content_digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON content; the order of keys does not matter.

    Examples
    --------
    >>> content_digest({"a": 1, "b": 2}) == content_digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def written_digests(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Return the digests of all files that this process wrote; of stores, of the manifests.

    Returns
    -------
    dict of str to str
        By path relative to the folder, such as `peaks.h5`, or `../tables/peaks.h5` where a file lies elsewhere.
    """
    return {name: file_digest(path) for path, name in sorted(_relative(folder).items()) if path.is_file()}


def _relative(folder: str | os.PathLike[str]) -> dict[Path, str]:
    base = Path(os.path.abspath(folder))
    # `..` leads to the folder above where a link leads, so that links are resolved first.
    return {
        path: path.relative_to(base).as_posix()
        if path.is_relative_to(base)
        else Path(os.path.relpath(path.resolve(), base.resolve())).as_posix()
        for path in map(Path, WRITTEN)
    }
