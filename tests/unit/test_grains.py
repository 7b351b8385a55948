"""Grains of rotated samples: where they diffract, and orientation, position and cell from their spots."""

from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.spatial.transform import Rotation

from cathodeflow import bragg
from cathodeflow.bragg.grain_calibration import Instrument, apply
from cathodeflow.bragg.grain_model import Grain, reciprocal
from cathodeflow.bragg.grain_options import Grains
from cathodeflow.bragg.grain_refinement import SeenRegion
from cathodeflow.bragg.grain_search import Found, Measured, find_grains
from cathodeflow.bragg.grain_tables import GRAIN_COLUMNS, SPOT_COLUMNS, grain_table
from cathodeflow.bragg.reflections import (
    allowed_hkls,
    direct_axes,
    free_cell,
    in_fundamental_zone,
    proper_rotations,
    reciprocal_axes,
)
from cathodeflow.bragg.rotation_scans import (
    RotationScan,
    detector_positions,
    diffracted_vectors,
    diffraction_angles,
    rotation_scan,
    turned,
    wrapped,
)
from cathodeflow.cell_options import Cell
from cathodeflow.errors import InputError
from cathodeflow.io.detector_geometry import DetectorGeometry
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.io.geometry_files import read_detector_geometry
from cathodeflow.io.raw_format import FrameConditions

SHAPE, STEP, ENERGY = (1000, 1000), 0.25, 41.99
NCM, GROUP = np.array([2.87, 2.87, 14.21, 90, 90, 120]), gemmi.SpaceGroup("R -3 m")
# A detector of 200 mm about the beam, 300 mm away, tilted by 1 degree.
TILT = Rotation.from_rotvec([0.01, -0.012, 0.003]).as_matrix()
NO_STRAIN = np.zeros((3, 3))


def scan_geometry(axis: tuple[float, float, float] = (0.01, 1, -0.002)) -> RotationScan:
    row_step, col_step = TILT @ [0, -2e-4, 0], TILT @ [-2e-4, 0, 0]
    origin = np.array([0.003, -0.002, 0.3]) - 499.5 * (row_step + col_step)
    beam = np.array([0.0, 0.0, 1.0])
    return rotation_scan(DetectorGeometry("x", origin, row_step, col_step, beam, ENERGY, SHAPE), axis, ENERGY)


def instrument() -> dict[str, Any]:
    """Return the same as an instrument of hexrd, whose frame is turned by half a turn about y; axis y."""
    to_hexrd = np.diag([-1.0, 1.0, -1.0])
    tilt = Rotation.from_matrix(to_hexrd @ TILT @ to_hexrd).as_rotvec()
    transform = {"tilt": tilt.tolist(), "translation": [-3.0, -2.0, -300.0]}
    pixels = {"rows": SHAPE[0], "columns": SHAPE[1], "size": [0.2, 0.2]}
    beam = {"energy": ENERGY, "vector": {"azimuth": 90.0, "polar_angle": 90.0}}
    return {
        "beam": beam,
        "detectors": {"one": {"pixels": pixels, "transform": transform}},
        "oscillation_stage": {"chi": 0.0, "translation": [0.0, 0.0, 0.0]},
    }


def region(stop: float = 360.0) -> SeenRegion:
    return SeenRegion(SHAPE, np.arange(STEP / 2, stop, STEP), STEP)


def random_grain(rng: np.random.Generator, cell: np.ndarray = NCM, *, spread: float = 0.3) -> Grain:
    return Grain(Rotation.random(random_state=rng).as_matrix(), rng.uniform(-spread, spread, 3), cell, NO_STRAIN)


