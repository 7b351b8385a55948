"""Reflections of a crystal: cell parameters that its symmetry leaves free, reciprocal cell, allowed hkl, rotations.

The Cartesian frame of a crystal has x along the axis a and z along the reciprocal axis c* (as in PDB files and hexrd).
Lengths of reciprocal vectors are 1 / d, without the factor 2 pi.
"""

from typing import NamedTuple

import gemmi
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PARAMETERS = ("a", "b", "c", "alpha", "beta", "gamma")


class FreeCell(NamedTuple):
    """The free parameters of a cell; all six are `matrix @ free + fixed`.

    Attributes
    ----------
    names : tuple of str
        Names of the free parameters, such as a and c.
    matrix : (6, n) float64
    fixed : (6,) float64
        Angles that the symmetry fixes [deg].
    """

    names: tuple[str, ...]
    matrix: Floats
    fixed: Floats

    def free(self, cell: ArrayLike) -> Floats:
        """Return the free ones of six parameters."""
        return np.asarray(cell, np.float64)[[PARAMETERS.index(name) for name in self.names]]

    def all(self, free: ArrayLike) -> Floats:
        """Return all six parameters."""
        return np.asarray(self.matrix @ np.asarray(free, np.float64) + self.fixed)


def free_cell(group: gemmi.SpaceGroup) -> FreeCell:
    """Return which parameters of the cell the symmetry leaves free (International Tables A, table 2.1.2.1).

    Examples
    --------
    >>> free_cell(gemmi.SpaceGroup("R -3 m")).names
    ('a', 'c')
    """
    system = group.crystal_system_str()
    # Names that share a value.
    groups: list[tuple[str, ...]]
    angles = dict.fromkeys(PARAMETERS[3:], 90.0)
    if system == "triclinic":
        groups, angles = [(name,) for name in PARAMETERS], {}
    elif system == "monoclinic":
        unique = {"a": "alpha", "b": "beta", "c": "gamma"}[group.monoclinic_unique_axis()]
        groups = [("a",), ("b",), ("c",), (unique,)]
        del angles[unique]
    elif system == "trigonal" and group.ext == "R":
        groups, angles = [("a", "b", "c"), ("alpha", "beta", "gamma")], {}
    elif system in ("trigonal", "hexagonal"):
        groups, angles["gamma"] = [("a", "b"), ("c",)], 120.0
    elif system == "tetragonal":
        groups = [("a", "b"), ("c",)]
    else:
        groups = [("a", "b", "c")] if system == "cubic" else [("a",), ("b",), ("c",)]
    matrix = np.array([[float(name in shared) for shared in groups] for name in PARAMETERS])
    return FreeCell(
        tuple(shared[0] for shared in groups), matrix, np.array([angles.get(name, 0.0) for name in PARAMETERS])
    )


def direct_axes(cell: ArrayLike) -> Floats:
    """Return the (3, 3) axes of a cell as columns [Angstrom], in the crystal's Cartesian frame."""
    a, b, c, *angles = np.asarray(cell, np.float64)
    alpha, beta, gamma = np.deg2rad(angles)
    y = (np.cos(alpha) - np.cos(beta) * np.cos(gamma)) / np.sin(gamma)
    z = np.sqrt(np.sin(beta) ** 2 - y**2)
    return np.array(
        [[a, b * np.cos(gamma), c * np.cos(beta)], [0.0, b * np.sin(gamma), c * y], [0.0, 0.0, c * z]], np.float64
    )


def reciprocal_axes(cell: ArrayLike) -> Floats:
    """Return the (3, 3) reciprocal axes as columns [1/Angstrom]: the matrix B of Busing and Levy (1967), `B @ hkl`."""
    return np.asarray(np.linalg.inv(direct_axes(cell)).T)


def allowed_hkls(cell: ArrayLike, group: gemmi.SpaceGroup, d_min: float) -> Integers:
    """List the reflections with a lattice spacing of at least `d_min` [Angstrom] that are not systematically absent.

    Returns
    -------
    (n, 3) int64
        Sorted by descending lattice spacing; both of hkl and -h -k -l.

    Examples
    --------
    >>> allowed_hkls([2.87, 2.87, 14.2, 90, 90, 120], gemmi.SpaceGroup("R -3 m"), 4.0).tolist()
    [[0, 0, -3], [0, 0, 3]]
    """
    limits = np.floor(np.linalg.norm(direct_axes(cell), axis=0) / d_min).astype(int)
    ranges = [np.arange(-limit, limit + 1) for limit in limits]
    hkl = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
    length = np.linalg.norm(hkl @ reciprocal_axes(cell).T, axis=1)
    wanted = (length > 0) & (length <= 1 / d_min)
    wanted[wanted] = ~np.asarray(group.operations().systematic_absences(hkl[wanted].astype(np.int32)), bool)
    hkl, length = hkl[wanted], length[wanted]
    return hkl[np.lexsort((*hkl.T[::-1], length.round(9)))].astype(np.int64)


def proper_rotations(group: gemmi.SpaceGroup) -> Integers:
    """Return the (n, 3, 3) rotations of the Laue group: `hkl @ rotation` lists equivalent reflections."""
    operations = [np.asarray(operation.rot) // operation.DEN for operation in group.operations().sym_ops]
    # A Laue group has the inversion, so an improper operation times -1 is one of its rotations.
    proper = [rotation * round(np.linalg.det(rotation)) for rotation in operations]
    return np.unique(np.array(proper, np.int64), axis=0)


def families(hkl: NDArray[np.integer], group: gemmi.SpaceGroup) -> Integers:
    """Return the family of each reflection: the same number for those that the Laue group makes equivalent.

    Families are numbered in the order in which they appear.

    Examples
    --------
    >>> families(np.array([[1, 0, 4], [0, 1, 4], [-1, 1, 4], [-1, 0, -4]]), gemmi.SpaceGroup("R -3 m"))
    array([0, 1, 0, 0])
    """
    rotations = proper_rotations(group)
    equivalent = np.einsum("ni,rij->nrj", hkl, np.concatenate([rotations, -rotations]))
    # The largest of the equivalent reflections stands for all of them.
    weight = 2 * int(np.abs(equivalent).max(initial=0)) + 1
    key = (equivalent @ np.array([weight**2, weight, 1])).max(axis=1)
    _, first, number = np.unique(key, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[number].astype(np.int64))


def in_fundamental_zone(orientation: Floats, cell: ArrayLike, group: gemmi.SpaceGroup) -> Floats:
    """Return the equivalent of a (3, 3) orientation matrix with the smallest angle of rotation.

    `orientation` turns the crystal's Cartesian frame into that of the sample.
    """
    axes = reciprocal_axes(cell)
    turns = np.array([axes @ rotation.T @ np.linalg.inv(axes) for rotation in proper_rotations(group)])
    found = orientation @ turns
    return np.asarray(found[np.argmax(np.trace(found, axis1=1, axis2=2))])
