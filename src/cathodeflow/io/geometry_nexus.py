"""Geometry in NeXus files: NXdetector_module, or pixel size, distance and beam centre, with their NXtransformations.

A chain of transformations is followed through `depends_on`; each is a rotation or a translation along its `vector`,
then its `offset` (NeXus manual, "Coordinate systems" and NXtransformations). `module_offset`, `beam_center_x`, and
`beam_center_y` refer to the outer corner of pixel (0, 0), as the files of Dectris and NXmx use them; of several
modules, to that of the first pixel of each, which is pixel `data_origin` of the frame.
"""

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cathodeflow.errors import InputError
from cathodeflow.io.detector_geometry import HC_KEV_ANGSTROM, DetectorGeometry, Module, of_modules
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import find_node, open_hdf5, read_array

Floats = NDArray[np.float64]
Affine = tuple[Floats, Floats]

_METRES = {"m": 1.0, "mm": 1e-3, "cm": 1e-2, "um": 1e-6, "µm": 1e-6, "micron": 1e-6, "nm": 1e-9, "metre": 1.0}
_METRES |= {"meter": 1.0, "meters": 1.0, "metres": 1.0, "millimeter": 1e-3, "angstrom": 1e-10, "a": 1e-10, "å": 1e-10}
_DEGREES = {"deg": 1.0, "degree": 1.0, "degrees": 1.0, "rad": 180 / np.pi, "radian": 180 / np.pi}
_KEV = {"kev": 1.0, "ev": 1e-3, "mev": 1e3, "j": 1 / 1.602176634e-16}
_MAX_CHAIN = 100


def read_nexus(path: str, *, detector: str | None = None) -> DetectorGeometry:
    """Read the geometry of a detector of a NeXus file.

    Parameters
    ----------
    path : str
    detector : str, optional
        Path of the NXdetector in the file, or its name; needed if there are several.

    Raises
    ------
    InputError
        A value is missing or wrong, or there is no such detector.
    """
    with open_hdf5(path) as file, guarded(path, "a readable NeXus file"):
        groups = groups_of_class(file, "NXdetector")
        matching = [name for name in groups if detector in (None, name, name.lstrip("/"), name.rpartition("/")[2])]
        if len(matching) != 1:
            listed = ", ".join(matching or groups) or "no NXdetector"
            found = listed if detector is None else f"{len(matching)} detectors called {detector} of {listed}"
            raise InputError(path, found, "one NXdetector, or its path (detector)")
        where, group = f"{path}::{matching[0]}", file[matching[0]]
        modules = [group[name] for name in sorted(group) if _class_of(group.get(name)) == "NXdetector_module"]
        beam, energy, shape = np.array([0.0, 0.0, 1.0]), _energy(file), _shape(group)
        first = [_pair(module, "data_origin", where) for module in modules if len(modules) > 1 or _is_part(module)]
        if first:
            sizes = [_pair(module, "data_size", where) for module in modules]
            parts = [
                _part(place, size, *_of_module(file, module))
                for place, size, module in zip(first, sizes, modules, strict=True)
            ]
            return of_modules(where, parts, beam, energy, shape)
        corner, fast, slow = _of_module(file, modules[0]) if modules else _of_detector(file, group, where)
        return DetectorGeometry(where, corner + 0.5 * (fast + slow), slow, fast, beam, energy, shape)


def _is_part(module: h5py.Group) -> bool:
    """Whether the only module of a detector does not begin at the frame's first pixel."""
    origin = _value(module.get("data_origin"))
    return origin is not None and bool(np.any(origin)) and "data_size" in module


def _pair(module: h5py.Group, name: str, where: str) -> tuple[int, int]:
    """Read two whole numbers of a module, for rows and columns of the frame."""
    node = module.get(name)
    values = np.asarray(node[()]).ravel() if isinstance(node, h5py.Dataset) and node.size <= 3 else np.empty(0)
    if values.shape != (2,) or values.dtype.kind not in "iu":
        found = f"no {name}" if node is None else f"{name} of {module.name}: {values.tolist()}"
        raise InputError(where, found, "two whole numbers for each module, (row, column) of one frame")
    return int(values[0]), int(values[1])


