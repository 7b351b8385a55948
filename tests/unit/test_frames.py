import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cathodeflow.bragg.binning import bin_frame, bin_mask, binned_shape, from_detector, to_detector
from cathodeflow.bragg.corrections import check_frame, correct_frame, corrected_frames, detector_mask
from cathodeflow.bragg.options import Frames
from cathodeflow.errors import InputError

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


def test_the_dark_is_subtracted_and_clipped_at_zero():
    raw = np.array([[10, 3, 7, 65535]], np.uint16)
    mask = np.array([[False, False, True, False]])
    corrected = correct_frame(raw, Frames(), dark_image=np.array([[4.5, 5, 0, 0.5]]), mask=mask)
    assert corrected.dtype == np.float32
    assert corrected.tolist() == [[5.5, 0, 0, 65534.5]]


def test_the_difference_of_large_counts_is_exact():
    # 2^24 + 1 has no float32 of its own.
    raw = np.array([[2**24 + 1]], np.uint32)
    assert correct_frame(raw, Frames(), dark_image=np.array([[2.0**24]])).item() == 1


def test_the_raw_frame_is_left_as_it_was():
    raw = np.full((4, 4), 5, np.float32)
    correct_frame(raw, Frames(), mask=np.ones((4, 4), bool))
    assert (raw == 5).all()


def test_gaps_are_bad_in_all_frames_and_gap_pixels_of_one_frame_are_zero():
    first = np.array([[-1, 4, 5, 6]], np.int32)
    second = np.array([[3, 4, -1, 6]], np.int32)
    mask = detector_mask(first, bad=np.array([[0, 2, 0, 0]], np.uint8), gap_value=-1)
    assert mask.tolist() == [[True, True, False, False]]
    frames = corrected_frames([(0, first), (1, second)], Frames(gap_value=-1), source="s", mask=mask)
    assert [frame.tolist() for _, frame in frames] == [[[0, 0, 5, 6]], [[0, 0, 0, 6]]]


def test_eigers_gaps_are_no_saturation():
    raw = np.full((10, 10), 3, np.uint32)
    raw[:5] = 2**32 - 1
    check_frame(raw, Frames(gap_value=2**32 - 1), where="s")
    with pytest.raises(InputError, match="50 of 100 pixels saturated"):
        check_frame(raw, Frames(), where="s")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_counts_that_are_not_finite_are_refused_unless_masked(value):
    raw = np.ones((4, 5))
    raw[2, 3] = raw[3, 1] = value
    with pytest.raises(InputError) as caught:
        check_frame(raw, Frames(), where="scan, frame 7")
    assert caught.value.where == "scan, frame 7"
    assert caught.value.found == "2 pixels of NaN or infinity, the first at (row, col) = (2, 3)"
    mask = ~np.isfinite(raw)
    check_frame(raw, Frames(), where="scan", mask=mask)
    assert correct_frame(raw, Frames(), mask=mask)[mask].tolist() == [0, 0]


def test_negative_counts_are_refused_unless_allowed():
    raw = np.array([[1, -2], [3, -4]], np.int32)
    with pytest.raises(InputError, match=r"2 pixels below zero \(lowest -4\), the first at \(0, 1\)"):
        check_frame(raw, Frames(), where="s")
    check_frame(raw, Frames(allow_negative=True), where="s")
    assert correct_frame(raw, Frames()).tolist() == [[1, 0], [3, 0]]


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
            check_frame(raw, Frames(**options), where="s")
    else:
        check_frame(raw, Frames(**options), where="s")


def test_masked_pixels_do_not_count_as_saturated():
    raw = np.full((10, 10), 255, np.uint8)
    check_frame(raw, Frames(), where="s", mask=np.ones((10, 10), bool))
    mask = np.ones((10, 10), bool)
    mask[0] = False
    with pytest.raises(InputError, match="10 of 10 pixels saturated"):
        check_frame(raw, Frames(), where="s", mask=mask)


def test_blocks_with_a_bad_pixel_are_zero():
    raw = np.full((4, 6), 2, np.uint16)
    mask = np.zeros((4, 6), bool)
    mask[1, 5] = True
    ((number, frame),) = corrected_frames([(3, raw)], Frames(binning=2), source="s", mask=mask)
    assert number == 3
    assert frame.tolist() == [[8, 8, 0], [8, 8, 8]]


def test_refused_frames_are_raised_or_left_out():
    frames = [(0, np.array([[1.0]])), (1, np.array([[np.nan]])), (2, np.array([[3.0]])), (3, np.array([[-1.0]]))]
    mask = np.zeros((1, 1), bool)
    with pytest.raises(InputError, match=r"scan, frame 1: found 1 pixels of NaN"):
        list(corrected_frames(frames, Frames(), source="scan", mask=mask))
    bad = []
    assert [number for number, _ in corrected_frames(frames, Frames(), source="scan", mask=mask, bad=bad)] == [0, 2]
    assert [error.where for error in bad] == ["scan, frame 1", "scan, frame 3"]


def test_frames_are_corrected_one_at_a_time():
    taken = []

    def frames():
        for i in range(3):
            taken.append(i)
            yield i, np.ones((2, 2), np.uint8)

    corrected = corrected_frames(frames(), Frames(), source="s", mask=np.zeros((2, 2), bool))
    next(corrected)
    assert taken == [0]
