"""Peaks by persistent homology: against the package findpeaks, a brute-force reference, and invariances."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from cathodeflow.bragg.peak_options import FindPeaks
from cathodeflow.bragg.peak_search import candidates, findpeaks_peaks, persistence_peaks

EIGHT = np.ones((3, 3), int)
SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=9)
TIED = arrays(np.int64, SHAPES, elements=st.integers(0, 5))
DISTINCT = st.builds(
    lambda seed, rows, cols: np.random.default_rng(seed).permutation(rows * cols).reshape(rows, cols) * 0.375 - 3.0,
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.integers(1, 12),
)
THRESHOLDS = st.sampled_from([-10.0, 0.0, 1.0, 2.5])
few = settings(max_examples=40, deadline=None)


def pairs(peaks):
    return sorted(zip(peaks["birth"].tolist(), peaks["death"].tolist(), strict=True))


def spots(*peaks, shape=(40, 40)):
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    return sum(height * np.exp(-((rows - r) ** 2 + (cols - c) ** 2) / 4.0) for r, c, height in peaks)


@few
@given(st.one_of(TIED, DISTINCT), THRESHOLDS)
def test_both_engines_find_the_same_peaks(image, threshold):
    ours = persistence_peaks(image, threshold=threshold, min_persistence=0)
    assert ours.tolist() == findpeaks_peaks(image, threshold=threshold, min_persistence=0).tolist()


@few
@given(st.one_of(TIED, DISTINCT.map(lambda image: image + 4)).filter(lambda image: image.shape[1] > 2))
def test_agrees_with_findpeaks_called_plainly(image):
    """Without limit: same births, deaths and places, but for the global maximum's death, which findpeaks calls 0.

    Its limit is then the image's minimum - 1, which it asks of the scores too.
    """
    from findpeaks import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = stats.topology(image, limit=None)["persistence"]
    table = table[(table.score > 1e-9) & (table.death_level > 0)]
    table = table[table.birth_level > image.min() + 1e-9]
    peaks = persistence_peaks(image, threshold=image.min() - 1, min_persistence=0)
    highest, peaks = peaks[:1], peaks[1:]
    assert highest["birth"] == image.max() and highest["death"] == image.min() - 1
    peaks = np.sort(peaks[(peaks["death"] > 0) & (peaks["persistence"] > image.min() - 1)], order=["row", "col"])
    table = table[~((table.y == highest["row"][0]) & (table.x == highest["col"][0]))].sort_values(["y", "x"])
    assert table.y.tolist() == peaks["row"].tolist() and table.x.tolist() == peaks["col"].tolist()
    np.testing.assert_allclose(table.birth_level, peaks["birth"], atol=1e-10)
    np.testing.assert_allclose(table.death_level, peaks["death"], atol=1e-10)


@few
@given(st.one_of(TIED, DISTINCT), THRESHOLDS)
def test_counts_the_components_at_every_level(image, threshold):
    """At each level t at or above the threshold, the peaks with birth > t >= death are as many as components > t."""
    peaks = persistence_peaks(image, threshold=threshold, min_persistence=0)
    assert np.all(peaks["persistence"] == peaks["birth"] - peaks["death"]) and np.all(peaks["persistence"] > 0)
    assert np.all(image[peaks["row"], peaks["col"]] == peaks["birth"])
    for level in {threshold, *image[image > threshold].tolist()}:
        alive = (peaks["birth"] > level) & (level >= peaks["death"])
        assert alive.sum() == ndimage.label(image > level, EIGHT)[1]


@few
@given(DISTINCT, THRESHOLDS)
def test_symmetries(image, threshold):
    peaks = persistence_peaks(image, threshold=threshold, min_persistence=0)
    swapped = persistence_peaks(image.T, threshold=threshold, min_persistence=0)
    assert sorted(zip(swapped["col"], swapped["row"], swapped["death"], strict=True)) == sorted(
        zip(peaks["row"], peaks["col"], peaks["death"], strict=True)
    )
    shifted = persistence_peaks(image + 8, threshold=threshold + 8, min_persistence=0)
    assert np.array_equal(shifted["death"], peaks["death"] + 8) and np.array_equal(shifted["birth"], peaks["birth"] + 8)
    raised = persistence_peaks(np.exp(image / 9), threshold=np.exp(threshold / 9), min_persistence=0)
    np.testing.assert_allclose(
        np.array(pairs(raised)).reshape(-1, 2), np.exp(np.array(pairs(peaks)).reshape(-1, 2) / 9), rtol=1e-12
    )


def test_many_pixels_agree_with_the_reference_too():
    """More pixels and contacts than the buffers begin with, in both element types."""
    image = np.random.default_rng(3).poisson(20, (200, 170))
    peaks = persistence_peaks(image, threshold=0, min_persistence=0)
    for level in range(0, image.max(), 3):
        alive = (peaks["birth"] > level) & (level >= peaks["death"])
        assert alive.sum() == ndimage.label(image > level, EIGHT)[1]
    for dtype in (np.uint8, np.uint16, np.int32, np.float32, ">f8"):
        assert np.array_equal(persistence_peaks(image.astype(dtype), threshold=0, min_persistence=0), peaks)
    assert np.array_equal(persistence_peaks(np.asfortranarray(image), threshold=0, min_persistence=0), peaks)


def test_plateaus_give_one_peak_at_their_last_pixel():
    image = np.zeros((6, 7), int)
    image[1:3, 1:4] = 5
    image[4, 2:6] = 5
    peaks = persistence_peaks(image, threshold=0, min_persistence=0)
    assert peaks.tolist() == [(2, 3, 5.0, 0.0, 5.0), (4, 5, 5.0, 0.0, 5.0)]
    image[3, 3] = 2
    peaks = persistence_peaks(image, threshold=0, min_persistence=0)
    assert peaks.tolist() == [(4, 5, 5.0, 0.0, 5.0), (2, 3, 5.0, 2.0, 3.0)]


def test_edges_do_not_touch_across_rows():
    image = np.zeros((3, 4))
    image[0, 3], image[1, 0], image[2, 3] = 3, 2, 1
    assert len(persistence_peaks(image, threshold=0, min_persistence=0)) == 3


@pytest.mark.parametrize("find", [persistence_peaks, findpeaks_peaks])
def test_smallest_inputs(find):
    assert find([[7]], threshold=2, min_persistence=0).tolist() == [(0, 0, 7.0, 2.0, 5.0)]
    for nothing in (np.zeros((0, 5)), np.zeros((5, 0)), np.zeros((4, 4)), [[2.0]], [[np.nan]], [[np.inf]]):
        peaks = find(nothing, threshold=2, min_persistence=0)
        assert peaks.shape == (0,) and peaks.dtype.names == ("row", "col", "birth", "death", "persistence")
    assert len(find([[9, 0, 5]], threshold=0, min_persistence=5)) == 1, "the bound itself is not enough"
    with pytest.raises(ValueError, match="found 3 axes"):
        find(np.zeros((2, 2, 2)), threshold=0, min_persistence=0)
    with pytest.raises(ValueError, match="complex"):
        find(np.zeros((2, 2), complex), threshold=0, min_persistence=0)
    with pytest.raises(ValueError, match="nan"):
        find([[1]], threshold=np.nan, min_persistence=0)


def test_nan_parts_what_it_lies_between():
    peaks = persistence_peaks([[5, np.nan, 4]], threshold=0, min_persistence=0)
    assert peaks["death"].tolist() == [0, 0]


def test_the_findpeaks_engine_leaves_logging_and_the_terminal_alone(capfd):
    import logging

    level, handlers = logging.getLogger().level, list(logging.getLogger().handlers)
    findpeaks_peaks(spots((20, 20, 9.0)), threshold=1, min_persistence=0)
    assert (level, handlers) == (logging.getLogger().level, logging.getLogger().handlers)
    assert capfd.readouterr() == ("", "")


def test_candidates_carry_their_component():
    frame = spots((10, 10, 90.0), (10, 18, 60.0), (30, 8, 50.0))
    frame[35, 35] = 80
    # Between the first two the frame falls to about 3.
    found = candidates(frame, FindPeaks(min_value=1, min_persistence=10, min_area=2, patch_size=11))
    labels, _ = ndimage.label(frame > 1, EIGHT)
    assert found[["row", "col"]].tolist() == [(10, 10), (10, 18), (30, 8)]
    assert found["npeaks"].tolist() == [2, 2, 1]
    assert found["component"].tolist() == [labels[r, c] - 1 for r, c in found[["row", "col"]]]
    assert found["area"].tolist() == [(labels == labels[r, c]).sum() for r, c in found[["row", "col"]]]
    assert found["area"].dtype == found["component"].dtype == np.int32 and found["npeaks"].dtype == np.uint16
    assert len(candidates(frame, FindPeaks(min_value=1, min_persistence=10, min_area=1))) == 4
    # Just the minimum is enough as an area and too little as a persistence.
    for least, count in ((found["area"][2], 3), (found["area"][2] + 1, 2)):
        assert len(candidates(frame, FindPeaks(min_value=1, min_persistence=10, min_area=int(least)))) == count
    weakest = FindPeaks(min_value=1, min_persistence=float(found["persistence"].min()), min_area=2)
    assert len(candidates(frame, weakest)) == 2
    assert candidates(np.zeros((5, 5)), FindPeaks(min_value=0, min_persistence=0)).shape == (0,)


@few
@given(TIED, st.sampled_from(["none", "uint8"]), st.integers(0, 2**16))
def test_candidates_by_either_engine_are_the_same(image, scale, bits):
    mask = np.random.default_rng(bits).random(image.shape) < 0.2
    options = FindPeaks(scale=scale, min_value=1, min_persistence=0, min_area=1, patch_size=5, centre_tolerance=1)
    theirs = options.model_copy(update={"engine": "findpeaks"})
    assert np.array_equal(candidates(image, options, mask=mask), candidates(image, theirs, mask=mask))
    labels, count = ndimage.label((image > 1) & ~mask, EIGHT)
    if scale == "none":
        found = candidates(image, options.model_copy(update={"patch_size": 1}), mask=mask)
        assert np.array_equal(found["component"], labels[found["row"], found["col"]] - 1)
        assert sum(found["npeaks"] / found["npeaks"].astype(int) ** 2) == pytest.approx(count)


def test_components_are_those_of_scipy():
    random = np.random.default_rng(5)
    for size in range(1, 16):
        image = random.integers(0, 6, (size, size + 2))
        found = candidates(image, FindPeaks(min_value=2, min_persistence=0, min_area=1, patch_size=1))
        labels, _ = ndimage.label(image > 2, EIGHT)
        here = labels[found["row"], found["col"]]
        assert np.array_equal(found["component"], here - 1)
        assert np.array_equal(found["area"], np.bincount(labels.ravel())[here])
        assert np.array_equal(found["npeaks"], np.bincount(here)[here]) and set(here) == set(range(1, labels.max() + 1))


def test_patch_filter_marks_the_shoulder_of_a_brighter_spot():
    frame = spots((20, 20, 90.0), (20, 25, 60.0))
    options = dict(min_value=1, min_persistence=1, min_area=1)
    found = candidates(frame, FindPeaks(**options))
    assert found[["row", "col", "npeaks", "central"]].tolist() == [(20, 20, 2, True), (20, 25, 2, False)]
    for wide in (dict(patch_size=1), dict(patch_size=7), dict(centre_tolerance=5)):
        assert candidates(frame, FindPeaks(**options, **wide))["central"].all()
    frame[20, 20] = np.nan
    ring = candidates(frame, FindPeaks(**options), mask=frame > 65)
    assert (20, 25) in ring[ring["central"]][["row", "col"]].tolist(), "pixels that do not count do not outshine"


def test_peaks_at_the_corner_are_central():
    frame = spots((0, 0, 50.0), (39, 39, 40.0))
    found = candidates(frame, FindPeaks(min_value=1, min_persistence=1, min_area=1))
    assert found[["row", "col", "central"]].tolist() == [(0, 0, True), (39, 39, True)]


def test_masked_pixels_never_count():
    frame = spots((10, 10, 50.0))
    frame[:, 20] = 1000
    mask = np.zeros(frame.shape, np.uint8)
    mask[:, 20] = 1
    for scale in ("none", "uint8"):
        found = candidates(frame, FindPeaks(scale=scale, min_value=1, min_persistence=1, min_area=1), mask=mask)
        assert found[["row", "col"]].tolist() == [(10, 10)]
    assert found["birth"] == 255
    with pytest.raises(ValueError, match="mask"):
        candidates(frame, FindPeaks(min_value=1, min_persistence=1), mask=mask[:-1])


def test_the_first_level_of_the_uint8_scale_above_the_threshold_counts():
    image = np.array([[0, 255, 0, 11, 0, 10, 0, 12]])
    options = FindPeaks(scale="uint8", min_value=10, min_persistence=0, min_area=1, patch_size=1)
    assert candidates(image, options)[["col", "birth", "death"]].tolist() == [(1, 255, 10), (3, 11, 10), (7, 12, 10)]


@few
@given(arrays(np.float64, SHAPES, elements=st.floats(-50, 5e4, width=32)), st.floats(0, 260))
def test_uint8_scale_is_that_of_findpeaks(image, threshold):
    from findpeaks import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scaled = np.nan_to_num(stats.scale(np.clip(image, 0, None)))
    if np.ptp(np.clip(image, 0, None)) == 0:
        scaled = np.zeros(image.shape)
    options = FindPeaks(scale="uint8", min_value=threshold, min_persistence=0, min_area=1, patch_size=1)
    found = candidates(image, options)
    levels = ["birth", "death", "persistence"]
    peaks = persistence_peaks(scaled, threshold=threshold, min_persistence=0)
    assert np.sort(found[levels]).tolist() == np.sort(peaks[levels]).tolist()
    assert np.floor(scaled)[found["row"], found["col"]].tolist() == found["birth"].tolist()


@pytest.mark.parametrize(
    "option", [dict(engine="topology"), dict(scale="log"), dict(patch_size=4), dict(patch_size=-1)]
)
def test_unknown_options_are_named(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        FindPeaks(**option)
