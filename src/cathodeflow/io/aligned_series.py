"""Aligned objects of the scans of a series, as HDF5.

    /entry/data/amplitude, strain, support   (scan, z, y, x) float32, float32 (NaN where unknown), uint8
    /entry/scans, values                     name, and value of the condition, of each scan
    /entry/@voxel_nm, @against               side of a voxel; name of the condition

Equal contents give equal bytes.
"""

import os
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import new_dataset, new_hdf5, open_hdf5, read_array

_Path = str | os.PathLike[str]
_EXPECTED = "the aligned objects of a series"


class AlignedSeries(NamedTuple):
    """Objects of the scans of a series on the same voxels.

    Attributes
    ----------
    amplitude, strain : (scan, z, y, x) float32
        The strain is NaN where it is unknown.
    support : (scan, z, y, x) bool
    scans : list of str
    values : (scan,) float64
        Value of the condition of each scan.
    against : str
        Name of the condition: `state_of_charge`, `time`, `temperature` or `voltage`.
    voxel_nm : float
    """

    amplitude: NDArray[np.float32]
    strain: NDArray[np.float32]
    support: NDArray[np.bool_]
    scans: list[str]
    values: NDArray[np.float64]
    against: str
    voxel_nm: float


def write_aligned_series(path: _Path, series: AlignedSeries) -> None:
    """Write the aligned objects of a series."""
    with new_hdf5(path) as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "data", "against": series.against})
        entry.attrs["voxel_nm"] = float(series.voxel_nm)
        entry.create_group("data").attrs.update({"NX_class": "NXdata", "signal": "amplitude"})
        for name in ("amplitude", "strain"):
            new_dataset(entry["data"], name, getattr(series, name).astype(np.float32), shuffle=True, compression="gzip")
        new_dataset(entry["data"], "support", series.support.astype(np.uint8), shuffle=True, compression="gzip")
        new_dataset(entry, "values", np.asarray(series.values, np.float64))
        entry["scans"] = np.array(series.scans, dtype=h5py.string_dtype())


def read_aligned_series(path: _Path) -> AlignedSeries:
    """Read the aligned objects of a series.

    Raises
    ------
    InputError
        The file is not HDF5, or has no such objects.
    """
    with open_hdf5(path) as file, guarded(path, _EXPECTED):
        amplitude, strain, support = (
            read_array(file, f"entry/data/{name}") for name in ("amplitude", "strain", "support")
        )
        if amplitude.ndim != 4 or not amplitude.shape == strain.shape == support.shape:
            raise InputError(path, f"an amplitude of {amplitude.shape}", "(scan, z, y, x), as strain and support")
        entry = file["entry"]
        scans = [name.decode() for name in entry["scans"][()]]
        against, voxel_nm = str(entry.attrs["against"]), float(entry.attrs["voxel_nm"])
        values = read_array(file, "entry/values")
    return AlignedSeries(amplitude, strain, support > 0, scans, values, against, voxel_nm)
