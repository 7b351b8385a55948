import dask.array as da
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from cathodeflow.errors import InputError
from cathodeflow.fibsem.appearance import class_greys, render, render_slice
from cathodeflow.fibsem.slice_options import Simulate
from cathodeflow.fibsem.structure import ACTIVE, BINDER, PORE, generate

DEFAULT = Simulate()
#: Classes at their grey levels, without artefacts.
QUIET = Simulate(
    texture=0, shine_through=0, charging=0, psf_sigma=0, shading=0, curtaining=0, gain_drift=0, shot=0, read=0
)


@pytest.fixture(scope="module")
def labels():
    return generate((10, 64, 80), Simulate(), seed=1)


def grey(labels, seed=1, **effects):
    """Slices in 0..1 with the given effects alone."""
    return render(labels, QUIET.model_copy(update={**effects, "bits": 16}), seed=seed).astype(np.float64) / 65535


def solid(*shape):
    return np.full(shape, ACTIVE, dtype=np.uint8)


def test_the_defaults_are_those_of_the_reference_rendering():
    assert DEFAULT.means == (0.40, 0.60, 0.475) and DEFAULT.psf_sigma == 1.5
    assert (DEFAULT.shine_through, DEFAULT.shine_depth, DEFAULT.texture) == (0.30, 3, 0.012)
    assert (DEFAULT.shading, DEFAULT.curtaining, DEFAULT.gain_drift) == (0.03, 0.012, 0.015)
    assert (DEFAULT.shot, DEFAULT.read) == (0.001, 0.02)


@pytest.mark.parametrize(("bits", "kind"), [(8, np.uint8), (16, np.uint16)])
def test_without_effects_classes_have_their_grey(labels, bits, kind):
    image = render(labels, QUIET.model_copy(update={"bits": bits}), seed=0)
    assert image.dtype == kind and image.shape == labels.shape
    expected = np.rint(np.array([0.40, 0.60, 0.475]) * np.iinfo(kind).max)
    np.testing.assert_allclose(image, expected[labels], atol=1 if bits == 16 else 0)


def test_contrast_scales_distances_and_keeps_the_average():
    greys = class_greys(Simulate(means=(0.2, 0.8, 0.3, 0.5), contrast=0.4))
    assert greys.mean() == pytest.approx(0.45)
    np.testing.assert_allclose(np.diff(greys), 0.4 * np.diff([0.2, 0.8, 0.3, 0.5]), rtol=1e-5)


