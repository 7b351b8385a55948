import numpy as np
import pytest
from scipy.ndimage import label
from scipy.spatial import ConvexHull, Delaunay
from scipy.spatial.transform import Rotation

from cathodeflow.bcdi import crystals
from cathodeflow.bcdi.crystals import HABITS, truncated_octahedron, winterbottom
from cathodeflow.bcdi.polyhedra import (
    Grid,
    Polyhedron,
    amplitude,
    bounds,
    grid,
    moved,
    positions,
    transformed,
    vertices,
    window,
)
from cathodeflow.bcdi.simulation import draw_crystal
from cathodeflow.bcdi.simulation_options import Simulate
from cathodeflow.errors import InputError

CUBE = Polyhedron(np.concatenate([np.eye(3), -np.eye(3)]), np.full(6, 10.0))
SKEWED = np.array([[0.8, 0.1, 0.0], [-0.3, 0.9, 0.2], [0.1, 0.4, 1.1]])


def draw_polyhedron(rng, *, habit="polyhedron", aspect=1.5, rounding=0.2):
    return crystals.draw_polyhedron(rng, habit=habit, aspect=aspect, rounding=rounding)


def turned(polyhedron, seed=0, size=1.0):
    return transformed(polyhedron, size * Rotation.random(rng=np.random.default_rng(seed)).as_matrix())


def test_the_truncated_octahedron_has_its_volume_and_corners():
    edge = 2 / np.sqrt(6)
    corners = np.unique(np.round(vertices(truncated_octahedron()), 6), axis=0)
    assert len(corners) == 24
    assert ConvexHull(corners).volume == pytest.approx(8 * np.sqrt(2) * edge**3)
    sampled = amplitude(turned(truncated_octahedron(), size=12), grid((32, 32, 32)))
    assert sampled.sum() == pytest.approx(8 * np.sqrt(2) * (12 * edge) ** 3, rel=2e-3)
    for ratio in (0.5, 1.8):
        with pytest.raises(InputError, match="ratio"):
            truncated_octahedron(ratio=ratio)


def test_a_crystal_is_what_its_half_spaces_enclose():
    polyhedron = transformed(draw_polyhedron(np.random.default_rng(1), rounding=0), 11 * np.eye(3))
    on = grid((32, 32, 32))
    share, places = amplitude(polyhedron, on), positions(on)
    in_hull = Delaunay(vertices(polyhedron)).find_simplex(places) >= 0
    beyond = (places @ polyhedron.normals.T - polyhedron.distances).max(axis=-1)
    assert in_hull[beyond < -1].all() and (share[beyond < -1] == 1).all()
    assert not in_hull[beyond > 1].any() and (share[beyond > 1] == 0).all()
    assert np.mean((share >= 0.5) == in_hull) > 0.995


def test_facets_are_flat_and_anti_aliased():
    # Near a facet's middle the share tells the distance from its plane.
    polyhedron = turned(CUBE, seed=2)
    on = grid((40, 40, 40))
    share, places = amplitude(polyhedron, on), positions(on) @ polyhedron.normals.T
    distance = places[..., 0] - 10
    middle = (np.abs(distance) < 0.45) & (np.abs(places[..., 1:3]) < 8).all(axis=-1)
    assert middle.sum() > 100
    np.testing.assert_allclose(share[middle], 0.5 - distance[middle], atol=1e-4)


def test_rounding_takes_edges_off_and_nothing_else():
    polyhedron = CUBE._replace(rounding=4.0)
    share = amplitude(polyhedron, grid((32, 32, 32)))
    # A cube less what is between it and the cylinders and spheres of its edges and corners.
    side, r = 12.0, 4.0
    volume = side**3 + 6 * side**2 * r + 3 * side * np.pi * r**2 + 4 / 3 * np.pi * r**3
    assert share.sum() == pytest.approx(volume, rel=2e-3)
    assert share[16, 16, 25] == 1 and share[16, 16, 26] == 0.5
    np.testing.assert_allclose(bounds(polyhedron), [[-10] * 3, [10] * 3])


@pytest.mark.parametrize("habit", HABITS)
def test_bounds_are_those_of_the_rounded_crystal(habit):
    polyhedron = draw_polyhedron(np.random.default_rng(3), habit=habit, aspect=2, rounding=0.6)
    box, sharp = bounds(polyhedron), np.ptp(vertices(polyhedron), axis=0)
    places = positions(grid((101, 101, 101), axes=np.diag(sharp / 100))).reshape(-1, 3)
    beyond = np.maximum(places @ polyhedron.normals.T - polyhedron.distances + polyhedron.rounding, 0)
    inside = places[(beyond**2).sum(axis=1) <= polyhedron.rounding**2]
    np.testing.assert_allclose([inside.min(axis=0), inside.max(axis=0)], box, atol=1.5 * sharp.max() / 100)
    assert (np.ptp(box, axis=0) < sharp).all()
    np.testing.assert_allclose(box.mean(axis=0), 0, atol=1e-9)


def test_a_skewed_grid_samples_the_same_crystal():
    polyhedron = turned(truncated_octahedron(), size=9)._replace(rounding=2.0)
    straight = amplitude(polyhedron, grid((32, 32, 32))).sum()
    skewed = amplitude(polyhedron, grid((48, 48, 48), axes=SKEWED)).sum() * np.linalg.det(SKEWED)
    assert skewed == pytest.approx(straight, rel=3e-3)


