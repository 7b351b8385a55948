"""Shapes of crystals: convex polyhedra with rounded edges, on grids of any direction and step.

A crystal is the intersection of half spaces n . r <= d. Grids may be skewed, such as that of a rocking scan, so one
crystal can be sampled in the frame of the detector and in that of the laboratory.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial import ConvexHull, HalfspaceIntersection
from scipy.spatial.transform import Rotation

from cathodeflow.errors import InputError

Floats = NDArray[np.float32]
Vectors = NDArray[np.float64]

#: {100} over {111} distance of the truncated octahedron whose edges are all equal.
ARCHIMEDEAN = 2 / np.sqrt(3)

# Minimum fraction of its bounding box that a crystal fills, which excludes needles and tilted plates.
_FILL = 0.2
_DRAWS = 200
# Radius of the sphere around the centre that no half space cuts, relative to the distance of the farthest vertex.
_COMPACT = 0.25


class Grid(NamedTuple):
    """Positions of the voxels of a volume: r = origin + (index - shape // 2) @ axes."""

    shape: tuple[int, int, int]
    #: (3, 3): the step along each array axis, as a vector of the frame.
    axes: Vectors
    #: (3,): position of the voxel shape // 2.
    origin: Vectors


class Polyhedron(NamedTuple):
    """Convex polyhedron around the origin."""

    #: (m, 3): outward normals of length 1.
    normals: Vectors
    #: (m,): distances of the facets from the origin, above 0.
    distances: Vectors
    #: Radius of the rounded edges and corners.
    rounding: float = 0.0


def grid(shape: tuple[int, int, int], *, axes: Vectors | None = None) -> Grid:
    """Return a grid around the origin. Default: the frame of the array, in voxels."""
    return Grid(shape, np.eye(3) if axes is None else np.asarray(axes, dtype=np.float64), np.zeros(3))


def positions(on: Grid) -> Floats:
    """Positions (z, y, x, 3) of the voxels."""
    z, y, x = (
        np.arange(n)[:, None] * step - (n // 2) * step for n, step in zip(on.shape, on.axes, strict=True)
    )  # fmt: skip
    return ((z + on.origin)[:, None, None] + y[:, None] + x).astype(np.float32)


def moved(on: Grid, shift: Vectors) -> Grid:
    """Grid moved by a vector of its frame."""
    return on._replace(origin=on.origin + shift)


def window(on: Grid, polyhedron: Polyhedron) -> tuple[tuple[slice, slice, slice], Grid]:
    """Part of a grid that contains a polyhedron, as slices and as a grid.

    Raises
    ------
    InputError
        No voxel is near the polyhedron.
    """
    centre = np.array(on.shape) // 2
    corners = (vertices(polyhedron) - on.origin) @ np.linalg.inv(on.axes) + centre
    start = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0)
    stop = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 2, on.shape)
    if (start >= stop).any():
        raise InputError("crystal", "outside the grid", "inside")
    middle = start + (stop - start) // 2
    depth, height, width = (stop - start).tolist()
    part = Grid((depth, height, width), on.axes, on.origin + (middle - centre) @ on.axes)
    z, y, x = (slice(*ends) for ends in zip(start.tolist(), stop.tolist(), strict=True))
    return (z, y, x), part


def amplitude(polyhedron: Polyhedron, on: Grid) -> Floats:
    """Fraction of every voxel that is inside (z, y, x), 0 to 1.

    Edges are rounded where t = sqrt(sum_i max(n_i . r - d_i + rounding, 0)^2) reaches the radius: facets stay flat,
    right-angled edges become cylinders. The fraction decreases linearly over the width of a voxel along the normal,
    which preserves the volume. The edge radius is at least the width of a voxel.
    """
    normals = polyhedron.normals.astype(np.float32)
    widths = np.linalg.norm(polyhedron.normals @ on.axes.T, axis=1).astype(np.float32)
    rounding = np.float32(max(polyhedron.rounding, widths.max() / 2))
    beyond = positions(on) @ normals.T
    beyond -= polyhedron.distances.astype(np.float32) - rounding
    np.maximum(beyond, 0, out=beyond)
    beyond *= beyond
    square = beyond.sum(axis=-1)
    width = np.divide(beyond @ widths, square, out=np.ones_like(square), where=square > 0)
    return np.clip(0.5 - (np.sqrt(square) - rounding) / width, 0, 1)


def vertices(polyhedron: Polyhedron) -> Vectors:
    """Corners (k, 3) of the polyhedron before its edges are rounded.

    Raises
    ------
    InputError
        The half spaces enclose no volume, or an infinite one.
    """
    normals, distances, _ = polyhedron
    if not (distances > 0).all():
        raise InputError("crystal", "facets that do not enclose the origin", "positive distances")
    if not _closed(polyhedron):
        raise InputError("crystal", "facets that leave a side open", "facets on all sides")
    return HalfspaceIntersection(np.column_stack([normals, -distances]), np.zeros(3)).intersections


