import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cathodeflow.bragg.network_options import Patches
from cathodeflow.bragg.training_patches import cut_training_patches, network_batch, prepare_patches
from cathodeflow.errors import InputError
from cathodeflow.io.patch_table import TrainingPatches
from cathodeflow.io.patches import read_patches, write_patches

SHAPE = (24, 31)
SIGMA, THRESHOLD = 1.1, 0.02


def gaussian(shape, row, col, sigma=SIGMA):
    r, c = np.ogrid[: shape[0], : shape[1]]
    return np.exp(-((r - row) ** 2 + (c - col) ** 2) / (2 * sigma**2))


def cut(frames, fidx, rows, cols, **options):
    count, options = len(fidx), Patches(**{"min_value": 0} | options)
    return list(cut_training_patches(frames, fidx, rows, cols, np.full(count, 0.3), np.ones(count), options=options))


def prepared(frame, rows, cols, *, patch_size=11, min_value=0.0):
    return prepare_patches(frame, rows, cols, patch_size=patch_size, min_value=min_value)[0]


def inside(shape, corner_row, corner_col, size):
    r, c = corner_row + np.arange(size)[:, None], corner_col + np.arange(size)
    return (r >= 0) & (r < shape[0]) & (c >= 0) & (c < shape[1])


@settings(max_examples=80, deadline=None)
@given(
    row=st.floats(-0.4, SHAPE[0] - 0.6), col=st.floats(-0.4, SHAPE[1] - 0.6),
    patch_size=st.sampled_from([7, 11, 15]), max_shift=st.integers(0, 3), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_the_label_is_right_anywhere_in_the_frame_after_any_shift_and_turn(row, col, patch_size, max_shift, seed):
    frame = gaussian(SHAPE, row, col)
    (table,) = cut(frame[None], [0], [row], [col], patch_size=patch_size, max_shift=max_shift, min_value=THRESHOLD)
    size = patch_size + 2 * max_shift
    assert table.patches.shape == (1, size, size)
    corner = round(row - float(table.row[0])), round(col - float(table.col[0]))
    expected = gaussian((size, size), table.row[0], table.col[0]) * inside(SHAPE, *corner, size)
    np.testing.assert_allclose(table.patches[0], np.where(expected >= THRESHOLD, expected, 0), atol=1e-3)
    # Nearest pixel in the middle, so that no shift takes the peak further off than max_shift + 1/2 px.
    assert abs(table.row[0] - size // 2) <= 0.501 and abs(table.col[0] - size // 2) <= 0.501

    random = np.random.default_rng(seed)
    shifts = random.integers(-max_shift, max_shift + 1, (2, 8))
    patches, labels = network_batch(table, np.zeros(8, int), *shifts, np.arange(8), patch_size=patch_size)
    assert patches.shape == (8, 1, patch_size, patch_size) and patches.dtype == labels.dtype == np.float32
    for patch, (label_col, label_row) in zip(patches[:, 0], labels * patch_size, strict=True):
        shape = gaussian((patch_size, patch_size), label_row, label_col)
        assert patch.max() == pytest.approx(1) and patch.min() == 0
        shown = patch > 0
        ratio = patch[shown] / shape[shown]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)


def test_centre_of_mass_of_a_whole_peak_is_the_label_beside_every_edge():
    for row in (3.2, 12.0, SHAPE[0] - 4.3):
        for col in (3.4, 15.1, SHAPE[1] - 4.1):
            frame = gaussian(SHAPE, row, col, sigma=0.7) * 1000
            (table,) = cut(frame[None], [0], [row], [col], patch_size=11, max_shift=2, min_value=0.01)
            zero = np.zeros(1, int)
            (patch,), (label,) = network_batch(table, zero, zero, zero, zero, patch_size=11)
            r, c = np.indices((11, 11))
            centre = np.array([(patch[0] * c).sum(), (patch[0] * r).sum()]) / patch.sum()
            np.testing.assert_allclose(centre, label * 11, atol=2e-3)


def test_a_neighbour_is_removed_and_the_peak_nearest_the_given_position_stays():
    row, col = 12.0, 12.0
    alone = gaussian(SHAPE, row, col, 0.8) * 100
    both = alone + gaussian(SHAPE, row + 1, col + 6, 0.6) * 900
    peak, neighbour = prepared(both, [12, 13], [12, 18], patch_size=15, min_value=1)
    (expected,) = prepared(alone, [12], [12], patch_size=15, min_value=1)
    np.testing.assert_allclose(peak, expected, atol=1e-3)
    assert neighbour[7, 7] == 1 and neighbour[6, 1] == 0
    # In training the label decides, not the middle of the crop: here the brighter peak is as near the middle.
    table = TrainingPatches(
        np.where(both > 1, both, 0)[None, 4:19, 7:22].astype("f4"),
        *(np.array([v], t) for v, t in ((8, "f4"), (5, "f4"), (0, "i8"), (0, "i8"))),
        np.full((1, 2), np.nan, "f4"),
    )
    zero = np.zeros(1, int)
    (patch,), _ = network_batch(table, zero, zero, zero, zero, patch_size=15)
    assert patch[0, 8, 5] == 1 and patch[0, 9, 11] == 0


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), st.integers(-2, 2), st.integers(-2, 2), st.integers(0, 7))
def test_an_added_neighbour_lies_where_it_was_put_and_moves_no_label(offset, shift_row, shift_col, symmetry):
    frame = gaussian((40, 40), 20.2, 19.7) + 1e-3
    table = joined(cut(frame[None], [0, 0], [20.2, 12.0], [19.7, 12.0], max_shift=2))
    single = joined(cut(frame[None], [0], [20.2], [19.7], max_shift=2))
    peak = int(np.flatnonzero(table.peak == 0)[0])
    arguments = ([peak], np.array([shift_row]), np.array([shift_col]), np.array([symmetry]))
    _, label = network_batch(table, *arguments, patch_size=11)
    (patch,), (with_neighbour,) = network_batch(
        table, *arguments, patch_size=11, neighbour=np.array([peak]), offset=np.array([offset])
    )
    np.testing.assert_array_equal(with_neighbour, label[0])
    # The same, by adding the shifted stored patch before cropping.
    both = single.patches[0].copy()
    r, c = np.indices(both.shape)
    inside = (r - offset[0] >= 0) & (r - offset[0] < len(both)) & (c - offset[1] >= 0) & (c - offset[1] < len(both))
    both[inside] += single.patches[0][r[inside] - offset[0], c[inside] - offset[1]]
    crop = both[2 + shift_row : 13 + shift_row, 2 + shift_col : 13 + shift_col]
    middle = np.array([single.row[0] - 2 - shift_row, single.col[0] - 2 - shift_col])
    if np.abs(np.array(np.unravel_index(crop.argmax(), crop.shape)) - middle).max() > 2:
        both = single.patches[0].copy()
    zero = [0]
    (expected,), _ = network_batch(single._replace(patches=both[None]), zero, *arguments[1:], patch_size=11)
    np.testing.assert_allclose(patch, expected, atol=1e-6)


