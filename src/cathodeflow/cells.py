"""Lattices of cubic, tetragonal, hexagonal and orthorhombic cells: allowed reflections and lattice spacings.

In all of these, 1/d^2 is a sum over the lattice parameters p of a coefficient of hkl divided by p^2 (International
Tables for Crystallography C, section 1.1): (h^2 + k^2 + l^2)/a^2 in cubic cells, 4/3 (h^2 + hk + k^2)/a^2 + l^2/c^2
in hexagonal ones. A relative change of d is then the mean of those of the parameters, weighted with the parts of
1/d^2.
"""

from typing import NamedTuple

import gemmi
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.cells import UnitCell

Floats = NDArray[np.float64]

# Lattice parameters of each lattice system, and the coefficients of 1/d^2 for h, k, l.
_SYSTEMS = {
    "cubic": ("a",),
    "tetragonal": ("a", "c"),
    "hexagonal": ("a", "c"),
    "orthorhombic": ("a", "b", "c"),
}


class Lattice(NamedTuple):
    """Lattice parameters and symmetry of a crystal.

    Attributes
    ----------
    system : str
        `cubic`, `tetragonal`, `hexagonal` (trigonal crystals in hexagonal axes too) or `orthorhombic`.
    names : tuple of str
        Names of the free lattice parameters.
    values : (p,) float64
        Their lengths [Angstrom].
    space_group : gemmi.SpaceGroup
    """

    system: str
    names: tuple[str, ...]
    values: Floats
    space_group: gemmi.SpaceGroup


class Reflections(NamedTuple):
    """Families of reflections of equal lattice spacing, from the largest on.

    Attributes
    ----------
    hkl : (n,) list of str
        Miller indices such as `1 0 4`; of families that share their spacing in every cell of the system, all:
        `3 3 3 / 5 1 1`.
    coefficients : (n, p) float64
        Coefficient of 1/d^2 for each lattice parameter.
    d : (n,) float64
        Lattice spacing [Angstrom].
    """

    hkl: list[str]
    coefficients: Floats
    d: Floats


def as_lattice(cell: UnitCell, where: str) -> Lattice:
    """Find the lattice system of a cell.

    Parameters
    ----------
    cell : UnitCell
    where : str
        Origin of the cell, for messages.

    Raises
    ------
    InputError
        The space group is not known, lengths or angles disagree with it, or the system is monoclinic or triclinic.
    """
    alpha, gamma = (cell.angles[0], cell.angles[2]) if cell.angles else (0.0, 0.0)
    name = cell.space_group.strip()
    if name.isdigit() and 1 <= int(name) <= 230:
        group = gemmi.get_spacegroup_reference_setting(int(name))
    else:
        group = gemmi.find_spacegroup_by_name(name, alpha, gamma)
    if group is None:
        raise InputError(where, f"space group {cell.space_group}", "a Hermann-Mauguin symbol such as R -3 m:H or 166")
    system = group.crystal_system_str()
    if group.ext == "R":
        raise InputError(where, f"rhombohedral axes ({group.xhm()})", "the cell in hexagonal axes")
    system = "hexagonal" if system == "trigonal" else system
    if system not in _SYSTEMS:
        raise InputError(where, f"a {system} cell", ", ".join(_SYSTEMS))
    a, b, c = cell.lengths
    equal = {"cubic": (a == b == c), "tetragonal": a == b, "hexagonal": a == b, "orthorhombic": True}[system]
    angles = (90.0, 90.0, 120.0 if system == "hexagonal" else 90.0)
    if not equal or not np.allclose(cell.angles or angles, angles, atol=1e-3):
        found = f"lengths {cell.lengths}" + (f", angles {cell.angles}" if cell.angles else "")
        raise InputError(where, found, f"those of a {system} cell, as the space group {group.xhm()} has it")
    names = _SYSTEMS[system]
    values = np.array([dict(a=a, b=b, c=c)[name] for name in names], np.float64)
    return Lattice(system, names, values, group)


def coefficients(hkl: ArrayLike, system: str) -> Floats:
    """Coefficients (n, p) of 1/d^2 for the lattice parameters of a system, of Miller indices (n, 3).

    Examples
    --------
    >>> coefficients([[1, 0, 4]], "hexagonal").round(3)
    array([[ 1.333, 16.   ]])
    """
    h, k, index_l = np.asarray(hkl, np.float64).reshape(-1, 3).T
    if system == "cubic":
        columns = [h * h + k * k + index_l**2]
    elif system == "tetragonal":
        columns = [h * h + k * k, index_l**2]
    elif system == "hexagonal":
        columns = [4 / 3 * (h * h + h * k + k * k), index_l**2]
    else:
        columns = [h * h, k * k, index_l**2]
    return np.column_stack(columns)


def log_spacing(parts: Floats, log_parameters: Floats) -> tuple[Floats, Floats]:
    """Logarithm of d, and its derivatives by the logarithms of the lattice parameters.

    Parameters
    ----------
    parts : (..., p) float64
        Coefficients of 1/d^2.
    log_parameters : (..., p) float64
        Logarithms of the lattice parameters [Angstrom].

    Returns
    -------
    log_d : (...) float64
    weights : (..., p) float64
        Sum to 1.

    Examples
    --------
    >>> d, weights = log_spacing(coefficients([[0, 0, 3]], "hexagonal"), np.log([2.87, 14.2]))
    >>> np.exp(d).round(4), weights
    (array([4.7333]), array([[0., 1.]]))
    """
    terms = parts * np.exp(-2 * log_parameters)
    total = terms.sum(axis=-1)
    return -0.5 * np.log(total), terms / total[..., None]


def allowed_reflections(lattice: Lattice, low: float, high: float) -> Reflections:
    """List the families of reflections that the space group allows.

    Systematic absences of centring, screw axes and glide planes are left out, those of special positions are not.

    Parameters
    ----------
    lattice : Lattice
    low, high : float
        Range of the lattice spacing [Angstrom].
    """
    by_name = dict(zip(lattice.names, lattice.values, strict=True))
    lengths = by_name["a"], by_name.get("b", by_name["a"]), by_name.get("c", by_name["a"])
    cell = gemmi.UnitCell(*lengths, 90, 90, 120 if lattice.system == "hexagonal" else 90)
    unique = gemmi.make_miller_array(cell, lattice.space_group, low, high)
    operations = lattice.space_group.operations()
    families: dict[tuple[float, ...], tuple[Floats, list[tuple[int, int, int]]]] = {}
    for hkl in unique.tolist():
        part = coefficients([hkl], lattice.system)[0]
        families.setdefault(tuple(part.round(6)), (part, []))[1].append(usual_indices(hkl, operations))
    parts = np.array([part for part, _ in families.values()]).reshape(-1, len(lattice.names))
    log_d, _ = log_spacing(parts, np.log(lattice.values))
    order = np.argsort(-log_d, kind="stable")
    labels = [" / ".join(" ".join(map(str, hkl)) for hkl in sorted(set(found))) for _, found in families.values()]
    return Reflections([labels[index] for index in order], parts[order], np.exp(log_d[order]))


def usual_indices(hkl: list[int], operations: gemmi.GroupOps) -> tuple[int, int, int]:
    """Of all equivalent indices, those that are usually written: not negative, if there are such, and h first."""
    images = {tuple(operation.apply_to_hkl(hkl)) for operation in operations.sym_ops}
    images |= {tuple(-index for index in image) for image in images}
    h, k, index_l = max(images, key=lambda image: (-sum(index < 0 for index in image), image))
    return h, k, index_l
