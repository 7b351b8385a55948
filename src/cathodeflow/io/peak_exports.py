"""Write tables of peaks as other programs read them: ImageD11, hexrd, NeXus."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cathodeflow.io.atomic import atomic_path
from cathodeflow.io.hdf5 import new_dataset, new_hdf5

Columns = Mapping[str, NDArray[np.float64]]


def write_columnfile(path: str | os.PathLike[str], columns: Columns) -> None:
    """Write a text columnfile of ImageD11: a line `#` with the names, and a row of numbers per peak."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii") as file:
        file.write("#  " + "  ".join(columns) + "\n")
        for row in _rows(columns):
            file.write("  ".join(_number(value, 6) for value in row) + "\n")


def write_columnfile_hdf5(path: str | os.PathLike[str], columns: Columns) -> None:
    """Write a columnfile of ImageD11 as HDF5: the group `peaks` with a dataset per column."""
    with new_hdf5(path) as file:
        group = file.create_group("peaks")
        group.attrs["ImageD11_type"] = "peaks"
        for name, values in columns.items():
            new_dataset(group, name, np.asarray(values, np.float64))


def write_hexrd_spots(path: str | os.PathLike[str], columns: Columns) -> None:
    """Write a table of spots of hexrd: a header with `#`, and columns of fixed width."""
    width = {name: max(14, len(name) + 2) for name in columns}
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii") as file:
        file.write("# " + "".join(name.ljust(width[name]) for name in columns).rstrip() + "\n")
        for row in _rows(columns):
            cells = (_number(value, 8).ljust(width[name]) for name, value in zip(columns, row, strict=True))
            file.write("  " + " ".join(cells).rstrip() + "\n")


def write_nxdata(
    path: str | os.PathLike[str], columns: Columns, *, signal: str, units: Mapping[str, str], title: str, source: str
) -> None:
    """Write a NeXus file with one NXdata: a signal with an error, and coordinates of each peak.

    Parameters
    ----------
    path : path
    columns : mapping of str to (n,) float64
        Columns named `X_err` become `X_errors`, the standard errors of X.
    signal : str
        Name of the column that is plotted.
    units : mapping
        Unit by column.
    title, source : str
        Title of the entry, and file that the peaks are from.
    """
    with new_hdf5(path) as file:
        file.attrs.update({"NX_class": "NXroot", "default": "entry", "creator": "cathodeflow"})
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "peaks"})
        entry["title"] = title
        process = entry.create_group("process")
        process.attrs["NX_class"] = "NXprocess"
        process["program"] = "cathodeflow"
        process["source"] = source
        group = entry.create_group("peaks")
        length = len(next(iter(columns.values())))
        group.attrs.update({"NX_class": "NXdata", "signal": signal, "axes": ["peak"], "peak_indices": 0})
        new_dataset(group, "peak", np.arange(length)).attrs["long_name"] = "Index of the peak"
        for name, values in columns.items():
            stored = f"{name.removesuffix('_err')}_errors" if name.endswith("_err") else name
            dataset = new_dataset(group, stored, np.asarray(values, np.float64))
            if name in units:
                dataset.attrs["units"] = units[name]
            if stored == name and name != signal:
                group.attrs[f"{name}_indices"] = 0


def _rows(columns: Columns) -> Sequence[NDArray[np.float64]]:
    return list(np.stack([np.asarray(values, np.float64) for values in columns.values()], axis=1))


def _number(value: float, digits: int) -> str:
    """Write whole numbers without a fraction."""
    return f"{value:.0f}" if value == np.floor(value) else f"{value:.{digits}f}"
