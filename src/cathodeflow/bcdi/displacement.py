"""Displacement of a crystal's lattice planes, as the phase Q . u: smooth fields, dislocations, twins, faults, surfaces.

Every function returns the phase [rad] at positions r, in any unit of length, with Q in its inverse, 2 pi included.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bcdi.crystals import Vectors
from cathodeflow.bcdi.polyhedra import Floats, Grid, Polyhedron
from cathodeflow.errors import InputError

#: Intervals from which the range of the phase in the crystal [rad] is drawn, by strain regime.
REGIMES: dict[str, tuple[float, float]] = {
    "weak": (0.1, 1.0),
    "medium": (2.0, 3.0),
    "strong": (4.0, 6.0),
    "extreme": (2 * np.pi, 3 * np.pi),
}
# Upper limits of each regime except the last, half-way between the intervals above.
_ENDS = (1.5, 3.5, 2 * np.pi)


class Waves(NamedTuple):
    """Plane waves whose sum is a smooth random field: wave vectors (k, 3) and phases (k,)."""

    vectors: Vectors
    phases: Vectors


def regime_of(phase_range: float) -> str:
    """Regime of a phase range [rad]; between the intervals of `REGIMES`, the nearest.

    Examples
    --------
    >>> [regime_of(value) for value in (0.5, 2.5, 5, 7)]
    ['weak', 'medium', 'strong', 'extreme']
    """
    return list(REGIMES)[int(np.searchsorted(_ENDS, phase_range, side="left"))]


def draw_waves(rng: np.random.Generator, *, length: float, count: int = 64) -> Waves:
    """Draw a Gaussian random field with the correlation exp(-r^2 / (2 length^2)), as a sum of waves [1]_.

    References
    ----------
    .. [1] R. H. Kraichnan, Phys. Fluids 13, 22 (1970)
    """
    if not length > 0:
        raise InputError("correlation", f"{length}", "more than 0")
    return Waves(rng.normal(scale=1 / length, size=(count, 3)), rng.uniform(0, 2 * np.pi, count))


def smooth(on: Grid, waves: Waves) -> Floats:
    """Sum of waves (z, y, x), of mean square 1 [rad]."""
    # On a grid a plane wave is a product of factors along the axes.
    z, y, x = (
        np.exp(1j * (np.arange(n) - n // 2)[:, None] * (waves.vectors @ step)).astype(np.complex64)
        for n, step in zip(on.shape, on.axes, strict=True)
    )
    z *= np.exp(1j * (waves.vectors @ on.origin + waves.phases)).astype(np.complex64)
    zy = (z[:, None] * y).reshape(-1, len(waves.phases))
    # Twice as fast as the complex product, of which only the real part is needed.
    real = zy.real @ x.real.T - zy.imag @ x.imag.T
    real *= np.sqrt(2 / len(waves.phases))
    return real.reshape(on.shape)


def dislocation(
    points: Floats,
    *,
    burgers: Sequence[float] | Vectors,
    line: Sequence[float] | Vectors,
    through: Sequence[float] | Vectors,
    q: Sequence[float] | Vectors,
    poisson: float = 0.3,
) -> Floats:
    """Phase of a straight edge, screw or mixed dislocation in an isotropic crystal.

    Around the line the phase increases by Q . b. With b_e and b_s across and along the line t, x along b_e, y along t x
    b_e and the angle a from x [1]_:

    - screw: u = b_s a / (2 pi)
    - edge: u_x = b_e / (2 pi) (a + x y / (2 (1 - v) r^2)),
      u_y = -b_e / (2 pi) ((1 - 2 v) / (4 (1 - v)) ln r^2 + (x^2 - y^2) / (4 (1 - v) r^2))

    Parameters
    ----------
    points : (..., 3)
    burgers : (3,)
        b. The cut, where the phase decreases by Q . b, is opposite to the component of b across the line.
    line, through : (3,)
        Direction of the line and a point of it.
    q : (3,)
        Scattering vector.
    poisson : float
        Poisson's ratio v, less than 1/2.

    Returns
    -------
    (...) float32
        Closer to the line than the length of the Burgers vector, r is set to this length, so the logarithm is finite.

    Raises
    ------
    InputError
        A line or Burgers vector of length 0, or an impossible Poisson's ratio.

    References
    ----------
    .. [1] J. P. Hirth and J. Lothe, Theory of Dislocations, 2nd edition (1982), equations 3-3, 3-45, 3-46
    """
    b, q = np.asarray(burgers, dtype=np.float64), np.asarray(q, dtype=np.float64)
    if not np.linalg.norm(line) > 0 or not np.linalg.norm(b) > 0:
        raise InputError("dislocation", "a line or Burgers vector of length 0", "more than 0")
    if not -1 <= poisson < 0.5:
        raise InputError("poisson", f"{poisson}", "at least -1, less than 0.5")
    t = np.asarray(line, dtype=np.float64) / np.linalg.norm(line)
    screw = (b @ t) * t
    edge = b - screw
    size = np.linalg.norm(edge)
    # For a pure screw dislocation, any direction across the line can be used.
    across = edge if size > 1e-9 * np.linalg.norm(b) else np.cross(t, np.eye(3)[np.argmin(np.abs(t))])
    x_axis = across / np.linalg.norm(across)
    y_axis = np.cross(t, x_axis)
    from_line = points - np.asarray(through, dtype=np.float32)
    x, y = from_line @ x_axis.astype(np.float32), from_line @ y_axis.astype(np.float32)
    square = np.maximum(x * x + y * y, np.float32(b @ b))
    phase = np.float32(q @ b / (2 * np.pi)) * np.arctan2(y, x)
    if size > 0:
        along, aside = (size / (2 * np.pi) * (q @ axis) for axis in (x_axis, y_axis))
        phase += np.float32(along / (2 * (1 - poisson))) * x * y / square
        phase -= np.float32(aside * (1 - 2 * poisson) / (4 * (1 - poisson))) * np.log(square)
        phase -= np.float32(aside / (4 * (1 - poisson))) * (x * x - y * y) / square
    return phase


def twin(points: Floats, *, normal: Sequence[float] | Vectors, through: Sequence[float] | Vectors) -> Floats:
    """Phase |n . (r - r0)| of a twin: two domains with opposite shear that meet in a plane."""
    return np.abs(_from_plane(points, normal, through))


def fault(points: Floats, *, normal: Sequence[float] | Vectors, through: Sequence[float] | Vectors) -> Floats:
    """Phase of a stacking fault or an antiphase boundary: 0 on one side of a plane and 1 on the other."""
    return (_from_plane(points, normal, through) > 0).astype(np.float32)


def domains(points: Floats, *, centres: Vectors, levels: Vectors) -> Floats:
    """Phase of blocks that are displaced against each other: each point has the level of the nearest centre.

    Parameters
    ----------
    points : (..., 3)
    centres : (k, 3)
    levels : (k,)
        Phases of the blocks.
    """
    distances = np.stack([((points - centre.astype(np.float32)) ** 2).sum(-1) for centre in centres])
    return levels.astype(np.float32)[distances.argmin(0)]


def relaxation(points: Floats, *, polyhedron: Polyhedron, depth: float, moves: Vectors, q: Vectors) -> Floats:
    """Phase of facets that move along their normals; the displacement decays exponentially with depth.

    u = sum_i m_i n_i exp(-(d_i - n_i . r) / depth)

    Parameters
    ----------
    points : (..., 3)
    polyhedron : Polyhedron
    depth : float
        Depth at which the displacement of a facet has decayed to 1 / e.
    moves : (m,)
        Displacement m_i of each facet, outward.
    q : (3,)
        Scattering vector.
    """
    if not depth > 0:
        raise InputError("depth", f"{depth}", "more than 0")
    inside = points @ polyhedron.normals.T.astype(np.float32)
    inside -= polyhedron.distances.astype(np.float32)
    # The exponential must not overflow outside the crystal, where it is not used.
    np.minimum(inside, 0, out=inside)
    inside /= np.float32(depth)
    return np.exp(inside, out=inside) @ ((polyhedron.normals @ q) * moves).astype(np.float32)


def share_for_range(
    field: Floats, phase_range: float, *, inside: NDArray[np.bool_], base: Floats | None = None
) -> float:
    """Find the factor a > 0 for which `base + a field` has a given range in the crystal.

    Parameters
    ----------
    field, base : (...)
        Phases. Default of the base: 0. Its range must not exceed the requested one.
    phase_range : float
        Maximum minus minimum phase [rad], above 0.
    inside : (...) bool
        The crystal.

    Raises
    ------
    InputError
        The base already has a larger range, or the field is constant.
    """
    values = field[inside].astype(np.float64)
    start = np.zeros_like(values) if base is None else base[inside].astype(np.float64)
    if not phase_range > 0 or not np.isfinite(phase_range):
        raise InputError("phase_range", f"{phase_range} rad", "more than 0")
    if np.ptp(start) > phase_range:
        raise InputError("phase_range", f"{phase_range:.3g} rad", f"at least the defect's, {np.ptp(start):.3g} rad")
    if np.ptp(values) == 0:
        raise InputError("displacement", "the same value in the whole crystal", "a field that varies")
    # The range is a convex, piecewise linear function of the factor, so Newton's method from above ends at the root.
    share = (phase_range + np.ptp(start)) / np.ptp(values)
    for _ in range(100):
        phase = start + share * values
        high, low = np.argmax(phase), np.argmin(phase)
        excess = phase[high] - phase[low] - phase_range
        if abs(excess) < 1e-9 * phase_range:
            break
        share -= excess / (values[high] - values[low])
    return float(share)


def _from_plane(points: Floats, normal: Sequence[float] | Vectors, through: Sequence[float] | Vectors) -> Floats:
    length = np.linalg.norm(normal)
    if not length > 0:
        raise InputError("normal", "a vector of length 0", "the normal of the plane")
    unit = (np.asarray(normal, dtype=np.float64) / length).astype(np.float32)
    return (points - np.asarray(through, dtype=np.float32)) @ unit
