"""Prepared diffraction volumes, and the objects reconstructed from them by phase retrieval, as HDF5.

    /entry/data/amplitude, mask                   (z, y, x) float32, uint8: a diffraction volume
    /entry/@binning, @steps                       binning of frames, rows, columns; JSON of the figures of each step

    /entry/data/objects, supports                 (start, z, y, x) complex64, uint8: objects, the best first
    /entry/errors, free_log_likelihood, coherence (start, iteration), (start,), (start, 3) float32
    /entry/@binning

Equal contents give equal bytes.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import find_node, new_dataset, new_hdf5, open_hdf5, read_array

_Path = str | os.PathLike[str]
Triple = tuple[int, int, int]


class Pattern(NamedTuple):
    """A diffraction volume ready for phasing.

    Attributes
    ----------
    amplitude : (z, y, x) float32
    mask : (z, y, x) bool
        True at measured pixels.
    binning : (int, int, int)
        Binning of frames, rows and columns.
    """

    amplitude: NDArray[np.float32]
    mask: NDArray[np.bool_]
    binning: Triple


class Starts(NamedTuple):
    """Objects of one pattern, the best first.

    Attributes
    ----------
    objects : (start, z, y, x) complex64
    supports : (start, z, y, x) bool
    errors : (start, iteration) float32
        Those of starts with fewer iterations than others begin with NaN.
    free_log_likelihood : (start,) float32
        NaN if no pixel was excluded.
    coherence : (start, 3) float32
        Standard deviations of the blur along (z, y, x) [px]; 0 for full coherence.
    binning : (int, int, int)
        Binning of the pattern.
    """

    objects: NDArray[np.complex64]
    supports: NDArray[np.bool_]
    errors: NDArray[np.float32]
    free_log_likelihood: NDArray[np.float32]
    coherence: NDArray[np.float32]
    binning: Triple


def write_pattern(path: _Path, pattern: Pattern, *, steps: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write a diffraction volume with the figures of the preparation steps."""
    with new_hdf5(path) as file:
        entry = _entry(file, signal="amplitude", binning=pattern.binning)
        _dataset(entry["data"], "amplitude", pattern.amplitude)
        _dataset(entry["data"], "mask", pattern.mask.astype(np.uint8))
        entry.attrs["steps"] = json.dumps([dict(step) for step in steps], sort_keys=True)


def read_pattern(path: _Path) -> Pattern:
    """Read a diffraction volume.

    Raises
    ------
    InputError
        The file is not HDF5, or has no such volume.
    """
    amplitude, mask, binning = _read(path, "a prepared diffraction volume", ("data/amplitude", "data/mask"))
    if amplitude.ndim != 3 or mask.shape != amplitude.shape:
        raise InputError(path, f"an amplitude of {amplitude.shape}, a mask of {mask.shape}", "(z, y, x) for both")
    return Pattern(amplitude.astype(np.float32), mask > 0, binning)


class Preparation(NamedTuple):
    """What the preparation found in a scan.

    Attributes
    ----------
    peak : (float, float, float), optional
        Frame of the scan, row and column of the detector of the peak.
    n_frames : int, optional
        Number of raw frames.
    instrument : dict of str to float
        `energy_kev`, `distance_m`, `pixel_um`, as far as the raw file has them.
    """

    peak: tuple[float, float, float] | None
    n_frames: int | None
    instrument: dict[str, float]


def read_steps(path: _Path) -> list[dict[str, Any]]:
    """Read the figures of the preparation steps of a diffraction volume; empty if they are not known.

    Raises
    ------
    InputError
        The file is not HDF5, or its steps cannot be read.
    """
    with open_hdf5(path) as file, guarded(path, "a prepared diffraction volume"):
        return list(json.loads(file["entry"].attrs.get("steps", "[]")))


def read_preparation(path: _Path) -> Preparation:
    """Read what the preparation found in a scan, from the file of its pattern.

    Raises
    ------
    InputError
        As in `read_steps`.
    """
    steps = {step["step"]: step for step in read_steps(path)}
    with guarded(path, "the figures of the preparation"):
        peak = steps.get("peak")
        place = None if peak is None else (float(peak["frame"]), float(peak["row"]), float(peak["col"]))
        n_frames = int(steps["raw"]["shape"][0]) if "raw" in steps else None
        given = {name: float(value) for name, value in steps.get("instrument", {}).items() if name != "step"}
        return Preparation(place, n_frames, given)


def write_starts(path: _Path, starts: Starts) -> None:
    """Write the reconstructed objects, with the errors of each start."""
    with new_hdf5(path) as file:
        entry = _entry(file, signal="objects", binning=starts.binning)
        _dataset(entry["data"], "objects", starts.objects)
        _dataset(entry["data"], "supports", starts.supports.astype(np.uint8))
        for name in ("errors", "free_log_likelihood", "coherence"):
            _dataset(entry, name, np.asarray(getattr(starts, name), np.float32))


def read_starts(path: _Path) -> Starts:
    """Read the reconstructed objects.

    Raises
    ------
    InputError
        The file is not HDF5, or has no such objects.
    """
    names = ("data/objects", "data/supports", "errors", "free_log_likelihood", "coherence")
    objects, supports, errors, judged, coherence, binning = _read(path, "reconstructed objects", names)
    if objects.ndim != 4 or supports.shape != objects.shape:
        raise InputError(path, f"objects of {objects.shape}, supports of {supports.shape}", "(start, z, y, x) for both")
    return Starts(objects.astype(np.complex64), supports > 0, errors, judged, coherence, binning)


def _entry(file: h5py.File, *, signal: str, binning: Triple) -> h5py.Group:
    file.attrs["default"] = "entry"
    entry = file.create_group("entry")
    entry.attrs.update({"NX_class": "NXentry", "default": "data", "binning": binning})
    entry.create_group("data").attrs.update({"NX_class": "NXdata", "signal": signal})
    return entry


def _dataset(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    new_dataset(group, name, values, shuffle=True, compression="gzip")


def _read(path: _Path, expected: str, names: Sequence[str]) -> tuple[Any, ...]:
    with open_hdf5(path) as file:
        entry = find_node(file, "entry")
        if not isinstance(entry, h5py.Group):
            raise InputError(path, "no group entry", expected)
        with guarded(path, expected):
            z, y, x = (int(value) for value in entry.attrs["binning"])
        return *(read_array(file, f"entry/{name}") for name in names), (z, y, x)
