"""Convex polyhedra with rounded edges, on grids of any direction and step.

A polyhedron is the intersection of half spaces n . r <= d. Grids may be skewed, such as that of a rocking scan, so one
crystal can be sampled in the frame of the detector and in that of the laboratory.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial import ConvexHull, HalfspaceIntersection

from cathodeflow.errors import InputError

Vectors = NDArray[np.float64]
Floats = NDArray[np.float32]


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
    if not is_closed(polyhedron):
        raise InputError("crystal", "facets that leave a side open", "facets on all sides")
    return HalfspaceIntersection(np.column_stack([normals, -distances]), np.zeros(3)).intersections


def is_closed(polyhedron: Polyhedron) -> bool:
    """Return whether the half spaces enclose a finite volume around the origin."""
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


def transformed(
    polyhedron: Polyhedron, matrix: Vectors, *, shift: Sequence[float] | Vectors = (0.0, 0.0, 0.0)
) -> Polyhedron:
    """Polyhedron of the points (r + shift) @ matrix; the rounding scales with the cube root of the volume."""
    normals = polyhedron.normals @ np.linalg.inv(matrix).T
    length = np.linalg.norm(normals, axis=1)
    distances = (polyhedron.distances + polyhedron.normals @ np.asarray(shift)) / length
    return Polyhedron(normals / length[:, None], distances, polyhedron.rounding * abs(np.linalg.det(matrix)) ** (1 / 3))
