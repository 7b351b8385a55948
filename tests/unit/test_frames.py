import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cathodeflow.bragg.binning import bin_frame, bin_mask, binned_shape, from_detector, to_detector
from cathodeflow.bragg.corrections import (
    check_frame,
    correct_frame,
    detector_mask,
    invalid_pixels,
    saturated_pixels,
)
from cathodeflow.bragg.peak_options import Frames
from cathodeflow.bragg.prepared_frames import correction_of, prepared_frame
from cathodeflow.errors import InputError
from cathodeflow.io.raw_format import CountLimits

sizes = st.integers(4, 23)


@settings(max_examples=50, deadline=None)
@given(rows=sizes, cols=sizes, binning=st.sampled_from([1, 2, 4]), seed=st.integers(0, 2**32 - 1))
def test_binning_keeps_the_counts_of_all_whole_blocks(rows, cols, binning, seed):
    frame = np.random.default_rng(seed).poisson(1000, (rows, cols)).astype(np.float32)
    binned = bin_frame(frame, binning)
    assert binned.shape == binned_shape((rows, cols), binning) == (rows // binning, cols // binning)
    assert binned.sum(dtype=float) == frame[: rows // binning * binning, : cols // binning * binning].sum(dtype=float)


@settings(max_examples=50, deadline=None)
@given(rows=sizes, cols=sizes, binning=st.sampled_from([1, 2, 4]), seed=st.integers(0, 2**32 - 1))
def test_a_block_is_bad_where_binning_the_mask_counts_a_bad_pixel(rows, cols, binning, seed):
    mask = np.random.default_rng(seed).random((rows, cols)) < 0.1
    np.testing.assert_array_equal(bin_mask(mask, binning), bin_frame(mask.astype(np.float32), binning) > 0)


@pytest.mark.parametrize("binning", [1, 2, 4])
def test_the_centre_of_mass_of_a_peak_is_kept_in_detector_coordinates(binning):
    row, col = np.mgrid[:64, :64]
    peak = np.exp(-((row - 30.3) ** 2 + (col - 21.8) ** 2) / (2 * 3.0**2)).astype(np.float32)
    binned = bin_frame(peak, binning).astype(float)
    at = [(axis * binned).sum() / binned.sum() for axis in np.mgrid[: binned.shape[0], : binned.shape[1]]]
    assert [to_detector(x, binning) for x in at] == pytest.approx([30.3, 21.8], abs=1e-3)
    assert [from_detector(to_detector(x, binning), binning) for x in at] == pytest.approx(at)


def test_a_frame_smaller_than_a_block_is_refused():
    with pytest.raises(InputError, match=r"binning: found blocks of 4 x 4 for frames of \(3, 9\) pixels"):
        bin_frame(np.ones((3, 9), np.float32), 4)


def check(raw, *, mask=None, **options):
    """Check a frame as the stage does."""
    settings = Frames(**options)
    check_frame(raw, invalid_pixels(raw, settings), settings, where="scan, frame 7", mask=mask)


def test_the_dark_is_subtracted_and_negative_differences_stay():
    raw = np.array([[10, 3, 7, 65533]], np.uint16)
    mask = np.array([[False, False, True, False]])
    corrected = correct_frame(raw, dark_image=np.array([[4.5, 5, 0, 0.5]]), mask=mask)
    assert corrected.dtype == np.float32
    assert corrected.tolist() == [[5.5, -2, 0, 65532.5]]


def test_the_difference_of_large_counts_is_exact():
    # 2^24 + 1 has no float32 of its own.
    raw = np.array([[2**24 + 1]], np.uint32)
    assert correct_frame(raw, dark_image=np.array([[2.0**24]])).item() == 1


def test_the_raw_frame_is_left_as_it_was():
    raw = np.full((4, 4), 5, np.float32)
    correct_frame(raw, mask=np.ones((4, 4), bool), invalid=np.ones((4, 4), bool))
    assert (raw == 5).all()


def test_pixels_invalid_in_all_samples_are_bad_and_those_of_one_frame_are_marked_there():
    first = np.array([[-1, 4, 5, 6, -1]], np.int32)
    second = np.array([[-2, 4, -1, 6, 9]], np.int32)
    invalid = [invalid_pixels(frame, Frames()) for frame in (first, second)]
    mask = detector_mask(invalid, bad=np.array([[0, 2, 0, 0, 0]], np.uint8))
    assert mask.tolist() == [[True, True, False, False, False]]
    correction = correction_of(Frames(max_saturated=1), source="s", mask=mask)
    nan = pytest.approx(np.nan, nan_ok=True)
    assert [prepared_frame(0, raw, correction).tolist() for raw in (first, second)] == [
        [[0, 0, 5, 6, nan]],
        [[0, 0, nan, 6, 9]],
    ]


@pytest.mark.parametrize(
    ("dtype", "invalid", "valid"),
    [
        (np.uint32, [2**32 - 1, 2**32 - 2], [0, 2**32 - 3, 65535, 2**31 - 1]),
        (np.uint16, [65535, 65534], [0, 65533, 255]),
        (np.uint8, [255], [0, 254]),
        (np.uint64, [2**64 - 1, 2**64 - 2, 2**32 - 1, 2**32 - 2], [0, 2**33, 65535]),
        (np.int64, [-1, -2, 2**63 - 1, 2**32 - 1, 2**32 - 2], [0, 2**33]),
        (np.int32, [-1, -2, 2**31 - 1], [0, 65535, -3, 2**31 - 2]),
        (np.int16, [-1, -2, 32767], [0, 32766, -3]),
        (np.float32, [-1, -2, 2**32 - 1], [0, 65535, 0.5, -1.5]),
        (np.float64, [-1, -2, 2**32 - 1, 2**32 - 2], [0, 65535, 2**32 - 3]),
    ],
)
def test_values_that_mark_pixels_without_a_count(dtype, invalid, valid):
    raw = np.array([invalid + valid]).astype(dtype) if dtype != np.uint64 else np.array([invalid + valid], dtype)
    assert invalid_pixels(raw, Frames())[0].tolist() == [True] * len(invalid) + [False] * len(valid)


def test_negative_marks_are_counts_where_negative_counts_are_noise():
    raw = np.array([[-1, -2, -3, 2**31 - 1]], np.int32)
    assert invalid_pixels(raw, Frames(allow_negative=True)).tolist() == [[False, False, False, True]]


def test_further_marks_and_limits_of_the_file():
    raw = np.array([[0, 1, 7, 8, 99, 100, 2**32 - 1]], np.uint32)
    assert Frames(gap_value=0).gap_value == (0,)
    found = invalid_pixels(raw, Frames(gap_value=[0, 7]), CountLimits(marks=(8.0,), highest=99))
    assert found.tolist() == [[True, False, True, True, False, True, True]]
    assert invalid_pixels(raw, Frames(), CountLimits(lowest=1)).tolist() == [[True] + [False] * 5 + [True]]
    # The level of the user counts, not that of the file.
    found = invalid_pixels(raw, Frames(saturation=100), CountLimits(highest=7))
    assert found.tolist() == [[False] * 5 + [True, True]]


def test_a_mark_in_a_block_makes_the_block_invalid():
    raw = np.ones((2, 4), np.uint32)
    raw[1, 2] = 2**32 - 1
    mask = np.zeros((2, 4), bool)
    frame = prepared_frame(0, raw, correction_of(Frames(binning=2, max_saturated=1), source="s", mask=mask))
    assert frame[0, 0] == 4 and np.isnan(frame[0, 1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_counts_that_are_not_finite_are_refused_unless_masked(value):
    raw = np.ones((4, 5))
    raw[2, 3] = raw[3, 1] = value
    with pytest.raises(InputError) as caught:
        check(raw)
    assert caught.value.where == "scan, frame 7"
    assert caught.value.found == "2 pixels of NaN or infinity, the first at (row, col) = (2, 3)"
    mask = ~np.isfinite(raw)
    check(raw, mask=mask)
    assert correct_frame(raw, mask=mask)[mask].tolist() == [0, 0]


def test_negative_counts_are_refused_unless_allowed():
    raw = np.array([[1, -5, -7], [3, -4, 0]], np.int32)
    with pytest.raises(InputError, match=r"3 pixels below zero \(lowest -7\), the first at \(0, 1\).*allow_negative"):
        check(raw)
    check(raw, allow_negative=True)
    assert correct_frame(raw).tolist() == [[1, -5, -7], [3, -4, 0]]


def test_one_or_two_negative_values_are_named_as_marks_not_as_noise():
    raw = np.array([[1, -99, -99], [3, -7, 0]], np.float32)
    with pytest.raises(InputError, match=r"gap_value \[-99, -7\] or a mask") as caught:
        check(raw)
    assert "allow_negative" not in str(caught.value)
    check(raw, gap_value=[-99, -7], max_saturated=1)


@pytest.mark.parametrize(
    ("dtype", "level", "options", "refused"),
    [
        (np.uint8, 255, {}, True),
        (np.uint8, 254, {}, False),
        (np.uint16, 16383, {}, False),
        (np.uint16, 16383, {"saturation": 16383}, True),
        (np.uint16, 16383, {"saturation": 16383, "max_saturated": 0.5}, False),
        (np.float32, 1e30, {}, False),
        (np.float32, 1e30, {"saturation": 1e5}, True),
    ],
)
def test_a_saturated_frame_is_refused(dtype, level, options, refused):
    raw = np.zeros((10, 10), dtype)
    raw[0, :2] = level  # 2 % of the pixels
    if refused:
        with pytest.raises(InputError, match="2 of 100 pixels saturated"):
            check(raw, **options)
    else:
        check(raw, **options)


def test_masked_pixels_do_not_count_as_saturated():
    raw = np.full((10, 10), 255, np.uint8)
    check(raw, mask=np.ones((10, 10), bool))
    mask = np.ones((10, 10), bool)
    mask[0] = False
    with pytest.raises(InputError, match="10 of 10 pixels saturated"):
        check(raw, mask=mask)


def test_blocks_with_a_bad_pixel_are_zero():
    raw = np.full((4, 6), 2, np.uint16)
    mask = np.zeros((4, 6), bool)
    mask[1, 5] = True
    frame = prepared_frame(3, raw, correction_of(Frames(binning=2), source="s", mask=mask))
    assert frame.tolist() == [[8, 8, 0], [8, 8, 8]]


def test_the_frame_is_named_where_it_is_refused():
    correction = correction_of(Frames(), source="scan", mask=np.zeros((1, 1), bool))
    with pytest.raises(InputError, match=r"scan, frame 1: found 1 pixels of NaN"):
        prepared_frame(1, np.array([[np.nan]]), correction)


def whole_frame(raw, options, limits, mask, stored, **images):
    """Prepare a frame with masks of all of its pixels, as `prepared_frame` does with few places."""
    invalid = invalid_pixels(raw, options, limits) | stored
    check_frame(raw, invalid, options, where="s, frame 3", mask=mask)
    saturated = saturated_pixels(raw, options, limits)
    counts = bin_frame(correct_frame(raw, mask=mask, invalid=invalid, saturated=saturated, **images), options.binning)
    counts[bin_mask(mask, options.binning)] = 0
    return counts


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"]),
    gap=st.sampled_from([None, 0, 7, -5, 65535]),
    negative=st.booleans(),
    saturation=st.sampled_from([None, 40, 40.5, 90]),
    limits=st.builds(
        CountLimits,
        st.sampled_from([(), (-1.0,), (3.0, 2.5), (65534.0,)]),
        st.sampled_from([None, 0.0, 1.0, 2.5]),
        st.sampled_from([None, 60.0, 60.5, 65533.0]),
    ),
    most=st.sampled_from([0.002, 0.02, 1.0]),
)
def test_marks_found_by_their_range_are_those_of_the_whole_frame(seed, dtype, gap, negative, saturation, limits, most):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(4, 30, 2))
    raw = rng.poisson(rng.choice([0.5, 20, 90]), shape).astype(dtype)
    odd = [0, 1, 7, 50]
    if raw.dtype.kind in "iu":
        info = np.iinfo(dtype)
        odd += [info.max - i for i in range(3)] + [v for v in (2**32 - 1, 2**32 - 2, 65535) if v <= info.max]
        odd += [-1, -2, -3] if info.min else []
    elif raw.dtype.kind == "f":
        odd += [-1, -2, -3.5, 2.0**32 - 1, 2.0**32 - 2, 65535, *([np.nan, np.inf, -np.inf] if seed % 3 == 0 else [])]
    for value in rng.permutation(np.array(odd, object))[: rng.integers(0, 8)]:
        raw[rng.integers(shape[0]), rng.integers(shape[1])] = value
    options = Frames(
        binning=int(rng.choice([1, 2, 4])),
        max_saturated=most,
        gap_value=gap,
        allow_negative=negative,
        saturation=saturation,
    )
    mask, stored = rng.random(shape) < rng.choice([0, 0.02, 0.3]), rng.random(shape) < 0.01
    images = {"dark_image": rng.uniform(0, 5, shape), "sensitivity": rng.uniform(0.5, 2, shape)} if seed % 2 else {}
    correction = correction_of(options, source="s", mask=mask, limits=limits, mask_of=lambda number: stored, **images)
    try:
        expected = whole_frame(raw, options, limits, mask, stored, **images)
    except InputError as error:
        with pytest.raises(InputError) as caught:
            prepared_frame(3, raw, correction)
        assert str(caught.value) == str(error)
    else:
        assert prepared_frame(3, raw, correction).tobytes() == expected.tobytes()
