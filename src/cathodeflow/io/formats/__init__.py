"""Raw formats, one module each: a new module here with a `FORMAT` is a new format (docs/formats.md).

The modules are light to import, as the workflow asks for suffixes while it is being read: libraries are imported by the
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

Content = Literal["frames", "micrograph"]
_WANTED = {"frames": "a file of frames", "micrograph": "an image"}
_HEAD = 16


@cache
def formats() -> tuple[RawFormat, ...]:
    """Return all formats, in the order of their modules' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(importlib.import_module(f"{__name__}.{name}").FORMAT for name in names)


def formats_of(content: Content) -> list[RawFormat]:
    """Return the formats that hold detector frames, or micrographs."""
    return [one for one in formats() if getattr(one, content) is not None]


def named(name: str) -> RawFormat:
    """Return the format of a name."""
    return next(one for one in formats() if one.name == name)


def micrograph_suffixes() -> tuple[str, ...]:
    """Return the suffixes of files that may be micrographs.

    Examples
    --------
    >>> {".jpg", ".tif", ".dm3"} <= set(micrograph_suffixes())
    True
    """
    return tuple(suffix for one in formats_of("micrograph") for suffix in one.suffixes)


def detect_format(path: str, content: Content) -> RawFormat:
    """Recognise a file's format by its first bytes, or else by its suffix where that is enough.

    Parameters
    ----------
    path : str
    content : {"frames", "micrograph"}
        What is wanted from the file; formats without it are left out.

    Raises
    ------
    InputError
        The file cannot be read, is empty, of no known format, or its content is not what its suffix says.
    """
    wanted = _WANTED[content]
    if not os.path.isfile(path):
        raise InputError(path, "a folder" if os.path.isdir(path) else "no such file", wanted)
    with guarded(path, "a readable file"), open(path, "rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise InputError(path, "an empty file", wanted)
    known = formats_of(content)
    for one in known:
        if head.startswith(one.magic):
            return one
    stem = path.lower().removesuffix(".gz").removesuffix(".bz2")
    for one in known:
        if one.by_suffix and stem.endswith(one.suffixes):
            return one
    claimed = next((one for one in known if path.lower().endswith(one.suffixes)), None)
    fallback = next((one for one in known if one.fallback), None)
    if claimed is None and fallback is not None:
        return fallback
    found = "text" if all(31 < byte < 127 or byte in b"\t\r\n" for byte in head) else "unknown content"
    names = [one.name for one in known if one.magic]
    expected = f"{claimed.name} content, as the suffix says" if claimed else f"{', '.join(names[:-1])} or {names[-1]}"
    raise InputError(path, found, expected)
