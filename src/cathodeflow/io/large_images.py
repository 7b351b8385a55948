"""Images of more pixels than are read at once, such as stitched maps: parts of them are read from their TIFF files."""

import os
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.formats import detect_format
from cathodeflow.io.guard import MAX_PIXELS, guarded
from cathodeflow.io.micrographs import luminance, open_reader

_EXPECTED = "a complete TIFF image in tiles or strips"


def exceeds_memory(path: str, page: int | None = None) -> bool:
    """Return whether an image has more than `MAX_PIXELS` pixels, by its header; False of what cannot be read."""
    try:
        reader, _ = open_reader(path, page)
        with guarded(path, "a header"):
            header = reader.header(path)
            return int(header.rows) * int(header.cols) > MAX_PIXELS
    except InputError:
        return False


class LargeImage:
    """A grey or RGB image in a TIFF file, of which parts are read; to be used in a `with` block by one thread.

    Parameters
    ----------
    path : str
    page : int, optional
        Page of the file, from 0. Default: the largest.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns [px].
    dtype : np.dtype
        uint8 or uint16.

    Raises
    ------
    InputError
        The file is no TIFF file, its values are no integers of 8 or 16 bits, or its pixels are compressed in pieces
        that are too large to be read one by one.
    """

    def __init__(self, path: str, page: int | None = None) -> None:
        import tifffile  # slow to import

        self.path = path
        if detect_format(path, "micrograph").name != "TIFF":
            raise InputError(path, f"an image of more than {MAX_PIXELS} pixels", "it as TIFF, in tiles")
        with guarded(path, _EXPECTED):
            self._file = tifffile.TiffFile(path)
            pages = [page for page in self._file.pages if not getattr(page, "subfiletype", 0) & 5]
            largest = max(pages, key=lambda known: known.imagelength * known.imagewidth)
            self._page: Any = (largest if page is None else self._file.pages[page]).aspage()
            self._array = self._open()

    def _open(self) -> Any:
        import tifffile
        import zarr

        page = self._page
        self.shape, self.dtype = (int(page.imagelength), int(page.imagewidth)), page.dtype
        if (
            page.axes not in ("YX", "YXS")
            or page.dtype not in (np.uint8, np.uint16)
            or page.photometric not in (0, 1, 2)
        ):
            found = f"axes {page.axes}, type {page.dtype}, photometric {getattr(page.photometric, 'name', '?')}"
            raise InputError(self.path, found, "grey or RGB of 8 or 16 bits, as the image is read in parts")
        size = os.path.getsize(self.path)
        if any(at + n > size for at, n in zip(page.dataoffsets, page.databytecounts, strict=False)):
            raise InputError(self.path, f"a truncated file of {size} bytes", _EXPECTED)
        if page.is_memmappable:
            return tifffile.memmap(self.path, page=page.index, mode="r")
        piece = int(np.prod(page.chunks))
        if piece > MAX_PIXELS:
            raise InputError(self.path, f"pieces of {piece} values", f"tiles or strips of at most {MAX_PIXELS}")
        return zarr.open(page.aszarr(), mode="r")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def region(self, row0: int, row1: int, col0: int, col1: int) -> NDArray[Any]:
        """Read rows `row0` to `row1` - 1 and columns `col0` to `col1` - 1, as grey.

        Raises
        ------
        InputError
            The pixels cannot be decoded.
        """
        with guarded(self.path, _EXPECTED):
            pixels = np.asarray(self._array[row0:row1, col0:col1])
        if pixels.ndim == 3:
            pixels = pixels[..., 0] if pixels.shape[-1] < 3 else luminance(pixels[..., :3])
        if self._page.photometric == 0:
            pixels = np.iinfo(self.dtype).max - pixels
        return pixels.astype(self.dtype.newbyteorder("="), copy=False)
