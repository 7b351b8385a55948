"""Intensities are matched, and slices unlike the training are named, whatever their phase fractions."""

from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from cathodeflow.errors import InputError
from cathodeflow.fibsem.appearance import render
from cathodeflow.fibsem.grey_matching import Matching, gaussian_reference, grey_reference, match_grey
from cathodeflow.fibsem.image_features import feature_distances, feature_reference, slice_features
from cathodeflow.fibsem.preprocessing import normalize_slices
from cathodeflow.fibsem.slice_options import Simulate
from cathodeflow.fibsem.structure import generate
from cathodeflow.fibsem.training_appearance import compare_slices, training_appearance

PLAIN = Matching(1.0, 0.0)


@cache
def stack(seed: int = 0, **changed: object) -> tuple[np.ndarray, np.ndarray]:
    """Six slices of an electrode, and their labels."""
    options = Simulate(n_slices=8, rows=96, cols=96, contrast=0.75, **{"fractions": (0.38, 0.50, 0.12), **changed})
    labels = generate((8, 96, 96), options, seed=seed)[:6]
    return render(labels, options, seed=seed), labels


@cache
def appearance() -> list[dict[str, object]]:
    grey, labels = stack()
    return training_appearance(grey.__getitem__, labels.__getitem__, [range(6)], 3)


def matched(grey: np.ndarray, *, same_scale: bool = True) -> Matching:
    return match_grey(grey, [one["grey"] for one in appearance()], same_scale=same_scale)


@pytest.mark.parametrize(("gain", "offset"), [(1, 30), (1, -30), (0.8, 0), (1.25, 0), (0.8, 30), (256, 1000)])
def test_another_brightness_and_contrast_are_undone(gain: float, offset: float) -> None:
    grey = stack(seed=1)[0].astype(float)
    levels = np.quantile(grey, (0.1, 0.5, 0.9))
    found = matched(gain * grey + offset, same_scale=gain < 100)
    restored = found.gain * (gain * levels + offset) + found.offset
    # The standard deviation of the intensity is 18.
    np.testing.assert_allclose(restored, levels, atol=3.5)


def test_other_phase_fractions_are_no_other_brightness() -> None:
    dense, _ = stack(seed=2, fractions=(0.2, 0.6, 0.2))
    plain, _ = stack()
    assert dense.mean() - plain.mean() > 3
    assert matched(dense).identity and matched(plain).identity
    found = matched(np.clip(dense.astype(float) + 30, 0, 255))
    # The shift of 30, not that of the means.
    assert found.gain * (dense.mean() + 30) + found.offset == pytest.approx(dense.mean(), abs=3)


def test_a_few_bright_or_dark_pixels_do_not_matter() -> None:
    grey = stack(seed=1)[0].astype(float) + 25
    marked = grey.copy()
    marked[:, :3] = 255
    marked[:, 3:5] = 0
    first, second = (match_grey(one, [appearance()[0]["grey"]], same_scale=True) for one in (grey, marked))
    assert second.gain == pytest.approx(first.gain, abs=0.06)
    middle = float(np.median(grey))
    assert second.gain * middle + second.offset == pytest.approx(first.gain * middle + first.offset, abs=2)


def test_each_volume_of_a_pool_keeps_its_own_brightness() -> None:
    grey, labels = stack()
    volumes = [grey, np.clip(grey.astype(float) + 40, 0, 255)]
    references = [grey_reference(zip(volume, labels, strict=True), 3) for volume in volumes]
    for number, volume in enumerate(volumes):
        found = match_grey(volume, references, same_scale=True)
        assert found.identity and found.volume == number


def test_models_without_histograms_match_mean_and_deviation() -> None:
    grey = np.random.default_rng(0).normal(500, 40, 20000)
    found = match_grey(grey, [gaussian_reference(100.0, 20.0)], same_scale=False)
    assert found.gain == pytest.approx(0.5, rel=0.03)
    assert found.gain * 500 + found.offset == pytest.approx(100, abs=1)
    with pytest.raises(InputError, match="in every pixel"):
        match_grey(np.full(100, 7), [gaussian_reference(100.0, 20.0)], same_scale=True)


def compared(grey: np.ndarray, matching: Matching = PLAIN):
    return compare_slices(list(grey[:16]), matching, appearance(), same_scale=True)


def test_slices_like_those_of_the_training_give_no_warning() -> None:
    for grey in (stack()[0], stack(seed=1)[0], stack(seed=2, fractions=(0.3, 0.55, 0.15))[0]):
        found = compared(grey)
        assert found.warnings == [] and found.record["feature_distance"] < found.record["feature_limit"]
        assert abs(found.record["brightness_change"]) < 0.5


