"""Spots of rocking scans: joining of peaks, combined positions and their errors, rocking curves."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import curve_fit

from cathodeflow import bragg
from cathodeflow.bragg.fitted_peaks import fit_and_flag
from cathodeflow.bragg.peak_fits import fit_peaks
from cathodeflow.bragg.peak_information import information_of, misfit_of
from cathodeflow.bragg.peak_options import Fit, Simulate
from cathodeflow.bragg.profiles import PARAMETERS, profile
from cathodeflow.bragg.rocking_curves import fit_rocking_curves
from cathodeflow.bragg.series_options import Spots
from cathodeflow.bragg.simulation import simulate_scan
from cathodeflow.bragg.spot_joining import join_peaks
from cathodeflow.bragg.spot_table import spots_of
from cathodeflow.bragg.stages.spots import static_background
from cathodeflow.bragg.surroundings import lacking_of, sources_of
from cathodeflow.errors import InputError
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.peaks import read_peaks

HALF = 4 * np.log(2)


def peaks_of(frames, amplitudes, rows=None, cols=10.0):
    frames = np.asarray(frames)
    return pd.DataFrame(
        {
            "frame": frames,
            "row": np.full(len(frames), 20.0) if rows is None else rows,
            "col": cols,
            "amplitude": np.asarray(amplitudes, float),
            "amplitude_err": np.sqrt(np.asarray(amplitudes, float)),
        }
    )


def test_a_gap_of_one_frame_is_bridged_and_of_two_is_not():
    for frames, expected in (([3, 4, 6, 7], 1), ([3, 4, 7, 8], 2)):
        peaks = peaks_of(frames, [60, 100, 90, 50])
        assert len(set(join_peaks(peaks, Spots()))) == expected
    assert len(set(join_peaks(peaks_of([3, 4, 6], [60, 100, 90]), Spots(max_gap=0)))) == 2


def test_a_spot_of_the_same_place_at_another_angle_and_one_beside_it_are_other_spots():
    at_once = peaks_of([3, 4, 5, 3, 4, 5], [60, 100, 60] * 2, rows=[20, 20.1, 20, 23, 23, 23.1])
    assert join_peaks(at_once, Spots()).tolist() == [0, 0, 0, 1, 1, 1]
    later = peaks_of([3, 4, 5, 30, 31, 32], [60, 100, 60] * 2)
    assert join_peaks(later, Spots()).tolist() == [0, 0, 0, 1, 1, 1]


def test_rocking_curves_that_follow_each_other_are_divided_and_noise_is_not():
    two = peaks_of(range(9), [50, 200, 400, 200, 60, 150, 300, 160, 50])
    assert join_peaks(two, Spots()).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    # The same curve with a frame whose low amplitude is within its noise, and one with a shoulder.
    noisy = two.assign(amplitude_err=np.where(two["frame"] == 4, 120.0, 10.0))
    assert set(join_peaks(noisy, Spots())) == {0}
    shoulder = peaks_of(range(6), [50, 300, 400, 250, 260, 80])
    assert set(join_peaks(shoulder, Spots())) == {0}


def test_rocking_curves_agree_with_an_independent_fit_and_their_errors_are_true():
    rng = np.random.default_rng(1)
    frames = np.arange(9.0)
    centre, fwhm, height = rng.uniform(3, 5, 500), rng.uniform(1.5, 4, 500), np.exp(rng.uniform(5, 9, 500))
    expected = height[:, None] * np.exp(-HALF * ((frames - centre[:, None]) / fwhm[:, None]) ** 2) + 20
    counts = rng.poisson(expected) - 20.0
    variance = np.maximum(counts, 0) + 20.0
    found = fit_rocking_curves(np.broadcast_to(frames, counts.shape), counts, variance)
    assert found.converged.mean() > 0.99
    for values, errors, true in (
        (found.centre, found.centre_err, centre),
        (found.fwhm, found.fwhm_err, fwhm),
        (found.intensity, found.intensity_err, height * fwhm * np.sqrt(np.pi / HALF)),
    ):
        residual = ((values - true) / errors)[found.converged]
        # 500 spots: the standard error of the variance is 6 %.
        assert 0.82 < np.mean(residual**2) < 1.2
    for spot in range(10):
        start = [counts[spot].max(), frames[np.argmax(counts[spot])], 2.0]
        true_sigma = np.sqrt(np.maximum(expected[spot], 1))
        best, _ = curve_fit(
            lambda x, a, c, w: a * np.exp(-HALF * ((x - c) / w) ** 2), frames, counts[spot], start, true_sigma
        )
        assert found.centre[spot] == pytest.approx(best[1], abs=0.3 * found.centre_err[spot] + 1e-4)


def rocking_patches(n, *, integrated, response, seed, amplitude=(100, 5000), slope=0.0):
    """Peaks of `n` spots in 7 frames, at one position each: fitted peaks, spot of each, and true positions (2, n)."""
    rng = np.random.default_rng(seed)
    parts = np.arange(-2, 3) / 5 if integrated else np.zeros(1)
    height, centre = np.exp(rng.uniform(*np.log(amplitude), n)), rng.uniform(2.5, 3.5, n)
    widths, mixing, rocking = rng.uniform(1.5, 3.2, (2, n)), rng.uniform(0, 0.6, n), rng.uniform(1.5, 4, n)
    at = 5 + rng.uniform(-0.5, 0.5, (2, n))
    gain = 1 + response * rng.normal(size=(n, 11, 11))
    rows, cols = np.mgrid[:11, :11].astype(float)
    patches, heights = [], []
    for frame in range(7):
        here = height * np.exp(-HALF * ((frame - centre) / rocking) ** 2)
        given = np.stack([*at, here, np.full(n, 8.0), *widths, mixing], axis=-1)[:, None, None, :]
        image = np.mean([profile(given, rows + i, cols + j) for i in parts for j in parts], axis=0)
        patches.append(rng.poisson((image + slope * (cols - 5)) * gain))
        heights.append(here)
    fits = pd.DataFrame(fit_peaks(np.concatenate(patches), Fit(), search=1.5)._asdict())
    fits = fits.assign(frame=np.repeat(np.arange(7), n), spot=np.tile(np.arange(n), 7), good=True)
    near = np.hypot(fits["row"] - 5, fits["col"] - 5) < 2
    fits = fits[near & fits["converged"] & (np.concatenate(heights) > 30)].reset_index(drop=True)
    kept, spot = np.unique(fits["spot"], return_inverse=True)
    return fits, spot.astype(np.int64), at[:, kept]


@pytest.mark.parametrize(
    ("integrated", "response", "amplitude"),
    [(False, 0.0, (100, 5000)), (True, 0.0, (100, 5000)), (False, 0.02, (1000, 50000)), (True, 0.02, (1000, 50000))],
    ids=["plain", "integrated over pixels", "unequal pixels", "both"],
)
def test_errors_of_combined_positions_are_true(integrated, response, amplitude):
    """What all frames of a spot have in common does not average out: without it the errors are up to twice too small."""
    fits, spot, at = rocking_patches(800, integrated=integrated, response=response, seed=0, amplitude=amplitude)
    information = information_of(fits)
    misfit = misfit_of(fits, information)
    # The profile of integrated pixels differs from the model by about 1 % of the counts.
    assert misfit == pytest.approx(response, abs=0.012 if integrated else 0.004)
    table = spots_of(fits, spot, 0.1 * np.arange(7.0), information, misfit=misfit, min_frames=1)
    residual = np.concatenate([(table[axis] - at[i]) / table[f"{axis}_err"] for i, axis in enumerate(("row", "col"))])
    assert 0.9 < np.mean(residual**2) < 1.1
    if response:
        without = spots_of(fits, spot, 0.1 * np.arange(7.0), information, min_frames=1)
        residual = np.concatenate(
            [(without[axis] - at[i]) / without[f"{axis}_err"] for i, axis in enumerate(("row", "col"))]
        )
        assert np.mean(residual**2) > 1.3


def test_a_sloped_background_shifts_no_position():
    fits, spot, at = rocking_patches(300, integrated=False, response=0.0, seed=2, amplitude=(100, 500), slope=0.7)

    def slope(numbers, reach):
        cols = np.tile(np.arange(-reach, reach + 1), 2 * reach + 1)
        return np.repeat(0.7 * cols[:, None], len(numbers), axis=1)

    # Every patch is a frame of its own.
    patches = fits.assign(frame=np.arange(len(fits)))
    for lacking, bias in ((None, True), (slope, False)):
        table = spots_of(fits, spot, np.zeros(7), information_of(patches, lacking), min_frames=1)
        shift = np.average(table["col"] - at[1], weights=table["col_err"] ** -2)
        assert (shift > 0.02) if bias else (abs(shift) < 0.008)


CELL, CELLS = 40, 12


def crowd(rng):
    """Pairs of spots 3.5 to 6 px apart, which rock at different angles, on slopes of a background.

    Frames (7, row, col), background (row, col), true positions (2, 2, n) and amplitudes (7, 2, n).
    """
    n = CELLS**2
    height, centre = np.exp(rng.uniform(np.log(100), np.log(4000), (2, n))), rng.uniform(2, 4, (2, n))
    rocking, apart, angle = rng.uniform(1.5, 3, (2, n)), rng.uniform(3.5, 6, n), rng.uniform(0, 2 * np.pi, n)
    corner = CELL * np.stack(np.divmod(np.arange(n), CELLS))
    first = corner + CELL / 2 + rng.uniform(-1, 1, (2, n))
    at = np.stack([first, first + apart * np.stack([np.sin(angle), np.cos(angle)])])
    widths, mixing = rng.uniform(1.8, 2.8, (2, 2, n)), rng.uniform(0, 0.6, (2, n))
    cell = np.arange(CELL) + corner[:, :, None]
    rows, cols = cell[0][:, :, None], cell[1][:, None, :]
    slope = 4 + 0.4 * np.add.outer(np.zeros(CELL), np.arange(CELL))
    frames, amplitudes = np.zeros((7, CELL * CELLS, CELL * CELLS)), np.empty((7, 2, n))
    for frame in range(7):
        amplitudes[frame] = height * np.exp(-HALF * ((frame - centre) / rocking) ** 2)
        image = np.broadcast_to(slope, (n, CELL, CELL)).copy()
        for k in range(2):
            given = np.stack([*at[k], amplitudes[frame, k], np.zeros(n), *widths[k], mixing[k]], axis=-1)
            image += profile(given[:, None, None], rows, cols)
        frames[frame] = image.reshape(CELLS, CELLS, CELL, CELL).swapaxes(1, 2).reshape(frames.shape[1:])
    return rng.poisson(frames), np.tile(slope, (CELLS, CELLS)), at, amplitudes


def test_errors_beside_neighbours_are_true():
    """Neighbours that are too faint to be found in a frame are known from the other frames, and so is their pull."""
    images, background, at, amplitudes = crowd(np.random.default_rng(4))
    shape, parts = images.shape[1:], []
    nothing = np.zeros(shape, bool)
    for frame, image in enumerate(images):
        rows, cols = np.rint(np.concatenate(at, axis=1)).astype(int)
        found = amplitudes[frame].ravel() > 50
        of_frame = fit_and_flag(
            image, rows[found], cols[found], Fit(), mask=nothing, saturated=nothing, variance=np.zeros(shape)
        )
        fits = pd.DataFrame(of_frame.fits._asdict()).assign(frame=frame, good=of_frame.good)
        parts.append(fits.assign(true=np.flatnonzero(found)))
    peaks = pd.concat(parts, ignore_index=True)
    peaks = peaks[peaks["converged"]].reset_index(drop=True)
    names, spot = np.unique(peaks["true"], return_inverse=True)
    lacking = lacking_of(peaks, sources_of(peaks, spot, 7), shape, background)
    true = np.concatenate(at, axis=1)[:, names]
    squares, biases = {}, {}
    for name, given in (("without", None), ("with", lacking)):
        table = spots_of(peaks, spot, 0.1 * np.arange(7.0), information_of(peaks, given), min_frames=1)
        kept = np.bincount(spot, peaks["good"], len(names)) > 0
        z = [(table[axis] - true[i, kept]) / table[f"{axis}_err"] for i, axis in enumerate(("row", "col"))]
        squares[name] = np.array([np.mean(values[table["good"]] ** 2) for values in z])
        biases[name] = np.mean(z[1][table["good"]])
    # 280 spots: the standard error of the mean variance is 6 %.
    assert 0.88 < squares["with"].mean() < 1.15
    # Along the slope of the background.
    assert squares["without"][1] > 1.2 and biases["without"] > 0.3 and abs(biases["with"]) < 0.15


def test_counts_and_their_errors_are_those_of_the_simulated_peaks():
    rng = np.random.default_rng(5)
    rows, cols = np.mgrid[:11, :11].astype(float)
    true = [5.2, 4.9, 400.0, 8.0, 2.2, 2.6, 0.3]
    fits = pd.DataFrame(fit_peaks(rng.poisson(profile(true, rows, cols), (600, 11, 11)), Fit())._asdict())
    found = information_of(fits)
    # The same ellipse, summed on a fine grid.
    fine_rows, fine_cols = np.mgrid[0:11:0.02, 0:11:0.02]
    inside = ((fine_rows - 5.2) / 2.2) ** 2 + ((fine_cols - 4.9) / 2.6) ** 2 < 1
    expected = (profile(true, fine_rows, fine_cols) - 8)[inside].sum() * 0.02**2
    assert found.counts.mean() == pytest.approx(expected, rel=0.01)
    assert 0.85 < np.mean((found.counts - expected) ** 2 / found.counts_var) < 1.15


SCAN = Simulate(n_frames=24, rows=96, cols=128, n_peaks=60, seed=3)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A simulated scan up to its fitted peaks."""
    folder = tmp_path_factory.mktemp("scan")
    bragg.simulate(folder, state_of_charge=0.2, options=SCAN)
    sources = {
        name: f"{folder}/{file}" for name, file in (("dark", "dark.tif"), ("mask", "mask.tif"), ("omega", "omega.csv"))
    }
    bragg.frames(f"{folder}/frame_*.tif", out=folder / "frames.h5", **sources)
    bragg.find_peaks(folder / "frames.h5", out=folder / "candidates.parquet")
    bragg.fit(folder / "frames.h5", folder / "candidates.parquet", out=folder / "peaks.h5")
    return folder


