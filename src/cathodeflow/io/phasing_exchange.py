"""Prepared diffraction volumes of other programs for phasing: npz of bcdi and cdiutils, and CXI of PyNX.

    NAME.npz            data (z, y, x), the intensity in counts
    NAME_mask.npz       mask (z, y, x), 0 at measured pixels, other values at bad ones; or in the same file
    NAME.cxi            /entry_1/data_1/data, mask, with the same meaning; energy [J], distance and pixel size [m] in
                        /entry_1/instrument_1

Axes are (rocking, detector row, detector column), as here. Negative intensities and NaN are bad pixels.
"""

import os
import zipfile
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.atomic import atomic_path
from cathodeflow.io.guard import guarded, require_memory
from cathodeflow.io.hdf5 import find_node, new_dataset, new_hdf5, open_hdf5, read_array
from cathodeflow.io.phasing import Pattern
from cathodeflow.io.reconstructions import write_instrument

_Path = str | os.PathLike[str]
# Names of the intensity in npz, and locations in CXI, in the order in which they are looked for.
_DATA, _MASK = ("data", "iobs", "d"), ("mask",)
_CXI_DATA = ("entry_1/data_1/data", "entry_1/instrument_1/detector_1/data")
_CXI_MASK = ("entry_1/data_1/mask", "entry_1/instrument_1/detector_1/mask")
# The oldest time that a member of a zip file can have: equal contents give equal bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def read_foreign_pattern(path: _Path, mask: _Path | None = None) -> Pattern:
    """Read a diffraction volume that another program has prepared.

    Parameters
    ----------
    path : path
        npz or CXI file.
    mask : path, optional
        npz file of the mask. Default: that in the file, if it has one.

    Raises
    ------
    InputError
        The file cannot be read, has no volume, or the mask has another shape or marks every pixel.
    """
    if os.fspath(path).lower().endswith(".npz"):
        members = _npz(path)
        intensity, own = _member(path, members, _DATA), next((members[name] for name in _MASK if name in members), None)
    else:
        with open_hdf5(path) as file:
            data, bad = (
                next((place for place in places if isinstance(find_node(file, place), h5py.Dataset)), None)
                for places in (_CXI_DATA, _CXI_MASK)
            )
            intensity = read_array(file, data or _CXI_DATA[0])
            own = read_array(file, bad) if bad else None
    where = path if mask is None else mask
    given = own if mask is None else _member(mask, _npz(mask), _MASK)
    if intensity.ndim != 3 or intensity.dtype.kind not in "biuf" or min(intensity.shape) < 2:
        raise InputError(path, f"{intensity.dtype} of shape {intensity.shape}", "an intensity (z, y, x)")
    if given is not None and given.shape not in (intensity.shape, intensity.shape[1:]):
        raise InputError(where, f"a mask of shape {given.shape}", f"{intensity.shape}, as the intensity")
    counts = intensity.astype(np.float32)
    known = np.isfinite(counts) & (counts >= 0)
    if given is not None:
        known = known & (given == 0)
    if not known.any():
        raise InputError(where, "every pixel is bad", "0 at measured pixels, other values at bad ones")
    if not (counts[known] > 0).any():
        raise InputError(path, "an intensity of 0 at all measured pixels", "a diffraction peak")
    return Pattern(np.sqrt(np.where(known, counts, 0)), known, (1, 1, 1))


def write_npz_pattern(path: _Path, mask: _Path, pattern: Pattern) -> None:
    """Write intensity (`data`, float32) and mask (`mask`, int8) as two npz files, as bcdi and cdiutils do."""
    _write_npz(path, {"data": pattern.amplitude**2})
    _write_npz(mask, {"mask": (~pattern.mask).astype(np.int8)})


def write_npz_object(path: _Path, volume: NDArray[np.complex64], support: NDArray[np.bool_]) -> None:
    """Write an object (`obj`, complex64) and its `support` (int8) as npz."""
    _write_npz(path, {"obj": volume.astype(np.complex64), "support": support.astype(np.int8)})


def write_cxi_pattern(path: _Path, pattern: Pattern, geometry: Mapping[str, Any]) -> None:
    """Write intensity and mask as CXI, as PyNX does.

    Parameters
    ----------
    path : path
    pattern : Pattern
    geometry : mapping
        Values by the names of the options of `bcdi.strain`; energy, distance and pixel size are written if they are
        known. The pixels are those of the binned volume.
    """
    with new_hdf5(path) as file:
        file["cxi_version"] = 140
        file.attrs["default"] = "entry_1"
        entry = file.create_group("entry_1")
        entry.attrs.update({"NX_class": "NXentry", "default": "data_1"})
        entry["program_name"] = "cathodeflow"
        instrument = entry.create_group("instrument_1")
        instrument.attrs["NX_class"] = "NXinstrument"
        detector = instrument.create_group("detector_1")
        detector.attrs["NX_class"] = "NXdetector"
        new_dataset(detector, "data", (pattern.amplitude**2).astype(np.float32), shuffle=True, compression="gzip")
        new_dataset(detector, "mask", (~pattern.mask).astype(np.int8), shuffle=True, compression="gzip")
        write_instrument(instrument, geometry, binning=(pattern.binning[1], pattern.binning[2]))
        data = entry.create_group("data_1")
        data.attrs.update({"NX_class": "NXdata", "signal": "data"})
        for name in ("data", "mask"):
            data[name] = h5py.SoftLink(f"/entry_1/instrument_1/detector_1/{name}")


def _npz(path: _Path) -> dict[str, NDArray[Any]]:
    """All arrays of numbers of an npz file; objects, which would run code, are refused."""
    expected = "an npz file of numpy, with arrays of numbers"
    with guarded(path, expected):
        with zipfile.ZipFile(path) as packed:
            require_memory(os.fspath(path), sum(member.file_size for member in packed.infolist()))
        archive = np.load(path, allow_pickle=False)
        return {name: archive[name] for name in archive.files}


def _member(path: _Path, members: Mapping[str, NDArray[Any]], names: tuple[str, ...]) -> NDArray[Any]:
    found = next((members[name] for name in names if name in members), None)
    # PyNX takes the only array, whatever its name is.
    if found is None and len(members) == 1:
        found = next(iter(members.values()))
    if found is None:
        raise InputError(path, f"arrays {', '.join(members) or 'none'}"[:200], f"an array {names[0]}")
    return found


def _write_npz(path: _Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, values in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=_TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)