def test_all_effects_together_leave_classes_near_their_grey(labels):
    image = render(labels, DEFAULT, seed=2) / 255
    means = [image[labels == phase].mean() for phase in (PORE, ACTIVE, BINDER)]
    # Blur and shine-through bring classes together, but leave their order.
    assert 0.40 < means[PORE] < 0.475 < means[BINDER] < means[ACTIVE] < 0.61
    low, high = (render(labels, Simulate(contrast=c), seed=2) / 255 for c in (0.5, 1.0))
    gaps = [image[labels == ACTIVE].mean() - image[labels == PORE].mean() for image in (low, high)]
    assert gaps[0] == pytest.approx(0.5 * gaps[1], abs=0.012)


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
def test_the_point_spread_has_its_width(sigma):
    labels = solid(1, 8, 81)
    labels[..., 40:] = BINDER
    # The derivative across an edge is the line spread; beyond a pixel's own width its variance is sigma**2.
    spread = -np.diff(grey(labels, psf_sigma=sigma)[0, 4])
    place = np.arange(len(spread))
    weight = spread / spread.sum()
    centre = np.sum(weight * place)
    assert centre == pytest.approx(39, abs=1e-3)
    assert np.sum(weight * (place - centre) ** 2) ** 0.5 == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize("mean", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(("shot", "read"), [(0.001, 0.02), (0.002, 0.0), (0.0, 0.03)])
def test_the_noise_grows_with_the_grey(mean, shot, read):
    image = grey(solid(2, 128, 128), means=(0, mean), shot=shot, read=read)
    assert image.mean() == pytest.approx(mean, abs=1e-3)
    assert image.var() == pytest.approx(shot * mean + read**2, rel=0.04)
    one, other = image - image.mean()
    assert abs(np.mean(one * other)) < 0.03 * image.var()
    assert abs(np.mean(one[1:] * one[:-1])) < 0.03 * image.var()


def test_curtains_run_along_columns_alone_and_are_new_in_every_slice():
    image = grey(solid(40, 16, 200), curtaining=0.012) / 0.6 - 1
    assert np.ptp(image, axis=1).max() < 1e-4
    assert image.std() == pytest.approx(0.012, rel=0.05)
    assert abs(np.corrcoef(image[0, 0], image[1, 0])[0, 1]) < 0.3


def test_shading_is_smooth_and_the_same_in_every_slice():
    image = grey(solid(3, 40, 50), shading=0.03) / 0.6 - 1
    assert np.abs(image).max() == pytest.approx(0.03, rel=1e-2) and abs(image.mean()) < 1e-4
    np.testing.assert_array_equal(image[0], image[2])
    assert max(np.abs(np.diff(image[0], axis=axis)).max() for axis in (0, 1)) < 0.006


def test_brightness_drifts_between_slices_alone():
    image = grey(solid(400, 2, 3), gain_drift=0.015) / 0.6 - 1
    assert np.ptp(image, axis=(1, 2)).max() < 1e-4
    assert image[:, 0, 0].std() == pytest.approx(0.015, rel=0.1) and abs(image.mean()) < 0.003


def test_only_pores_show_what_is_below(labels):
    plain, image = grey(labels), grey(labels, shine_through=0.3)
    last = len(labels) - 1
    for number in range(len(labels)):
        below = plain[min(number + 3, last)]
        expected = np.where(labels[number] == PORE, 0.7 * plain[number] + 0.3 * below, plain[number])
        np.testing.assert_allclose(image[number], expected, atol=1e-4)
    assert np.any(image != plain)


def test_texture_has_its_deviation_and_size_in_all_directions():
    image = grey(solid(24, 96, 96), texture=0.012) - 0.6
    assert image.std() == pytest.approx(0.012, rel=0.05)
    # Noise made by a Gauss filter of deviation s is correlated by exp(-1/4) at a distance of s.
    for axis in range(3):
        moved = np.moveaxis(image, axis, 0)
        assert np.mean(moved[2:] * moved[:-2]) / image.var() == pytest.approx(np.exp(-0.25), abs=0.06)


def test_charging_brightens_solid_next_to_pores_and_nothing_else(labels):
    labels = labels.copy()
    labels[0] = ACTIVE
    more = grey(labels, charging=0.05) - grey(labels)
    for number, extra in enumerate(more):
        pores = labels[number] == PORE
        if not pores.any():
            assert number == 0 and not extra.any()
            continue
        distance = distance_transform_edt(~pores)
        assert not extra[pores].any()
        np.testing.assert_allclose(extra[distance == 1], 0.05, atol=1e-4)
        np.testing.assert_allclose(extra[distance == 3], 0.05 * np.exp(-1), atol=1e-4)
        far = distance > 14
        assert not far.any() or extra[far].max() < 1e-3


def test_slices_do_not_depend_on_the_chunks(labels):
    whole = render(labels, DEFAULT, seed=5)
    lazy = da.from_array(labels, chunks=(2, 64, 80))
    for number in (0, 3, 9):
        np.testing.assert_array_equal(render_slice(lazy, number, DEFAULT, seed=5), whole[number])
    # A slice reads itself and the one three below.
    changed = labels.copy()
    changed[[5, 6, 8, 9]] = BINDER
    np.testing.assert_array_equal(render_slice(changed, 4, DEFAULT, seed=5), whole[4])
    assert (render(labels, DEFAULT, seed=6)[4] != whole[4]).mean() > 0.5


def test_no_effect_changes_what_is_drawn_for_another(labels):
    noise = grey(labels, read=0.02) - grey(labels)
    with_others = grey(labels, read=0.02, texture=0.012, gain_drift=0.02, curtaining=0.01)
    others = grey(labels, texture=0.012, gain_drift=0.02, curtaining=0.01)
    np.testing.assert_allclose(with_others - others, noise, atol=1e-4)


def test_grey_stays_in_range():
    bright = render(solid(1, 32, 32), Simulate(means=(0.0, 1.0), read=0.2), seed=0)
    assert bright.max() == 255 and bright.min() > 0


def test_a_label_without_a_grey_value_is_named(labels):
    labels = labels.copy()
    labels[2, 0, :2] = 3, 7
    with pytest.raises(InputError, match="labels of slice 2: found classes 3, 7, expected 0 to 2"):
        render(labels, DEFAULT, seed=0)
