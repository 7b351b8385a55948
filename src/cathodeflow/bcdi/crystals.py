"""Shapes of crystals: truncated octahedra, particles on a substrate, and random ones."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from cathodeflow.bcdi.polyhedra import Polyhedron, bounds, is_closed, transformed, vertices
from cathodeflow.errors import InputError

Vectors = NDArray[np.float64]

#: {100} over {111} distance of the truncated octahedron whose edges are all equal.
ARCHIMEDEAN = 2 / np.sqrt(3)

# Minimum fraction of its bounding box that a crystal fills, which excludes needles and tilted plates.
_FILL = 0.2
_DRAWS = 200
# Radius of the sphere around the centre that no half space cuts, relative to the distance of the farthest vertex.
_COMPACT = 0.25


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
        if not is_closed(shape):
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