def test_pixels_that_touch_at_a_corner_belong_together():
    frame = np.zeros((11, 11))
    frame[5, 5], frame[6, 6], frame[7, 7], frame[5, 8] = 4, 3, 2, 9
    (patch,) = prepared(frame, [5], [5])
    assert {tuple(p) for p in np.argwhere(patch)} == {(5, 5), (6, 6), (7, 7)}
    assert patch[5, 5] == 1 and patch[7, 7] == 0.5


def test_threshold_empty_constant_and_bad_pixels():
    frame = np.full((13, 13), 5.0)
    frame[6, 6], frame[6, 7], frame[6, 5], frame[5, 6] = 10, 9.99, np.nan, -3
    (patch,) = prepared(frame, [6], [6], min_value=10)
    assert patch[5, 5] == 1 and patch.sum() == 1
    assert not prepared(np.full((13, 13), 5.0), [6], [6], min_value=6).any()
    assert not prepared(np.full((13, 13), 5.0), [6], [6], min_value=1).any()
    # Where every pixel belongs to the peak, the least of them is 0 all the same.
    (patch,) = prepared(20 + np.add.outer(np.arange(13.0), np.arange(13.0)), [6], [6], min_value=1)
    assert patch[0, 0] == 0 and patch[10, 10] == 1 and patch[5, 5] == 0.5
    (patch,) = prepared(frame, [6], [6])
    assert np.isfinite(patch).all() and patch[5, 4] == 0 and patch[4, 5] == 0
    assert prepared(frame, np.zeros(0, int), np.zeros(0, int)).shape == (0, 11, 11)


def many_peaks(seed=0, frames=7, count=40):
    random = np.random.default_rng(seed)
    images = random.poisson(3.0, (frames, *SHAPE)).astype(np.float32)
    fidx = random.integers(0, frames, count)
    rows, cols = random.uniform(-0.4, SHAPE[0] - 0.6, count), random.uniform(-0.4, SHAPE[1] - 0.6, count)
    return images, fidx, rows, cols


