"""MetaImage (MHD with raw data, and MHA): volumes with voxel size.

The header has a line `name = value` each (https://itk.org/Wiki/MetaIO/Documentation).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cathodeflow.errors import InputError
from cathodeflow.io.raw_format import DataPart, RawFormat, VolumeHeader, VolumeReader

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_MAX_HEADER = 2**16


def _fields(path: str) -> tuple[dict[str, str], int]:
    """Lines of the header by name, and the first byte after them; the line of the data file is the last."""
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        while file.tell() < _MAX_HEADER and (line := file.readline(_MAX_HEADER)):
            name, equals, value = line.decode("utf-8", "replace").partition("=")
            if equals:
                fields[name.strip()] = value.strip()
            if name.strip() == "ElementDataFile":
                return fields, file.tell()
    raise InputError(path, "no line ElementDataFile", "a complete MetaImage header")


def _header(path: str, dataset: str | None) -> VolumeHeader:
    import numpy as np

    from cathodeflow.io.plane_files import require_size
    from cathodeflow.io.voxel_sizes import stated_voxel

    fields, end = _fields(path)
    missing = [name for name in ("DimSize", "ElementType") if name not in fields]
    if missing:
        raise InputError(path, f"no line {missing[0]}", "a complete MetaImage header")
    shape = tuple(int(length) for length in reversed(fields["DimSize"].split()))
    if not 2 <= len(shape) <= 4:
        raise InputError(path, f"{len(shape)} axes", "2 to 4 axes")
    if fields["ElementType"] not in _TYPES:
        raise InputError(path, f"the type {fields['ElementType']}", "one of " + ", ".join(_TYPES))
    if fields.get("BinaryData", "True").lower() != "true":
        raise InputError(path, "values written as text", "binary data (BinaryData = True)")
    big = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")).lower() == "true"
    dtype = np.dtype((">" if big else "<") + _TYPES[fields["ElementType"]])
    axes = "tzyx"[-len(shape) :]
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    if channels > 1:
        shape, axes = (*shape, channels), axes + ("s" if channels in (3, 4) and dtype.itemsize == 1 else "c")
    compressed = fields.get("CompressedData", "False").lower() == "true"
    steps = (fields.get("ElementSpacing") or fields.get("ElementSize") or "").split()
    size = {axis: float(step) for axis, step in zip("xyz", steps, strict=False)}
    data, offset = _data_file(path, fields["ElementDataFile"], end), int(fields.get("HeaderSize", "0"))
    local = data == path
    if offset < 0 and not compressed:
        offset = os.path.getsize(data) - int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    elif local:
        offset = end
    found = VolumeHeader(
        shape, dtype, axes,
        stated_voxel([size.get(axis) for axis in "zyx"], fields.get("ElementSpacingUnit"), "ElementSpacing of MHD",
                     convention="mm"),
        data=DataPart(data, offset, "zlib" if compressed else ""),
    )  # fmt: skip
    require_size(path, found)
    return found


def _data_file(path: str, name: str, end: int) -> str:
    from cathodeflow.io.guard import require_inside

    if name.upper() == "LOCAL":
        return path
    if name.upper().startswith("LIST") or "%" in name:
        raise InputError(path, "data in several files", "one data file")
    return require_inside(path, name, os.path.dirname(os.path.abspath(path)))


def _linked(path: str) -> list[str]:
    fields, end = _fields(path)
    data = _data_file(path, fields["ElementDataFile"], end)
    return [] if data == path else [data]


def _read(path: str, header: VolumeHeader, indices: Iterable[tuple[int | slice, ...]]) -> Iterator[NDArray[Any]]:
    from cathodeflow.io.plane_files import read_parts

    return read_parts(path, header, indices)


FORMAT = RawFormat(
    name="MetaImage", suffixes=(".mhd", ".mha"), by_suffix=True, volume=VolumeReader(_header, _read, _linked)
)
