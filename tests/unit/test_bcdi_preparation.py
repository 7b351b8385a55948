"""Simulated scans with known faults: what is corrected, left out, said, and where the peak ends up."""

from functools import partial

import h5py
import numpy as np
import pytest
from scipy import fft

from cathodeflow import bcdi
from cathodeflow.bcdi import corrections
from cathodeflow.bcdi.preparation import prepare_scan as prepare_with
from cathodeflow.bcdi.preparation_options import Prepare
from cathodeflow.bcdi.sampling import binned, cut_share, estimate_oversampling, find_centre, good_size, window_of
from cathodeflow.bcdi.simulation import block
from cathodeflow.bcdi.simulation_options import Simulate
from cathodeflow.errors import InputError
from cathodeflow.options import from_config

SHAPE = (30, 36, 40)


def intensity(shape=SHAPE, extent=(11, 13, 15), photons=1e6, phase=None):
    """Diffraction of a box with its zero frequency at n // 2 [counts]; curved planes leave no fringe quite dark."""
    if phase is None:
        curved = [((np.arange(n) - n // 2) / e) ** 2 for n, e in zip(shape, extent, strict=True)]
        phase = 5 * (curved[0][:, None, None] + curved[1][:, None] + curved[2])
    on = [np.abs(np.arange(n) - n // 2 + (e % 2 == 0) / 2) < e / 2 for n, e in zip(shape, extent, strict=True)]
    volume = on[0][:, None, None] * on[1][:, None] * on[2] * np.exp(1j * phase)
    power = np.abs(fft.fftshift(fft.fftn(volume))) ** 2
    return photons * power / power.sum()


def prepare_scan(frames, **given):
    """Prepare with sides that need only be even."""
    corrections = ("dark_frame", "whitefield", "mask", "detector_region")
    keywords = {name: given.pop(name) for name in corrections if name in given}
    return prepare_with(frames, Prepare(**{"divisor": 2} | given), **keywords)


def scan(seed=1, **options):
    return np.random.default_rng(seed).poisson(intensity(**options)).astype(np.int32)


def step(prepared, name):
    return next(one for one in prepared.steps if one["step"] == name)


def known(values):
    return np.ones(values.shape, bool)


def test_a_clean_scan_keeps_its_counts_and_has_its_peak_in_the_middle():
    frames = scan()
    found = prepare_scan(frames)
    assert found.amplitude.shape == SHAPE and found.amplitude.dtype == np.float32 and found.mask.all()
    np.testing.assert_allclose(found.amplitude**2, frames, rtol=1e-6)
    assert not [one for one in found.steps if "warning" in one]


@pytest.mark.parametrize("shift", [(3, -4, 5), (-2, 0, 1)])
def test_a_peak_elsewhere_comes_to_the_middle_and_what_was_not_measured_is_not_known(shift):
    moved = np.roll(scan(), shift, axis=(0, 1, 2))
    for axis, one in enumerate(shift):
        # The simulation goes on around the edge, which a measurement does not.
        edge = [slice(None)] * 3
        edge[axis] = slice(0, one) if one > 0 else slice(SHAPE[axis] + one, None)
        moved[tuple(edge)] = 0
    found = prepare_scan(moved)
    whole = scan()
    assert found.amplitude.argmax() == np.sqrt(whole).argmax()
    outside = np.zeros(SHAPE, bool)
    for axis, one in enumerate(shift):
        edge = [slice(None)] * 3
        edge[axis] = slice(SHAPE[axis] - one, None) if one > 0 else slice(0, -one)
        outside[tuple(edge)] = True
    np.testing.assert_array_equal(found.mask, ~outside)
    np.testing.assert_allclose(found.amplitude[found.mask] ** 2, whole[found.mask], rtol=1e-6)


def test_the_centre_is_the_centre_of_mass_around_the_maximum():
    grid = np.indices((24, 30, 40)).transpose(1, 2, 3, 0)
    place = np.array([11.3, 14.6, 22.2])
    values = 1e4 * np.exp(-((grid - place) ** 2).sum(-1) / 2 / 0.6**2).astype(np.float32)
    values[3, 3, 3] = 50.0
    centre, figures = find_centre(values)
    assert centre == (11, 15, 22)
    np.testing.assert_allclose(figures["at"], place, atol=0.15)
    assert figures["maximum"] == [11, 15, 22]


def test_dark_counts_are_subtracted_negative_ones_clipped_and_counted():
    frames = scan()
    dark = np.random.default_rng(2).integers(3, 8, SHAPE[1:])
    dark[4, 5] = 100
    found = prepare_scan(frames + np.where(dark < 100, dark, 0), dark_frame=dark)
    good = np.ones(SHAPE[1:], bool)
    good[4, 5] = False
    np.testing.assert_array_equal(found.mask, np.broadcast_to(good, SHAPE))
    np.testing.assert_allclose((found.amplitude**2)[:, good], frames[:, good], rtol=1e-5, atol=1e-4)
    assert step(found, "dark")["bad_pixels"] == 1 and step(found, "negative")["voxels"] == 0
    too_much = prepare_scan(frames, dark_frame=dark)
    lower = np.where(good, dark, 0)[None].repeat(len(frames), 0) > frames
    assert step(too_much, "negative")["voxels"] == (lower & good).sum() > 0
    assert step(too_much, "negative")["counts"] < 0 and np.isfinite(too_much.amplitude).all()


def test_dark_and_whitefield_of_the_whole_detector_are_those_of_the_region():
    frames = scan()
    region = (slice(10, 10 + SHAPE[1]), slice(60, 60 + SHAPE[2]))
    rng = np.random.default_rng(3)
    dark, whitefield = rng.integers(0, 4, (100, 120)), rng.uniform(900, 1100, (100, 120))
    median = np.median(whitefield[region])
    raw = frames * (whitefield[region] / median) + dark[region]
    found = prepare_scan(raw, dark_frame=dark, whitefield=whitefield, detector_region=region)
    np.testing.assert_allclose(found.amplitude**2, frames, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["dark", "whitefield", "mask"])
def test_a_correction_of_another_size_is_refused_unless_its_region_fits(name):
    image = {"dark_frame" if name == "dark" else name: np.ones((64, 64))}
    line = (
        f"{name}: found 64 x 64 pixels, expected 36 x 40 pixels, the size of the frames, or the region of the detector"
    )
    with pytest.raises(InputError, match=line):
        prepare_scan(scan(), **image)
    with pytest.raises(InputError, match="14 x 40 of them in the region 50 to 86 and 0 to 40, expected 36 x 40 pixels"):
        prepare_scan(scan(), **image, detector_region=(slice(50, 86), slice(0, 40)))


def test_insensitive_pixels_and_masked_ones_are_not_known():
    whitefield = np.full(SHAPE[1:], 1000.0)
    whitefield[7, 8] = 50.0
    gap = np.ones(SHAPE[1:])
    gap[:, 27:29] = 0
    found = prepare_scan(scan(), whitefield=whitefield, mask=gap)
    assert not found.mask[:, 7, 8].any() and not found.mask[:, :, 27:29].any()
    assert found.mask.mean() == pytest.approx(1 - (2 * 36 + 1) / (36 * 40))
    assert not found.amplitude[~found.mask].any()


def test_hot_voxels_and_pixels_are_found_and_the_peak_and_its_fringes_are_not():
    frames = scan(photons=1e7)
    clean = prepare_scan(frames)
    assert step(clean, "hot")["voxels"] == 0 and clean.mask.all()
    # One of them over two pixels, one at the corner.
    flashes = [(3, 4, 5), (3, 4, 6), (25, 30, 2), (15, 35, 39)]
    sparks = frames.copy()
    for at in flashes:
        sparks[at] = 30_000
    sparks[:, 6, 33] += 2_000
    found = prepare_scan(sparks)
    assert step(found, "hot")["voxels"] > 4 and step(found, "hot")["pixels"] == 1
    expected = np.ones(SHAPE, bool)
    expected[:, 6, 33] = False
    for at in flashes:
        expected[at] = False
    np.testing.assert_array_equal(found.mask, expected)
    np.testing.assert_allclose(found.amplitude[expected] ** 2, frames[expected], rtol=1e-6)
    assert prepare_scan(sparks, hot_ratio=None, aliens="keep").mask.all()


def test_pixels_that_never_count_are_left_out_where_counts_are_expected_only():
    frames = scan(photons=1e5)
    frames[:, 17, 19] = 0
    found = prepare_scan(frames)
    assert step(found, "silent")["dead_pixels"] == 1
    assert not found.mask[:, 17, 19].any() and found.mask.sum() == found.mask.size - len(frames)
    # In the dark, pixels without a count are known to be dark.
    assert (frames.sum(axis=0) == 0).sum() > 1


def test_gaps_of_zeros_are_left_out():
    frames = scan(photons=1e7)
    bad = np.zeros(SHAPE[1:], bool)
    bad[13:16], bad[:, 24:26] = True, True
    frames[:, bad] = 0
    found = prepare_scan(frames)
    np.testing.assert_array_equal(found.mask, np.broadcast_to(~bad, SHAPE))
    assert "masked as gaps" in step(found, "silent")["warning"]


@pytest.mark.parametrize(("first", "last"), [(0, None), (11, 12)])
def test_blocks_of_hot_pixels_and_of_cosmic_rays_do_not_capture_the_centre(first, last):
    frames, clean = scan(photons=1e6), prepare_scan(scan(photons=1e6))
    frames[first:last, 3:6, 30:33] += 40_000
    found = prepare_scan(frames)
    expected = np.ones(SHAPE, bool)
    expected[first:last, 3:6, 30:33] = False
    np.testing.assert_array_equal(found.mask, expected)
    assert step(found, "centre")["at"] == pytest.approx(step(clean, "centre")["at"], abs=0.05)
    assert clean.mask.all() and step(clean, "blocks") == {"step": "blocks", "hot_pixels": 0, "cosmic_voxels": 0}


def test_a_peak_at_the_first_frames_loses_no_measured_frame():
    frames = scan()[11:]
    found = prepare_scan(frames, divisor=16)
    assert step(found, "peak")["frame"] == pytest.approx(4, abs=0.5)
    assert (found.amplitude**2).sum(dtype=float) > 0.99 * frames[:, 2:34, 4:36].sum()
    assert found.mask.any(axis=(1, 2)).sum() == len(frames)


def test_a_flat_top_is_masked_and_said_and_the_peak_stays_in_the_middle():
    frames = scan(photons=1e7)
    level = frames.max() // 3
    clipped = np.minimum(frames, level)
    found = prepare_scan(clipped)
    top = clipped == level
    assert step(found, "saturation")["voxels"] == top.sum() > 4
    assert f"{level}: the detector was saturated there" in step(found, "saturation")["warning"]
    assert (~found.mask).sum() == top.sum()
    assert step(found, "centre")["at"] == pytest.approx(step(prepare_scan(frames), "centre")["at"], abs=1)


def test_a_second_crystal_is_named_and_masked_and_the_pattern_is_as_without_it():
    shape = (48, 64, 64)
    frames = scan(shape=shape, extent=(14, 16, 18), photons=1e6)
    other = np.roll(frames, (14, -18, 19), axis=(0, 1, 2)) // 2
    found = prepare_scan(frames + other)
    assert step(found, "aliens")["peaks"] == 1
    assert "peaks of other crystals (frame 38, row 14, column 51)" in step(found, "aliens")["warning"]
    assert not found.mask[38, 14, 51] and found.mask[24, 32, 32]
    left = (found.amplitude**2 - frames * found.mask).sum() / other.sum()
    assert left < 0.15
    assert step(prepare_scan(frames + other, aliens="warn"), "result")["known"] == 1
    assert not any(one["step"] == "aliens" for one in prepare_scan(frames + other, aliens="keep").steps)
    box = prepare_scan(frames + other, aliens="keep", exclude=((30, 46, 8, 20, 44, 58),))
    assert (~box.mask).sum() == 16 * 12 * 14
    with pytest.raises(InputError, match=r"exclude: found .* expected six numbers for each box"):
        from_config(Prepare, {"exclude": [[3, 2, 0, 1, 0, 1]]}, "bcdi.prepare")


def test_two_peaks_on_the_rocking_curve_are_said():
    frames = scan(shape=(60, 36, 40), photons=1e6)
    assert step(prepare_scan(frames), "rocking") == {"step": "rocking", "peaks": 1}
    found = step(prepare_scan(frames + np.roll(frames, 14, axis=0), aliens="keep"), "rocking")
    assert found["peaks"] == 2 and "(frames 30, 44)" in found["warning"]


def test_the_oversampling_of_simulated_crystals_is_not_biased():
    options = Simulate(size=32, oversampling=(2.2, 5.0), photons=(1e6, 1e8), seed=8)
    made = block(range(12), options)
    ratios = [
        estimate_oversampling(counts.astype(np.float32)) / true
        for counts, true in zip(made.counts, made.oversampling, strict=True)
    ]
    assert np.median(ratios) == pytest.approx(1, abs=0.05) and np.max(ratios) < 1.2


def test_a_sheared_object_is_not_taken_for_a_short_one():
    """Autocorrelation along a diagonal of the window, where it is at distances of opposite signs."""
    z, y, x = np.indices((48, 40, 40)) - 24
    inside = (abs(z) <= 8) & (abs(y + 4) < 4) & (abs(x + 4 + z) < 3)
    power = np.abs(fft.fftshift(fft.fftn(inside))) ** 2
    found = estimate_oversampling((1e7 * power / power.sum()).astype(np.float32))
    assert found[0] == pytest.approx(48 / 17, rel=0.1)


def test_frames_that_are_0_are_named_and_left_out_amid_others():
    frames = scan()
    frames[[0, 12, 13]] = 0
    found = prepare_scan(frames)
    assert step(found, "silent")["zero_frames"] == [0, 12, 13]
    assert step(found, "silent")["warning"].startswith("frames 12, 13 are 0 everywhere between frames with counts")
    assert not found.mask[[12, 13]].any() and found.mask.sum() == found.mask.size - 2 * 36 * 40
    with pytest.raises(InputError, match="scan: found 30 frames that are 0 everywhere, expected a diffraction peak"):
        prepare_scan(np.zeros(SHAPE))


def test_values_that_are_not_finite_or_saturated_are_not_known():
    frames = scan().astype(np.float32)
    frames[1, 2, 3], frames[4, 5, 6] = np.nan, 2.0**32 - 1
    frames[4, 5, 7] = 2.0**31
    found = prepare_scan(frames, saturation=2.0**31)
    assert not found.mask[1, 2, 3] and not found.mask[4, 5, 6:8].any() and found.mask.sum() == found.mask.size - 3
    assert step(found, "raw")["not_finite"] == 1 and step(found, "raw")["saturated"] == 2


def test_background_below_the_threshold_is_0_and_known():
    frames = scan()
    found = prepare_scan(frames, threshold=3)
    np.testing.assert_allclose(found.amplitude**2, np.where(frames < 3, 0, frames), rtol=1e-6)
    assert found.mask.all()
    assert step(found, "background")["share"] == pytest.approx(frames[frames < 3].sum() / frames.sum())


def test_a_peak_cut_at_the_edge_is_warned_of_with_the_share_lost():
    whole = intensity(photons=1e6)
    # The zero frequency comes to row 1, so that nearly half of the peak is not there.
    cut = whole[:, SHAPE[1] // 2 - 1 :].astype(np.float32)
    lost = 1 - cut.sum() / whole.sum()
    found = prepare_scan(cut, size=SHAPE)
    assert step(found, "edge")["share_lost"] == pytest.approx(lost, rel=0.1)
    assert (
        f"the peak is cut at the edge of the rows: about {step(found, 'edge')['share_lost']:.1%} of it"
        in (step(found, "edge")["warning"])
    )
    assert "warning" not in cut_share(whole.astype(np.float32), [n // 2 for n in SHAPE])


def test_a_size_that_cuts_the_peak_is_warned_of():
    found = prepare_scan(scan(), size=(8, 8, 8))
    assert found.amplitude.shape == (8, 8, 8)
    assert step(found, "oversampling")["binning"] == [1, 1, 1]
    share = 1 - (found.amplitude**2).sum() / scan().sum()
    assert step(found, "size")["share_lost"] == pytest.approx(share, rel=1e-4)
    assert (
        step(found, "size")["warning"]
        == f"{100 * share:.1f} % of the intensity lies outside the volume of 8 x 8 x 8 voxels"
    )


def test_oversampling_is_the_window_over_the_object():
    for extent in ((5, 9, 8), (10, 4, 16)):
        found = estimate_oversampling(scan(extent=extent, photons=1e7, phase=0.0).astype(np.float32))
        np.testing.assert_allclose(found, np.array(SHAPE) / extent, rtol=0.15)


@pytest.mark.parametrize("strain", [0.0, 3.0])
def test_binning_is_as_far_as_the_oversampling_allows(strain):
    shape, extent = (96, 48, 40), (8, 8, 16)
    z, y, x = np.indices(shape) / np.array(extent).reshape(3, 1, 1, 1)
    phase = strain * (np.sin(3 * x) + np.cos(2 * y + z)) / 2
    found = prepare_scan(scan(shape=shape, extent=extent, phase=phase))
    assert step(found, "oversampling")["binning"] == [3, 1, 1]
    assert found.amplitude.shape == (32, 48, 40)
    # Where it was binned, the true oversampling is never less than 2.5.
    assert 32 / extent[0] >= 2.5


def test_blocks_of_frames_lie_around_the_middle_of_the_peak_and_lose_no_counts():
    frames = scan(shape=(90, 36, 40), extent=(9, 13, 15))
    found = prepare_scan(frames, oversampling=2.8)
    assert step(found, "oversampling")["binning"] == [3, 1, 1]
    assert found.amplitude.shape == (30, 36, 40) and found.amplitude.argmax() == np.argmax(scan())
    # The middle block is the frame of the peak, 45, with those on both sides; the last frame has no partners.
    blocks = frames[44 - 14 * 3 :][: 29 * 3].reshape(29, 3, 36, 40).sum(axis=1)
    np.testing.assert_allclose(found.amplitude[1:] ** 2, blocks, rtol=1e-6)


def test_a_binning_that_is_given_is_used():
    found = prepare_scan(scan(), bins=(1, 2, 1))
    assert step(found, "oversampling")["binning"] == [1, 2, 1] and found.amplitude.shape == (30, 18, 40)
    with pytest.raises(InputError, match="bins"):
        from_config(Prepare, {"bins": [0, 1, 1]}, "bcdi.prepare")


def test_too_little_oversampling_is_warned_of_and_never_binned():
    found = prepare_scan(scan(extent=(11, 13, 24)))
    assert step(found, "oversampling")["binning"][2] == 1
    assert "less than 2: the crystal is too large" in step(found, "oversampling")["warning"]


def test_binning_weighs_up_what_is_known_and_needs_half_of_it():
    values = np.arange(1, 9, dtype=np.float32).reshape(2, 2, 2)
    total, enough = binned(values, np.ones((2, 2, 2), bool), (2, 2, 2))
    assert total.item() == 36 and enough.all()
    partly = np.ones((2, 2, 2), bool)
    partly[0] = False
    total, enough = binned(values, partly, (2, 2, 2))
    assert total.item() == pytest.approx(8 * (5 + 6 + 7 + 8) / 4) and enough.all()
    partly[1, 0, 0] = False
    total, enough = binned(values, partly, (2, 2, 2))
    assert total.item() == 0 and not enough.any()


def test_a_window_chooses_one_of_two_peaks():
    frames = np.concatenate([scan(photons=1e7), scan(photons=1e6)], axis=1)
    found = prepare_scan(frames, rows=(SHAPE[1], 2 * SHAPE[1]))
    np.testing.assert_allclose(found.amplitude**2, scan(photons=1e6), rtol=1e-6)
    with pytest.raises(InputError, match="window: found nothing, expected a part of 30 x 72 x 40 voxels"):
        prepare_scan(frames, rows=(80, 90))


def test_sizes_are_even_good_for_transforms_and_divisible():
    for n in range(16, 300):
        size = good_size(n, 2)
        assert size % 2 == 0 and abs(size - n) <= 0.2 * n and fft.next_fast_len(size, real=True) == size
        assert good_size(n, 16) % 16 == 0
    assert prepare_scan(scan(shape=(31, 36, 46), extent=(11, 13, 17))).amplitude.shape == (30, 36, 48)


def test_windows_go_beyond_a_volume_on_both_sides():
    values = np.arange(1, 7).reshape(1, 2, 3)
    found = window_of(values, (-1, 1, -2), (3, 3, 4))
    expected = np.zeros((3, 3, 4), int)
    expected[1, 0, 2:] = [4, 5]
    np.testing.assert_array_equal(found, expected)
    assert not window_of(values, (5, 0, 0), (2, 2, 2)).any()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"mask": np.ones((3, 36, 40))}, "mask: found 3 x 36 x 40, expected 30 x 36 x 40, the size of the scan"),
        ({"whitefield": np.zeros((36, 40))}, "whitefield: found a median of 0, expected more than 0"),
    ],
)
def test_settings_that_cannot_be_are_one_line(options, line):
    with pytest.raises(InputError) as caught:
        prepare_scan(scan(), **options)
    assert str(caught.value) == line


@pytest.mark.parametrize("wrong", [{"oversampling": 1.5}, {"divisor": 3}, {"size": (16, 15, 16)}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=f"bcdi.prepare: {next(iter(wrong))}"):
        from_config(Prepare, wrong, "bcdi.prepare")


def test_steps_leave_their_input_as_it_is():
    frames = scan().astype(np.float32)
    frames[:, 6, 33] += 2_000
    before, all_known = frames.copy(), known(frames)
    for change in (
        partial(corrections.leave_out_hot, ratio=10.0),
        corrections.leave_out_silent,
        corrections.clip_negative,
    ):
        change(frames, all_known)
    np.testing.assert_array_equal(frames, before)
    assert all_known.all()


@pytest.mark.parametrize(
    ("dataset", "invert", "right"),
    [
        ("entry/instrument/detector/pixel_mask", False, True),
        ("entry_1/instrument_1/detector_1/mask", False, True),
        ("entry/own", False, False),
        ("entry/own", True, True),
    ],
)
def test_masks_of_either_sense_and_a_word_where_one_hides_the_peak(tmp_path, caplog, dataset, invert, right):
    frames = scan()
    bad = np.zeros(SHAPE[1:], np.uint32)
    bad[3, 4], bad[30] = 1, 16
    np.save(tmp_path / "frames.npy", frames)
    with h5py.File(tmp_path / "mask.h5", "w") as file:
        file[dataset] = bad
    metrics = bcdi.prepare(
        tmp_path / "frames.npy",
        mask=f"{tmp_path}/mask.h5::/{dataset}",
        out=tmp_path / "p.h5",
        options=Prepare(divisor=2, size=SHAPE, oversampling=1000, invert_mask=invert),
    )
    lost = frames[:, bad > 0].sum() / frames.sum()
    assert metrics["mask_share_of_intensity"] == pytest.approx(lost if right else 1 - lost, abs=1e-4)
    assert ("set invert_mask" in caplog.text) != right
