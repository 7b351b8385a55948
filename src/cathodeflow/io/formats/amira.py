"""Amira and Avizo mesh files (.am) with one uniform lattice: volumes with voxel size.

The text header names the lattice and its type; the data follow a line `@1`, plain, as zlib or as run lengths
(HxByteRLE).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cathodeflow.errors import InputError
from cathodeflow.io.raw_format import DataPart, RawFormat, VolumeHeader, VolumeReader

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TYPES = {"byte": "u1", "short": "i2", "ushort": "u2", "int": "i4", "int32": "i4", "float": "f4", "double": "f8"}
_MAX_HEADER = 2**20
_DATA = re.compile(rb"\n@1\r?\n")


def _header(path: str, dataset: str | None) -> VolumeHeader:
    import numpy as np

    from cathodeflow.io.plane_files import require_size
    from cathodeflow.io.voxel_sizes import stated_voxel

    with open(path, "rb") as file:
        head = file.read(_MAX_HEADER)
    data = _DATA.search(head)
    if data is None:
        raise InputError(path, "no data section @1", "an Amira mesh with one lattice")
    text = head[: data.start()].decode("utf-8", "replace")
    first = text.splitlines()[0].upper()
    if "BINARY" not in first:
        raise InputError(path, first, "a binary Amira mesh")
    lattice = re.search(r"define\s+Lattice\s+(\d+)\s+(\d+)\s+(\d+)", text)
    field = re.search(r"Lattice\s*\{\s*(\w+)(\[\d+\])?\s+\w+\s*\}\s*(?:=\s*)?@1(?:\((\w+)(?:,\s*\d+)?\))?", text)
    if lattice is None or field is None:
        raise InputError(path, "no lattice in the header", "an Amira mesh with one lattice of numbers")
    if field[1] not in _TYPES or field[2]:
        raise InputError(path, f"values of type {field[1]}{field[2] or ''}", "one of " + ", ".join(_TYPES))
    if field[3] not in (None, "HxZip"):
        raise InputError(path, f"data compressed as {field[3]}", "no compression, or HxZip; save it so")
    cols, rows, slices = (int(lattice[number]) for number in (1, 2, 3))
    order = "<" if "LITTLE" in first else ">"
    box = re.search(r"BoundingBox\s+" + r"\s+".join([r"([-+.\deE]+)"] * 6), text)
    steps: list[float | None] = [None] * 3
    if box is not None:
        # From the centre of the first voxel to that of the last one.
        low_high = [float(box[number]) for number in range(1, 7)]
        counts = (cols, rows, slices)
        steps = [
            (low_high[2 * k + 1] - low_high[2 * k]) / (count - 1) if count > 1 else None
            for k, count in enumerate(counts)
        ]
    unit = re.search(r'Units\s*\{[^}]*Coordinates\s+"([^"]+)"', text)
    found = VolumeHeader(
        (slices, rows, cols), np.dtype(order + _TYPES[field[1]]), "zyx",
        stated_voxel(steps[::-1], unit[1] if unit else None, "bounding box of the Amira header"),
        data=DataPart(path, data.end(), "zlib" if field[3] else ""),
    )  # fmt: skip
    require_size(path, found)
    return found


def _read(path: str, header: VolumeHeader, indices: Iterable[tuple[int | slice, ...]]) -> Iterator[NDArray[Any]]:
    from cathodeflow.io.plane_files import read_parts

    return read_parts(path, header, indices)


FORMAT = RawFormat(
    name="Amira mesh",
    magic=(b"# AmiraMesh", b"# Avizo"),
    suffixes=(".am",),
    volume=VolumeReader(_header, _read),
)
