import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from cathodeflow import bragg
from cathodeflow.bragg import simulation as simulate
from cathodeflow.bragg.particles import REFLECTIONS, geometry_of, lattice, ring_radius
from cathodeflow.bragg.peak_options import Simulate
from cathodeflow.bragg.scattering import scattering
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.geometry_files import read_detector_geometry
from cathodeflow.io.simulated import NEXUS_DATA, write_nexus_series, write_tiff, write_tiff_series

SMALL = Simulate(n_frames=12, rows=96, cols=128, n_peaks=120, seed=3)
HKL = {"".join(map(str, hkl)): hkl for hkl in REFLECTIONS}


def a_scan(state_of_charge=0.3, *, scan=0, heterogeneity=0.03, fading=0.6, **changes):
    options = SMALL.model_copy(update=changes)
    physics = {"heterogeneity": heterogeneity, "fading": fading}
    return simulate.simulate_scan(options, state_of_charge=state_of_charge, scan=scan, **physics)


def radius(truth, geometry):
    return np.hypot(truth["row"] - geometry.beam_row, truth["col"] - geometry.beam_col)


def test_the_truth_is_where_an_independent_fit_finds_the_peak():
    scan = a_scan(background=0.0, ring=0.0, n_peaks=40)
    alone = scan.truth[scan.truth["isolated"] & (scan.truth["amplitude"] > 200)]
    alone = alone[alone["row"].between(8, 87) & alone["col"].between(8, 119)]
    assert len(alone) > 20
    for true in alone.head(30).itertuples():
        # The other peaks' far tails are taken off, so that only the convention is tested.
        others = scan.peaks[(scan.peaks["frame"] == true.frame) & (scan.peaks["peak"] != true.peak)]
        image = simulate.expected_frame(scan, true.frame)
        tails = np.zeros_like(image)
        simulate.add_peaks(tails, others)
        top, left = round(true.row) - 4, round(true.col) - 4
        patch = (image - tails)[top : top + 9, left : left + 9]
        r, c = np.mgrid[top : top + 9, left : left + 9]

        def residual(p, r=r, c=c, patch=patch):
            q = ((r - p[0]) / p[3]) ** 2 + ((c - p[1]) / p[4]) ** 2
            return (p[2] * (p[5] / (1 + 4 * q) + (1 - p[5]) * 2.0 ** (-4 * q)) - patch).ravel()

        start = [top + 4, left + 4, patch.max(), 2.5, 2.5, 0.3]
        found = least_squares(residual, start, x_scale=[1, 1, 100, 1, 1, 1], xtol=1e-12, ftol=1e-12).x
        assert found[:2] == pytest.approx([true.row, true.col], abs=1e-3)
        assert found[2] == pytest.approx(true.amplitude, rel=1e-3)
        assert abs(found[3:5]) == pytest.approx([true.fwhm_row, true.fwhm_col], rel=1e-3)


def test_flat_regions_are_poisson_once_the_dark_is_subtracted():
    scan = a_scan(n_peaks=1, ring=0.0, n_frames=200, background=30.0)
    good = scan.mask == 0
    counts = np.stack([simulate.raw_frame(scan, number).astype(float) - scan.dark for number in range(100, 200)])
    quiet = good & (np.abs(np.arange(96)[:, None] - scan.truth["row"].iloc[0]) > 20)
    mean, variance = counts.mean(0)[quiet], counts.var(0, ddof=1)[quiet]
    # 100 frames: relative standard error of the summed variance is sqrt(2 / 99 / pixels), of 4000 pixels 0.2 %.
    assert variance.sum() / mean.sum() == pytest.approx(1, abs=0.015)
    assert mean.mean() == pytest.approx(scan.background[quiet].mean(), rel=0.01)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    first, again, other = a_scan(), a_scan(), a_scan(seed=4)
    assert first.truth.equals(again.truth) and not first.truth.equals(other.truth)
    assert all((x == y).all() for x, y in zip(simulate.raw_frames(first), simulate.raw_frames(again), strict=True))
    assert (simulate.raw_frame(first, 5) != simulate.raw_frame(other, 5)).any()
    assert (simulate.raw_frame(first, 5) != simulate.raw_frame(a_scan(scan=1), 5)).any()


def test_a_frame_does_not_depend_on_the_frames_before():
    scan = a_scan()
    streamed = list(simulate.raw_frames(scan))
    assert len(streamed) == 12
    for number in (7, 0, 11, 7):
        assert (simulate.raw_frame(scan, number) == streamed[number]).all()


