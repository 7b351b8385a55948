import numpy as np
import pytest
from scipy.ndimage import fourier_shift

from cathodeflow.errors import InputError
from cathodeflow.fibsem.align import common, offsets, shift
from cathodeflow.fibsem.appearance import render
from cathodeflow.fibsem.slice_options import Simulate
from cathodeflow.fibsem.structure import generate

EDGE = 20


@pytest.fixture(scope="module")
def stack():
    """Slices of an electrode, larger than what is cut out of them."""
    return render(generate((12, 128 + 2 * EDGE, 112 + 2 * EDGE), Simulate(), seed=1), Simulate(gain_drift=0.05), seed=1)


def walk(n, rng, step, whole):
    """A random drift that begins at 0 and stays within the edge."""
    drift = np.clip(np.cumsum(rng.uniform(-step, step, (n, 2)), axis=0), -EDGE + 4, EDGE - 4)
    drift -= drift[0]
    return np.rint(drift) if whole else drift


def drifted(stack, drift):
    """Slices whose content lies lower and more to the right by the drift; what is cut off is real, not made up."""
    moved = []
    for image, by in zip(stack.astype(float), drift, strict=True):
        image = np.fft.ifft2(fourier_shift(np.fft.fft2(image), by)).real
        moved.append(image[EDGE:-EDGE, EDGE:-EDGE])
    return moved


def repeated(stack, drift):
    return drifted(np.repeat(stack[:1], len(drift), axis=0), drift)


def noisy(slices, seed=0, deviation=12.0):
    rng = np.random.default_rng(seed)
    return [image + rng.normal(0, deviation, image.shape) for image in slices]


def test_known_whole_shifts_are_found(stack):
    drift = walk(12, np.random.default_rng(2), 5, whole=True)
    found = offsets(noisy(repeated(stack, drift)), subpixel=False, max_drift=16)
    np.testing.assert_array_equal(found.drift, drift)
    assert found.quality.shape == (12,) and found.quality[0] == 1 and found.quality.min() > 0.05


def test_shifts_of_the_same_content_are_found_within_a_twentieth_of_a_pixel(stack):
    drift = walk(12, np.random.default_rng(3), 3, whole=False)
    np.testing.assert_allclose(offsets(repeated(stack, drift), max_drift=16).drift, drift, atol=0.05)
    np.testing.assert_allclose(offsets(noisy(repeated(stack, drift)), max_drift=16).drift, drift, atol=0.15)


def test_more_comparisons_are_more_exact(stack):
    drift = walk(12, np.random.default_rng(3), 3, whole=False)
    errors = {1: 0.0, 5: 0.0}
    for seed in range(4):
        slices = noisy(repeated(stack, drift), seed, deviation=20.0)
        for reach in errors:
            errors[reach] += np.sum((offsets(slices, reach=reach, max_drift=16).drift - drift) ** 2)
    assert errors[5] < 0.7 * errors[1]


@pytest.mark.parametrize("step", [0, 3])
def test_changing_content_misleads_by_a_fraction_of_a_pixel(stack, step):
    drift = walk(12, np.random.default_rng(4), step, whole=False)
    wrong = offsets(drifted(stack, drift), max_drift=16).drift - drift
    # Inclined boundaries move from slice to slice; in a slice of few particles that does not average out.
    assert np.abs(np.diff(wrong, axis=0)).mean() < 0.2 and np.abs(wrong).max() < 1.5


@pytest.mark.parametrize("bad", ["constant", "noise", "other"])
def test_a_bad_slice_does_not_move_the_others(stack, bad):
    drift = walk(12, np.random.default_rng(5), 4, whole=False)
    slices = drifted(stack, drift)
    undisturbed = offsets(slices, max_drift=16).drift
    rng = np.random.default_rng(0)
    shape = slices[0].shape
    slices[6] = {
        "constant": np.full(shape, 7.0),
        "noise": rng.normal(size=shape),
        "other": np.roll(slices[6][::-1], 9, axis=1),
    }[bad]
    found = offsets(slices, max_drift=16)
    others = np.arange(12) != 6
    np.testing.assert_allclose(found.drift[others], undisturbed[others], atol=0.5)
    assert found.quality[6] < 0.5 * np.median(found.quality)


