"""Raw formats, one module each: a new module with a `FORMAT` is a new format (docs/formats.md).

The modules are light to import, as the workflow needs their suffixes while it is parsed: libraries are imported by the
functions that need them.
"""

import importlib
import os
import pkgutil
from functools import cache
from typing import Literal

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded
from cathodeflow.io.raw_format import RawFormat

Content = Literal["frames", "micrograph", "slices"]
_WANTED = {"frames": "a file of frames", "micrograph": "an image", "slices": "a file of slices"}
_HEAD = 16


@cache
def formats() -> tuple[RawFormat, ...]:
    """Return all formats, in the order of their modules' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(importlib.import_module(f"{__name__}.{name}").FORMAT for name in names)


def formats_of(content: Content) -> list[RawFormat]:
    """Return the formats for detector frames, for micrographs, or for slices, which all formats may hold."""
    if content == "slices":
        return list(formats())
    return [known for known in formats() if getattr(known, content) is not None]


def named(name: str) -> RawFormat:
    """Return the format of a name."""
    return next(known for known in formats() if known.name == name)


def micrograph_suffixes() -> tuple[str, ...]:
    """Return the suffixes of files that may be micrographs.

    Examples
    --------
    >>> {".jpg", ".tif", ".dm3"} <= set(micrograph_suffixes())
    True
    """
    return tuple(suffix for known in formats_of("micrograph") for suffix in known.suffixes)


def detect_format(path: str, content: Content) -> RawFormat:
    """Recognise the format of a file by its first bytes, or by its suffix if that is sufficient.

    Parameters
    ----------
    path : str
    content : {"frames", "micrograph", "slices"}
        Content to read from the file; formats without it are ignored.

    Raises
    ------
    InputError
        The file cannot be read, is empty or of unknown format, or does not match its suffix.
    """
    wanted = _WANTED[content]
    if not os.path.isfile(path):
        raise InputError(path, "a folder" if os.path.isdir(path) else "no such file", wanted)
    with guarded(path, "a readable file"), open(path, "rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise InputError(path, "an empty file", wanted)
    known = formats_of(content)
    for candidate in known:
        if head.startswith(candidate.magic):
            return candidate
    stem = path.lower().removesuffix(".gz").removesuffix(".bz2")
    for candidate in known:
        if candidate.by_suffix and stem.endswith(candidate.suffixes):
            return candidate
    claimed = next((candidate for candidate in known if path.lower().endswith(candidate.suffixes)), None)
    fallback = next((candidate for candidate in known if candidate.fallback), None)
    if claimed is None and fallback is not None:
        return fallback
    found = "text" if all(31 < byte < 127 or byte in b"\t\r\n" for byte in head) else "unknown content"
    names = [candidate.name for candidate in known if candidate.magic]
    expected = (
        f"{claimed.name} content, according to the suffix" if claimed else f"{', '.join(names[:-1])} or {names[-1]}"
    )
    raise InputError(path, found, expected)


def linked_data(path: str) -> list[str]:
    """List the files that hold the values of a header in a file of its own.

    Raises
    ------
    InputError
        The header cannot be read, or names a file outside its folder.
    """
    found = detect_format(path, "slices")
    if found.volume is None or found.volume.linked is None:
        return []
    with guarded(path, f"a readable {found.name} header"):
        return found.volume.linked(path)