def simulated(
    scan: RotationScan, seen: SeenRegion, grains: list[Grain], rng: np.random.Generator, *, d_min: float = 1.0
) -> tuple[Measured, np.ndarray]:
    """Spots of grains with known errors, 90 % of them, and the grain of each."""
    places, owners = [], []
    for number, grain in enumerate(grains):
        g = reciprocal(grain, allowed_hkls(grain.cell, GROUP, d_min))
        omega = diffraction_angles(scan, g)
        row, col = detector_positions(scan, np.broadcast_to(g[:, None], (*omega.shape, 3)), omega, grain.position)
        keep = seen.contains(row, col, omega) & (rng.random(omega.shape) < 0.9)
        places.append(np.stack([row, col, np.mod(omega, 360)], axis=-1)[keep])
        owners.append(np.full(len(places[-1]), number))
    place, owner = np.concatenate(places), np.concatenate(owners)
    sigma = rng.uniform(0.5, 2.0, place.shape) * [0.1, 0.1, 0.03]
    order = rng.permutation(len(place))
    noisy = place + sigma * rng.standard_normal(place.shape)
    return Measured(noisy[order], sigma[order], rng.uniform(1, 100, len(place))), owner[order]


def angle_between(first: np.ndarray, second: np.ndarray) -> float:
    """Angle between orientations up to the symmetry [deg]."""
    turn = in_fundamental_zone(first.T @ second, NCM, GROUP)
    return float(np.rad2deg(Rotation.from_matrix(turn).magnitude()))


def test_the_cell_of_each_system_has_its_free_parameters() -> None:
    expected = {
        "P 1": ("a", "b", "c", "alpha", "beta", "gamma"), "P 1 21/c 1": ("a", "b", "c", "beta"), "P n m a": ("a", "b", "c"),
        "I 41/a m d": ("a", "c"), "R -3 m": ("a", "c"), "R -3 m:R": ("a", "alpha"), "P 63/m m c": ("a", "c"),
        "F d -3 m": ("a",),
    }  # fmt: skip
    for name, names in expected.items():
        group = gemmi.SpaceGroup(name)
        free = free_cell(group)
        assert free.names == names
        cell = free.all([5.0 + i if name in "abc" else 80.0 + i for i, name in enumerate(names)])
        # The rotations of the group keep all lengths: the cell has its symmetry.
        axes = reciprocal_axes(cell)
        for rotation in proper_rotations(group):
            turn = axes @ rotation.T @ np.linalg.inv(axes)
            np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        gemmi_cell = gemmi.UnitCell(*cell)
        np.testing.assert_allclose(direct_axes(cell), np.array(gemmi_cell.orth.mat.tolist()), atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(axes @ [1, 2, 3]), 1 / gemmi_cell.calculate_d([1, 2, 3]))


def test_allowed_reflections_are_those_of_gemmi() -> None:
    hkl = allowed_hkls(NCM, GROUP, 1.0)
    unique = gemmi.make_miller_array(gemmi.UnitCell(*NCM), GROUP, 1.0)
    equivalent = {
        tuple(sign * hkl @ rotation) for hkl in unique for rotation in proper_rotations(GROUP) for sign in (1, -1)
    }
    assert set(map(tuple, hkl)) == equivalent and len(hkl) == len(equivalent)
    d = 1 / np.linalg.norm(hkl @ reciprocal_axes(NCM).T, axis=1)
    assert (np.diff(d) < 1e-9).all() and d.min() >= 1.0


def test_the_axis_of_an_instrument_of_hexrd(tmp_path: Path) -> None:
    path, values = tmp_path / "instrument.yml", instrument()
    path.write_text(yaml.safe_dump(values))
    plain = read_detector_geometry(path)
    values["oscillation_stage"] = {"chi": 0.1, "translation": [1.0, 2.0, -3.0]}
    path.write_text(yaml.safe_dump(values))
    moved = read_detector_geometry(path)
    # hexrd turns by chi about its x, our -x, and its stage is where positions of grains begin.
    np.testing.assert_allclose(moved.axis, [0, np.cos(0.1), -np.sin(0.1)])
    np.testing.assert_allclose(1e3 * (moved.origin - plain.origin), [1.0, -2.0, -3.0])
    np.testing.assert_allclose(plain.axis, [0, 1, 0])
    np.testing.assert_allclose(plain.origin, scan_geometry().geometry.origin, atol=1e-12)