def test_spots_of_a_simulated_scan_are_its_particles(scan, tmp_path):
    metrics = bragg.spots(
        scan / "frames.h5", scan / "peaks.h5", geometry=scan / "geometry.poni", out=tmp_path / "s.parquet"
    )
    found, truth = pd.read_parquet(tmp_path / "s.parquet"), pd.read_parquet(scan / "truth.parquet")
    strong = (
        truth[truth["amplitude"] > 40]
        .groupby("peak")
        .agg({"row": "mean", "col": "mean", "frame": ["min", "max"], "isolated": "all", "masked": "any"})
    )
    strong.columns = ["row", "col", "first", "last", "isolated", "masked"]
    alone = strong[strong["isolated"] & ~strong["masked"]]
    matched = []
    for true in alone.itertuples():
        here = found[(np.hypot(found["row"] - true.row, found["col"] - true.col) < 1)]
        here = here[(here["first_frame"] <= true.last) & (here["last_frame"] >= true.first)]
        matched.append(len(here) == 1)
    # A spot for each particle, not one for each frame.
    assert len(alone) > 10 and np.mean(matched) > 0.9
    assert metrics["spots"] == len(found) < 1.2 * truth["peak"].nunique()
    assert (found["frame"] >= found["first_frame"] - 1).all() and (found["frame"] <= found["last_frame"] + 1).all()
    assert found["omega"].to_numpy() == pytest.approx(0.1 * (found["frame"].to_numpy() - 11.5))
    assert found.loc[found["cut"], ["first_frame", "last_frame"]].isin([0, 23]).any(axis=1).all()
    assert np.isfinite(found[["two_theta", "azimuth", "q", "d", "d_err", "intensity_err", "omega_err"]]).all().all()


