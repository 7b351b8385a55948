"""NRRD, with the data in the same file or in one of their own: volumes with voxel size."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cathodeflow.errors import InputError
from cathodeflow.io.raw_format import DataPart, RawFormat, VolumeHeader, VolumeReader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_COMPRESSION = {"raw": "", "gzip": "gzip", "gz": "gzip"}
# Kinds of axes that are not of space (http://teem.sourceforge.net/nrrd/format.html#kinds).
_KINDS = {"time": "t", "list": "q", "vector": "c", "rgb-color": "s", "rgba-color": "s", "point": "c", "scalar": "c"}


# Types and their other names (http://teem.sourceforge.net/nrrd/format.html#type).
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}


def _dtype(path: str, header: Any) -> np.dtype[Any]:
    import numpy as np

    kind = next((code for code, names in _TYPES.items() if str(header["type"]).lower() in names), None)
    if kind is None:
        raise InputError(path, f"the type {header['type']}", "integers or floats")
    return np.dtype((">" if str(header.get("endian", "little")).lower() == "big" else "<") + kind)


def _header(path: str, dataset: str | None) -> VolumeHeader:
    import nrrd

    from cathodeflow.io.plane_files import require_size
    from cathodeflow.io.voxel_sizes import stated_voxel

    with open(path, "rb") as file:
        header = nrrd.read_header(file)
        offset = file.tell()
    encoding = str(header["encoding"]).lower()
    if encoding not in _COMPRESSION:
        raise InputError(path, f"the encoding {encoding}", "raw or gzip; save it so")
    data = path
    if (named := header.get("data file") or header.get("datafile")) is not None:
        data, offset = _linked_file(path, str(named)), 0
    if header.get("line skip") or header.get("byte skip"):
        offset = _skipped(path, data, header, offset)
    shape = tuple(int(length) for length in reversed(header["sizes"]))
    kinds = [str(kind).lower() for kind in header.get("kinds", [])] or ["domain"] * len(shape)
    axes, space = "", iter("xyz")
    for kind in kinds:
        axes += _KINDS.get(kind) or next(space, "q")
    steps = dict(zip(axes, _steps(header, len(shape)), strict=False))
    units = [str(unit) for unit in header.get("space units", header.get("units", []))]
    dtype = _dtype(path, header)
    found = VolumeHeader(
        shape, dtype, axes[::-1],
        stated_voxel([steps.get(axis) for axis in "zyx"], units[0] if units else None, "NRRD header", convention="mm"),
        data=DataPart(data, offset, _COMPRESSION[encoding]),
    )  # fmt: skip
    require_size(path, found)
    return found


def _steps(header: Any, n_axes: int) -> list[float]:
    """Distances of voxels along all axes, as stored; NaN where there is none."""
    import numpy as np

    if "space directions" in header:
        rows = [np.full(3, np.nan) if row is None else np.asarray(row, float) for row in header["space directions"]]
        return [float(np.linalg.norm(row)) for row in rows]
    return [float(step) for step in header.get("spacings", [np.nan] * n_axes)]


def _skipped(path: str, data: str, header: Any, offset: int) -> int:
    """First byte of the data after the lines and bytes to skip; -1 means that the data are at the end."""
    lines, skip = int(header.get("line skip", 0)), int(header.get("byte skip", 0))
    if str(header["encoding"]).lower() != "raw":
        raise InputError(path, "lines or bytes to skip in compressed data", "none")
    if skip < 0:
        n_bytes = math.prod(int(length) for length in header["sizes"]) * _dtype(path, header).itemsize
        return os.path.getsize(data) - n_bytes
    with open(data, "rb") as file:
        file.seek(offset)
        for _ in range(lines):
            file.readline()
        return file.tell() + skip


def _linked_file(path: str, name: str) -> str:
    from cathodeflow.io.guard import require_inside

    if name.upper().startswith("LIST") or "%" in name:
        raise InputError(path, "data in several files", "one data file")
    return require_inside(path, name, os.path.dirname(os.path.abspath(path)))


def _linked(path: str) -> list[str]:
    """Return the data file of a header that is a file of its own."""
    with open(path, "rb") as file:
        for line in file.read(2**16).split(b"\n\n")[0].decode("ascii", "replace").splitlines():
            name, colon, value = line.partition(":")
            if colon and name.strip().lower() in ("data file", "datafile"):
                return [_linked_file(path, value.strip())]
    return []


def _read(path: str, header: VolumeHeader, indices: Iterable[tuple[int | slice, ...]]) -> Iterator[NDArray[Any]]:
    from cathodeflow.io.plane_files import read_parts

    return read_parts(path, header, indices)


FORMAT = RawFormat(
    name="NRRD", magic=(b"NRRD0",), suffixes=(".nrrd", ".nhdr"), volume=VolumeReader(_header, _read, _linked)
)