def test_a_cubic_reflection_diffracts_at_bragg_angle() -> None:
    # Axis y, beam z, g in the plane across the axis: g meets the sphere at -theta from x, where g . z = -|g| sin theta.
    scan = scan_geometry((0, 1, 0))
    g = np.array([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]])
    omega = diffraction_angles(scan, g)
    theta = np.rad2deg(np.arcsin(scan.wavelength * 0.5 / 2))
    # Right-handed about y, x turns to -z: omega = theta and 180 - theta.
    np.testing.assert_allclose(np.sort(omega[0]), [theta, 180 - theta])
    assert np.isnan(omega[1]).all()  # along the axis: never
    row, col = detector_positions(scan, g[:1], omega[0, :1], np.zeros(3))
    way = scan.geometry.origin + row * scan.geometry.row_step + col * scan.geometry.col_step
    two_theta = np.rad2deg(np.arctan2(np.linalg.norm(way[:2]), way[2])) if way.shape == (3,) else None
    assert two_theta == pytest.approx(2 * theta)


def test_diffracted_beams_conserve_energy_and_come_from_the_grain() -> None:
    rng, scan = np.random.default_rng(1), scan_geometry()
    grain = random_grain(rng)
    g = reciprocal(grain, allowed_hkls(NCM, GROUP, 1.0))
    omega = diffraction_angles(scan, g)
    reached = np.isfinite(omega).all(axis=1)
    assert reached.sum() > 100
    both = np.repeat(g[reached], 2, axis=0)
    angle = omega[reached].ravel()
    row, col = detector_positions(scan, both, angle, grain.position)
    # Independent: rotation by scipy; |k + g| = |k|; the beam from the grain to the pixel is along k + g.
    turn = Rotation.from_rotvec(np.deg2rad(angle)[:, None] * scan.axis)
    diffracted = np.array([0, 0, 1 / scan.wavelength]) + turn.apply(both)
    np.testing.assert_allclose(np.linalg.norm(diffracted, axis=1), 1 / scan.wavelength, rtol=1e-12)
    pixel = scan.geometry.origin + row[:, None] * scan.geometry.row_step + col[:, None] * scan.geometry.col_step
    way = 1e3 * pixel - turn.apply(grain.position)
    away = np.linalg.norm(np.cross(way, diffracted), axis=1) / np.linalg.norm(diffracted, axis=1)
    assert np.nanmax(away) < 1e-9 and np.isfinite(away).sum() > 200
    # A grain at the axis: the way back gives the reflection.
    row, col = detector_positions(scan, both, angle, np.zeros(3))
    back = diffracted_vectors(scan, np.column_stack([row, col, angle]))
    np.testing.assert_allclose(back, both, atol=1e-12)


def test_friedel_pairs_are_half_a_turn_apart() -> None:
    # With the axis across the beam, -g diffracts where g does, 180 degrees later (Ludwig et al., 2009).
    scan, rng = scan_geometry((0, 1, 0)), np.random.default_rng(2)
    g = reciprocal(random_grain(rng), allowed_hkls(NCM, GROUP, 1.2))
    omega, opposite = diffraction_angles(scan, g), diffraction_angles(scan, -g)
    apart = wrapped(omega[:, :, None] - opposite[:, None, :] - 180)
    assert np.nanmax(np.nanmin(np.abs(apart[np.isfinite(omega).all(axis=1)]), axis=2)) < 1e-9
    np.testing.assert_allclose(turned(np.array([1.0, 0, 0]), scan.axis, 90.0), [0, 0, -1], atol=1e-12)


