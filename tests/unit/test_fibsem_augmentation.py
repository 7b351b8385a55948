import dask.array as da
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from cathodeflow.errors import InputError
from cathodeflow.fibsem.augmentation import grey_copies, label_copies, smoothed
from cathodeflow.fibsem.slice_options import Augment, Simulate
from cathodeflow.fibsem.structure import generate

RNG = np.random.default_rng(1)
GREY = RNG.uniform(0, 255, (3, 31, 17)).astype(np.float32)


def by_hand(labels, offsets, among=(1, 2)):
    """The rule, a pixel at a time."""
    out = labels.copy()
    rows, cols = labels.shape
    for row, col in np.ndindex(rows, cols):
        near = [labels[row + r, col + c] for r, c in offsets if 0 <= row + r < rows and 0 <= col + c < cols]
        for phase in among:
            if labels[row, col] in among and 2 * near.count(phase) > len(near):
                out[row, col] = phase
    return out


RING = {
    4: [(-1, 0), (1, 0), (0, -1), (0, 1)],
    8: [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)],
    12: [(r, c) for r in range(-2, 3) for c in range(-2, 3) if 0 < r * r + c * c <= 4],
    20: [(r, c) for r in range(-2, 3) for c in range(-2, 3) if 0 < r * r + c * c <= 5],
}


def test_the_published_number_of_copies_of_each_slice():
    slices = np.zeros((2, 224, 256), dtype=np.uint8)
    assert (
        grey_copies(slices, Augment(copies=10)).shape
        == label_copies(slices, Augment(copies=10)).shape
        == (2, 10, 224, 256)
    )


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_the_first_copy_is_the_slice(interpolation):
    np.testing.assert_array_equal(grey_copies(GREY, Augment(copies=3, interpolation=interpolation))[:, 0], GREY)
    labels = generate((2, 31, 17), Simulate(), seed=0)
    np.testing.assert_array_equal(label_copies(labels, Augment(copies=3))[:, 0], labels)


@pytest.mark.parametrize("step", [1, 4])
def test_linear_copies_are_those_of_a_library(step):
    copies = grey_copies(GREY, Augment(copies=5, step=step))
    for copy in range(5):
        kept = torch.from_numpy(GREY[:, None, copy * step :])
        expected = interpolate(kept, size=GREY.shape[1:], mode="bilinear", align_corners=False)
        np.testing.assert_allclose(copies[:, copy], expected[:, 0].numpy(), rtol=1e-4, atol=1e-3)


def test_cubic_copies_are_those_of_a_library():
    copies = grey_copies(GREY, Augment(copies=5, step=3, interpolation="cubic"))
    for copy in range(5):
        for before, after in zip(GREY, copies[:, copy], strict=True):
            kept = Image.fromarray(before[3 * copy :])
            expected = np.asarray(kept.resize((17, 31), Image.Resampling.BICUBIC))
            # At the edges a row is repeated here, the kernel is cut there.
            np.testing.assert_allclose(after[3:-3], expected[3:-3], rtol=1e-4, atol=1e-2)


def test_labels_are_the_nearest_ones():
    labels = RNG.integers(0, 3, (2, 31, 17)).astype(np.uint8)
    copies = label_copies(labels, Augment(copies=6, step=2, neighbours=0))
    assert copies.dtype == np.uint8
    for copy in range(6):
        kept = torch.from_numpy(labels[:, None, 2 * copy :].astype(np.float32))
        expected = interpolate(kept, size=(31, 17), mode="nearest-exact")
        np.testing.assert_array_equal(copies[:, copy], expected[:, 0].numpy())


def test_grey_and_labels_stay_on_each_other():
    labels = generate((1, 64, 48), Simulate(), seed=2)
    grey = labels.astype(np.float32)
    copies, truth = grey_copies(grey, Augment(copies=8)), label_copies(labels, Augment(copies=8, neighbours=0))
    # Rounded grey differs from the labels only where a row between two was made.
    assert np.mean(np.rint(copies) != truth) < 0.05


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_types_stay_and_whole_numbers_keep_their_range(kind, interpolation):
    top = 1.0 if np.issubdtype(kind, np.floating) else np.iinfo(kind).max
    slices = np.zeros((1, 20, 4), dtype=kind)
    slices[:, 10:] = top
    copies = grey_copies(slices, Augment(copies=4, interpolation=interpolation))
    assert copies.dtype == kind
    assert np.mean(np.abs(copies.astype(float) - slices[0]) < 0.1 * top) > 0.8
    if np.issubdtype(kind, np.unsignedinteger):
        assert copies.min() == 0 and copies.max() == top
        assert np.mean(copies > top / 2) > 0.45
    constant = grey_copies(np.full((1, 9, 4), top, dtype=kind), Augment(copies=4, interpolation=interpolation))
    np.testing.assert_allclose(constant, float(top), rtol=1e-6)


