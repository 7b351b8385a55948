"""Digests of files and of the contents of JSON files."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cathodeflow.io.atomic import WRITTEN


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