def test_other_states_of_charge_see_the_same_particles_moved_as_the_lattice_says():
    before, after = a_scan(0.1, heterogeneity=0.0), a_scan(0.55, heterogeneity=0.0)
    assert (before.mask == after.mask).all() and (before.dark == after.dark).all()
    both = before.truth.merge(after.truth, on=["frame", "peak"], suffixes=("", "_after"))
    assert len(both) > 150
    later = radius({"row": both["row_after"], "col": both["col_after"]}, after.geometry)
    moved = (later - radius(both, before.geometry)).to_numpy()
    hkl = np.array([HKL[name] for name in both["hkl"]])
    expected = ring_radius(hkl, 0.55, after.geometry) - ring_radius(hkl, 0.1, before.geometry)
    assert moved == pytest.approx(expected, abs=1e-9)
    # c has grown: 006 has moved inwards, while 104, which a rules more, has moved outwards.
    assert expected[both["hkl"] == "006"].max() < 0 < expected[both["hkl"] == "104"].min()
    assert (both["amplitude_after"] == both["amplitude"]).all()


def test_lattice_grows_then_collapses_along_c():
    charge = np.linspace(0, 1, 101)
    a, c = lattice(charge)
    assert (np.diff(a) <= 0).all() and charge[c.argmax()] == pytest.approx(0.6)
    assert (np.diff(c[:61]) > 0).all() and (np.diff(c[61:]) < 0).all()
    # Bragg: a reflection 00l at radius r has d = l-th of c.
    geometry = geometry_of((256, 256))
    angle = np.arctan(ring_radius(np.array([0, 0, 6]), 0.6, geometry) / geometry.distance)
    assert geometry.wavelength / (2 * np.sin(angle / 2)) == pytest.approx(c[60] / 6)


@pytest.mark.parametrize(("state_of_charge", "split"), [(0.0, False), (0.5, False), (0.7, True), (0.95, False)])
def test_particles_split_in_the_coexistence_range_only(state_of_charge, split):
    truth = a_scan(state_of_charge).truth
    twice = truth.groupby(["frame", "peak"])["phase"].nunique() == 2
    assert twice.mean() > 0.7 if split else not twice.any()
    assert (truth["phase"] == 1).all() == (state_of_charge == 0.95)


def test_the_phases_share_the_amplitude_by_the_lever_rule():
    single, double = a_scan(0.6, heterogeneity=0.0), a_scan(0.65, heterogeneity=0.0, fading=0.0)
    keys = ["frame", "peak"]
    whole = single.peaks.set_index(keys)["amplitude"]
    phases = {n: group.set_index(keys)["amplitude"] for n, group in double.peaks.groupby("phase")}
    strong = whole[whole > 50].index
    assert (phases[0][strong] / whole[strong]).to_numpy() == pytest.approx(0.75)
    assert (phases[1][strong] / whole[strong]).to_numpy() == pytest.approx(0.25)


def test_spots_broaden_and_fade_at_high_charge():
    low, high = (a_scan(x, heterogeneity=0.0).peaks.set_index(["frame", "peak"]) for x in (0.5, 0.95))
    both = low.index.intersection(high.index)
    strain = (0.35 / 0.4) ** 2
    wider = high.loc[both, "fwhm_row"] / low.loc[both, "fwhm_row"]
    fainter = high.loc[both, "amplitude"] / low.loc[both, "amplitude"]
    assert wider.to_numpy() == pytest.approx(1 + 0.4 * strain)
    assert fainter.to_numpy() == pytest.approx(1 - 0.6 * strain)


def test_bad_pixels_are_in_the_mask_and_nowhere_else():
    scan = a_scan(bad_fraction=0.01, gap=4)
    raw = np.stack(list(simulate.raw_frames(scan))).astype(float)
    good = scan.mask == 0
    assert (scan.mask == 1).sum() == pytest.approx(0.01 * 96 * 124 + 4 * 96, abs=25)
    assert (scan.mask[:, 62:66] == 1).all() and (raw[:, :, 62:66] == 0).all()
    # Dead pixels never count; hot ones stand far above what the light explains; good ones do neither.
    light = np.stack([simulate.expected_frame(scan, number) for number in range(scan.n_frames)])
    dead = (raw == 0).all(0)
    hot = (np.abs(raw - 20 - light) > 8 * np.sqrt(light) + 20).any(0) & ~dead
    assert not dead[good].any() and not hot[good].any()
    assert (dead | hot)[~good].all()
    assert scan.dark[good].mean() == pytest.approx(20, abs=0.1)
    bad = np.argwhere(~good)
    away = [np.hypot(*(bad - at).T).min() for at in scan.truth[["row", "col"]].to_numpy()]
    assert 0 < scan.truth["masked"].sum() < len(scan.truth)
    assert (scan.truth["masked"] == (np.array(away) <= 2)).all()


