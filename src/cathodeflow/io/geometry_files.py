"""Geometry of a detector from the files in which others keep it: PONI of pyFAI, instruments of hexrd, NeXus."""

import os

import numpy as np

from cathodeflow.errors import InputError
from cathodeflow.io.detector_geometry import DetectorGeometry, Module
from cathodeflow.io.geometry_hexrd import is_instrument, read_hexrd
from cathodeflow.io.geometry_nexus import read_nexus
from cathodeflow.io.geometry_poni import read_poni
from cathodeflow.io.hdf5 import open_hdf5


def read_detector_geometry(
    path: str | os.PathLike[str], *, detector: str | None = None, shape: tuple[int, int] | None = None
) -> DetectorGeometry:
    """Read the geometry of a detector.

    Parameters
    ----------
    path : path
        PONI file of pyFAI (`.poni`), instrument of hexrd (`.yml`, `.yaml`, `.hexrd`, or HDF5), or NeXus file.
    detector : str, optional
        Name of the detector, where the file has several; `all` panels of an instrument of hexrd that make one frame.
    shape : (int, int), optional
        (row, col) of the raw frames [px], which a PONI file may leave open and any other file must agree with.

    Returns
    -------
    DetectorGeometry

    Raises
    ------
    InputError
        The file cannot be read, is of none of these kinds, has not this detector, or describes a detector of another
        shape, one that is not flat, modules outside the frame or over each other, or a distortion that is not known.
    """
    where = os.fspath(path)
    if not os.path.isfile(where):
        found = "a folder" if os.path.isdir(where) else "no such file"
        raise InputError(where, found, "a PONI file, an instrument of hexrd, or a NeXus file")
    with open(where, "rb") as file:
        head = file.read(8)
    suffix = os.path.splitext(where)[1].lower()
    if head == b"\x89HDF\r\n\x1a\n":
        with open_hdf5(where) as opened:
            read = read_hexrd if is_instrument(opened) else read_nexus
        geometry = read(where, detector=detector)
    elif suffix in (".yml", ".yaml", ".hexrd"):
        geometry = read_hexrd(where, detector=detector)
    elif suffix == ".poni":
        geometry = read_poni(where, shape=shape)
    else:
        raise InputError(where, f"suffix {suffix or 'none'}", ".poni, .yml, .yaml, .hexrd, or a NeXus file")
    if shape is not None and geometry.shape is not None and geometry.shape != tuple(shape):
        raise InputError(geometry.where, f"a detector of {geometry.shape} pixels", f"{tuple(shape)}, as the raw frames")
    if not (np.isfinite(geometry.beam).all() and np.linalg.norm(geometry.beam) > 0):
        raise InputError(geometry.where, f"a beam along {geometry.beam.tolist()}", "a direction")
    for plane in geometry.modules or (geometry,):
        _require_plane(geometry.where, plane)
    _require_apart(geometry, shape)
    if geometry.energy_kev is not None and not 0 < geometry.energy_kev < np.inf:
        raise InputError(geometry.where, f"an energy of {geometry.energy_kev} keV", "more than 0")
    return geometry


def _require_plane(where: str, plane: DetectorGeometry | Module) -> None:
    sizes = np.linalg.norm([plane.row_step, plane.col_step], axis=1)
    numbers = (plane.origin, plane.row_step, plane.col_step)
    normal = np.cross(plane.row_step, plane.col_step)
    if not all(np.isfinite(values).all() for values in numbers) or not (sizes > 0).all():
        raise InputError(where, "a size of 0 or a number that is not finite", "finite sizes above 0")
    if not np.linalg.norm(normal) > 0.1 * sizes[0] * sizes[1]:
        raise InputError(where, "rows parallel to columns", "two directions of the pixels")
    if abs(normal @ plane.origin) < 1e-9 * np.linalg.norm(normal):
        raise InputError(where, "a detector whose plane contains the sample", "a detector away from it")


def _require_apart(geometry: DetectorGeometry, shape: tuple[int, int] | None) -> None:
    """Require that modules are inside the frame, and that no pixel belongs to two of them."""
    frame = geometry.shape if shape is None else shape
    ends: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for module in geometry.modules:
        end = (module.first[0] + module.shape[0], module.first[1] + module.shape[1])
        found = f"a module of rows {module.first[0]} to {end[0] - 1}, columns {module.first[1]} to {end[1] - 1}"
        outside = frame is not None and (end[0] > frame[0] or end[1] > frame[1])
        if min(*module.first, *(size - 1 for size in module.shape)) < 0 or outside:
            expected = "pixels of the frame" if frame is None else f"a frame of {tuple(frame)} pixels around it"
            raise InputError(geometry.where, found, expected)
        for first, last in ends:
            if all(module.first[axis] < last[axis] and first[axis] < end[axis] for axis in (0, 1)):
                raise InputError(geometry.where, f"{found}, over another one", "modules beside each other")
        ends.append((module.first, end))