def found_grains(
    n_grains: int, seed: int, *, options: Grains, scan: RotationScan | None = None, seen: SeenRegion | None = None
) -> tuple[list[Grain], Found, Measured, np.ndarray]:
    rng, scan, seen = np.random.default_rng(seed), scan or scan_geometry(), seen or region()
    truth = []
    for _ in range(n_grains):
        a, c = NCM[[0, 2]] * (1 + rng.normal(0, 5e-4, 2))
        truth.append(random_grain(rng, np.array([a, a, c, 90, 90, 120])))
    spots, owner = simulated(scan, seen, truth, rng)
    return truth, find_grains(scan, seen, spots, NCM, GROUP, options), spots, owner


def test_ten_grains_are_found_with_their_spots_and_true_errors() -> None:
    options = Grains(d_min=1.0)
    truth, found, spots, owner = found_grains(10, 3, options=options)
    assert len(found.grains) == 10
    table = grain_table(found, spots.sigma, free_cell(GROUP))
    assert tuple(table.columns) == GRAIN_COLUMNS
    z, matched = [], []
    for row, solution in zip(table.itertuples(), found.grains, strict=True):
        number = int(np.argmin([angle_between(solution.fit.grain.orientation, grain.orientation) for grain in truth]))
        matched.append(number)
        grain = truth[number]
        # Indexed: nearly all spots, none of another grain.
        of_grain = np.flatnonzero(owner == number)
        assert (
            np.isin(of_grain, solution.spots.spot).mean() > 0.95
            and (owner[solution.spots.spot] == number).mean() > 0.99
        )
        assert 0.8 < row.completeness < 0.95
        z += [
            (getattr(row, axis) - value) / getattr(row, f"{axis}_err")
            for axis, value in zip("xyz", grain.position, strict=True)
        ]
        z += [(row.a - grain.cell[0]) / row.a_err, (row.c - grain.cell[2]) / row.c_err]
        turn = Rotation.from_matrix(solution.fit.grain.orientation @ in_same_setting(solution.fit.grain, grain).T)
        z += list(turn.as_rotvec() / np.sqrt(np.diag(solution.fit.covariance)[:3]))
    assert sorted(matched) == list(range(10))
    # 80 values: the standard deviation of their variance is 0.16.
    assert 0.6 < np.mean(np.square(z)) < 1.5
    assert table["a_err"].max() < 2e-4 and table["chi2"].between(0.85, 1.15).all()
    assert (table[["alpha_err", "gamma_err"]] == 0).all(axis=None)


def in_same_setting(fitted: Grain, true: Grain) -> np.ndarray:
    """Equivalent of the true orientation that is nearest to the fitted one."""
    axes = reciprocal_axes(NCM)
    turns = [axes @ rotation.T @ np.linalg.inv(axes) for rotation in proper_rotations(GROUP)]
    return min((true.orientation @ turn for turn in turns), key=lambda one: np.linalg.norm(one - fitted.orientation))


def test_additional_scatter_is_found_and_enters_the_errors() -> None:
    rng, scan, seen = np.random.default_rng(4), scan_geometry(), region()
    truth = [random_grain(rng) for _ in range(6)]
    spots, _ = simulated(scan, seen, truth, rng)
    moved = spots._replace(place=spots.place + rng.normal(0, [0.4, 0.2, 0.05], spots.place.shape))
    found = find_grains(scan, seen, moved, NCM, GROUP, Grains(d_min=1.0))
    np.testing.assert_allclose(found.added, [0.4, 0.2, 0.05], rtol=0.1)
    table = grain_table(found, spots.sigma, free_cell(GROUP))
    z = np.concatenate([(table[name] - NCM[index]) / table[f"{name}_err"] for name, index in (("a", 0), ("c", 2))])
    assert len(table) == 6 and 0.2 < np.mean(z**2) < 2.2


