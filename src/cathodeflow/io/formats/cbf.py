"""CBF files as Pilatus and Eiger detectors write them (imgCIF: International Tables for Crystallography G, 2.3).

Fabio's own reader does not terminate if the binary section of a file is missing; only its decompression is used.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from cathodeflow.errors import InputError
from cathodeflow.io.guard import MAX_PIECE
from cathodeflow.io.raw_format import FrameConditions, FrameHeader, FrameReader, RawFormat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC = b"###CBF"
_SECTION, _START = b"--CIF-BINARY-FORMAT-SECTION--", b"\x0c\x1a\x04\xd5"
# The text before the binary section is shorter.
_HEADER_BYTES = 2**16
_PIECE = 16 * 2**20
_ELEMENT = re.compile(r'"?(signed|unsigned) (8|16|32|64)-bit integer"?')


class _Section(NamedTuple):
    """The binary section of a file: shape (row, col) and type of the image, compression, digest, bytes; file header."""

    shape: tuple[int, int]
    dtype: np.dtype
    packed: bool
    digest: str | None
    content: bytes
    header: str


def _read_section(path: str) -> _Section:
    """Read the binary section of a file, which may be compressed by gzip or bzip2 as a whole.

    Raises
    ------
    InputError
        There is no section with an image, or the file ends before the section does.
    """
    import numpy as np

    data = unpacked(path)
    begin = data.find(_SECTION)
    start = data.find(_START, begin)
    if begin < 0 or start < 0:
        raise InputError(path, "no binary section", "a CBF file with an image")
    lines = data[begin:start].decode("latin-1").replace(";", "\n").splitlines()
    found = (re.split(r"[:=]", line, maxsplit=1) for line in lines)
    fields = {pair[0].strip(): pair[1].strip(' "\t') for pair in found if len(pair) == 2}
    names = ("X-Binary-Size-Second-Dimension", "X-Binary-Size-Fastest-Dimension", "X-Binary-Size")
    missing = [name for name in names if not fields.get(name, "").isdigit()]
    if missing:
        raise InputError(path, f"no {missing[0]}", "a number in the header of the binary section")
    rows, cols, size = (int(fields[name]) for name in names)
    element = _ELEMENT.fullmatch(fields.get("X-Binary-Element-Type", ""))
    if element is None or fields.get("X-Binary-Element-Byte-Order", "LITTLE_ENDIAN") != "LITTLE_ENDIAN":
        raise InputError(path, f"values of type {fields.get('X-Binary-Element-Type')}", "little-endian integers")
    content = data[start + len(_START) : start + len(_START) + size]
    if len(content) < size:
        end = start + len(_START) + size
        raise InputError(path, f"a truncated file of {len(data)} bytes", f"at least {end} bytes")
    dtype = np.dtype(f"{'u' if element[1] == 'unsigned' else ''}int{element[2]}")
    packed = fields.get("conversions") == "x-CBF_BYTE_OFFSET"
    if not packed and "conversions" in fields and fields["conversions"] != "x-CBF_NONE":
        raise InputError(path, f"compression {fields['conversions']}", "x-CBF_BYTE_OFFSET or none")
    return _Section((rows, cols), dtype, packed, fields.get("Content-MD5"), content, data[:begin].decode("latin-1"))


def _decode(path: str, section: _Section) -> NDArray[np.generic]:
    """Return the image (row, col) of a section whose size was looked at.

    Raises
    ------
    InputError
        The digest in the file is another, or the section has too few pixels.
    """
    import numpy as np
    from fabio.compression import decByteOffset

    rows, cols = section.shape
    digest = base64.b64encode(hashlib.md5(section.content, usedforsecurity=False).digest()).decode()
    if section.digest and section.digest != digest:
        raise InputError(path, f"pixels of MD5 {digest}", section.digest)
    if section.packed:
        # In 64 bits for all widths: a step from end to end of 32 bits needs more. Some writers let it overflow:
        # the conversion to the type of the image undoes that.
        pixels = np.asarray(decByteOffset(section.content, size=rows * cols, dtype="int64"))
    else:
        pixels = np.frombuffer(section.content, section.dtype.newbyteorder("<"))
    if pixels.size != rows * cols:
        raise InputError(path, f"{pixels.size} pixels", f"{rows} x {cols}")
    return pixels.reshape(rows, cols).astype(section.dtype)


def unpacked(path: str, n_bytes: int | None = None) -> bytes:
    """Read a file, or its first bytes, by gzip or bzip2 if its suffix says so, unless that would fill the memory.

    Raises
    ------
    InputError
        More than `MAX_PIECE` bytes.
    """
    suffix = os.path.splitext(path)[1].lower()
    opener: Any = {".gz": gzip.open, ".bz2": bz2.open}.get(suffix, open)
    data = bytearray()
    with opener(path, "rb") as file:
        if n_bytes is not None:
            return file.read(n_bytes)
        # Piece by piece: Python takes all the memory that one `read` may need before it reads.
        while piece := file.read(_PIECE):
            data += piece
            if len(data) > MAX_PIECE:
                raise InputError(path, f"more than {MAX_PIECE} bytes when unpacked", "a smaller file")
    return bytes(data)


def _header(path: str, dataset: str | None) -> FrameHeader:
    from cathodeflow.io.invalid_pixels import text_limits

    section = _read_section(path)
    return FrameHeader(1, section.shape, section.dtype, limits=text_limits(section.header))


def _read(path: str, header: FrameHeader, indices: range) -> Iterator[NDArray[Any]]:
    yield _decode(path, _read_section(path))


def _conditions(path: str, header: FrameHeader, omega_name: str | None) -> FrameConditions:
    import numpy as np

    from cathodeflow.io.header_text import conditions_of, text_fields

    data = unpacked(path, _HEADER_BYTES)
    end = data.find(_SECTION)
    fields = text_fields(data[: end if end >= 0 else len(data)].decode("latin-1"))
    omega, energy = conditions_of(fields, omega_name)
    return FrameConditions(np.array([omega]), np.array([energy]))


FORMAT = RawFormat(
    name="CBF",
    magic=(MAGIC,),
    suffixes=(".cbf",),
    by_suffix=True,
    frames=FrameReader(_header, _read, conditions=_conditions),
)
