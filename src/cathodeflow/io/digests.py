"""Digests of files and of the contents of JSON files."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import Any

from cathodeflow.io.atomic import WRITTEN

#: Files from this size on are hashed once, and again when size, time of change or inode differ.
REMEMBERED_BYTES = 2**20
#: A file that was changed so little ago [s] may change again within the resolution of its time.
SETTLED_S = 2.0
_DATASET = "::"


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, for a large file that has not changed without reading it again.

    What was found is kept by place, size, time of change and inode in `$XDG_CACHE_HOME/cathodeflow/digests`.
    """
    status = os.stat(path)
    if status.st_size < REMEMBERED_BYTES or time.time() - max(status.st_mtime, status.st_ctime) < SETTLED_S:
        return file_digest(path)
    facts = [os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    key = content_digest({"file": facts})
    note = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "cathodeflow", "digests", key[:2], key)
    with suppress(OSError, ValueError):
        known = note.read_text(encoding="ascii")
        if len(known) == 64 and int(known, 16) >= 0:
            return known
    digest = file_digest(path)
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False, encoding="ascii") as file:
            file.write(digest)
        os.replace(file.name, note)
    return digest


def input_digests(paths: Iterable[str | os.PathLike[str]]) -> dict[str, str | None]:
    """Return the digests of what a job read, by path.

    The digest of a store is that of its manifest, of another folder or a glob pattern that of the names and digests of
    all files in it, of `file.h5::/data` that of the file. None stands for what is not there, such as an address.
    """
    return {os.fspath(path): _input_digest(os.fspath(path).split(_DATASET)[0]) for path in paths}


def _input_digest(path: str) -> str | None:
    manifest = f"{path.rstrip('/')}.manifest.json"
    if os.path.isfile(path):
        return remembered_digest(path)
    if os.path.isfile(manifest):
        return file_digest(manifest)
    found = Path(path).rglob("*") if os.path.isdir(path) else map(Path, glob(path, recursive=True))
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
    """Return the digests of all files in a folder, and below it, that this process wrote; of stores, of the manifests.

    Returns
    -------
    dict of str to str
        By path relative to the folder.
    """
    base = Path(os.path.abspath(folder))
    inside = [path for path in map(Path, WRITTEN) if path.is_relative_to(base) and path.is_file()]
    return {path.relative_to(base).as_posix(): file_digest(path) for path in sorted(inside)}