def _part(first: tuple[int, int], size: tuple[int, int], corner: Floats, fast: Floats, slow: Floats) -> Module:
    return Module(first, size, corner + 0.5 * (fast + slow), slow, fast)


def groups_of_class(file: h5py.File, kind: str) -> list[str]:
    """List the paths of the groups of a NeXus class."""
    names: list[str] = []

    def collect(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if _class_of(node) == kind:
            names.append(f"/{name}")

    file.visititems(collect)
    return sorted(names)


def in_units(dataset: h5py.Dataset, units: dict[str, float], where: str) -> Floats:
    """Read the numbers of a dataset in another unit.

    Raises
    ------
    InputError
        It is no dataset of numbers, or its unit is missing or unknown.
    """
    unit = _text(dataset.attrs.get("units"))
    if unit.strip().lower() not in units:
        raise InputError(where, f"units {unit or 'missing'}", f"one of {', '.join(units)}")
    values = np.asarray(read_array(dataset.file, dataset.name), np.float64)
    if not values.size or not np.isfinite(values).all():
        raise InputError(where, "no number, or one that is not finite", "finite numbers")
    return values * units[unit.strip().lower()]


def in_degrees(dataset: h5py.Dataset, where: str) -> Floats:
    """Read the angles of a dataset [degrees]."""
    return in_units(dataset, _DEGREES, where)


def energies(file: h5py.File) -> tuple[str, Floats] | None:
    """Read the photon energies [keV] of NXbeam or NXmonochromator, and the path of their dataset; None without them."""
    places = [f"{group}/incident_" for group in groups_of_class(file, "NXbeam")]
    places += [f"{group}/" for group in groups_of_class(file, "NXmonochromator")]
    for start in places:
        for name in ("energy", "wavelength"):
            dataset = file.get(start + name)
            if isinstance(dataset, h5py.Dataset) and dataset.size:
                where = f"{file.filename}::{start}{name}"
                if name == "energy":
                    return where, in_units(dataset, _KEV, where).ravel()
                return where, HC_KEV_ANGSTROM / (in_units(dataset, _METRES, where).ravel() * 1e10)
    return None


def _energy(file: h5py.File) -> float | None:
    found = energies(file)
    if found is None:
        return None
    _, values = found
    # Energies that change from frame to frame are those of the frames.
    return float(values[0]) if np.ptp(values) <= 1e-9 * abs(values[0]) else None


def _of_module(file: h5py.File, module: h5py.Group) -> tuple[Floats, Floats, Floats]:
    """Return the corner of pixel (0, 0), and the steps from column to column and from row to row [m]."""
    steps = []
    for name in ("fast_pixel_direction", "slow_pixel_direction"):
        where = f"{file.filename}::{module.name}/{name}"
        dataset = _dataset(module, name, where)
        length = _one(in_units(dataset, _METRES, where), where)
        turn, _ = _chain(file, dataset.attrs.get("depends_on"), dataset.parent, where)
        steps.append(turn @ (length * _unit_vector(dataset, where)))
    where = f"{file.filename}::{module.name}/module_offset"
    offset = _dataset(module, "module_offset", where)
    _, corner = _chain(file, offset.name, module, where)
    return corner, steps[0], steps[1]


def _of_detector(file: h5py.File, group: h5py.Group, where: str) -> tuple[Floats, Floats, Floats]:
    """As `_of_module`, of a detector without modules: pixels to the right and down as seen along the beam."""
    sizes = [_one(in_units(_dataset(group, f"{axis}_pixel_size", where), _METRES, where), where) for axis in ("x", "y")]
    centre = []
    for axis, size in zip(("x", "y"), sizes, strict=True):
        dataset = _dataset(group, f"beam_center_{axis}", where)
        unit = _text(dataset.attrs.get("units")).strip().lower()
        as_length = unit in _METRES
        values = in_units(dataset, _METRES if as_length else {unit: 1.0}, where)
        if not as_length and unit not in ("", "pixel", "pixels", "px"):
            raise InputError(f"{where}/beam_center_{axis}", f"units {unit}", "pixel or a unit of length")
        centre.append(_one(values, where) * (1.0 if as_length else size))
    fast, slow = np.array([-sizes[0], 0.0, 0.0]), np.array([0.0, -sizes[1], 0.0])
    corner = np.array([centre[0], centre[1], 0.0])
    if _text(_value(group.get("depends_on"))) not in ("", "."):
        turn, move = _chain(file, _value(group["depends_on"]), group, where)
        return turn @ corner + move, turn @ fast, turn @ slow
    distance = _dataset(group, "distance", where)
    corner[2] = _one(in_units(distance, _METRES, f"{where}/distance"), f"{where}/distance")
    return corner, fast, slow


def _chain(file: h5py.File, start: Any, near: h5py.Group, where: str) -> Affine:
    """Follow a chain of transformations: (rotation, translation [m]) from its start to the laboratory frame."""
    turn, move = np.eye(3), np.zeros(3)
    name = _text(start)
    for _ in range(_MAX_CHAIN):
        if name in ("", "."):
            return turn, move
        full = name if name.startswith("/") else f"{near.name}/{name}"
        axis = find_node(file, full)
        if isinstance(axis, h5py.Group):  # a component, which goes on with its own chain
            near, name = axis, _text(_value(axis.get("depends_on")))
            continue
        if not isinstance(axis, h5py.Dataset):
            raise InputError(where, f"depends_on {name}, which is missing", "a transformation")
        at = f"{file.filename}::{full}"
        kind = _text(axis.attrs.get("transformation_type"))
        vector = _unit_vector(axis, at)
        offset = np.zeros(3)
        if "offset" in axis.attrs:
            unit = _text(axis.attrs.get("offset_units")) or _text(axis.attrs.get("units"))
            if unit.lower() not in _METRES:
                raise InputError(at, f"offset_units {unit or 'missing'}", "a unit of length")
            offset = np.asarray(axis.attrs["offset"], float).reshape(3) * _METRES[unit.lower()]
        if kind == "rotation":
            rotation = Rotation.from_rotvec(_one(in_degrees(axis, at), at) * vector, degrees=True).as_matrix()
        elif kind == "translation":
            rotation, offset = np.eye(3), offset + _one(in_units(axis, _METRES, at), at) * vector
        else:
            raise InputError(at, f"transformation_type {kind or 'missing'}", "rotation or translation")
        turn, move = rotation @ turn, rotation @ move + offset
        near, name = axis.parent, _text(axis.attrs.get("depends_on"))
    raise InputError(where, f"a chain of more than {_MAX_CHAIN} transformations", "one that ends with '.'")


def _dataset(group: h5py.Group, name: str, where: str) -> h5py.Dataset:
    node = group.get(name)
    if not isinstance(node, h5py.Dataset):
        raise InputError(where, f"no {name}", "NXdetector_module, or x_pixel_size, beam_center_x and distance")
    return node


def _one(values: Floats, where: str) -> float:
    flat = values.ravel()
    if np.ptp(flat) > 1e-9 * max(1e-9, float(np.abs(flat).max())):
        raise InputError(where, f"{len(flat)} different values", "a detector that stands still")
    return float(flat[0])


def _unit_vector(dataset: h5py.Dataset, where: str) -> Floats:
    vector = np.asarray(dataset.attrs.get("vector", ()), float)
    if vector.shape != (3,) or not np.linalg.norm(vector) > 0:
        raise InputError(where, f"vector {vector.tolist()}", "three numbers")
    return vector / np.linalg.norm(vector)


def _shape(group: h5py.Group) -> tuple[int, int] | None:
    data = group.get("data")
    return (int(data.shape[-2]), int(data.shape[-1])) if isinstance(data, h5py.Dataset) and data.ndim >= 2 else None


def _class_of(node: Any) -> str:
    return _text(node.attrs.get("NX_class")) if node is not None else ""


def _value(node: Any) -> Any:
    return node[()] if isinstance(node, h5py.Dataset) else None


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""