def test_a_window_holds_the_crystal_and_its_voxels_keep_their_places():
    polyhedron = turned(truncated_octahedron(), size=6)
    whole = moved(grid((33, 40, 36), axes=SKEWED), np.array([1.0, -2.0, 0.5]))
    where, part = window(whole, polyhedron)
    np.testing.assert_allclose(positions(part), positions(whole)[where], atol=1e-4)
    full = amplitude(polyhedron, whole)
    np.testing.assert_allclose(amplitude(polyhedron, part), full[where], atol=1e-4)
    full[where] = 0
    assert not full.any()
    with pytest.raises(InputError, match="outside"):
        window(moved(whole, np.array([200.0, 0, 0])), polyhedron)


@pytest.mark.parametrize("distance", [-0.4, 0.0, 0.5])
def test_a_substrate_cuts_a_crystal(distance):
    wulff = truncated_octahedron()
    normal = wulff.normals[0]
    cut = winterbottom(wulff, 3 * normal, distance)
    hull = ConvexHull(vertices(wulff))
    kept = np.random.default_rng(0).uniform(-1.6, 1.6, (200_000, 3))
    kept = kept[(kept @ hull.equations[:, :3].T + hull.equations[:, 3] < 0).all(axis=1)]
    share = np.mean(kept @ normal < distance)
    assert ConvexHull(vertices(cut)).volume == pytest.approx(share * hull.volume, rel=0.02)
    with pytest.raises(InputError, match="substrate"):
        winterbottom(wulff, normal, -1.0)


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 1003])
def test_bounds_are_the_farthest_points_of_a_rounded_crystal(seed: int) -> None:
    """Facets of seed 4 are nearly parallel to an axis, those of 1003 make the closed form go in circles."""
    rounded = draw_polyhedron(np.random.default_rng(seed), rounding=0.2)
    normals, distances, radius = rounded
    low, high = bounds(rounded)
    turns = np.random.default_rng(0).normal(size=(20_000, 3))
    # From the centre outwards to the surface, by bisection.
    turns /= np.linalg.norm(turns, axis=1)[:, None]
    near, far = np.zeros(len(turns)), np.full(len(turns), 4.0)
    for _ in range(40):
        middle = (near + far) / 2
        beyond = np.maximum((middle[:, None] * turns) @ normals.T - distances + radius, 0)
        inside = (beyond**2).sum(axis=1) <= radius**2
        near, far = np.where(inside, middle, near), np.where(inside, far, middle)
    surface = near[:, None] * turns
    assert (surface.min(axis=0) >= low - 1e-9).all() and (surface.max(axis=0) <= high + 1e-9).all()
    np.testing.assert_allclose([surface.min(axis=0), surface.max(axis=0)], [low, high], atol=0.02)


def test_a_crystal_is_drawn_anew_where_facets_leave_a_side_open() -> None:
    # As those of the first draw of this number do.
    rng = np.random.default_rng(np.random.SeedSequence(20, spawn_key=(10_499, 0)))
    assert draw_crystal(rng, Simulate(size=32)).support.any()


def test_drawn_crystals_are_whole_and_compact():
    for seed in range(60):
        polyhedron = draw_polyhedron(
            np.random.default_rng(seed), habit=list(HABITS)[seed % 3], aspect=3, rounding=0.3 * (seed % 2)
        )
        small = transformed(polyhedron, 8 * np.eye(3) / np.ptp(bounds(polyhedron), axis=0).max())
        inside = amplitude(small, grid((16, 16, 16))) >= 0.5
        assert label(inside, np.ones((3, 3, 3)))[1] == 1
        extent = [np.ptp(np.flatnonzero(inside.any(axis=other))) + 1 for other in ((1, 2), (0, 2), (0, 1))]
        assert inside.sum() > 0.15 * np.prod(extent)
        assert min(extent) >= 2


def test_a_seed_gives_one_crystal_and_orientation():
    one, again, other = (draw_polyhedron(np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.normals, again.normals)
    assert len(one.normals) != len(other.normals) or np.abs(one.normals - other.normals).max() > 0.1


def test_truncated_octahedra_keep_the_angles_of_their_facets():
    drawn = draw_polyhedron(np.random.default_rng(4), habit="truncated_octahedron", aspect=2)
    expected = truncated_octahedron().normals
    np.testing.assert_allclose(drawn.normals @ drawn.normals.T, expected @ expected.T, atol=1e-9)


@pytest.mark.parametrize("wrong", [{"habit": "sphere"}, {"aspect": 0.5}, {"aspect": 9}, {"rounding": 1.0}])
def test_options_out_of_range_are_told(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        draw_polyhedron(np.random.default_rng(0), **wrong)


def test_half_spaces_that_enclose_nothing_are_told():
    with pytest.raises(InputError, match="leave a side open"):
        vertices(Polyhedron(CUBE.normals[[0, 1, 2, 3, 4]], np.ones(5)))
    with pytest.raises(InputError, match="enclose the origin"):
        vertices(CUBE._replace(distances=np.array([1.0, 1, 1, 1, 1, -1])))


def test_positions_are_those_of_the_axes():
    on = Grid((4, 5, 6), SKEWED, np.array([1.0, 2.0, 3.0]))
    places = positions(on)
    np.testing.assert_allclose(places[2, 2, 3], [1, 2, 3], rtol=1e-6)
    np.testing.assert_allclose(places[3, 2, 3] - places[2, 2, 3], SKEWED[0], rtol=1e-5)
    np.testing.assert_allclose(places[2, 4, 2] - places[2, 2, 3], 2 * SKEWED[1] - SKEWED[2], atol=1e-5)
