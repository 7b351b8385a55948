"""Miller indices of facets, from the unit cell and the measured reflection.

One reflection fixes the direction of its scattering vector in the crystal. The rotation about it is the one at which
the facets lie nearest to directions of low indices.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import gemmi
import numpy as np
from numpy.typing import NDArray

from cathodeflow.bcdi.facet_options import Facets
from cathodeflow.cell_options import unit_cell
from cathodeflow.cells import as_lattice, usual_indices

Floats = NDArray[np.float64]

# Steps of the rotation about the scattering vector [degrees].
_COARSE, _FINE = 0.5, 0.02
# Angle between facet and direction at which the agreement has fallen to exp(-1/2) [degrees], and what each unit of the
# sum of the magnitudes of the indices costs: of directions that fit equally well, the simpler is taken.
_WIDTH, _COST = 3.0, 0.02


class Directions(NamedTuple):
    """Directions of possible facets in the axes of the crystal.

    Attributes
    ----------
    hkl : (n, 3) int
    vectors : (n, 3) float64
        Of length 1.
    families : list of str
        Usual indices of the family of each, such as `1 1 1`.
    """

    hkl: NDArray[np.int64]
    vectors: Floats
    families: list[str]


class Indexed(NamedTuple):
    """Indices of facets.

    Attributes
    ----------
    hkl, families : list of str
        Empty texts where no direction is near.
    misfits : (k,) float64
        Angle between each facet and the direction of its indices [degrees]; NaN where there are none.
    agreement : float
        Fraction of the area of the facets, 0 to 1, weighted with the agreement of their directions.
    """

    hkl: list[str]
    families: list[str]
    misfits: Floats
    agreement: float


def facet_directions(options: Facets, where: str = "bcdi.facets.cell") -> tuple[Directions, Floats]:
    """Return the directions that facets can have, and the matrix (3, 3) from Miller indices to their directions.

    Raises
    ------
    InputError
        The cell cannot be used.
    """
    lattice = as_lattice(unit_cell(options.cell), where)
    lengths = dict(zip(lattice.names, lattice.values, strict=True))
    a = lengths["a"]
    gamma = 120 if lattice.system == "hexagonal" else 90
    cell = gemmi.UnitCell(a, lengths.get("b", a), lengths.get("c", a), 90, 90, gamma)
    # Rows are the reciprocal vectors in Cartesian axes of the crystal.
    reciprocal = np.array(cell.frac.mat.tolist())
    operations = lattice.space_group.operations()
    if options.families:
        named = [tuple(int(index) for index in family.split()) for family in options.families]
        found = {image: family for family in named for image in _images(family, operations)}
    else:
        numbers = range(-options.max_index, options.max_index + 1)
        found = {
            (h, k, index_l): usual_indices([h, k, index_l], operations)
            for h, k, index_l in product(numbers, repeat=3)
            if np.gcd.reduce([h, k, index_l]) == 1
        }
    hkl = np.array(list(found), np.int64)
    vectors = hkl @ reciprocal
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    return Directions(hkl, vectors, [" ".join(map(str, family)) for family in found.values()]), reciprocal


def indexed_facets(normals: Floats, areas: Floats, q: Floats, options: Facets) -> Indexed:
    """Find the Miller indices of facets.

    Parameters
    ----------
    normals : (k, 3)
        Outward, in the laboratory frame.
    areas : (k,)
        Weights.
    q : (3,)
        Scattering vector of `options.reflection` in the laboratory frame.
    options : Facets

    Raises
    ------
    InputError
        The cell cannot be used.
    """
    unknown = Indexed([""] * len(normals), [""] * len(normals), np.full(len(normals), np.nan), 0.0)
    if options.reflection is None or not len(normals):
        return unknown
    directions, reciprocal = facet_directions(options)
    along = np.asarray(options.reflection) @ reciprocal
    crystal, laboratory = _frame(along), _frame(q)
    cost = _COST * np.abs(directions.hkl).sum(axis=1)
    turn = _best_turn(np.arange(0, 360, _COARSE), normals, areas, directions.vectors, crystal, laboratory, cost)
    fine = turn + np.arange(-_COARSE, _COARSE + _FINE / 2, _FINE)
    turn = _best_turn(fine, normals, areas, directions.vectors, crystal, laboratory, cost)
    vectors = _turned(directions.vectors, turn, crystal, laboratory)
    angles = np.degrees(np.arccos(np.clip(normals @ vectors.T, -1, 1)))
    agreement = np.exp(-0.5 * (angles / _WIDTH) ** 2)
    # Beyond the reach of the agreement, the nearest direction counts.
    best = np.argmax(agreement - cost - 1e-6 * angles, axis=1)
    misfits = angles[np.arange(len(normals)), best]
    near = misfits <= options.max_misfit_deg
    return Indexed(
        [" ".join(map(str, directions.hkl[index])) if use else "" for index, use in zip(best, near, strict=True)],
        [directions.families[index] if use else "" for index, use in zip(best, near, strict=True)],
        np.where(near, misfits, np.nan),
        float(areas @ agreement[np.arange(len(normals)), best] / areas.sum()),
    )


def _best_turn(
    turns: Floats,
    normals: Floats,
    areas: Floats,
    vectors: Floats,
    crystal: Floats,
    laboratory: Floats,
    cost: Floats,
) -> float:
    scores = []
    for turn in turns:
        angles = np.degrees(np.arccos(np.clip(normals @ _turned(vectors, turn, crystal, laboratory).T, -1, 1)))
        scores.append(areas @ (np.exp(-0.5 * (angles / _WIDTH) ** 2) - cost).max(axis=1))
    return float(turns[int(np.argmax(scores))])


def _turned(vectors: Floats, turn: float, crystal: Floats, laboratory: Floats) -> Floats:
    """Directions in the laboratory frame, if the crystal is turned by an angle [degrees] about Q."""
    cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    about = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    return np.asarray(vectors @ crystal.T @ about @ laboratory)


def _frame(along: Floats) -> Floats:
    """Right-handed frame (3, 3) whose rows are two directions across a vector, and that of the vector."""
    third = along / np.linalg.norm(along)
    first = np.cross(third, np.eye(3)[np.argmin(np.abs(third))])
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(third, first), third])


def _images(hkl: Sequence[int], operations: gemmi.GroupOps) -> set[tuple[int, int, int]]:
    """All equivalent indices, with those of the opposite side."""
    images = {tuple(operation.apply_to_hkl(list(hkl))) for operation in operations.sym_ops}
    return {(h, k, l) for h, k, l in images} | {(-h, -k, -l) for h, k, l in images}  # noqa: E741