@given(st.integers(0, 10), st.integers(0, 14))
@settings(max_examples=20, deadline=None)
def test_isolated_agrees_with_its_definition(seed, count):
    rng = np.random.default_rng(seed)
    frame, row, col = rng.integers(2, size=count), rng.uniform(0, 24, count), rng.uniform(0, 24, count)
    amplitude = np.exp(rng.uniform(0, 6, count))
    expected = [
        not any(
            j != i
            and frame[i] == frame[j]
            and np.hypot(row[i] - row[j], col[i] - col[j]) <= 8
            and amplitude[j] >= 0.05 * amplitude[i]
            for j in range(count)
        )
        for i in range(count)
    ]
    assert simulate.isolated(frame, row, col, amplitude, distance=8).tolist() == expected


def test_the_truth_keeps_to_the_ranges_asked_for():
    scan = a_scan(n_peaks=400)
    assert tuple(scan.truth.columns) == simulate.TRUTH
    assert not scan.truth.isna().any().any()
    assert scan.truth["amplitude"].between(1, 5000).all() and scan.peaks["amplitude"].max() > 2000
    assert scan.truth[["fwhm_row", "fwhm_col"]].stack().between(1.5, 3.2).all()
    assert scan.truth["row"].between(-0.5, 95.5).all() and scan.truth["col"].between(-0.5, 127.5).all()
    # Detectors of other sizes see the same particles: everything scales with the width.
    twice = a_scan(n_peaks=400, rows=192, cols=256).truth.merge(scan.truth, on=["frame", "peak"])
    for axis in ("row", "col"):
        assert twice[f"{axis}_x"].to_numpy() + 0.5 == pytest.approx(2 * (twice[f"{axis}_y"].to_numpy() + 0.5))


def test_the_files_beside_the_frames_give_the_angles_and_the_lattice_spacing_of_every_peak(tmp_path):
    """Frames keep the angle of every frame; with the geometry, positions have the radius of the simulation, and d."""
    bragg.simulate(tmp_path, state_of_charge=0.3, options=SMALL)
    bragg.frames(f"{tmp_path}/frame_*.tif", omega=f"{tmp_path}/omega.csv", out=tmp_path / "frames.h5")
    with read_frames_file(tmp_path / "frames.h5") as file:
        assert file.omega == pytest.approx(0.1 * (np.arange(12) - 5.5))
    truth, known = pd.read_parquet(tmp_path / "truth.parquet"), geometry_of((96, 128))
    detector = read_detector_geometry(str(tmp_path / "geometry.poni"), detector=None, shape=(96, 128))
    found = scattering(detector, truth["row"], truth["col"])
    two_theta = np.arctan(radius(truth, known) / known.distance).to_numpy()
    assert found.two_theta == pytest.approx(np.rad2deg(two_theta), rel=1e-12)
    assert found.d == pytest.approx(known.wavelength / 2 / np.sin(two_theta / 2), rel=1e-12)
    # At any charge each spot is nearest to the ring of its own reflection.
    for charge in (0.0, 0.3, 0.7, 1.0):
        truth = simulate.simulate_scan(SMALL, state_of_charge=charge).truth
        rings = ring_radius(np.array(REFLECTIONS), charge, known)
        nearest = np.abs(radius(truth, known).to_numpy()[:, None] - rings).argmin(axis=1)
        assert (np.array(list(HKL))[nearest] == truth["hkl"]).all()


def test_an_empty_population_gives_background_alone():
    scan = a_scan(n_peaks=0)
    assert scan.truth.empty and tuple(scan.truth.columns) == simulate.TRUTH
    assert simulate.raw_frame(scan, 0).shape == (96, 128)


def test_raw_files_are_read_by_others_and_repeat_byte_for_byte(tmp_path):
    scan = a_scan()
    raw = np.stack(list(simulate.raw_frames(scan)))
    files = write_tiff_series(tmp_path / "raw", simulate.raw_frames(scan))
    assert [path.name for path in files[:2]] == ["frame_00000.tif", "frame_00001.tif"]
    assert sorted((tmp_path / "raw").iterdir()) == files
    read = tifffile.imread(files)
    assert read.dtype == np.uint16 and (read == raw).all()

    for name in ("one", "two"):
        write_nexus_series(tmp_path / f"{name}.h5", simulate.raw_frames(scan), n_frames=12, shape=(96, 128))
        write_tiff(tmp_path / f"{name}.tif", scan.dark)
    with h5py.File(tmp_path / "one.h5") as file:
        data = file[NEXUS_DATA]
        assert data.chunks == (1, 96, 128) and data.dtype == np.uint16 and (data[:] == raw).all()
        assert file["entry/data"].attrs["signal"] == "data"
    assert (tifffile.imread(tmp_path / "one.tif") == scan.dark).all()
    for kind in ("h5", "tif"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