def test_brightness_and_contrast_do_not_matter(stack):
    drift = walk(6, np.random.default_rng(6), 3, whole=False)
    slices = drifted(stack[:6], drift)
    changed = [image * (1 + 0.2 * k) + 40 * k for k, image in enumerate(slices)]
    np.testing.assert_allclose(offsets(changed, max_drift=16).drift, offsets(slices, max_drift=16).drift, atol=0.01)


def test_slices_come_one_at_a_time(stack):
    held = []

    def one_by_one():
        for image in stack:
            held.append(image)
            yield image

    assert offsets(one_by_one(), max_drift=16).drift.shape == (12, 2)
    assert offsets(iter(stack[:1]), max_drift=16).drift.tolist() == [[0, 0]]
    assert offsets(iter(()), max_drift=16).drift.shape == (0, 2)


def test_no_drift_beyond_the_largest_is_reported(stack):
    drift = np.array([[0, 0], [12.0, 0]])
    found = offsets(drifted(stack[:2], drift), max_drift=5).drift
    assert np.abs(found).max() <= 5.5
    np.testing.assert_allclose(offsets(drifted(stack[:2], drift), max_drift=13).drift, drift, atol=1)


def test_constant_slices_do_not_drift():
    found = offsets([np.full((32, 32), 9, dtype=np.uint8)] * 4, max_drift=16)
    assert not found.drift.any() and found.quality.tolist() == [1, 0, 0, 0]


def test_slices_of_another_size_are_named(stack):
    with pytest.raises(InputError, match="slice 2: found 100 x 152, expected 168 x 152 px"):
        offsets([stack[0], stack[1], stack[2, :100]], max_drift=16)


def test_alignment_brings_slices_and_labels_back(stack):
    labels = generate((12, 128 + 2 * EDGE, 112 + 2 * EDGE), Simulate(), seed=1)
    drift = walk(12, np.random.default_rng(7), 4, whole=True)
    moved = [np.roll(image, by.astype(int), axis=(0, 1)) for image, by in zip(stack, drift, strict=True)]
    moved_labels = [np.roll(image, by.astype(int), axis=(0, 1)) for image, by in zip(labels, drift, strict=True)]
    rows, cols = common(drift, stack.shape[1:])
    for order in (0, 1):
        back = np.stack([shift(image, by, order=order) for image, by in zip(moved, drift, strict=True)])
        assert back.dtype == stack.dtype
        np.testing.assert_array_equal(back[:, rows, cols], stack[:, rows, cols])
    back = np.stack([shift(image, by, order=0) for image, by in zip(moved_labels, drift, strict=True)])
    assert back.dtype == np.uint8 and set(np.unique(back)) <= {0, 1, 2}
    np.testing.assert_array_equal(back[:, rows, cols], labels[:, rows, cols])


def test_half_a_pixel_is_the_mean_of_two_and_stays_in_range():
    image = np.array([[0, 10, 30, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(shift(image, (0, 0.5)), [[5, 20, 142, 255]])
    assert shift(image, (0, 0.3), order=3).dtype == np.uint8
    assert shift(image.astype(np.float32), (0, 1)).tolist() == [[10, 30, 255, 255]]


def test_what_all_slices_share_is_no_larger_than_they_are():
    assert common(np.zeros((3, 2)), (8, 9)) == (slice(0, 8), slice(0, 9))
    with pytest.raises(InputError, match="alignment: found a drift from -3 to 6 px, expected less than the 8 rows"):
        common(np.array([[-3.0, 0], [6, 0]]), (8, 9))
