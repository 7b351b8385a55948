"""Peaks that one can trust: what counts as converged, the flags, saturation, hot pixels, and blended peaks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cathodeflow import bragg
from cathodeflow.bragg.corrections import extra_variance, saturated_pixels
from cathodeflow.bragg.flags import FLAGS, flag_peaks, is_good
from cathodeflow.bragg.network_options import Compare, Patches
from cathodeflow.bragg.peak_fits import PeakFits, fit_frame, fit_peaks
from cathodeflow.bragg.peak_options import FindPeaks, Fit, Frames
from cathodeflow.bragg.peak_search import candidates
from cathodeflow.bragg.prepared_frames import correction_of, prepared_frame
from cathodeflow.bragg.profiles import profile
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.io.peaks import read_fits, write_peaks
from cathodeflow.io.raw_format import CountLimits

GRID = np.mgrid[:60, :60]


def frame_of(*peaks, seed=0, background=5.0):
    """Frame of peaks (row, col, height[, width]) on a background, with Poisson noise."""
    mean = np.full(GRID.shape[1:], background)
    for row, col, height, *width in peaks:
        mean += profile([row, col, height, 0, *(width or [2.5]) * 2, 0.2], *GRID)
    return np.random.default_rng(seed).poisson(mean).astype(np.float32)


def flagged(frame, rows, cols, *, mask=None, saturated=None, options=None):
    options = options or Fit()
    fits = fit_frame(frame, rows, cols, options, mask=mask, saturated=saturated)
    mask = np.zeros(frame.shape, bool) if mask is None else mask
    found = flag_peaks(fits, rows, cols, options, mask=mask, saturated=saturated)
    return fits, {name: values.tolist() for name, values in found.items()}, is_good(fits, found)


def test_a_peak_alone_is_good():
    fits, found, good = flagged(frame_of((20.2, 30.4, 800)), [20], [30])
    assert list(found) == list(FLAGS)
    assert not any(values[0] for values in found.values()) and good.tolist() == [True]
    assert fits.row[0] == pytest.approx(20.2, abs=0.1)


def test_two_pixels_are_no_peak():
    """A component of two pixels has less to say than a profile has parameters."""
    frame = np.zeros((60, 60), np.float32)
    frame[20, 30:32] = 50, 30
    fits, found, good = flagged(frame, [20], [30])
    assert fits.pixels[0] == 2
    assert not fits.converged[0] and found["too_few_pixels"] == [True] and not good[0]


def test_a_converged_fit_has_finite_errors():
    rng = np.random.default_rng(5)
    patches = rng.poisson(0.05, (400, 11, 11)) + 3 * rng.poisson(0.02, (400, 11, 11))
    fits = fit_peaks(patches.astype(float), Fit())
    errors = np.stack([getattr(fits, name) for name in fits._fields if name.endswith("_err")])
    assert not fits.converged.all()
    assert np.isfinite(errors[:, fits.converged]).all()


def test_masks_edges_and_neighbours_are_flagged():
    frame = frame_of((0.6, 20, 600), (30.3, 10.2, 600), (30, 40, 600), (31.4, 41.2, 600))
    mask = np.zeros(frame.shape, bool)
    mask[30, 12], mask[50, 50] = True, True
    _, found, good = flagged(frame, [1, 30, 30, 31], [20, 10, 40, 41], mask=mask)
    assert found["touches_edge"] == [True, False, False, False]
    assert found["touches_mask"] == [False, True, False, False]
    assert found["blended"] == [False, False, True, True]
    assert not good.any()


def test_a_profile_that_is_none_is_a_poor_fit():
    frame = frame_of()
    frame[26:33, 26:33] += 400  # a flat square
    _, found, good = flagged(frame, [29], [29], options=Fit(neighbours="mask"))
    assert found["poor_fit"] == [True] and not good[0]


def test_a_plateau_gives_one_candidate_at_its_centre():
    frame = np.zeros((40, 40), np.float32)
    away = np.hypot(*(np.mgrid[:40, :40] - 20))
    frame[:] = np.minimum(2000 * np.exp2(-((away / 6) ** 2)), 1000)
    peaks = candidates(frame, FindPeaks())
    assert peaks[["row", "col"]].tolist() == [(20, 20)]
    pair = np.zeros((9, 9))
    pair[4, 4:6] = 50
    assert candidates(pair, FindPeaks())[["row", "col"]].tolist() == [(4, 5)]


@pytest.mark.parametrize("width", [2.5, 12.0])
def test_saturated_pixels_are_left_out_and_wide_plateaus_grow(width):
    places = [(29.3, 30.4, 20000, width)]
    frame, level = frame_of(*places), 2000
    saturated = frame >= level
    kept = np.minimum(frame, level)
    fits, found, good = flagged(kept, [29], [30], saturated=saturated)
    assert fits.converged[0] and found["saturated"] == [True] and not good[0]
    away = np.hypot(fits.row[0] - 29.3, fits.col[0] - 30.4)
    assert away < 0.03
    assert abs(fits.row[0] - 29.3) < 4 * fits.row_err[0] and abs(fits.col[0] - 30.4) < 4 * fits.col_err[0]
    if width < 10:
        assert fits.amplitude[0] > 5 * level


def test_saturated_pixels_go_from_the_raw_frame_to_the_fit(tmp_path):
    raw = np.full((8, 8), 7, np.uint16)
    raw[2, 2:4], raw[6, 6], raw[0, 0] = 1000, 65535, 900
    assert np.argwhere(saturated_pixels(raw, Frames(saturation=1000))).tolist() == [[2, 2], [2, 3]]
    assert np.argwhere(saturated_pixels(raw, Frames())).tolist() == [[6, 6]]
    assert saturated_pixels(raw, Frames(), CountLimits(highest=899)).sum() == 3
    options = Frames(saturation=1000, max_saturated=1, binning=2)
    frame = prepared_frame(0, raw, correction_of(options, source="s", mask=np.zeros(raw.shape, bool)))
    assert write_frames(tmp_path / "f.h5", [(0, frame)], shape=(4, 4), binning=2, saturation=4000) == (1, 1, 1)
    with read_frames_file(tmp_path / "f.h5") as file:
        assert np.argwhere(file.saturated_pixels(0)).tolist() == [[1, 1]]
        assert np.argwhere(file.bad_pixels(0)).tolist() == [[3, 3]]
        assert file.frames[0][1, 1] == 4000 and file.frames[0][3, 3] == 0


def test_a_hot_pixel_beside_a_peak_does_not_move_it():
    frame = frame_of((30.2, 30.3, 500))
    frame[33, 28] = 3000
    fits, *_ = flagged(frame, [30], [30])
    assert np.hypot(fits.row[0] - 30.2, fits.col[0] - 30.3) < 0.1


def test_variances_of_dark_and_read_out_add_up_in_binned_pixels():
    rng = np.random.default_rng(3)
    noise = rng.poisson(20, (4000, 2, 2)) + rng.normal(0, 3, (4000, 2, 2))
    noise = (noise - rng.poisson(20, (4000, 2, 2))).sum(axis=(1, 2))
    dark = np.full((1, 1), 80.0)
    expected = extra_variance(dark, 1, binning=2, read_noise=3, dark_gain=1) + 3**2
    # The dark image of one frame was read with the same noise.
    assert expected == pytest.approx(2 * (4 * 9 + 80))
    assert noise.var() == pytest.approx(2 * 80 + 36, rel=0.08)
    assert extra_variance(dark, 10**9, binning=2, read_noise=3, dark_gain=0) == pytest.approx(27)
    assert extra_variance(None, 1, binning=1, read_noise=3, dark_gain=1) == 0


def pairs(apart, n=60, cell=30, height=600):
    rng = np.random.default_rng(31)
    across = int(np.sqrt(n))
    mean = np.full((across * cell, across * cell), 5.0)
    truth = []
    for row in range(0, across * cell, cell):
        for col in range(0, across * cell, cell):
            first = np.array([row, col]) + cell / 2 + rng.uniform(-0.5, 0.5, 2)
            turn = rng.uniform(0, 2 * np.pi)
            second = first + apart * np.array([np.sin(turn), np.cos(turn)])
            for peak in (first, second):
                rows, cols = np.mgrid[row : row + cell, col : col + cell]
                shape = [*peak, height, 0, *rng.uniform(2, 3, 2), 0.2]
                mean[row : row + cell, col : col + cell] += profile(shape, rows, cols)
            truth.append((first, second))
    return rng.poisson(mean).astype(np.float32), np.array(truth)


def test_equal_peaks_three_pixels_apart_are_both_found_where_one_candidate_marks_them():
    frame, truth = pairs(3.0)
    rows, cols = np.rint(truth[:, 0]).astype(int).T
    fits, found, good = flagged(frame, rows, cols)
    one = np.hypot(fits.row - truth[:, 0, 0], fits.col - truth[:, 0, 1])
    two = np.hypot(fits.partner_row - truth[:, 1, 0], fits.partner_col - truth[:, 1, 1])
    assert np.median(one) < 0.2 and np.nanmedian(two) < 0.2
    assert np.isfinite(two).mean() > 0.9
    assert np.mean(found["blended"]) > 0.9 and not good[np.isfinite(two)].any()


def test_joint_errors_of_neighbours_are_true():
    frame, truth = pairs(3.5, n=400)
    peaks = truth.reshape(-1, 2)
    rows, cols = np.rint(peaks).astype(int).T
    fits, _, good = flagged(frame, rows, cols)
    z = np.concatenate([(fits.row - peaks[:, 0]) / fits.row_err, (fits.col - peaks[:, 1]) / fits.col_err])
    good = np.tile(good, 2)
    assert good.mean() > 0.8
    assert 0.85 < np.var(z[good]) < 1.15


def test_peaks_closer_than_two_pixels_are_blended():
    frame, truth = pairs(1.8)
    rows, cols = np.rint(truth.mean(axis=1)).astype(int).T
    _, found, _ = flagged(frame, rows, cols)
    assert np.mean(found["blended"]) > 0.9


def test_candidates_that_are_closer_than_two_pixels_are_blended_whatever_their_fits_say():
    """The fits of such pairs may end in optima further apart than the true peaks, with errors far too small."""
    frame, truth = pairs(1.4, n=400, height=40)
    peaks = truth.reshape(-1, 2)
    rows, cols = np.rint(peaks).astype(int).T
    fits, found, good = flagged(frame, rows, cols)
    width = 0.5 * (fits.fwhm_row + fits.fwhm_col)
    apart = np.hypot(fits.row[::2] - fits.row[1::2], fits.col[::2] - fits.col[1::2])
    assert (apart > width[::2]).any(), "no pair here seems resolved"
    assert np.all(found["blended"]) and not np.any(good)


def test_what_the_peaks_file_holds_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "bragg.md").read_text()
    assert not [name for name in (*PeakFits._fields[2:], *FLAGS, "good") if f"`{name}`" not in text]


def test_training_and_comparison_use_good_peaks_only(tmp_path):
    frame = frame_of((20.2, 20.1, 800), (40.1, 40.3, 800))
    write_frames(tmp_path / "frames.h5", [(0, frame)], shape=frame.shape)
    columns = {"good": np.array([True, False]), "converged": np.ones(2, bool), "candidate": np.arange(2)}
    layout = [0, 0], [20.2, 40.1], [20.1, 40.3], [0.2, 0.3], [1, 1]
    write_peaks(tmp_path / "peaks.h5", *layout, columns=columns)
    write_peaks(tmp_path / "theirs.h5", *layout)
    assert read_fits(tmp_path / "peaks.h5")["good"].tolist() == [True, False]
    for name, count in (("peaks.h5", 1), ("theirs.h5", 2)):
        made = bragg.patches(tmp_path / "frames.h5", tmp_path / name, out=tmp_path / "p.h5", options=Patches())
        assert made["patches"] == count
    located = pd.DataFrame({"frame": 0, "row": [20.0, 40.0], "col": [20.0, 40.0], "persistence": 500.0})
    located.assign(candidate=[0, 1]).to_parquet(tmp_path / "located.parquet")
    outputs = {name: tmp_path / f"{name}.csv" for name in ("table", "by_intensity", "by_amplitude")}
    found = bragg.compare(
        tmp_path / "frames.h5", tmp_path / "peaks.h5", tmp_path / "located.parquet", **outputs, options=Compare(seed=0)
    )
    assert found["fitted"] == 1


def slowly_flagged(fits, rows, cols, mask, saturated):
    """Flags of positions by a loop over the peaks, as the text of `flag_peaks` says."""
    found = {name: np.zeros(len(rows), bool) for name in ("saturated", "touches_mask", "touches_edge", "blended")}
    fitted = fits.converged & (np.abs(fits.row - rows) < len(mask))
    at = [np.where(fitted, *pair) for pair in ((fits.row, rows), (fits.col, cols))]
    wide = [np.where(fitted, width, 2.0) for width in (fits.fwhm_row, fits.fwhm_col)]
    inner = np.s_[40 : 40 + mask.shape[0], 40 : 40 + mask.shape[1]]
    r, c = (axis - 40 for axis in np.mgrid[: mask.shape[0] + 80, : mask.shape[1] + 80])
    for i in range(len(rows)):
        covered = ((r - at[0][i]) / wide[0][i]) ** 2 + ((c - at[1][i]) / wide[1][i]) ** 2 <= 1
        covered |= (np.abs(r - rows[i]) <= 1) & (np.abs(c - cols[i]) <= 1)
        found["saturated"][i] = saturated[covered[inner]].any()
        found["touches_mask"][i] = mask[covered[inner]].any()
        found["touches_edge"][i] = covered.sum() > covered[inner].sum()
        away = np.hypot(at[0] - at[0][i], at[1] - at[1][i])
        crowded = (away < 0.5 * (wide[0][i] + wide[1][i])).sum() > 1
        crowded |= (np.hypot(rows - rows[i], cols - cols[i]) <= 2.3).sum() > 1
        found["blended"][i] = crowded or np.isfinite(fits.partner_row[i])
    return found


@pytest.mark.parametrize("seed", range(12))
def test_flags_are_those_of_a_loop_over_the_peaks(seed):
    rng = np.random.default_rng(seed)
    n, side = int(rng.integers(0, 60)), int(rng.integers(20, 90))
    rows, cols = rng.integers(0, side, (2, n))
    columns = dict(zip(PeakFits._fields, rng.uniform(0.8, 9, (len(PeakFits._fields), n)), strict=True))
    columns |= {"row": rows + rng.normal(0, 1, n), "col": cols + rng.normal(0, 1, n), "converged": rng.random(n) < 0.9}
    columns["partner_row"][rng.random(n) < 0.9] = np.nan
    columns["row"][~columns["converged"]] = np.nan
    for name in ("row", "col", "fwhm_row", "fwhm_col"):  # distances that are exactly a width
        columns[name][: n // 2] = np.rint(columns[name][: n // 2])
    fits = PeakFits(**columns)
    mask, saturated = rng.random((side, side)) < 0.02, rng.random((side, side)) < 0.01
    found = flag_peaks(fits, rows, cols, Fit(), mask=mask, saturated=saturated)
    for name, expected in slowly_flagged(fits, rows, cols, mask, saturated).items():
        assert found[name].tolist() == expected.tolist(), name
