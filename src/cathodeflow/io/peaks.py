"""peaks.h5: Bragg peaks in BraggNN's layout, with additional columns.

1-D datasets of one length (BraggNN: Liu et al., IUCrJ 9, 104, 2022): `peak_fidx` uint32, index in frames.h5;
`peak_row`, `peak_col` float32, position in the pixels of frames.h5 [px]; `npeaks` uint16, peaks in the connected
component; `deviations` float32, distance of the fitted centre from the brightest pixel [px], -1 where npeaks > 1.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import contents, find_node, new_dataset, new_hdf5, open_hdf5, read_array

_LAYOUT: dict[str, type[np.integer] | type[np.floating]] = {
    "peak_fidx": np.uint32,
    "peak_row": np.float32,
    "peak_col": np.float32,
    "deviations": np.float32,
    "npeaks": np.uint16,
}


def write_peaks(
    path: str | os.PathLike[str],
    fidx: ArrayLike,
    row: ArrayLike,
    col: ArrayLike,
    deviations: ArrayLike,
    npeaks: ArrayLike,
    *,
    columns: Mapping[str, ArrayLike] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write peaks.h5 atomically; equal peaks give equal bytes.

    Parameters
    ----------
    path : path
    fidx : (n,) int
        Index of the frame in frames.h5.
    row, col : (n,) floating
        Peak position in the pixels of frames.h5 [px].
    deviations : (n,) floating
        Distance of the fitted centre from the brightest pixel, -1 where npeaks > 1 [px].
    npeaks : (n,) int
        Number of peaks in the connected component; written as at most 65535.
    columns : mapping of str to (n,) array, optional
        Further numbers per peak; each is a dataset with its own name and dtype.
    attributes : mapping, optional
        Attributes of the file.

    Raises
    ------
    ValueError
        Lengths differ, an index does not fit its type, a position is not finite, or a column has a reserved name.
    """
    given = dict(zip(_LAYOUT, map(np.asarray, (fidx, row, col, deviations, npeaks)), strict=True))
    extra = {name: np.asarray(column) for name, column in (columns or {}).items()}
    n_peaks = len(given["peak_fidx"])
    if clash := set(extra) & set(_LAYOUT):
        raise ValueError(f"columns {sorted(clash)} belong to the layout")
    if wrong := [name for name, column in (given | extra).items() if column.shape != (n_peaks,)]:
        raise ValueError(f"columns {wrong} are not of shape ({n_peaks},)")
    if n_peaks and not (given["peak_fidx"].min() >= 0 and given["peak_fidx"].max() < 2**32):
        raise ValueError("a frame index does not fit uint32")
    if not all(np.isfinite(given[name]).all() for name in ("peak_row", "peak_col")):
        raise ValueError("a peak position is not finite")
    given["npeaks"] = np.clip(given["npeaks"], 0, 65535)
    with new_hdf5(path) as file:
        for name, dtype in _LAYOUT.items():
            new_dataset(file, name, given[name].astype(dtype))
        for name, column in sorted(extra.items()):
            new_dataset(file, name, column)
        for name, value in sorted((attributes or {}).items()):
            file.attrs[name] = value


def read_peaks(path: str | os.PathLike[str], columns: Iterable[str] | None = ()) -> dict[str, NDArray[Any]]:
    """Read peaks.h5, from Cathodeflow or BraggNN.

    Parameters
    ----------
    path : path
    columns : iterable of str, optional
        Further columns to read; None reads all columns.

    Returns
    -------
    dict of str to (n,) array
        The five columns of the layout in its dtypes, then the further ones.

    Raises
    ------
    InputError
        The file is truncated or not HDF5, or a column is missing, not 1-D, not numeric, or has another length.
    """
    where = os.fspath(path)
    with open_hdf5(path) as file, guarded(path, "a readable HDF5 file"):
        more = sorted(set(file) - set(_LAYOUT)) if columns is None else list(columns)
        names = [*_LAYOUT, *(name for name in more if name not in _LAYOUT)]
        peaks = {name: _read_column(file, name, where) for name in names}
    n_peaks = len(peaks["peak_fidx"])
    for name, column in peaks.items():
        if len(column) != n_peaks:
            raise InputError(f"{where}::{name}", f"{len(column)} values", f"{n_peaks}, as in peak_fidx")
    for name, dtype in _LAYOUT.items():
        peaks[name] = _cast(peaks[name], dtype, f"{where}::{name}")
    return peaks


def read_fits(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the positions of fitted peaks: `frame`, `row`, `col` [px], `candidate`, `converged` and `good`.

    Raises
    ------
    InputError
        As in `read_peaks`.
    """
    peaks = read_peaks(path, ["candidate", "converged", "good"])
    names = {"frame": "peak_fidx", "row": "peak_row", "col": "peak_col", "candidate": "candidate"}
    marks = {name: peaks[name] != 0 for name in ("converged", "good")}
    return pd.DataFrame({name: peaks[key] for name, key in names.items()} | marks)


def _read_column(file: h5py.File, name: str, where: str) -> NDArray[Any]:
    dataset = find_node(file, name)
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(where, f"datasets {contents(file)}", f"a dataset {name}")
    if dataset.ndim != 1 or dataset.dtype.kind not in "biuf":
        raise InputError(f"{where}::{name}", f"{dataset.dtype} of shape {dataset.shape}", "numbers of shape (n,)")
    return read_array(file, name)


def _cast(column: NDArray[Any], dtype: type[np.integer] | type[np.floating], where: str) -> NDArray[Any]:
    if issubclass(dtype, np.integer) and len(column):
        limit = np.iinfo(dtype).max
        if not (column == np.floor(column)).all() or column.min() < 0 or column.max() > limit:
            raise InputError(where, f"values from {column.min()} to {column.max()}", f"whole numbers from 0 to {limit}")
    return column.astype(dtype)
