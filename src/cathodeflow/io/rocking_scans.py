"""Rocking scans: the frames of a diffraction peak as one volume, from files of any frame format."""

import os

import h5py
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.frames import count_limits, open_series, read_frames, stored_masks
from cathodeflow.io.guard import require_memory
from cathodeflow.io.hdf5 import find_node, open_hdf5
from cathodeflow.io.invalid_pixels import find_invalid, usual_marks
from cathodeflow.io.sources import split_source

# Location of the data in a CXI file (F. R. N. C. Maia, The Coherent X-ray Imaging Data Bank, Nature Methods 9, 854
# (2012)).
_CXI_DATA = "/entry_1/data_1/data"


def read_scan(source: str, *, counts: bool = True) -> NDArray[np.float32]:
    """Read all frames of a rocking scan.

    Gaps between modules, dead pixels and other pixels without a count become NaN: those that a mask in the file marks,
    values outside the range that the file calls valid, and the marks of `cathodeflow.io.invalid_pixels`. -1 and -2 are
    marks if a pixel has them in all frames and there is no other negative value; else they are noise.

    Parameters
    ----------
    source : str
        Folder or pattern of frames in natural order, or one file with all of them: TIFF, HDF5 or NeXus
        (`file.h5::/entry/data/data`; without a path the default dataset), CXI, npy, and any other
        format of `cathodeflow.io.formats`.
    counts : bool
        Whether the values are counts; those of a mask are not, and stay as they are.

    Returns
    -------
    (frame, row, col) float32
        Counts; whole numbers up to 2^24 are exact. NaN at pixels without a count.

    Raises
    ------
    InputError
        A file cannot be read, frames differ in size or type (one line each), or there is only one frame.
    """
    source = _with_dataset(source)
    series = open_series(source)
    if series.n_frames < 2:
        raise InputError(source, "one frame", "a rocking scan of two or more frames")
    require_memory(source, 4 * series.n_frames * series.shape[0] * series.shape[1])
    volume = np.empty((series.n_frames, *series.shape), np.float32)
    limits, mask_of = count_limits(series), stored_masks(series)
    signed = series.dtype.kind in "if"
    always, noise = np.full(series.shape, signed), False
    for number, frame in read_frames(series):
        volume[number] = frame
        if not counts:
            continue
        invalid = find_invalid(frame, usual_marks(frame.dtype, negative=False), limits)
        if (stored := mask_of(number)) is not None:
            invalid |= stored
        volume[number][invalid] = np.nan
        if signed:
            marked = (frame == -1) | (frame == -2)
            always &= marked
            noise |= bool(np.any((frame < 0) & ~marked & ~invalid))
    if counts and not noise:
        volume[:, always] = np.nan
    return volume


def _with_dataset(source: str) -> str:
    """Add the dataset of a CXI file, which may also have other arrays, such as a mask."""
    path, dataset = split_source(source)
    if dataset is None and path.lower().endswith(".cxi") and os.path.isfile(path):
        with open_hdf5(path) as file:
            if isinstance(find_node(file, _CXI_DATA), h5py.Dataset):
                return f"{path}::{_CXI_DATA}"
    return source
