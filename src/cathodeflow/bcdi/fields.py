"""Random displacement fields of crystals, scaled to a given phase range."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bcdi.crystals import Vectors
from cathodeflow.bcdi.displacement import (
    REGIMES,
    Waves,
    dislocation,
    domains,
    draw_waves,
    fault,
    relaxation,
    share_for_range,
    smooth,
    twin,
)
from cathodeflow.bcdi.polyhedra import Floats, Grid, Polyhedron, positions
from cathodeflow.errors import InputError

#: Kinds of displacement; all but the first are added to a smooth field.
KINDS = ("smooth", "surface", "twin", "fault", "edge", "screw", "domains")
#: Kinds around which the phase increases by 2 pi, so that its range is larger.
DISLOCATIONS = ("edge", "screw")
# Number of blocks of constant phase, and the distance of their centres relative to that of the nearest facet.
_DOMAINS, _SPREAD = 5, 0.8


class Displacement(NamedTuple):
    """Phase Q . u [rad] on any grid: defect + share * scalable - mean.

    The functions return (z, y, x) float32 on a grid: the phase of a dislocation, if any, and the part that is scaled.
    """

    defect: Callable[[Grid], Floats] | None
    scalable: Callable[[Grid], Floats]
    share: float = 1.0
    mean: float = 0.0


def phase_on(on: Grid, displacement: Displacement) -> Floats:
    """Phase Q . u (z, y, x) [rad] of a displacement on a grid."""
    phase = displacement.scalable(on)
    phase *= np.float32(displacement.share)
    if displacement.defect is not None:
        phase += displacement.defect(on)
    phase -= np.float32(displacement.mean)
    return phase


class Parameters(NamedTuple):
    """Parameters of a displacement field of one of the `KINDS`.

    Attributes
    ----------
    kind : str
    waves : Waves
        Waves of the smooth part.
    near : float
        Distance of the nearest facet.
    through : (3,)
        Point of a plane or of a dislocation's line.
    across : (3,)
        Normal of the plane of a twin or a fault.
    burgers, line, q : (3,)
        Of a dislocation.
    depth : float
    moves : (m,)
        Of `displacement.relaxation`.
    centres : (k, 3)
    levels : (k,)
        Of `displacement.domains`; 0 for other kinds.
    """

    kind: str
    waves: Waves
    near: float
    through: Vectors
    across: Vectors
    burgers: Vectors
    line: Vectors
    q: Vectors
    depth: float
    moves: Vectors
    centres: Vectors
    levels: Vectors


def draw_parameters(
    rng: np.random.Generator, kind: str, *, polyhedron: Polyhedron, q: Vectors, length: float
) -> Parameters:
    """Draw the parameters of a displacement field; arguments as in `draw_displacement`."""
    if kind not in KINDS:
        raise InputError("kind", kind, "one of " + ", ".join(KINDS))
    waves, near = draw_waves(rng, length=length), float(polyhedron.distances.min())
    direction = q / np.linalg.norm(q)
    through = 0.4 * near * rng.uniform(-1, 1, 3)
    # Within 30 degrees of the scattering vector.
    tilted = direction + 0.5 * rng.uniform() * np.cross(direction, draw_direction(rng))
    burgers = 2 * np.pi / (q @ tilted) * tilted
    across, depth = draw_direction(rng), rng.uniform(0.1, 0.4) * near
    line = np.cross(burgers, across) if kind == "edge" else burgers
    moves = rng.uniform(0.3, 1.0, len(polyhedron.normals)) * rng.choice([-1, 1])
    centres, levels = np.zeros((_DOMAINS, 3)), np.zeros(_DOMAINS)
    # Other kinds do not depend on these draws.
    if kind == "domains":
        centres, levels = _SPREAD * near * rng.uniform(-1, 1, centres.shape), rng.permutation(_DOMAINS) / (_DOMAINS - 1)
    return Parameters(kind, waves, near, through, across, burgers, line, q, depth, moves, centres, levels)


def draw_displacement(
    rng: np.random.Generator, kind: str, *, polyhedron: Polyhedron, q: Vectors, length: float
) -> Displacement:
    """Draw a displacement field of one of the `KINDS` in a crystal.

    Parameters
    ----------
    rng : Generator
    kind : str
    polyhedron : Polyhedron
        In any unit of length.
    q : (3,)
        Scattering vector in the inverse unit, 2 pi included. Dislocations have Q . b = 2 pi.
    length : float
        Correlation length of the smooth part.
    """
    return displacement_of(draw_parameters(rng, kind, polyhedron=polyhedron, q=q, length=length), polyhedron)


def displacement_of(drawn: Parameters, polyhedron: Polyhedron) -> Displacement:
    """Return the displacement field of drawn parameters in a crystal (`cathodeflow.bcdi.rendering` has the same)."""
    kind, through, across = drawn.kind, drawn.through, drawn.across
    direction = drawn.q / np.linalg.norm(drawn.q)

    def around(on: Grid) -> Floats:
        return dislocation(positions(on), burgers=drawn.burgers, line=drawn.line, through=through, q=drawn.q)

    def scalable(on: Grid) -> Floats:
        waving = smooth(on, drawn.waves)
        if kind == "surface":
            return 0.3 * waving + 3 * relaxation(
                positions(on), polyhedron=polyhedron, depth=drawn.depth, moves=drawn.moves, q=direction
            )
        if kind == "twin":
            return 0.3 * waving + twin(positions(on), normal=across, through=through) * np.float32(2 / drawn.near)
        if kind == "domains":
            return 0.3 * waving + 4 * domains(positions(on), centres=drawn.centres, levels=drawn.levels)
        return 0.5 * waving + 3 * fault(positions(on), normal=across, through=through) if kind == "fault" else waving

    return Displacement(around if kind in DISLOCATIONS else None, scalable)


def scaled(
    displacement: Displacement,
    on: Grid,
    *,
    inside: NDArray[np.bool_],
    regime: str,
    phase_range: float | None,
    rng: np.random.Generator,
) -> tuple[Displacement, Floats]:
    """Scale a displacement to a phase range, with the mean 0 in the crystal.

    Parameters
    ----------
    displacement : Displacement
        Of `draw_displacement`.
    on : Grid
    inside : (z, y, x) bool
        The crystal on the grid.
    regime : str
        One of `REGIMES`, from whose interval the phase range is drawn, above that of a dislocation.
    phase_range : float, optional
        Phase range to use instead of that of the regime [rad].
    rng : Generator

    Returns
    -------
    displacement : Displacement
    phase : (z, y, x) float32
        Phase of the displacement on the grid.

    Raises
    ------
    InputError
        The regime is unknown, or the phase range is smaller than that of the dislocation.
    """
    if regime not in REGIMES:
        raise InputError("regime", regime, "one of " + ", ".join(REGIMES))
    if not inside.any():
        raise InputError("crystal", "no voxel of which it fills half", "a larger crystal or smaller voxels")
    defect = None if displacement.defect is None else displacement.defect(on)
    phase = displacement.scalable(on)
    if phase_range is None:
        least, (low, high) = 0.0 if defect is None else float(np.ptp(defect[inside])), REGIMES[regime]
        if least >= high:
            raise InputError("regime", regime, f"one with phase ranges above that of the dislocation, {least:.3g} rad")
        # The interval includes its upper end but not its lower end: the extreme regime is above 2 pi.
        phase_range = high - (high - max(low, least)) * rng.random()
    share = share_for_range(phase, phase_range, inside=inside, base=defect)
    phase *= np.float32(share)
    if defect is not None:
        phase += defect
    mean = float(phase[inside].mean(dtype=np.float64))
    phase -= np.float32(mean)
    return displacement._replace(share=share, mean=mean), phase


def draw_direction(rng: np.random.Generator) -> Vectors:
    """Draw a random vector (3,) of length 1."""
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)
