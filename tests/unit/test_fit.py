"""Peak fits reach the Cramer-Rao bound, report honest errors, and survive whatever a patch may hold."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.optimize import minimize
from scipy.stats import poisson

from cathodeflow import bragg
from cathodeflow.bragg.peak_fits import PeakFits, deviations, fit_frame, fit_peaks
from cathodeflow.bragg.peak_options import Fit
from cathodeflow.bragg.profiles import PARAMETERS, profile
from cathodeflow.bragg.saturated_fits import saturated_regions
from cathodeflow.errors import InputError
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.io.peaks import read_peaks
from cathodeflow.io.tables import write_table
from cathodeflow.options import from_flags

SIZE = 11


def pseudo_voigt(peak, row, col):
    """The model once more, written apart from the package."""
    r0, c0, height, floor, wr, wc, eta = (np.asarray(peak)[..., i, None, None] for i in range(7))
    sigma_r, sigma_c = wr / np.sqrt(8 * np.log(2)), wc / np.sqrt(8 * np.log(2))
    gauss = np.exp(-0.5 * ((row - r0) / sigma_r) ** 2 - 0.5 * ((col - c0) / sigma_c) ** 2)
    lorentz = 1 / (1 + ((row - r0) / (wr / 2)) ** 2 + ((col - c0) / (wc / 2)) ** 2)
    return floor + height * (eta * lorentz + (1 - eta) * gauss)


GRID = np.mgrid[:SIZE, :SIZE]


def draw(rng, n, *, height, floor=(1, 10), width=(1.8, 4), eta=(0.1, 0.9), off=1.0):
    centre = rng.uniform(SIZE // 2 - off, SIZE // 2 + off, (2, n))
    log_height = rng.uniform(*np.log(height), n)
    peaks = [*centre, np.exp(log_height), rng.uniform(*floor, n), *rng.uniform(*width, (2, n)), rng.uniform(*eta, n)]
    peaks = np.stack(peaks, axis=1)
    return peaks, rng.poisson(pseudo_voigt(peaks, *GRID)).astype(np.float64)


def fisher_bound(peaks, free):
    """Cramer-Rao covariance of (row, col) by numerical differentiation: (n, 2, 2)."""
    slopes = []
    for i in range(free):
        step = np.zeros(7)
        step[i] = 1e-5
        slopes.append((pseudo_voigt(peaks + step, *GRID) - pseudo_voigt(peaks - step, *GRID)) / 2e-5)
    slopes = np.stack(slopes, axis=1).reshape(len(peaks), free, -1)
    expected = pseudo_voigt(peaks, *GRID).reshape(len(peaks), 1, -1)
    return np.linalg.inv(slopes / expected @ slopes.transpose(0, 2, 1))[:, :2, :2]


def bound_of_median(peaks, free, rng):
    """Median radial error of estimates that scatter by the Cramer-Rao covariance."""
    factor = np.linalg.cholesky(fisher_bound(peaks, free))
    scatter = factor @ rng.normal(size=(len(peaks), 2, 64))
    return np.median(np.hypot(scatter[:, 0], scatter[:, 1]))


def radial(fits, peaks):
    return np.hypot(fits.row - peaks[:, 0], fits.col - peaks[:, 1])


def table(fits: PeakFits):
    return np.stack(fits[:7], axis=1)


@pytest.mark.parametrize("model", ["pseudo_voigt", "gaussian"])
@pytest.mark.parametrize(
    ("height", "width", "floor", "off"),
    [
        ((100, 200), (1.8, 4), (1, 10), 1),
        ((1000, 5000), (1.8, 4), (1, 10), 2.5),
        ((2000, 4000), (1.2, 1.5), (1, 10), 2.5),
        ((200, 500), (5, 6), (1, 10), 2.5),
        ((50, 100), (1.8, 4), (0, 0), 1),
        ((5e4, 1e5), (1.5, 4), (50, 100), 2),
    ],
    ids=["faint", "bright off-centre", "narrow", "wide", "zero background", "very bright"],
)
def test_centres_reach_the_cramer_rao_bound(model, height, width, floor, off):
    rng = np.random.default_rng(1)
    eta = (0.1, 0.9) if model == "pseudo_voigt" else (0, 0)
    peaks, patches = draw(rng, 6000, height=height, width=width, floor=floor, off=off, eta=eta)
    fits = fit_peaks(patches, Fit(model=model))
    assert fits.converged.mean() > 0.998
    median, bound = np.median(radial(fits, peaks)), bound_of_median(peaks, 7 if model == "pseudo_voigt" else 6, rng)
    assert 0.95 < median / bound < 1.05


def test_errors_are_the_scatter_and_chi_square_is_one():
    rng = np.random.default_rng(2)
    peaks, patches = draw(rng, 4000, height=(500, 5000), eta=(0.3, 0.7))
    fits = fit_peaks(patches, Fit())
    for i, name in enumerate(PARAMETERS):
        pull = (fits[i] - peaks[:, i]) / getattr(fits, f"{name}_err")
        assert abs(pull.std() - 1) < 0.05, name
        assert abs(pull.mean()) < 0.1, name
    assert abs(fits.chi2.mean() - 1) < 0.01
    # A wrong shape must show.
    assert np.median(fit_peaks(patches, Fit(model="gaussian")).chi2) > 1.2


@pytest.mark.parametrize("cut", [0, 40])
def test_the_optimum_is_that_of_an_independent_minimiser(cut):
    rng = np.random.default_rng(3)
    peaks, patches = draw(rng, 12, height=(400, 3000) if cut else (100, 3000))
    fits = fit_peaks(np.where(patches < cut, 0, patches), Fit(max_iterations=500, threshold=cut), tolerance=1e-5)
    bounds = [(-0.5, SIZE - 0.5)] * 2 + [(0, None), (1e-6, None), (0.8, 2 * SIZE), (0.8, 2 * SIZE), (0, 1)]
    for counts, start, found in zip(patches, peaks, table(fits), strict=True):

        def loss(x, counts=counts):
            expected = pseudo_voigt(x, *GRID)
            # Pixels that were cut off have the probability of all counts below the threshold.
            below = poisson.logcdf(cut - 1, expected) if cut else 0
            return float(np.sum(np.where(counts < cut, -below, expected - counts * np.log(expected))))

        scale = np.array([1, 1, start[2], start[3], 1, 1, 1])
        best = minimize(
            lambda x, scale=scale, loss=loss: loss(x * scale),
            start / scale,
            method="L-BFGS-B",
            bounds=[
                (low / s, None if high is None else high / s) for (low, high), s in zip(bounds, scale, strict=True)
            ],
            options={"ftol": 1e-14, "gtol": 1e-7, "maxiter": 2000},
        )
        assert loss(found) < best.fun + 1e-4
        np.testing.assert_allclose(found[:2], (best.x * scale)[:2], atol=2e-3)


def test_the_profile_is_the_documented_one():
    rng = np.random.default_rng(4)
    peaks, _ = draw(rng, 20, height=(10, 100))
    np.testing.assert_allclose(profile(peaks[:, None, None], *GRID), pseudo_voigt(peaks, *GRID), rtol=1e-12)


def test_noiseless_peaks_come_back_exactly():
    peaks, _ = draw(np.random.default_rng(5), 200, height=(50, 1e5), width=(1.2, 6), off=3)
    fits = fit_peaks(pseudo_voigt(peaks, *GRID), Fit(max_iterations=300), tolerance=1e-6)
    assert fits.converged.all()
    np.testing.assert_allclose(table(fits), peaks, rtol=1e-3, atol=1e-3)
    assert radial(fits, peaks).max() < 1e-5


def test_turning_and_mirroring_the_patch_turns_the_result():
    _, patches = draw(np.random.default_rng(6), 300, height=(100, 2000))
    options = Fit(max_iterations=500)
    fits = fit_peaks(patches, options, tolerance=1e-5)
    turned = fit_peaks(patches.transpose(0, 2, 1), options, tolerance=1e-5)
    mirrored = fit_peaks(patches[:, ::-1], options, tolerance=1e-5)
    for one, other in [
        (fits.row, turned.col),
        (fits.col, turned.row),
        (fits.row, SIZE - 1 - mirrored.row),
        (fits.col, mirrored.col),
        (fits.fwhm_row, turned.fwhm_col),
        (fits.fwhm_row, mirrored.fwhm_row),
    ]:
        assert np.quantile(np.abs(one - other), 0.99) < 1e-3


def test_results_depend_neither_on_threads_nor_on_company_nor_on_the_type():
    _, patches = draw(np.random.default_rng(7), 500, height=(100, 2000))
    before = numba.get_num_threads()
    results = []
    try:
        for threads in {1, numba.config.NUMBA_NUM_THREADS}:
            numba.set_num_threads(threads)
            results.append(fit_peaks(patches, Fit()))
    finally:
        numba.set_num_threads(before)
    results += [fit_peaks(patches.astype(dtype), Fit()) for dtype in (np.uint16, np.float32, np.int64)]
    alone = [fit_peaks(patches[i : i + 1], Fit()) for i in range(20)]
    for other in results[1:]:
        np.testing.assert_array_equal(np.array(other), np.array(results[0]))
    np.testing.assert_array_equal(
        np.concatenate([np.array(one) for one in alone], axis=1), np.array(results[0])[:, :20]
    )


def test_results_do_not_depend_on_where_the_code_was_compiled(tmp_path):
    """The first process compiles, the second reads what the first has kept."""
    np.save(tmp_path / "patches.npy", draw(np.random.default_rng(7), 200, height=(100, 2000))[1])
    script = "import sys, numpy as np; from cathodeflow.bragg.peak_fits import fit_peaks; "
    script += "from cathodeflow.bragg.peak_options import Fit; "
    script += "np.save(sys.argv[1], np.array(fit_peaks(np.load('patches.npy'), Fit())))"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for name in ("compiled", "kept"):
        subprocess.run([sys.executable, "-c", script, name], cwd=tmp_path, env=environment, check=True)
    np.testing.assert_array_equal(*(np.load(tmp_path / f"{name}.npy") for name in ("compiled", "kept")))


def test_pixels_that_are_nan_are_left_out():
    rng = np.random.default_rng(8)
    peaks, patches = draw(rng, 3000, height=(500, 1000))
    holes = rng.random(patches.shape) < 0.1
    holed = np.where(holes, np.nan, patches)
    fits = fit_peaks(holed, Fit())
    np.testing.assert_array_equal(np.array(fit_peaks(np.where(holes, np.inf, patches), Fit())), np.array(fits))
    whole = np.median(radial(fit_peaks(patches, Fit()), peaks))
    # A tenth of the pixels less is a little less information; holes taken for zeros would be far worse.
    assert whole < np.median(radial(fits, peaks)) < 1.15 * whole
    assert np.median(radial(fit_peaks(np.where(holes, 0, patches), Fit()), peaks)) > 2 * whole


def test_read_noise_and_subtracted_dark_frames():
    rng = np.random.default_rng(9)
    peaks, patches = draw(rng, 3000, height=(100, 300), floor=(0.5, 1))
    noisy = patches + rng.normal(0, 5, patches.shape)
    fits = fit_peaks(noisy, Fit(read_noise=5))
    assert fits.converged.mean() > 0.99
    assert abs(np.median((fits.row - peaks[:, 0]) / fits.row_err)) < 0.05
    pull = (fits.row - peaks[:, 0]) / fits.row_err
    assert 0.9 < np.diff(np.quantile(pull, [0.159, 0.841]))[0] / 2 < 1.1
    assert abs(np.median(fits.background) - 0.75) < 0.3
    # Negative counts show the noise that nobody named.
    unnamed = fit_peaks(noisy, Fit())
    assert abs(np.median(unnamed.background) - 0.75) < 0.3
    assert np.median(radial(unnamed, peaks)) < 1.1 * np.median(radial(fits, peaks))
    # Clipped at zero, the noise about zero is a background.
    assert np.median(fit_peaks(np.maximum(noisy, 0), Fit(read_noise=5)).background) > 1.8


@pytest.mark.parametrize("gain", [0.1, 4.0])
def test_the_gain_scales_counts_and_leaves_the_errors_true(gain):
    peaks, patches = draw(np.random.default_rng(21), 3000, height=(100, 3000))
    fits, photons = fit_peaks(gain * patches, Fit(gain=gain)), fit_peaks(patches, Fit())
    assert 0.9 < np.var((fits.row - peaks[:, 0]) / fits.row_err) < 1.1
    assert 0.9 < np.var((fits.amplitude / gain - peaks[:, 2]) / fits.amplitude_err * gain) < 1.1
    np.testing.assert_allclose(fits.background, gain * photons.background, rtol=1e-3, atol=1e-3 * gain)
    # Without it, the errors are wrong by its square root.
    wrong = np.median(fit_peaks(gain * patches, Fit()).row_err / photons.row_err)
    assert wrong == pytest.approx(gain**-0.5, rel=0.1)


@pytest.mark.parametrize(
    ("cut", "floor", "height"), [(20, 2, (300, 3000)), (40, 20, (300, 3000)), (150, 20, (1000, 9000))]
)
def test_thresholded_frames(cut, floor, height):
    rng = np.random.default_rng(10)
    peaks, patches = draw(rng, 3000, height=height, floor=(floor, floor), width=(1.5, 3))
    kept = np.where(patches < cut, 0, patches)
    fits = fit_peaks(kept, Fit(threshold=cut))
    assert fits.converged.mean() > 0.998
    bound = bound_of_median(peaks, 7, rng)
    assert np.median(radial(fits, peaks)) < 1.08 * bound
    assert np.isfinite(fits.row_err).mean() > 0.99
    assert 0.95 < np.nanstd((fits.row - peaks[:, 0]) / fits.row_err) < 1.05
    assert abs(np.median(fits.background) - floor) < (1 if floor < cut / 2 else 0.5) + 0.05 * cut / floor
    # What stands below the threshold is irrelevant; taken for counts, the zeros cost accuracy but break nothing.
    np.testing.assert_array_equal(np.array(fit_peaks(patches, Fit(threshold=cut))), np.array(fits))
    zeros = fit_peaks(kept, Fit())
    assert zeros.converged.mean() > 0.99
    assert np.median(radial(zeros, peaks)) > 1.15 * bound


def degenerate():
    single = np.zeros((SIZE, SIZE))
    single[5, 5] = 1000
    return {
        "constant": np.full((SIZE, SIZE), 7.0),
        "zero": np.zeros((SIZE, SIZE)),
        "nan": np.full((SIZE, SIZE), np.nan),
        "negative": np.full((SIZE, SIZE), -3.0),
        "few pixels": np.where(np.arange(121).reshape(SIZE, SIZE) < 6, 5.0, np.nan),
        "single": single,
    }


@pytest.mark.parametrize("name", ["constant", "zero", "nan", "negative", "few pixels"])
@pytest.mark.parametrize("model", ["pseudo_voigt", "gaussian"])
def test_nothing_to_fit_is_said(name, model):
    fits = fit_peaks(degenerate()[name][None], Fit(model=model))
    assert not fits.converged[0]
    assert all(np.isnan(values[0]) for values in fits[:15])


@pytest.mark.parametrize("model", ["pseudo_voigt", "gaussian"])
def test_a_single_bright_pixel_is_found_but_is_no_fit(model):
    fits = fit_peaks(degenerate()["single"][None], Fit(model=model))
    assert not fits.converged[0] and fits.pixels[0] == 1
    np.testing.assert_allclose([fits.row[0], fits.col[0]], 5, atol=0.05)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float64, (3, 7, 7), elements=st.floats(-1e9, 1e9) | st.sampled_from([0.0, 1.0, np.nan, np.inf, 1e300])
    ),
    st.sampled_from(["pseudo_voigt", "gaussian"]),
)
def test_whatever_the_patch_holds_results_keep_the_bounds(patches, model):
    fits = fit_peaks(patches, Fit(model=model))
    good = fits.converged
    for values in fits[:7]:
        assert np.isfinite(values[good]).all()
    for low, values, high in [
        (-0.5, fits.row, 6.5),
        (-0.5, fits.col, 6.5),
        (0, fits.amplitude, np.inf),
        (0, fits.background, np.inf),
        (0.8, fits.fwhm_row, 14),
        (0.8, fits.fwhm_col, 14),
        (0, fits.mixing, 1),
    ]:
        assert ((values[good] >= low) & (values[good] <= high)).all()


def frame_of_pairs(rng, apart, pairs=150, cell=30):
    """Frame with `pairs` pairs of peaks `apart` px from each other; peaks (2 * pairs, 7), counts, candidate pixels."""
    across = int(np.ceil(np.sqrt(pairs)))
    corner = cell * np.stack(np.divmod(np.arange(pairs), across), axis=1)
    turn = rng.uniform(0, 2 * np.pi, pairs)
    first = corner + cell / 2 + rng.uniform(-0.5, 0.5, (pairs, 2))
    second = first + apart * np.stack([np.sin(turn), np.cos(turn)], axis=1)
    height = rng.uniform(200, 1000, pairs)
    peaks = np.zeros((pairs, 2, 7))
    peaks[:, 0, :2], peaks[:, 1, :2] = first, second
    peaks[:, 0, 2], peaks[:, 1, 2] = height, height * rng.uniform(0.4, 1, pairs)
    peaks[..., 4:6] = rng.uniform(2, 3, (pairs, 2, 2))
    peaks[..., 6] = rng.uniform(0.1, 0.8, (pairs, 2))
    frame = np.full((cell * across, cell * across), 3.0)
    for place, pair in zip(corner, peaks, strict=True):
        window = np.s_[place[0] : place[0] + cell, place[1] : place[1] + cell]
        frame[window] += pseudo_voigt(pair, *(np.mgrid[:cell, :cell] + place[:, None, None])).sum(axis=0)
    peaks = peaks.reshape(-1, 7)
    return peaks, rng.poisson(frame).astype(np.float32), np.rint(peaks[:, :2]).astype(int)


@pytest.mark.parametrize("apart", [3.5, 5])
def test_overlapping_pairs(apart):
    peaks, frame, places = frame_of_pairs(np.random.default_rng(11), apart)
    masked = fit_frame(frame, *places.T, Fit(neighbours="mask"))
    subtracted = fit_frame(frame, *places.T, Fit())
    alone = np.empty(len(peaks))
    for half in (slice(0, None, 2), slice(1, None, 2)):
        alone[half] = radial(fit_frame(frame, *places[half].T, Fit(neighbours="mask")), peaks[half])
    lonely, lonely_frame, lonely_places = frame_of_pairs(np.random.default_rng(11), 14)
    isolated = np.median(radial(fit_frame(lonely_frame, *lonely_places.T, Fit()), lonely))
    errors = [np.median(e) for e in (radial(subtracted, peaks), radial(masked, peaks), alone)]
    assert errors[0] < 0.5 * errors[1] < 0.25 * errors[2]
    assert errors[0] < 2 * isolated
    assert subtracted.converged.mean() > 0.98


def test_the_background_under_neighbours_counts_once():
    _, frame, places = frame_of_pairs(np.random.default_rng(16), 5, pairs=16)
    fits = fit_frame(frame, *places.T, Fit())
    assert np.median(fits.background) == pytest.approx(3, abs=0.6)


def test_candidates_at_edges_and_masked_pixels():
    rng = np.random.default_rng(12)
    peaks = np.array([[1.3, 0.8, 800, 2, 2, 2.5, 0.3], [28.6, 20.2, 800, 2, 2, 2.5, 0.3]])
    frame = rng.poisson(2 + (pseudo_voigt(peaks, *np.mgrid[:30, :40]) - 2).sum(axis=0)).astype(np.float64)
    mask = np.zeros(frame.shape, np.uint8)
    mask[27, 21] = mask[29, 18] = 1
    spoilt = np.where(mask, 1e6, frame)
    places = np.rint(peaks[:, :2]).astype(int)
    fits = fit_frame(spoilt, *places.T, Fit(), mask=mask)
    assert fits.converged.all()
    assert radial(fits, peaks).max() < 0.1
    unseen = fit_frame(np.where(mask, np.nan, frame), *places.T, Fit())
    np.testing.assert_array_equal(np.array(unseen), np.array(fits))


def test_a_fit_far_from_its_candidate_is_not_its_peak():
    peak = np.array([15.2, 15.1, 1000, 2, 3, 3, 0.3])
    frame = np.random.default_rng(15).poisson(pseudo_voigt(peak, *np.mgrid[:31, :31])).astype(np.float64)
    # A third of the patch beside the peak, whose flank alone the fit starts from.
    near, far = (fit_frame(frame, [15], [col], Fit()) for col in (16, 19))
    assert abs(far.col[0] - 15.1) < 0.5 and abs(near.col[0] - 15.1) < 0.1
    assert near.converged[0] and not far.converged[0]


def test_two_candidates_on_one_peak_do_no_harm():
    peak = np.array([15.2, 15.1, 1000, 2, 3, 3, 0.3])
    frame = np.random.default_rng(13).poisson(pseudo_voigt(peak, *np.mgrid[:31, :31])).astype(np.float64)
    fits = fit_frame(frame, [15, 16], [15, 17], Fit())
    assert abs(fits.row[0] - 15.2) < 0.5
    assert abs(fits.col[0] - 15.1) < 0.5


def test_no_candidates():
    fits = fit_frame(np.zeros((20, 20)), [], [], Fit())
    assert all(values.shape == (0,) for values in fits)
    assert fit_peaks(np.zeros((0, 11, 11)), Fit()).converged.dtype == bool


def test_deviations():
    peaks, frame, places = frame_of_pairs(np.random.default_rng(14), 14, pairs=4)
    frame[places[2, 0] - 6 : places[2, 0] + 7, places[2, 1] - 6 : places[2, 1] + 7] = 0
    fits = fit_frame(frame, *places.T, Fit())
    npeaks = np.ones(len(places), int)
    npeaks[0] = 2
    found = deviations(fits, *places.T, npeaks)
    assert found[0] == -1
    assert found[2] == np.inf
    np.testing.assert_allclose(found[3:], np.hypot(*(peaks[3:, :2] - places[3:]).T), atol=0.3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: fit_peaks(np.zeros((3, 11)), Fit()),
        lambda: fit_peaks(np.zeros((3, 11, 9)), Fit()),
        lambda: fit_peaks(np.zeros((3, 11, 11), complex), Fit()),
        lambda: from_flags(Fit, {"model": "moffat"}),
        lambda: from_flags(Fit, {"patch_size": "10"}),
        lambda: fit_frame(np.zeros((30, 30)), [5], [30], Fit()),
        lambda: fit_frame(np.zeros((30, 30)), [5, 6], [5], Fit()),
        lambda: fit_frame(np.zeros((30, 30)), [5], [5], Fit(), mask=np.zeros((30, 29))),
    ],
)
def test_bad_input_is_one_line(call):
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_stage_leaves_out_a_pixel_without_a_count_in_its_frame_alone(tmp_path):
    row, col = np.mgrid[:21, :21]
    good = np.random.default_rng(0).poisson(pseudo_voigt([10.2, 9.7, 2000, 3, 3, 3, 0.3], row, col)).astype(np.float32)
    frames = np.stack([good, good])
    frames[1, 10, 8] = frames[1, 9, 9] = np.nan
    write_frames(tmp_path / "frames.h5", enumerate(frames), shape=good.shape)
    candidates = {"frame": [0, 1], "row": [10, 10], "col": [10, 10], "persistence": [2000.0, 2000.0]}
    write_table(tmp_path / "a.parquet", candidates | {"npeaks": [1, 1], "central": [True, True]})
    bragg.fit(str(tmp_path / "frames.h5"), str(tmp_path / "a.parquet"), out=str(tmp_path / "peaks.h5"), options=Fit())
    found = read_peaks(tmp_path / "peaks.h5", None)
    # As zeros, the two pixels would move the centre by more than .1 px.
    np.testing.assert_allclose(found["peak_row"], 10.2, atol=0.05)
    np.testing.assert_allclose(found["peak_col"], 9.7, atol=0.05)
    assert found["row_err"][1] > found["row_err"][0]


def test_regions_of_saturated_pixels_are_those_of_the_whole_frame() -> None:
    """Also at the borders of the frame, and where an empty row or column lies between them."""
    rng = np.random.default_rng(3)
    for fraction in (0, 0.002, 0.02, 0.2, 1):
        marked = rng.random((40, 60)) < fraction
        marked[0, 0] = marked[-1, -1] = fraction > 0.01
        expected = ndimage.label(marked, np.ones((3, 3)))[0]
        np.testing.assert_array_equal(saturated_regions(marked), expected)
