"""Facets of a particle: planes of its surface with normals and areas, found by the density of the surface normals [1]_.

Vectors are (x, y, z) in the laboratory frame, volumes (z, y, x) on cubic voxels.

References
----------
.. [1] M.-I. Richard et al., J. Appl. Cryst. 51, 1672 (2018): facets from the normals of a coherent diffraction image
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import ConvexHull, HalfspaceIntersection, QhullError

from cathodeflow.bcdi.facet_options import Facets
from cathodeflow.errors import InputError
from cathodeflow.surface_view import isosurface

Floats = NDArray[np.float64]

# Directions of the grid on which the density is computed, about 4 degrees apart.
_DIRECTIONS = 3000
# Faces whose density is computed at once.
_TOGETHER = 4000
# Rounds of the fit of a plane, and the distance from it within which the surface belongs to it [voxel].
_ROUNDS, _FLAT = 8, 0.75


class Surface(NamedTuple):
    """Triangles of the surface of a particle.

    Attributes
    ----------
    centres, normals : (m, 3) float64
        Positions from the middle of the volume [nm], and outward normals of length 1.
    areas : (m,) float64
        [nm^2]
    """

    centres: Floats
    normals: Floats
    areas: Floats


class FacetPlanes(NamedTuple):
    """Facets, the largest first.

    Attributes
    ----------
    normals : (k, 3) float64
    distances : (k,) float64
        From the middle of the volume [nm].
    flat_areas : (k,) float64
        Area of the surface that is flat [nm^2]; rounded edges are left out.
    areas : (k,) float64
        Area up to the edges in which the planes meet [nm^2]; NaN if the planes do not enclose the particle.
    members : (m,) int
        Facet of each triangle of the surface; -1 at edges and corners.
    volume : float
        Volume that the planes enclose [nm^3]; NaN if they do not.
    """

    normals: Floats
    distances: Floats
    flat_areas: Floats
    areas: Floats
    members: NDArray[np.intp]
    volume: float


def particle_surface(amplitude: NDArray[np.floating], voxel_nm: float, *, level: float, smoothing: float) -> Surface:
    """Find the surface of a particle, with the normals from the gradient of the smoothed amplitude.

    Parameters
    ----------
    amplitude : (z, y, x)
    voxel_nm : float
    level : float
        Level of the surface, in units of the amplitude.
    smoothing : float
        Standard deviation of the Gaussian for the normals [voxel].

    Raises
    ------
    InputError
        No voxel is above the level.
    """
    mesh = isosurface(amplitude, level)
    corners = mesh.vertices[mesh.faces]
    areas = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    # The mesh may touch the edge of the volume.
    margin = int(np.ceil(3 * smoothing)) + 1
    smooth = gaussian_filter(np.pad(np.asarray(amplitude, np.float64), margin), smoothing)
    middle = corners.mean(axis=1)
    slope = np.stack([map_coordinates(part, middle.T + margin, order=1) for part in np.gradient(smooth)], axis=1)
    length = np.linalg.norm(slope, axis=1)
    use = (length > 0) & (areas > 0)
    centre = np.asarray(amplitude.shape) // 2
    return Surface(
        ((middle - centre) * voxel_nm)[use][:, ::-1],
        (-slope[use] / length[use, None])[:, ::-1],
        areas[use] * voxel_nm**2,
    )


def find_facets(surface: Surface, options: Facets, *, voxel_nm: float) -> FacetPlanes:
    """Find the facets of a surface.

    Maxima of the density of normals give first normals. Each plane is then fitted to the triangles that lie on it and
    have about its normal, by least squares of their distances, and triangles are chosen again.

    Parameters
    ----------
    surface : Surface
    options : Facets
    voxel_nm : float
    """
    planes: list[tuple[Floats, float]] = []
    for normal in _dense_directions(surface, options):
        found = _fitted_plane(surface, normal, options, voxel_nm)
        if found is not None and not _known(found, planes, options, voxel_nm):
            planes.append(found)
    normals = np.array([normal for normal, _ in planes]).reshape(-1, 3)
    distances = np.array([distance for _, distance in planes])
    members = _members(surface, normals, distances, options, voxel_nm)
    flat = np.array([surface.areas[members == index].sum() for index in range(len(planes))])
    kept = np.flatnonzero(flat >= options.min_area * surface.areas.sum())
    order = kept[np.argsort(-flat[kept], kind="stable")]
    normals, distances, flat = normals[order], distances[order], flat[order]
    areas, volume = polyhedron_areas(normals, distances, surface.centres.mean(axis=0))
    return FacetPlanes(
        normals, distances, flat, areas, _members(surface, normals, distances, options, voxel_nm), volume
    )


def polyhedron_areas(normals: Floats, distances: Floats, inside: Floats) -> tuple[Floats, float]:
    """Areas (k,) of the faces of the polyhedron n . r <= d, and its volume; NaN if it is not closed.

    Parameters
    ----------
    normals : (k, 3)
    distances : (k,)
    inside : (3,)
        A point inside.

    Examples
    --------
    >>> sides = np.concatenate([np.eye(3), -np.eye(3)])
    >>> areas, volume = polyhedron_areas(sides, np.array([1.0, 2, 3, 1, 2, 3]), np.zeros(3))
    >>> areas.round(6), round(volume, 6)
    (array([24., 12.,  8., 24., 12.,  8.]), 48.0)
    """
    unknown = np.full(len(normals), np.nan)
    if len(normals) < 4 or not (distances - normals @ inside > 0).all():
        return unknown, float("nan")
    try:
        # The planes enclose a volume if the hull of the dual points contains the origin.
        dual = ConvexHull(normals / (distances - normals @ inside)[:, None])
        if not (dual.equations[:, 3] < -1e-9).all():
            return unknown, float("nan")
        corners = HalfspaceIntersection(np.column_stack([normals, -distances]), inside).intersections
        volume = float(ConvexHull(corners).volume)
    except QhullError:
        return unknown, float("nan")
    size = np.ptp(corners, axis=0).max()
    return np.array([_polygon(corners, n, d, 1e-7 * size) for n, d in zip(normals, distances, strict=True)]), volume


def _polygon(corners: Floats, normal: Floats, distance: float, tolerance: float) -> float:
    """Area of the convex polygon of the corners that lie on a plane."""
    on = corners[np.abs(corners @ normal - distance) <= tolerance]
    first = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    first /= np.linalg.norm(first)
    flat = np.column_stack([on @ first, on @ np.cross(normal, first)])
    flat = np.unique(flat.round(9), axis=0)
    try:
        return float(ConvexHull(flat).volume) if len(flat) > 2 else 0.0
    except QhullError:
        return 0.0


def _dense_directions(surface: Surface, options: Facets) -> Floats:
    """Maxima (k, 3) of the density of the normals, the highest first."""
    number = np.arange(_DIRECTIONS)
    height, turn = 1 - (2 * number + 1) / _DIRECTIONS, number * np.pi * (3 - np.sqrt(5))
    across = np.sqrt(1 - height**2)
    grid = np.column_stack([across * np.cos(turn), across * np.sin(turn), height])
    kappa = 1 / np.deg2rad(options.bandwidth_deg) ** 2
    density = np.zeros(_DIRECTIONS)
    for start in range(0, len(surface.areas), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        density += np.exp(kappa * (grid @ surface.normals[part].T - 1)) @ surface.areas[part]
    near = grid @ grid.T > np.cos(np.deg2rad(1.5 * options.bandwidth_deg))
    highest = np.flatnonzero(density >= np.where(near, density, 0).max(axis=1))
    return grid[highest[np.argsort(-density[highest], kind="stable")]]


def _fitted_plane(surface: Surface, normal: Floats, options: Facets, voxel_nm: float) -> tuple[Floats, float] | None:
    """Fit normal and distance of the plane near a direction; None if no surface lies on it."""
    cosine = np.cos(np.deg2rad(options.max_angle_deg))
    alike = surface.normals @ normal > cosine
    if not alike.any():
        return None
    # The mean normal first, and where most of its surface lies.
    normal = _unit(surface.areas[alike] @ surface.normals[alike])
    heights = surface.centres @ normal
    distance = _weighted_median(heights[alike], surface.areas[alike])
    for reach in np.linspace(3 * _FLAT, _FLAT, _ROUNDS):
        on = (surface.normals @ normal > cosine) & (np.abs(surface.centres @ normal - distance) < reach * voxel_nm)
        if on.sum() < 4:
            return None
        weights = surface.areas[on] / surface.areas[on].sum()
        centre = weights @ surface.centres[on]
        apart = surface.centres[on] - centre
        spread, axes = np.linalg.eigh((apart * weights[:, None]).T @ apart)
        # A narrow strip, such as an edge, does not fix the direction.
        if spread[1] < (0.5 * voxel_nm) ** 2:
            return None
        normal = axes[:, 0] * np.sign(axes[:, 0] @ normal)
        distance = float(centre @ normal)
    return normal, distance


def _known(plane: tuple[Floats, float], planes: list[tuple[Floats, float]], options: Facets, voxel_nm: float) -> bool:
    cosine = np.cos(np.deg2rad(options.max_angle_deg / 2))
    return any(plane[0] @ normal > cosine and abs(plane[1] - distance) < 2 * voxel_nm for normal, distance in planes)


def _members(
    surface: Surface, normals: Floats, distances: Floats, options: Facets, voxel_nm: float
) -> NDArray[np.intp]:
    """Facet of each triangle: of those in whose plane it lies, the one with the most similar normal; else -1."""
    if not len(normals):
        return np.full(len(surface.areas), -1, np.intp)
    alike = surface.normals @ normals.T
    apart = np.abs(surface.centres @ normals.T - distances)
    allowed = (alike > np.cos(np.deg2rad(options.max_angle_deg))) & (apart < 1.5 * _FLAT * voxel_nm)
    best = np.where(allowed, alike, -2).argmax(axis=1)
    return np.where(allowed.any(axis=1), best, -1).astype(np.intp)


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / np.linalg.norm(vector))


def surface_level(amplitude: NDArray[np.floating], support: NDArray[np.bool_], fraction: float) -> float:
    """Level of the surface: a fraction of the median amplitude in the particle.

    Raises
    ------
    InputError
        The support is empty.
    """
    if not support.any():
        raise InputError("support", "no voxel", "a particle")
    return float(fraction * np.median(amplitude[support]))
