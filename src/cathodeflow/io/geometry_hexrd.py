"""Instruments of hexrd: YAML or HDF5 files with the beam and the position of each flat detector.

hexrd's laboratory frame has y up and z against the beam, so x points to the right as seen along the beam. A detector's
own frame has its origin at the middle of the panel, x along the columns and y against the rows; `tilt` is the axis of
its rotation times the angle [rad], `translation` the middle of the panel [mm] (hexrd documentation, "Instrument"). The
sample turns about y, inclined by `chi` about x, through the `translation` of the oscillation stage, which becomes the
origin. Panels that are parts of one image have their first pixel in it, (row, column), as `roi` among their `pixels`,
and may have the name of that image as `group`.
"""

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cathodeflow.errors import InputError
from cathodeflow.io.detector_geometry import DetectorGeometry, Distortion, Module, of_modules
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import find_node, open_hdf5, read_array
from cathodeflow.io.text import read_yaml

_MAX_NUMBERS = 1000

# From hexrd's frame to the laboratory frame: half a turn about y.
_TO_LAB = np.diag([-1.0, 1.0, -1.0])

# Numbers of parameters of hexrd's distortion functions.
_DISTORTIONS = {"GE_41RT": 6, "Dexela_2923": 8, "Dexela_2923_quad": 6}


def read_hexrd(path: str, *, detector: str | None = None) -> DetectorGeometry:
    """Read an instrument of hexrd.

    Parameters
    ----------
    path : str
    detector : str, optional
        Name of the detector; needed if there are several. `all`, or the name of a group: the panels that together make
        the frame.

    Raises
    ------
    InputError
        A value is missing or wrong, there is no such detector, it is not flat, has an unknown distortion, or does not
        say where it is in the frame.
    """
    values = _stored(path) if h5py.is_hdf5(path) else read_yaml(path)
    panels = _mapping(path, values, "detectors")
    listed = ", ".join(map(str, panels))
    if detector is None and len(panels) != 1:
        raise InputError(path, f"detectors {listed}", "the name of one of them, or all (detector)")
    name = detector if detector is not None else next(iter(panels))
    alone = name in panels
    where = f"{path}, detector {name}"
    axis, centre = _rotation(path, values)
    modules = []
    for key in [name] if alone else panels:
        at = f"{path}, detector {key}"
        panel = _mapping(at, panels, key)
        if alone or name in ("all", panel.get("group")):
            modules.append(_module(at, panel, (0, 0) if alone else _first_pixel(at, panel), centre))
    if not modules:
        raise InputError(path, f"no detector {name}", f"one of {listed}, or all")
    direction, energy = _beam(path, _mapping(path, values, "beam"))
    shape = modules[0].shape if alone else None
    return of_modules(where, modules, _TO_LAB @ direction, energy, shape, _TO_LAB @ axis)


def _module(where: str, panel: dict[str, Any], first: tuple[int, int], centre: NDArray[np.float64]) -> Module:
    kind = panel.get("detector_type", "planar")
    if kind != "planar":
        raise InputError(where, f"a {kind} detector", "a planar one")
    pixels, transform = _mapping(where, panel, "pixels"), _mapping(where, panel, "transform")
    rows, cols = (int(_numbers(where, pixels, key, 1)[0]) for key in ("rows", "columns"))
    row_mm, col_mm = _numbers(where, pixels, "size", 2)
    turn = Rotation.from_rotvec(_numbers(where, transform, "tilt", 3)).as_matrix()
    middle = _numbers(where, transform, "translation", 3)
    row_step, col_step = turn @ [0.0, -row_mm, 0.0], turn @ [col_mm, 0.0, 0.0]
    corner = middle - centre - (rows - 1) / 2 * row_step - (cols - 1) / 2 * col_step
    origin, row_step, col_step = (1e-3 * _TO_LAB @ vector for vector in (corner, row_step, col_step))
    return Module(first, (rows, cols), origin, row_step, col_step, _distortion(where, panel.get("distortion")))


