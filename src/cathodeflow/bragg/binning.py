"""Binned frames: shape, counts, mask, and conversion of positions between binned pixels and detector pixels.

Pixel centres are at integers in both.
"""

from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.errors import InputError

Position = TypeVar("Position", float, pd.Series, NDArray[np.floating])


def binned_shape(shape: tuple[int, int], binning: int) -> tuple[int, int]:
    """Return the (row, col) shape after binning; rows and columns that do not fill a block are cropped.

    Raises
    ------
    InputError
        The frame is smaller than one block.
    """
    rows, cols = shape[0] // binning, shape[1] // binning
    if not rows or not cols:
        raise InputError("binning", f"blocks of {binning} x {binning} for frames of {shape} pixels", "smaller blocks")
    return rows, cols


def bin_frame(frame: NDArray[np.float32], binning: int) -> NDArray[np.float32]:
    """Sum blocks of `binning` x `binning` pixels.

    Parameters
    ----------
    frame : (row, col) float32
    binning : int
        Side of a block [px].

    Returns
    -------
    (row // binning, col // binning) float32

    Examples
    --------
    >>> bin_frame(np.arange(10, dtype=np.float32).reshape(2, 5), 2)
    array([[12., 20.]], dtype=float32)
    """
    if binning == 1:
        return frame
    rows, cols = (side * binning for side in binned_shape((frame.shape[0], frame.shape[1]), binning))
    sums = np.zeros((rows // binning, cols // binning))
    # Strided slices added up: 20 times as fast as a reshape and a sum over its short axes.
    for row in range(binning):
        for col in range(binning):
            sums += frame[row:rows:binning, col:cols:binning]
    return sums.astype(np.float32)


def bin_mask(mask: NDArray[np.bool_], binning: int) -> NDArray[np.bool_]:
    """Mark a block of `binning` x `binning` pixels bad where any of its pixels is bad.

    Examples
    --------
    >>> bin_mask(np.eye(4, dtype=bool), 2)
    array([[ True, False],
           [False,  True]])
    """
    rows, cols = binned_shape((mask.shape[0], mask.shape[1]), binning)
    blocks = mask[: rows * binning, : cols * binning].reshape(rows, binning, cols, binning)
    return np.asarray(blocks.any(axis=(1, 3)), dtype=bool)


def to_detector(position: Position, binning: int) -> Position:
    """Convert a position in binned pixels to a position in detector pixels.

    Examples
    --------
    >>> to_detector(0.0, 2)  # the first binned pixel covers pixels 0 and 1
    0.5
    """
    return (position + 0.5) * binning - 0.5


def from_detector(position: Position, binning: int) -> Position:
    """Convert a position in detector pixels to a position in binned pixels; the inverse of `to_detector`.

    Examples
    --------
    >>> from_detector(0.5, 2)
    0.0
    """
    return (position + 0.5) / binning - 0.5


def to_binned(truth: pd.DataFrame, binning: int) -> pd.DataFrame:
    """Convert the positions and widths [px] of true peaks to pixels of frames binned by `binning`."""
    positions = {axis: from_detector(truth[axis], binning) for axis in ("row", "col")}
    return truth.assign(**positions, **{width: truth[width] / binning for width in ("fwhm_row", "fwhm_col")})
