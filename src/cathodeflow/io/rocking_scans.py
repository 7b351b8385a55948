"""Rocking scans: the frames of a diffraction peak as one volume, from files of any frame format."""

import os

import h5py
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.frames import count_limits, open_series, read_frames, stored_masks
from cathodeflow.io.guard import guarded, require_memory
from cathodeflow.io.hdf5 import find_node, open_hdf5
from cathodeflow.io.hdf5_search import node_identity, walk
from cathodeflow.io.invalid_pixels import find_invalid, usual_marks
from cathodeflow.io.sources import split_source

# Location of the data in a CXI file (F. R. N. C. Maia, The Coherent X-ray Imaging Data Bank, Nature Methods 9, 854
# (2012)).
_CXI_DATA = "/entry_1/data_1/data"
# Locations below the instrument in CXI, and factors from the SI units of CXI.
_CXI_INSTRUMENT = {
    "energy_kev": ("source_1/energy", 1 / 1.602176634e-16),
    "distance_m": ("detector_1/distance", 1.0),
    "pixel_um": ("detector_1/x_pixel_size", 1e6),
}


def read_scan(source: str, *, counts: bool = True, number: int | None = None) -> NDArray[np.float32]:
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
    number : int, optional
        Number of the scan in a file of several (`3.1` of BLISS).

    Returns
    -------
    (frame, row, col) float32
        Counts; whole numbers up to 2^24 are exact. NaN at pixels without a count.

    Raises
    ------
    InputError
        A file cannot be read, frames differ in size or type (one line each), or there is only one frame.
    """
    source = scan_source(source, number)
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


def read_instrument(source: str) -> dict[str, float]:
    """Read photon energy, distance and pixel size of a CXI file, as far as it has them; of other files none.

    Returns
    -------
    dict of str to float
        `energy_kev`, `distance_m`, `pixel_um`.
    """
    path, _ = split_source(source)
    if not path.lower().endswith(".cxi") or not os.path.isfile(path):
        return {}
    found = {}
    with open_hdf5(path) as file, guarded(path, "a readable CXI file"):
        for name, (location, factor) in _CXI_INSTRUMENT.items():
            node = find_node(file, f"/entry_1/instrument_1/{location}")
            if isinstance(node, h5py.Dataset) and node.size == 1 and node.dtype.kind in "iuf":
                found[name] = float(np.asarray(node[()]).reshape(-1)[0]) * factor
    return found


def scan_source(source: str, number: int | None = None) -> str:
    """Add the dataset of the frames where a file also has others: of a CXI file, or of a scan of a BLISS file.

    Parameters
    ----------
    source : str
        As of `read_scan`.
    number : int, optional
        Number of the scan.

    Raises
    ------
    InputError
        The scan has no frames, or those of several detectors.
    """
    path, dataset = split_source(source)
    if dataset is not None or not os.path.isfile(path):
        return source
    if path.lower().endswith(".cxi"):
        with open_hdf5(path) as file:
            if isinstance(find_node(file, _CXI_DATA), h5py.Dataset):
                return f"{path}::{_CXI_DATA}"
    elif number is not None and path.lower().endswith((".h5", ".hdf5", ".nxs")):
        with open_hdf5(path) as file, guarded(path, "a readable HDF5 file"):
            if (found := _of_number(file, number)) is not None:
                return f"{path}::{found}"
    return source


def _of_number(file: h5py.File, number: int) -> str | None:
    """Path of the frames of a scan in a BLISS file (`3.1/measurement`); None where there is no such scan."""
    entry = f"{number}.1"
    if not isinstance(file.get(entry), h5py.Group):
        return None
    nodes, _ = walk(file, f"/{entry}", images_only=False)
    # The same frames are linked from `measurement` and from `instrument`.
    frames = {node_identity(node.dataset): node.path for node in nodes if node.dataset.ndim == 3}
    if len(frames) != 1:
        named = ", ".join(frames.values()) or "no frames"
        raise InputError(f"{file.filename}, scan {entry}", named, "the frames of one detector, or FILE.h5::/DATASET")
    return next(iter(frames.values()))
