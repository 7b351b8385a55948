import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, label, uniform_filter

from cathodeflow.errors import InputError
from cathodeflow.fibsem.slice_options import Simulate
from cathodeflow.fibsem.structure import ACTIVE, BINDER, PORE, generate

SHAPE = (32, 64, 72)
SPARSE = (0.4, 0.5, 0.1)


def shares(labels):
    return np.bincount(labels.ravel(), minlength=3) / labels.size


def changes(labels, axis):
    """Share of neighbouring voxels along an axis of which one is of active material."""
    return np.mean(np.diff((labels == ACTIVE).astype(np.int8), axis=axis) != 0)


@pytest.mark.parametrize(
    "fractions", [(0.14, 0.60, 0.26), SPARSE, (0.0, 0.5, 0.5), (0.3, 0.7, 0.0), (1, 0, 0), (0, 1, 0), (0.02, 0.9, 0.08)]
)
def test_every_phase_fills_its_share_to_a_voxel(fractions):
    labels = generate(SHAPE, Simulate(fractions=fractions), seed=3)
    assert labels.shape == SHAPE and labels.dtype == np.uint8
    np.testing.assert_allclose(shares(labels), fractions, atol=2 / labels.size)


def test_shares_are_exact_where_halves_of_a_voxel_round():
    assert shares(generate((3, 3, 3), Simulate(fractions=(0, 0.5, 0.5)), seed=0)).sum() == 1


def test_a_seed_gives_one_volume_and_another_gives_another():
    one, again, other = (generate(SHAPE, Simulate(), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.mean(one != other) > 0.3


def test_the_structure_is_alike_along_all_axes():
    found = np.mean(
        [[changes(generate(SHAPE, Simulate(), seed=seed), axis) for axis in range(3)] for seed in range(4)], axis=0
    )
    assert found.max() / found.min() < 1.1


def test_particles_are_as_large_as_asked_for():
    small, large = (generate((64, 96, 96), Simulate(diameter=(d, 1.5 * d)), seed=4) for d in (10, 20))
    # Surface goes with the inverse of the size.
    assert changes(small, 1) / changes(large, 1) == pytest.approx(2, rel=0.2)
    # Nowhere is a sphere inside the active material much larger than the largest particle.
    inside = np.pad(large == ACTIVE, 1)
    assert 10 < distance_transform_edt(inside).max() < 22


def test_elongated_particles_are_not_round():
    round_ones, long_ones = (
        generate(SHAPE, Simulate(fractions=(0.9, 0.1, 0), diameter=(9, 11)), elongation=e, roughness=0, seed=5)
        for e in (1.0, 3.0)
    )

    def flattening(labels):
        parts, count = label(labels == ACTIVE)
        found = []
        for part in range(1, count + 1):
            points = np.argwhere(parts == part)
            whole = (points.min(axis=0) > 0).all() and (points.max(axis=0) < np.array(SHAPE) - 1).all()
            if whole and len(points) > 200:
                spread = np.linalg.eigvalsh(np.cov(points.T))
                found.append((spread[2] / spread[0]) ** 0.5)
        return np.median(found)

    assert flattening(round_ones) < 1.6 < flattening(long_ones)


def test_binder_is_at_contacts_and_on_particles_pores_are_not():
    labels = generate((48, 96, 96), Simulate(fractions=SPARSE), seed=6)
    distance = distance_transform_edt(labels != ACTIVE)
    assert distance[labels == BINDER].mean() < 0.6 * distance[labels == PORE].mean()
    # Among the voxels next to a particle, binder has more active material around it: it is where particles meet.
    around = uniform_filter((labels == ACTIVE).astype(np.float32), 9)
    touching = distance < 1.5
    assert around[touching & (labels == BINDER)].mean() > around[touching & (labels == PORE)].mean() + 0.05


def test_films_get_patchy():
    even, patchy = (generate(SHAPE, Simulate(fractions=SPARSE), patchiness=p, seed=7) for p in (0.0, 0.5))
    # Patches bare of binder: more pore touches active material.
    touching = [distance_transform_edt(labels != ACTIVE) <= 1 for labels in (even, patchy)]
    bare = [
        np.sum(near & (labels == PORE)) / np.sum(near & (labels != ACTIVE))
        for near, labels in zip(touching, (even, patchy), strict=True)
    ]
    assert bare[1] > bare[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"fractions": (0.5, 0.6, 0.1)},
            "found 0.5, 0.6, 0.1, expected non-negative fractions of pore, active, binder",
        ),
        ({"fractions": (-0.1, 0.6, 0.5)}, "fractions: found -0.1"),
        ({"fractions": (0.4, 0.6)}, "fractions: found 0.4, 0.6"),
        ({"diameter": (20, 10)}, "diameter: found 20 to 10 px"),
        ({"diameter": (0, 10)}, "diameter: found 0 to 10 px"),
    ],
)
def test_settings_that_cannot_be_met_are_named(options, message):
    with pytest.raises(InputError, match=message):
        generate((4, 8, 8), Simulate.model_construct(**options), seed=0)