def _distortion(where: str, stored: Any) -> Distortion | None:
    """Return the distortion of a panel; None without one, or where it moves nothing."""
    if stored is None:
        return None
    where = f"{where}, distortion"
    if not isinstance(stored, dict):
        raise InputError(where, f"{stored!r}"[:120], "function_name and parameters")
    function = str(stored.get("function_name"))
    # Older files write the names in small letters.
    name = next((known for known in _DISTORTIONS if known.lower() == function.lower()), None)
    if name is None and function.lower() == "identity":
        return None
    if name is None:
        raise InputError(where, f"function_name {function}"[:120], f"one of {', '.join(_DISTORTIONS)}")
    parameters = _numbers(where, stored, "parameters", _DISTORTIONS[name])
    if not parameters[:3].any() if name == "GE_41RT" else not parameters.any():
        return None
    if name == "GE_41RT" and parameters[3:].min() < 0:
        raise InputError(where, f"powers of the radius {parameters[3:].tolist()}", "0 or more")
    if name == "Dexela_2923_quad" and abs(np.linalg.det(parameters.reshape(2, 3)[:, 1:])) < 1e-6:
        raise InputError(where, f"parameters {parameters.tolist()}, which map the panel to a line", "others")
    return Distortion(name, parameters)


def _first_pixel(where: str, panel: dict[str, Any]) -> tuple[int, int]:
    """Return the (row, column) of the frame at which a panel begins."""
    pixels = _mapping(where, panel, "pixels")
    if pixels.get("roi") is None:
        raise InputError(where, "no roi", "roi: [row, column] of its first pixel in the frame (among pixels)")
    row, col = _numbers(where, pixels, "roi", 2)
    return int(row), int(col)


def is_instrument(file: h5py.File) -> bool:
    """Whether an HDF5 file is an instrument of hexrd."""
    return isinstance(find_node(file, "instrument/detectors"), h5py.Group)


def _stored(path: str) -> dict[str, Any]:
    """Read the mappings of an instrument in HDF5, which has a group for each."""
    with open_hdf5(path) as file, guarded(path, "a readable instrument of hexrd"):
        group = find_node(file, "instrument")
        return _values(group) if isinstance(group, h5py.Group) else {}


def _values(group: h5py.Group) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in group:
        node = find_node(group.file, f"{group.name}/{name}")
        if isinstance(node, h5py.Group):
            found[name] = _values(node)
        elif isinstance(node, h5py.Dataset) and node.dtype.kind in "biuf":
            if node.size < _MAX_NUMBERS:  # not the panel's buffer, which may be an image
                found[name] = read_array(node.file, node.name).tolist()
        elif isinstance(node, h5py.Dataset) and node.ndim == 0:
            found[name] = node.asstr()[()] if h5py.check_string_dtype(node.dtype) else node[()]
    return found


def _beam(path: str, beam: dict[str, Any]) -> tuple[NDArray[np.float64], float]:
    """Return the direction of the beam in hexrd's frame, and its energy [keV]."""
    if "energy" not in beam:
        # Newer files name several X-ray sources.
        if len(beam) != 1:
            raise InputError(f"{path}, beam", f"sources {', '.join(map(str, beam)) or 'none'}", "one beam")
        beam = _mapping(f"{path}, beam", beam, next(iter(beam)))
    vector = _mapping(f"{path}, beam", beam, "vector")
    azimuth, polar = (np.deg2rad(_numbers(f"{path}, beam", vector, key, 1)[0]) for key in ("azimuth", "polar_angle"))
    to_source = [np.sin(polar) * np.cos(azimuth), np.cos(polar), np.sin(polar) * np.sin(azimuth)]
    return -np.array(to_source), float(_numbers(f"{path}, beam", beam, "energy", 1)[0])


def _rotation(path: str, values: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the axis of rotation in hexrd's frame, y inclined by `chi` [rad] about x, and a point of it [mm]."""
    stage, where = values.get("oscillation_stage"), f"{path}, oscillation_stage"
    if not isinstance(stage, dict):
        return np.array([0.0, 1.0, 0.0]), np.zeros(3)
    chi = _numbers(where, stage, "chi", 1)[0] if "chi" in stage else 0.0
    centre = _numbers(where, stage, "translation", 3) if "translation" in stage else np.zeros(3)
    return np.array([0.0, np.cos(chi), np.sin(chi)]), centre


def _mapping(where: str, values: dict[str, Any], key: str) -> dict[str, Any]:
    found = values.get(key)
    if not isinstance(found, dict) or not found:
        raise InputError(where, f"no {key}" if found is None else f"{key} = {found!r}"[:120], f"a mapping {key}")
    return found


def _numbers(where: str, values: dict[str, Any], key: str, count: int) -> NDArray[np.float64]:
    try:
        found = np.atleast_1d(np.asarray(values[key], float))
    except (KeyError, TypeError, ValueError):
        raise InputError(where, f"{key} = {values.get(key)!r}"[:120], f"{count} numbers") from None
    if found.shape != (count,) or not np.isfinite(found).all():
        raise InputError(where, f"{key} = {found.tolist()}", f"{count} finite numbers")
    return found