def joined(parts):
    return TrainingPatches(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def test_the_order_of_peaks_and_of_frames_changes_nothing():
    images, fidx, rows, cols = many_peaks()
    table = joined(cut(images, fidx, rows, cols))
    random = np.random.default_rng(1)
    order = random.permutation(len(fidx))
    shuffled = joined(cut(images, fidx[order], rows[order], cols[order]))
    for name in ("patches", "row", "col", "fidx"):
        np.testing.assert_array_equal(getattr(shuffled, name), getattr(table, name))
    np.testing.assert_array_equal(order[shuffled.peak], table.peak)
    stored = random.permutation(len(images))
    moved = joined(cut(images[stored], np.argsort(stored)[fidx], rows, cols))
    by_peak, before = np.argsort(moved.peak), np.argsort(table.peak)
    np.testing.assert_array_equal(moved.patches[by_peak], table.patches[before])
    np.testing.assert_array_equal(moved.row[by_peak], table.row[before])


class OneAtATime:
    """Frames made when asked for; notes which were read and how many were alive at once."""

    def __init__(self, count):
        self.count, self.read, self.alive, self.most = count, [], [], 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.most = max(self.most, sum(frame() is not None for frame in self.alive))
        frame = np.full(SHAPE, float(index), np.float32)
        self.read.append(index)
        self.alive.append(weakref.ref(frame))
        return frame


def test_each_frame_with_peaks_is_read_once_in_order_and_let_go():
    frames = OneAtATime(1000)
    fidx = np.array([700, 3, 700, 12, 3, 999])
    columns = np.full(6, 9.0), np.full(6, 9.0), np.zeros(6), np.ones(6)
    parts = cut_training_patches(frames, fidx, *columns, options=Patches(min_value=1))
    assert [(int(part.fidx[0]), len(part.row)) for part in parts] == [(3, 2), (12, 1), (700, 2), (999, 1)]
    assert frames.read == [3, 12, 700, 999] and frames.most <= 1


def test_only_single_well_fitted_peaks_are_kept():
    images, fidx, rows, cols = many_peaks(count=6)
    deviations, npeaks = np.array([-1, 0, 0.99, 1.0, 0.2, np.nan]), np.array([1, 1, 1, 1, 2, 1])
    table = joined(cut_training_patches(images, fidx, rows, cols, deviations, npeaks, options=Patches()))
    assert set(table.peak) == {1, 2}
    assert list(cut_training_patches(images, fidx, rows, cols, np.full(6, -1.0), np.ones(6), options=Patches())) == []


def test_a_peak_on_a_missing_frame_is_an_error():
    images, fidx, rows, cols = many_peaks()
    with pytest.raises(InputError, match="a peak on frame 6, expected frames 0 to 3"):
        cut(images[:4], np.full_like(fidx, 6), rows, cols)


def test_shifts_beyond_the_margin_are_refused():
    images, fidx, rows, cols = many_peaks()
    table, one = joined(cut(images, fidx, rows, cols, max_shift=1)), np.ones(1, int)
    with pytest.raises(ValueError, match="margin of 1 px"):
        network_batch(table, one, 2 * one, one, one, patch_size=11)


def test_patches_survive_the_file(tmp_path):
    images, fidx, rows, cols = many_peaks()
    options, errors = Patches(patch_size=9, max_shift=2, min_value=2), np.stack([rows, cols], axis=1) / 1000
    columns = fidx, rows, cols, np.full(len(fidx), 0.3), np.ones(len(fidx))
    parts = list(cut_training_patches(images, *columns, errors=errors, options=options))
    path = tmp_path / "patches.h5"
    assert write_patches(path, iter(parts), patch_size=9, max_shift=2, min_value=2.0) == len(fidx)
    table, found = read_patches(path)
    assert found == {"patch_size": 9, "max_shift": 2, "min_value": 2.0}
    for ours, theirs in zip(table, joined(parts), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(table.error, errors[table.peak].astype(np.float32))
    assert np.isnan(joined(cut(images, fidx, rows, cols)).error).all()
    assert write_patches(path, [], patch_size=9, max_shift=2, min_value=2.0) == 0
    assert read_patches(path)[0].patches.shape == (0, 13, 13)
    path.write_text("no HDF5")
    with pytest.raises(InputError, match="no HDF5 signature"):
        read_patches(path)
    with pytest.raises(InputError, match="no such file"):
        read_patches(tmp_path / "missing.h5")
