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
from cathodeflow.io.raw_format import CountLimits, FrameConditions, FrameHeader, FrameReader, RawFormat

if TYPE_CHECKING:
    import fabio.fabioimage
    from fabio.edfimage import EdfImage
    from numpy.typing import NDArray

_HEAD = 16
# First value that is saturated.
_SATURATED = ("CCD_IMAGE_SATURATION", "SATURATED_VALUE", "saturated_value")
# Its warnings are harmless, or the same problem is raised as an InputError.
logging.getLogger("fabio").setLevel(logging.CRITICAL)


def _header(path: str, dataset: str | None) -> FrameHeader:
    import fabio
    import numpy as np
    from fabio.edfimage import EdfImage

    from cathodeflow.io.edf import find_ge_stack, mend_fabio

    if os.path.splitext(path)[1].lower() in (".gz", ".bz2") and unpacked(path, len(MAGIC)) == MAGIC:
        raise InputError(path, "a compressed CBF file", "the suffix .cbf before that of its compression")
    if (stack := find_ge_stack(path)) is not None:
        return FrameHeader(stack.n_frames, stack.shape, stack.dtype)
    mend_fabio()
    # Some readers of fabio read shape and type from the header, others only from the first frame.
    image = fabio.openheader(path)
    dtype = getattr(image, "_dtype", None) or _dtype_of(image)
    if dtype is None or not image.shape:
        image.close()
        image = fabio.open(path)
        dtype = _dtype_of(image)
    with image:
        if len(image.shape) != 2:
            raise InputError(path, f"an image of shape {image.shape}", "grey frames (one value per pixel)")
        if isinstance(image, EdfImage):
            _require_sizes(path, image)
        return FrameHeader(image.nframes, tuple(image.shape), np.dtype(dtype), limits=_limits(image.header))


def _dtype_of(image: fabio.fabioimage.FabioImage) -> Any:
    import numpy as np

    try:
        return np.dtype(image.dtype)
    except AttributeError:  # no frame was read yet
        return None


def _require_sizes(path: str, image: EdfImage) -> None:
    """Require that the frames of an EDF file are as long as their headers say, and fill the file.

    Fabio itself fills up with zeros what is lacking, and leaves out frames that it does not find.

    Raises
    ------
    InputError
        A frame is shorter than its pixels need, lies in a file outside the folder, or the file is shorter or longer.
    """
    from cathodeflow.io.edf import PADDING, bytes_of

    folder = os.path.dirname(os.path.abspath(path))
    frames = [image.get_frame(number) for number in range(image.nframes)]
    for number, frame in enumerate(frames):
        if frame.bfname is not None:
            require_inside(path, frame.bfname, folder)
        elif frame._data_compression is None and not 0 <= frame.blobsize - bytes_of(frame) < PADDING:
            found = f"{frame.blobsize} bytes of pixels by its header"
            raise InputError(f"{path}, frame {number}", found, f"{bytes_of(frame)} bytes for {frame.shape} pixels")
    images = str(image.header.get("Num_Images", "")).strip()
    if images.isdigit() and int(images) > len(frames):
        raise InputError(path, f"{len(frames)} frames, Num_Images = {images}", "all of them; unpack a compressed file")
    last = frames[-1]
    if last.bfname is not None or os.path.splitext(path)[1].lower() in (".gz", ".bz2"):
        return
    size, end = os.path.getsize(path), int(last.start) + int(last.blobsize)
    if end > size:
        raise InputError(path, f"a truncated file of {size} bytes", f"at least {end} bytes")
    if size - end >= PADDING:
        raise InputError(path, f"{size - end} bytes after frame {len(frames) - 1}", f"a file of {end} bytes")


def _limits(header: dict[str, Any]) -> CountLimits:
    """Range of valid counts, as far as headers of ADSC, d*TREK, MarCCD and EDF name it."""
    from cathodeflow.io.edf import dummy_limits

    known = [_number(header.get(name)) for name in _SATURATED]
    highest = min((value - 1 for value in known if value > 1), default=None)
    return dummy_limits(header)._replace(highest=highest)


def _number(value: Any) -> float:
    try:
        return float(str(value).strip(" ;"))
    except ValueError:
        return 0.0


def _read(path: str, header: FrameHeader, indices: range) -> Iterator[NDArray[Any]]:
    import fabio

    from cathodeflow.io.edf import find_ge_stack, mend_fabio, read_ge_stack

    if (stack := find_ge_stack(path)) is not None:
        yield from read_ge_stack(path, stack, indices)
        return
    mend_fabio()
    with fabio.open(path) as image:
        for index in indices:
            # A copy, because the frames of an EDF file keep their pixels after reading.
            frame = copy.copy(image.get_frame(index))
            pixels = frame.data
            if getattr(frame, "incomplete_data", False):
                raise InputError(f"{path}, frame {index}", "a truncated frame", "a complete frame")
            yield pixels


def _conditions(path: str, header: FrameHeader, omega_name: str | None) -> FrameConditions:
    import fabio
    import numpy as np

    from cathodeflow.io.edf import find_ge_stack, mend_fabio
    from cathodeflow.io.header_text import conditions_of, motor_fields

    if find_ge_stack(path) is not None:
        return FrameConditions(*np.full((2, header.n_frames), np.nan))
    mend_fabio()
    with fabio.openheader(path) as image:
        headers = (
            [image.header]
            if header.n_frames == 1
            else [image.get_frame(index).header for index in range(header.n_frames)]
        )
    return FrameConditions(*np.array([conditions_of(motor_fields(fields), omega_name) for fields in headers]).T)


def _trusted(path: str) -> bool:
    """Whether a file is an EDF by its first bytes, of which fabio's reader alone is fast and was never seen to hang."""
    with open(path, "rb") as file:
        head = file.read(_HEAD).lstrip(b"\r\n")
    return head.startswith(b"{") and not head.startswith(b"{\nHEADER_BYTES")


FORMAT = RawFormat(
    name="fabio", fallback=True, frames=isolated(FrameReader(_header, _read, conditions=_conditions), _trusted)
)