def test_without_geometry_and_angles_the_columns_are_empty(scan, tmp_path):
    sources = {"dark": scan / "dark.tif", "mask": scan / "mask.tif"}
    bragg.frames(f"{scan}/frame_*.tif", out=tmp_path / "frames.h5", **sources)
    bragg.spots(tmp_path / "frames.h5", scan / "peaks.h5", out=tmp_path / "s.parquet")
    found = pd.read_parquet(tmp_path / "s.parquet")
    assert len(found) and found[["omega", "omega_err", "two_theta", "d", "d_err"]].isna().all().all()


def test_peaks_of_more_frames_than_there_are_end_in_one_line(scan, tmp_path):
    bragg.frames(f"{scan}/frame_*.tif", out=tmp_path / "few.h5", options=bragg.Frames(stop=3))
    with pytest.raises(InputError, match="peaks of frame"):
        bragg.spots(tmp_path / "few.h5", scan / "peaks.h5", out=tmp_path / "s.parquet")


def test_the_background_of_a_scan_holds_no_tails_of_its_spots(scan):
    true = simulate_scan(SCAN, state_of_charge=0.2).background
    stored = read_peaks(scan / "peaks.h5", [*PARAMETERS[2:], "amplitude_err", "converged", "good"])
    columns = {name: stored[name] for name in (*PARAMETERS[2:], "amplitude_err", "good")}
    places = {"frame": stored["peak_fidx"].astype(int), "row": stored["peak_row"], "col": stored["peak_col"]}
    peaks = pd.DataFrame(columns | places)[stored["converged"] != 0].reset_index(drop=True)
    with read_frames_file(scan / "frames.h5") as file:
        sources = sources_of(peaks, join_peaks(peaks, Spots()), SCAN.n_frames)
        difference = static_background(file, sources) - true
    # With the spots it is 2.5 counts too high, and twice that beside them.
    assert abs(np.nanmean(difference)) < 0.4 and np.nanstd(difference) < 0.6


def test_two_spots_in_one_wide_peak_are_not_good():
    fits, spot, _ = rocking_patches(40, integrated=False, response=0.0, seed=6, amplitude=(500, 1000))
    wide = fits.assign(fwhm_col=np.where(spot == 3, 9.0, fits["fwhm_col"]))
    good = spots_of(wide, spot, np.zeros(7), information_of(wide), min_frames=1)["good"].to_numpy()
    assert not good[3] and good.mean() > 0.9
