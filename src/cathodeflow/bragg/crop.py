"""Square patches cut from a frame around pixels."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray


def crop_patches(
    frame: NDArray[np.floating], rows: ArrayLike, cols: ArrayLike, *, size: int, fill: float = 0.0
) -> NDArray[np.float32]:
    """Cut a patch around each (row, col), which becomes pixel (size // 2, size // 2) of the patch, also at edges.

    Parameters
    ----------
    frame : (row, col) floating
    rows, cols : (n,) int
        Centre pixels, inside the frame.
    size : int
        Odd side of the patches [px].
    fill : float
        Value of the pixels outside the frame.

    Returns
    -------
    (n, size, size) float32

    Examples
    --------
    >>> crop_patches(np.arange(9.0).reshape(3, 3), [0], [0], size=3)[0]
    array([[0., 0., 0.],
           [0., 0., 1.],
           [0., 3., 4.]], dtype=float32)
    """
    half = size // 2
    padded = np.pad(frame, half, constant_values=fill)
    windows = sliding_window_view(padded, (size, size))
    return windows[np.asarray(rows, dtype=np.intp), np.asarray(cols, dtype=np.intp)].astype(np.float32)