def _closed(polyhedron: Polyhedron) -> bool:
    # Each half space is a point of the dual, whose hull must contain the origin.
    dual = ConvexHull(polyhedron.normals / polyhedron.distances[:, None])
    return bool((dual.equations[:, 3] < -1e-9).all())


def bounds(polyhedron: Polyhedron) -> Vectors:
    """Minimum and maximum coordinates (2, 3) of the polyhedron with its rounded edges.

    Notes
    -----
    Where e . r is largest on t = rounding (see `amplitude`), sum_i t_i n_i is along e. With the facets A that have
    t_i > 0, both have a closed-form solution; A is found by iteration from the corner of the sharp polyhedron. If the
    iteration does not converge, a general solver finds the point.
    """
    corners = vertices(polyhedron)
    found = np.stack([corners.min(axis=0), corners.max(axis=0)])
    if polyhedron.rounding == 0:
        return found
    for (side, sign), axis in itertools.product(enumerate((-1.0, 1.0)), range(3)):
        direction = sign * np.eye(3)[axis]
        point = _settled(polyhedron, direction, corners[np.argmax(corners @ direction)])
        found[side, axis] = (_farthest(polyhedron, direction) if point is None else point)[axis]
    return found


def _settled(polyhedron: Polyhedron, direction: Vectors, point: Vectors) -> Vectors | None:
    """Iterate the closed form of `bounds` from a corner; None if it does not reach the farthest point."""
    normals, distances, radius = polyhedron
    active = np.zeros(len(normals), dtype=bool)
    for _ in range(20):
        beyond = normals @ point - distances + radius
        if ((beyond > 1e-12) == active).all():
            outward = np.maximum(beyond, 0) @ normals
            # Facets in the plane of the direction do not bound it, which the closed form does not detect.
            return point if outward @ direction > (1 - 1e-9) * np.linalg.norm(outward) else None
        active = beyond > 1e-12
        n, d = normals[active], distances[active] - radius
        inverse = np.linalg.pinv(n.T @ n)
        nearest = inverse @ n.T @ d
        left, length = radius**2 - np.sum((n @ nearest - d) ** 2), direction @ inverse @ direction
        if left < 0 or not length > 0:
            return None
        point = nearest + inverse @ direction * np.sqrt(left / length)
    return None


def _farthest(polyhedron: Polyhedron, direction: Vectors) -> Vectors:
    """Point of the polyhedron with its rounded edges that lies farthest in a direction: a convex problem."""
    normals, distances, radius = polyhedron

    def beyond(point: Vectors) -> Vectors:
        return np.maximum(normals @ point - distances + radius, 0)

    inside = {
        "type": "ineq",
        "fun": lambda point: 1 - np.sum(beyond(point) ** 2) / radius**2,
        "jac": lambda point: -2 * beyond(point) @ normals / radius**2,
    }
    options = {"maxiter": 500, "ftol": 1e-10}
    solved = minimize(
        lambda point: -direction @ point, np.zeros(3), jac=lambda _: -direction, constraints=[inside], options=options
    )
    return np.asarray(solved.x)


def truncated_octahedron(*, ratio: float = ARCHIMEDEAN) -> Polyhedron:
    """Wulff shape of an fcc metal: {111} facets at distance 1, {100} facets at `ratio`, the ratio of surface energies.

    Parameters
    ----------
    ratio : float
        Between 1 / sqrt(3), a cube, and sqrt(3), an octahedron.

    Raises
    ------
    InputError
        The ratio is outside this range.
    """
    if not 1 / np.sqrt(3) < ratio < np.sqrt(3):
        raise InputError("ratio", f"{ratio}", "between 1 / sqrt(3) and sqrt(3)")
    octahedral = np.array(list(itertools.product((-1, 1), repeat=3))) / np.sqrt(3)
    normals = np.concatenate([octahedral, np.eye(3), -np.eye(3)])
    return Polyhedron(normals, np.repeat([1.0, ratio], [8, 6]))


def winterbottom(polyhedron: Polyhedron, normal: Sequence[float] | Vectors, distance: float) -> Polyhedron:
    """Cut a free crystal by a substrate [1]_.

    Parameters
    ----------
    polyhedron : Polyhedron
        Wulff shape.
    normal : (3,)
        Towards the substrate.
    distance : float
        Distance of the substrate from the centre of the Wulff shape; negative if more than half of it is cut off.

    Returns
    -------
    Polyhedron
        Around another origin, which is inside.

    Raises
    ------
    InputError
        The distance is not above the negative distance of the nearest facet, so little would be left.

    References
    ----------
    .. [1] W. L. Winterbottom, Acta Metall. 15, 303 (1967)
    """
    inside = polyhedron.distances.min()
    if not distance > -inside:
        raise InputError("distance", f"{distance} of the substrate", f"more than {-inside:.3g}")
    outward = np.asarray(normal, dtype=np.float64) / np.linalg.norm(normal)
    centre = -(max(-distance, 0) + inside) / 2 * outward
    normals = np.vstack([polyhedron.normals, outward])
    return Polyhedron(normals, np.append(polyhedron.distances, distance) - normals @ centre, polyhedron.rounding)


