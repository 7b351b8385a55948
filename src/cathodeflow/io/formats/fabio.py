"""All other detector formats that fabio reads, such as EDF, GE, MarCCD and ADSC."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cathodeflow.errors import InputError
from cathodeflow.io.decoder_process import isolated
from cathodeflow.io.formats.cbf import MAGIC, unpacked
from cathodeflow.io.guard import require_inside
from cathodeflow.io.raw_format import FrameHeader, FrameReader, RawFormat

if TYPE_CHECKING:
    import fabio.fabioimage
    from numpy.typing import NDArray

_HEAD = 16
# Its warnings are harmless, or the same problem is raised as an InputError.
logging.getLogger("fabio").setLevel(logging.CRITICAL)


def _header(path: str, dataset: str | None) -> FrameHeader:
    import fabio
    import numpy as np

    if os.path.splitext(path)[1].lower() in (".gz", ".bz2") and unpacked(path, len(MAGIC)) == MAGIC:
        raise InputError(path, "a compressed CBF file", "the suffix .cbf before that of its compression")
    # Some readers of fabio know shape and type from the header, the others only from the first frame.
    image = fabio.openheader(path)
    dtype = getattr(image, "_dtype", None) or _dtype_of(image)
    if dtype is None or not image.shape:
        image.close()
        image = fabio.open(path)
        dtype = _dtype_of(image)
    with image:
        if len(image.shape) != 2:
            raise InputError(path, f"an image of shape {image.shape}", "grey frames (one value per pixel)")
        size, end = os.path.getsize(path), _data_end(image)
        if end > size and os.path.splitext(path)[1].lower() not in (".gz", ".bz2"):
            raise InputError(path, f"a truncated file of {size} bytes", f"at least {end} bytes")
        return FrameHeader(image.nframes, tuple(image.shape), np.dtype(dtype))


def _dtype_of(image: fabio.fabioimage.FabioImage) -> Any:
    import numpy as np

    try:
        return np.dtype(image.dtype)
    except AttributeError:  # no frame was read yet
        return None


def _data_end(image: fabio.fabioimage.FabioImage) -> int:
    """Where the data end by the header; fabio itself fills up with zeros what a truncated EDF lacks."""
    from fabio.edfimage import EdfImage

    if isinstance(image, EdfImage):
        last = image.get_frame(image.nframes - 1)
        for number in range(image.nframes):
            if name := image.get_frame(number).bfname:
                require_inside(image.filename, name, os.path.dirname(os.path.abspath(image.filename)))
        return int(last.start) + int(last.blobsize) if last.bfname is None else 0
    return 0


def _read(path: str, header: FrameHeader, indices: range) -> Iterator[NDArray[Any]]:
    import fabio

    with fabio.open(path) as image:
        for index in indices:
            # A copy, because frames of an EDF keep their pixels once they were read.
            frame = copy.copy(image.get_frame(index))
            pixels = frame.data
            if getattr(frame, "incomplete_data", False):
                raise InputError(f"{path}, frame {index}", "a truncated frame", "a complete frame")
            yield pixels


def _trusted(path: str) -> bool:
    """Whether a file is an EDF by its first bytes, of which fabio's reader alone is fast and was never seen to hang."""
    with open(path, "rb") as file:
        head = file.read(_HEAD).lstrip(b"\r\n")
    return head.startswith(b"{") and not head.startswith(b"{\nHEADER_BYTES")


FORMAT = RawFormat(name="fabio", fallback=True, frames=isolated(FrameReader(_header, _read), _trusted))
