"""Sample angle and photon energy of the frames in numeric files: NeXus and frame caches of hexrd."""

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.geometry_nexus import energies, in_degrees
from cathodeflow.io.hdf5 import find_node, read_array
from cathodeflow.io.hdf5_search import Node, walk
from cathodeflow.io.raw_format import FrameConditions

Floats = NDArray[np.float64]


def middle(values: NDArray[Any], n_frames: int, where: str) -> Floats:
    """Return the middle of the range of each frame: (n_frames,) from (n_frames,), or from (n_frames, 2) limits.

    Raises
    ------
    InputError
        They have another shape or are no numbers.
    """
    if values.dtype.kind not in "iuf" or values.shape not in ((n_frames,), (n_frames, 1), (n_frames, 2)):
        found = f"{values.dtype} of shape {values.shape}"
        raise InputError(where, found, f"an angle, or its two limits, for each of {n_frames} frames")
    return np.asarray(values.reshape(n_frames, -1), np.float64).mean(axis=1)


def hdf5_conditions(file: h5py.File, n_frames: int, omega_name: str | None) -> FrameConditions:
    """Find the angles and energies of the frames of an HDF5 file.

    Parameters
    ----------
    file : h5py.File
    n_frames : int
        Frames of the file.
    omega_name : str, optional
        Name of the dataset of the angle, or its path; `omega` by default. With a dataset `<name>_end` beside it, the
        angle is that at the middle of the exposure.

    Raises
    ------
    InputError
        Several datasets of this name differ, the one that is named by its path is missing, or a unit is not known.
    """
    unknown = np.full(n_frames, np.nan)
    omega, energy = _omega(file, n_frames, omega_name or "omega"), energies(file)
    if energy is None:
        return FrameConditions(unknown if omega is None else omega, unknown)
    where, values = energy
    if values.size not in (1, n_frames):
        raise InputError(where, f"{values.size} energies", f"one, or one for each of {n_frames} frames")
    return FrameConditions(unknown if omega is None else omega, np.broadcast_to(values, n_frames).copy())


def dataset_angles(file: h5py.File, path: str, n_frames: int) -> Floats:
    """Read the angles of the frames from one dataset [degrees].

    Raises
    ------
    InputError
        It is missing, or has another length or unit.
    """
    where = f"{file.filename}::{path}"
    node = find_node(file, path)
    if not isinstance(node, h5py.Dataset):
        raise InputError(where, "no such dataset", "the angles of the frames")
    # Without a unit an angle of a sample is in degrees, as hexrd and most beamlines write it.
    values = in_degrees(node, where) if "units" in node.attrs else np.asarray(read_array(node.file, node.name))
    return middle(values, n_frames, where)


def _omega(file: h5py.File, n_frames: int, name: str) -> Floats | None:
    if "/" in name:
        return dataset_angles(file, name, n_frames)
    nodes, _ = walk(file, "", images_only=False)
    found = [node for node in nodes if node.path.rpartition("/")[2] == name and _fits(node, n_frames)]
    angles = [dataset_angles(file, node.path, n_frames) for node in found]
    for node, other in zip(found[1:], angles[1:], strict=True):
        if not np.allclose(other, angles[0], rtol=0, atol=1e-9, equal_nan=True):
            where = f"{file.filename}::{found[0].path}"
            raise InputError(where, f"other angles than {node.path}", "one of them by its path (omega_name)")
    if not angles:
        return None
    end = f"{found[0].path}_end"
    if any(node.path == end and _fits(node, n_frames) for node in nodes):
        return (angles[0] + dataset_angles(file, end, n_frames)) / 2
    return angles[0]


def _fits(node: Node, n_frames: int) -> bool:
    return node.dataset.dtype.kind in "iuf" and node.dataset.shape in ((n_frames,), (n_frames, 1), (n_frames, 2))