@pytest.mark.parametrize("kind", ["larger", "noise", "inverted", "flat structures"])
def test_slices_unlike_those_of_the_training_are_named(kind: str) -> None:
    grey = stack(seed=1)[0].astype(float)
    rng = np.random.default_rng(0)
    changed = {
        "larger": lambda: zoom(grey, (1, 3, 3), order=1)[:, :96, :96],
        "noise": lambda: grey + rng.normal(0, 40, grey.shape),
        "inverted": lambda: 2 * grey.mean() - grey,
        "flat structures": lambda: 130 + 18 * np.sign(np.sin(np.arange(96) / 5.0)) + rng.normal(0, 1, grey.shape),
    }[kind]()
    found = compared(changed)
    assert any("unlike the training images in" in text for text in found.warnings), found
    assert found.record["unlike_fraction"] >= 0.5


def test_a_change_of_brightness_is_recorded_and_named() -> None:
    grey = stack(seed=1)[0].astype(float)
    found = compared(grey + 30, matched(grey + 30))
    assert found.record["brightness_change"] == pytest.approx(30 / 18, abs=0.3)
    (line,) = found.warnings
    assert line.startswith(f"the intensity differs from that of the training slices: mean {grey.mean() + 30:.4g} ")
    assert line.endswith("matched to the training")
    assert found.record["feature_distance"] < found.record["feature_limit"]


def test_features_do_not_depend_on_brightness_after_matching() -> None:
    image = stack()[0][0].astype(float)
    plain = slice_features(image, image.mean(), image.std())
    other = slice_features(3 * image + 7, 3 * image.mean() + 7, 3 * image.std())
    np.testing.assert_allclose(plain, other, atol=1e-9)


def layered(seed: int, size: int = 128) -> np.ndarray:
    """A layer with pores on one without, with a boundary and an intensity that differ from image to image."""
    rng = np.random.default_rng(seed)
    height = rng.integers(2 * size // 5, 3 * size // 5)
    pores = gaussian_filter(rng.normal(size=(size, size)), 3) > 0.1
    image = np.full((size, size), 0.8)
    image[pores] = 0.1
    image[height:] = 0.35
    noise = rng.normal(0, 0.02, image.shape)
    return normalize_slices((gaussian_filter(image, 0.8) + noise)[None])[0]


def blobs(seed: int, size: int = 128) -> np.ndarray:
    """Large particles in noise."""
    rng = np.random.default_rng(seed)
    image = (gaussian_filter(rng.normal(size=(size, size)), 8) > 0) * 1.0
    return normalize_slices((gaussian_filter(image, 1.5) + rng.normal(0, 0.25, image.shape))[None])[0]


def test_images_of_another_material_are_named_where_the_training_images_differ_much_from_each_other() -> None:
    images = np.stack([layered(seed) for seed in range(8)])
    labels = (images > 0).astype(np.uint8)
    known = training_appearance(images.__getitem__, labels.__getitem__, [range(8)], 2)

    def warned(image: np.ndarray):
        return compare_slices([image], PLAIN, known, same_scale=True)

    alike = [warned(layered(seed)) for seed in range(100, 120)]
    assert sum(bool(one.warnings) for one in alike) <= 2
    for seed in range(5):
        (line,), record = (found := warned(blobs(seed))).warnings, found.record
        assert "the images are unlike the training images in 1 of 1 compared slices" in line
        assert record["patch_distance"] > record["patch_limit"] and record["unlike_fraction"] == 1
        assert f"of patches {record['patch_distance']:.2g}, usual up to {record['patch_limit']:.2g}" in line


def test_copies_of_one_training_slice_say_no_more_than_that_slice() -> None:
    image = layered(0)
    labels = (image > 0).astype(np.uint8)
    records = []
    for count in (1, 3):
        known = training_appearance(lambda _: image, lambda _: labels, [range(count)], 2)
        records.append(compare_slices([layered(1)], PLAIN, known, same_scale=True).record)
    assert records[0]["patch_limit"] == records[1]["patch_limit"] > records[1]["patch_distance"] > 0


def test_models_without_patches_compare_the_features_alone() -> None:
    old = [{key: value for key, value in one.items() if key != "patches"} for one in appearance()]
    grey = stack()[0]
    found = compare_slices(list(grey), PLAIN, old, same_scale=True)
    assert found.warnings == [] and "patch_distance" not in found.record and found.record["unlike_fraction"] == 0


def test_one_outlier_in_the_training_does_not_make_everything_usual() -> None:
    grey = stack()[0].astype(float)
    usual = [slice_features(image, grey.mean(), grey.std()) for image in (*grey, *stack(seed=1)[0])]
    odd = slice_features(zoom(grey[0], 3, order=1)[:96, :96], grey.mean(), grey.std())
    (distance,) = feature_distances([odd], [feature_reference([*usual, odd])])
    assert distance.far