def test_strain_of_a_grain_is_measured() -> None:
    rng, scan, seen = np.random.default_rng(5), scan_geometry(), region()
    strain = np.array([[4e-4, 1e-4, 0], [1e-4, -3e-4, 2e-4], [0, 2e-4, 1e-4]])
    grain = random_grain(rng)._replace(strain=strain)
    spots, _ = simulated(scan, seen, [grain], rng)
    found = find_grains(scan, seen, spots, NCM, GROUP, Grains(d_min=1.0))
    row = grain_table(found, spots.sigma, free_cell(GROUP)).iloc[0]
    for name, at in {"xx": (0, 0), "yy": (1, 1), "zz": (2, 2), "yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}.items():
        assert row[f"strain_{name}"] == pytest.approx(strain[at], abs=4 * row[f"strain_{name}_err"])
        assert 1e-6 < row[f"strain_{name}_err"] < 1e-4
    axes = (np.eye(3) + strain) @ grain.orientation @ direct_axes(NCM)
    # Lattice planes of the stretched axes: g . axis is a whole number, that of hkl.
    np.testing.assert_allclose(reciprocal(grain, np.array([[1, 0, 4]])) @ axes, [[1, 0, 4]], atol=1e-5)


def test_grains_of_a_quarter_turn_and_unrelated_spots() -> None:
    rng, scan, seen = np.random.default_rng(6), scan_geometry(), region(90)
    truth = [random_grain(rng) for _ in range(3)]
    spots, _ = simulated(scan, seen, truth, rng)
    n = len(spots.place) // 2
    noise = np.column_stack([rng.uniform(0, 1000, n), rng.uniform(0, 1000, n), rng.uniform(0, 90, n)])
    spots = Measured(
        *(np.concatenate(pair) for pair in zip(spots, (noise, spots.sigma[:n], np.full(n, 200.0)), strict=True))
    )
    found = find_grains(scan, seen, spots, NCM, GROUP, Grains(d_min=1.0))
    angles = [[angle_between(one.fit.grain.orientation, grain.orientation) for grain in truth] for one in found.grains]
    assert len(angles) == 3 and sorted(np.argmin(angles, axis=1)) == [0, 1, 2] and np.min(angles, axis=1).max() < 0.05
    none = find_grains(scan, seen, Measured(noise, spots.sigma[:n], np.ones(n)), NCM, GROUP, Grains(d_min=1.0))
    assert not none.grains and grain_table(none, spots.sigma[:n], free_cell(GROUP)).empty
    # The brighter spots belong to no grain here: a search that gives up at once does not come to the others.
    early = find_grains(scan, seen, spots, NCM, GROUP, Grains(d_min=1.0, max_failures=5))
    assert not early.grains
    nothing = Measured(np.empty((0, 3)), np.empty((0, 3)), np.empty(0))
    assert not find_grains(scan, seen, nothing, NCM, GROUP, Grains()).grains


def test_calibration_finds_the_shifts_of_the_instrument() -> None:
    rng, scan, seen = np.random.default_rng(7), scan_geometry(), region()
    truth = [random_grain(rng) for _ in range(3)]
    spots, _ = simulated(scan, seen, truth, rng, d_min=1.1)
    # The instrument as it is believed to be: apply() of the true changes leads back to `scan`.
    modules = np.array([[0.8, 0.1, 2e-4], [-0.4, 0.6, 0], [-0.6, -0.2, 0], [0.2, -0.5, -2e-4]])
    true = Instrument(-0.2, 0.1, np.array([1e-3, -5e-4, 0]), 5e-4, 2e-4, modules)
    reverse = Instrument(0.2, -0.1, -true.tilt, -true.axis, -true.omega_scale, -modules)
    believed, place = apply(reverse, scan, spots.place, shape=SHAPE, modules=(2, 2))
    shifted = spots._replace(place=place)
    plain = Grains(d_min=1.1)
    before = find_grains(believed, seen, shifted, NCM, GROUP, plain)
    after = find_grains(believed, seen, shifted, NCM, GROUP, Grains(d_min=1.1, calibrate=True, modules=(2, 2)))
    assert after.instrument is not None and len(after.grains) == 3
    found = after.instrument
    np.testing.assert_allclose(found.modules[:, :2], modules[:, :2], atol=0.05)
    np.testing.assert_allclose(found.modules[:, 2], modules[:, 2], atol=1e-4)
    np.testing.assert_allclose([found.along, found.across], [-0.2, 0.1], atol=0.03)
    np.testing.assert_allclose([*found.tilt, found.axis], [*true.tilt, true.axis], atol=2e-4)
    assert found.omega_scale == pytest.approx(2e-4, abs=3e-5)
    # What was wrong before is in the residuals no more, and the cells are true.
    assert (before.added[:2] > 0.2).all() and (after.added < [0.05, 0.05, 0.02]).all()
    off = [
        max(np.abs(one.fit.grain.cell / NCM - 1).max() for one in grains) for grains in (before.grains, after.grains)
    ]
    assert off[0] > 4e-4 and off[1] < 1e-4


def test_the_stage_writes_both_tables(tmp_path: Path) -> None:
    rng, scan, seen = np.random.default_rng(8), scan_geometry((0, 1, 0)), region()
    spots, _ = simulated(scan, seen, [random_grain(rng), random_grain(rng)], rng, d_min=1.1)
    table = pd.DataFrame(spots.place, columns=["row", "col", "omega"])
    table[["row_err", "col_err", "omega_err"]] = spots.sigma
    table = table.assign(spot=np.arange(len(table)) + 100, intensity=spots.intensity, good=True)
    # Spots that are not good, far from anything, would be claimed by nobody; one without an error of the angle counts.
    table.loc[0, "omega_err"] = np.nan
    table.to_parquet(tmp_path / "spots.parquet")
    frames = [(number, np.zeros(SHAPE, np.float32)) for number in range(4)]
    conditions = FrameConditions(np.array([45.0, 135.0, 225.0, 315.0]), np.full(4, np.nan))
    write_frames(tmp_path / "frames.h5", frames, shape=SHAPE, conditions=conditions)
    geometry = tmp_path / "instrument.yml"
    geometry.write_text(yaml.safe_dump(instrument()))
    place = (tmp_path / "frames.h5", tmp_path / "spots.parquet", geometry)
    outputs = {"out": tmp_path / "grains.parquet", "spots_out": tmp_path / "grain_spots.parquet"}
    options = Grains(cell=Cell(a=2.87, c=14.21), d_min=1.1)
    metrics = bragg.grains(*place, **outputs, options=options)
    assert metrics["grains"] == 2 and metrics["share_assigned"] > 0.95
    grains, assigned = pd.read_parquet(outputs["out"]), pd.read_parquet(outputs["spots_out"])
    assert tuple(grains) == GRAIN_COLUMNS and tuple(assigned) == SPOT_COLUMNS
    assert grains["n_spots"].tolist() == assigned.groupby("grain").size().tolist()
    assert assigned["spot"].min() >= 100 and assigned["spot"].is_unique
    np.testing.assert_allclose(grains["a"], 2.87, rtol=3e-4)
    bragg.grain_figures(*outputs.values(), out=tmp_path)
    assert (tmp_path / "grains.png").stat().st_size > 10_000
    for wrong, text in (
        (Grains(cell=Cell(space_group="P 1 21/c 1")), "a CIF file with the cell"),
        (Grains(cell=Cell(a=2.87, b=2.9, c=14.21)), "one as the space group R -3 m:H has it"),
        (Grains(cell=Cell(space_group="R 99")), "space group R 99"),
    ):
        with pytest.raises(InputError, match=text):
            bragg.grains(*place, **outputs, options=wrong)
    write_frames(tmp_path / "frames.h5", frames, shape=SHAPE)
    with pytest.raises(InputError, match="the angle \\(omega\\) of every frame"):
        bragg.grains(*place, **outputs, options=options)