def transformed(
    polyhedron: Polyhedron, matrix: Vectors, *, shift: Sequence[float] | Vectors = (0.0, 0.0, 0.0)
) -> Polyhedron:
    """Polyhedron of the points (r + shift) @ matrix; the rounding scales with the cube root of the volume."""
    normals = polyhedron.normals @ np.linalg.inv(matrix).T
    length = np.linalg.norm(normals, axis=1)
    distances = (polyhedron.distances + polyhedron.normals @ np.asarray(shift)) / length
    return Polyhedron(normals / length[:, None], distances, polyhedron.rounding * abs(np.linalg.det(matrix)) ** (1 / 3))


def draw_polyhedron(rng: np.random.Generator, *, habit: str, aspect: float, rounding: float) -> Polyhedron:
    """Draw a crystal in a random orientation.

    Parameters
    ----------
    rng : Generator
    habit : str
        One of `HABITS`: a polyhedron of 8 to 20 random facets, a truncated octahedron, or the latter on a substrate.
    aspect : float
        Maximum aspect ratio: facets are placed on an ellipsoid whose axes differ by at most this factor; 1 to 3.
    rounding : float
        Edge radius as a fraction of the distance of the nearest facet, from 0 to below 1.

    Returns
    -------
    Polyhedron
        Fills at least a fifth of its bounding box, whose centre is the origin.

    Raises
    ------
    InputError
        An option is out of its range.
    """
    if habit not in HABITS:
        raise InputError("habit", habit, "one of " + ", ".join(HABITS))
    if not 1 <= aspect <= 3:
        raise InputError("aspect", f"{aspect}", "1 to 3")
    if not 0 <= rounding < 1:
        raise InputError("rounding", f"{rounding}", "at least 0, less than 1")
    for _ in range(_DRAWS):
        shape = HABITS[habit](rng)
        axes = np.exp(rng.uniform(-0.5, 0.5, 3) * np.log(aspect)) * Rotation.random(rng=rng).as_matrix()
        distances = shape.distances * np.linalg.norm(shape.normals @ axes, axis=1)
        shape = Polyhedron(shape.normals, distances, rounding * distances.min())
        shape = transformed(shape, Rotation.random(rng=rng).as_matrix())
        # One of some thousands of crystals with random facets has no facet on a whole side.
        if not _closed(shape):
            continue
        corners, box = vertices(shape), bounds(shape)
        compact = distances.min() > _COMPACT * np.linalg.norm(corners, axis=1).max()
        if compact and ConvexHull(corners).volume > _FILL * np.prod(np.ptp(corners, axis=0)):
            return transformed(shape, np.eye(3), shift=-box.mean(axis=0))
    raise InputError("aspect", f"{aspect}, for which no compact crystal was drawn", "a smaller aspect ratio")


def _draw_facets(rng: np.random.Generator) -> Polyhedron:
    """Draw facets on all sides: directions of a Fibonacci spiral with random changes."""
    count = int(rng.integers(8, 21))
    number = np.arange(count)
    height, turn = 1 - (2 * number + 1) / count, number * np.pi * (3 - np.sqrt(5))
    across = np.sqrt(1 - height**2)
    normals = np.column_stack([across * np.cos(turn), across * np.sin(turn), height])
    normals += rng.normal(scale=0.8 / np.sqrt(count), size=normals.shape)
    return Polyhedron(normals / np.linalg.norm(normals, axis=1)[:, None], rng.uniform(0.6, 1.0, count))


def _draw_wulff(rng: np.random.Generator) -> Polyhedron:
    return truncated_octahedron(ratio=rng.uniform(0.95, 1.3))


def _draw_on_substrate(rng: np.random.Generator) -> Polyhedron:
    """Cut a truncated octahedron parallel to a {111} or {100} facet."""
    wulff = _draw_wulff(rng)
    return winterbottom(wulff, wulff.normals[rng.choice([0, 8])], rng.uniform(-0.4, 0.7))


#: Functions that draw a crystal of each habit, with a size of about 1.
HABITS: dict[str, Callable[[np.random.Generator], Polyhedron]] = {
    "polyhedron": _draw_facets,
    "truncated_octahedron": _draw_wulff,
    "winterbottom": _draw_on_substrate,
}
