"""Images that are stored turned, as the tag `Orientation` (274) of TIFF and EXIF says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

TAG = 274
# Values that swap rows and columns, that begin at the last row, and that begin at the last column.
_SWAPPED, _FROM_BELOW, _FROM_RIGHT = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)


def upright_shape(rows: int, cols: int, orientation: Any) -> tuple[int, int]:
    """Return the size of an image after `upright`."""
    return (cols, rows) if orientation in _SWAPPED else (rows, cols)


def upright(pixels: NDArray[Any], orientation: Any) -> NDArray[Any]:
    """Turn an image (row, col, ...) as its tag asks; as it is for other values than 1 to 8.

    Examples
    --------
    >>> import numpy as np
    >>> upright(np.array([[1, 2, 3]]), 6).tolist()
    [[1], [2], [3]]
    """
    if orientation in _SWAPPED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in _FROM_BELOW:
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in _FROM_RIGHT else pixels