@pytest.mark.parametrize("neighbours", [4, 8, 12, 20])
@pytest.mark.parametrize("among", [(1, 2), (0, 1, 2), (0, 2)])
def test_the_rule_is_that_of_a_loop_over_pixels(neighbours, among):
    labels = RNG.choice(3, (12, 14), p=[0.2, 0.5, 0.3]).astype(np.uint8)
    expected = by_hand(labels, RING[neighbours], among)
    np.testing.assert_array_equal(smoothed(labels, neighbours=neighbours, among=among), expected)
    assert (expected != labels).any()


def test_binder_amid_active_material_becomes_active_and_the_reverse():
    for inner, outer in ((1, 2), (2, 1)):
        labels = np.full((5, 5), outer, dtype=np.uint8)
        labels[2, 2] = inner
        assert (smoothed(labels, neighbours=8) == outer).all()


def test_pores_stay_and_only_a_majority_counts():
    labels = np.full((5, 5), 1, dtype=np.uint8)
    labels[2, 2] = 0
    np.testing.assert_array_equal(smoothed(labels, neighbours=8), labels)
    # Four of eight neighbours are no majority.
    half = np.array([[1, 1, 1], [1, 2, 2], [2, 2, 2]], dtype=np.uint8)
    assert smoothed(half, neighbours=8)[1, 1] == 2
    # A pixel amid pores stays, too.
    alone = np.zeros((3, 3), dtype=np.uint8)
    alone[1, 1] = 2
    np.testing.assert_array_equal(smoothed(alone, neighbours=8), alone)


def test_slices_do_not_mix():
    labels = np.stack([np.full((6, 7), 1), np.full((6, 7), 2), RNG.integers(0, 3, (6, 7))]).astype(np.uint8)
    together = smoothed(labels[None], neighbours=8)[0]
    np.testing.assert_array_equal(together, np.stack([smoothed(image, neighbours=8) for image in labels]))


def test_smoothing_applies_to_stretched_copies():
    labels = RNG.choice(3, (1, 24, 20), p=[0.1, 0.6, 0.3]).astype(np.uint8)
    rough, smooth = (label_copies(labels, Augment(copies=3, neighbours=k)) for k in (0, 8))
    np.testing.assert_array_equal(smooth[:, 1:], smoothed(rough[:, 1:], neighbours=8))
    assert (smooth[:, 1:] != rough[:, 1:]).any()


def test_dask_gives_the_same_in_any_chunks():
    labels = generate((5, 32, 24), Simulate(), seed=3)
    lazy = da.from_array(labels, chunks=(2, 32, 24))
    copies = da.map_blocks(
        label_copies,
        lazy,
        options=Augment(copies=4),
        new_axis=1,
        chunks=(lazy.chunks[0], 4, 32, 24),
        dtype=np.uint8,
        meta=labels[:0, None],
    )
    np.testing.assert_array_equal(copies.compute(), label_copies(labels, Augment(copies=4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"copies": 10, "step": 4},
            "augmentation: found 10 copies, each 4 rows shorter, expected .* rows left of the 31",
        ),
        ({"copies": 0, "step": 1}, "augmentation: found 0 copies, each 1 row shorter"),
        ({"copies": 10, "step": 0}, "augmentation: found 10 copies, each 0 rows shorter"),
    ],
)
def test_copies_that_cannot_be_made_are_named(options, message):
    for make in (grey_copies, label_copies):
        with pytest.raises(InputError, match=message):
            make(GREY.astype(np.uint8), Augment.model_construct(**options))


@pytest.mark.parametrize("neighbours", [-1, 1, 5, 9, 10, 16])
def test_neighbours_come_in_rings(neighbours):
    with pytest.raises(InputError, match=f"neighbours: found {neighbours}, expected 4, 8, 12"):
        smoothed(np.zeros((4, 4), dtype=np.uint8), neighbours=neighbours)
