"""Digests of files, and what a finished folder of results must hold by its records and manifests."""

import hashlib
import os


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
