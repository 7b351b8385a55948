"""Lattice parameters over a series: reflections, hkl, cells of population and particles, against the simulated truth."""

from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pytest

from cathodeflow.bragg import particles
from cathodeflow.bragg.cycler_join import cycler_columns, scan_voltages
from cathodeflow.bragg.lattice_series import LatticeSeries, lattice_series
from cathodeflow.bragg.lattice_truth import against_truth
from cathodeflow.bragg.particle_cells import particle_cells, strains
from cathodeflow.bragg.population_cell import PRIOR, Population, Prior, Spacings, fit_population, start
from cathodeflow.bragg.series_options import Cycler
from cathodeflow.bragg.series_options import Lattice as LatticeOptions
from cathodeflow.bragg.series_statistics import draws, limits, phase_fraction, resampled_medians, width
from cathodeflow.bragg.series_summary import summarise
from cathodeflow.bragg.stages.lattice import lattice as lattice_stage
from cathodeflow.cell_options import Cell
from cathodeflow.cells import allowed_reflections, as_lattice, coefficients, log_spacing
from cathodeflow.errors import InputError
from cathodeflow.io.cells import UnitCell, read_cell
from cathodeflow.io.cycler import read_cycler
from cathodeflow.io.tables import read_csv, write_table

NCM = as_lattice(UnitCell((2.87, 2.87, 14.2), None, "R -3 m:H"), "NCM")
CHARGES = (0.1, 0.4, 0.55, 0.7, 0.9)
NAMES = [f"charge_{round(100 * charge):03d}" for charge in CHARGES]


def series_of_tracks(*, n: int = 240, seed: int = 3, radial_spread: float = 0.02) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tracks of simulated particles with errors of measurement, and the truth of every row.

    A particle with one spot in a state has phase 0, as the links cannot know better.
    """
    rng, shape = np.random.default_rng(seed), (256, 256)
    place = particles.geometry_of(shape)
    population = particles.draw_population(
        n, amplitude=(30, 5000), fwhm=(1.5, 3.2), rocking_fwhm=(1.5, 4.0), radial_spread=radial_spread,
        heterogeneity=0.03, rng=rng,
    )  # fmt: skip
    parts = []
    for charge, name in zip(CHARGES, NAMES, strict=True):
        spots = particles.phases(
            population, state_of_charge=charge, coexistence=(0.6, 0.8), broadening=0.4, fading=0.6, shape=shape
        )
        spots = spots[(spots["amplitude"] > 30) & spots["row"].between(0, 255) & spots["col"].between(0, 255)]
        radius = np.hypot(spots["row"] - place.beam_row, spots["col"] - place.beam_col)

        def spacing(distance: "pd.Series[float]") -> "pd.Series[float]":
            return 0.5 * place.wavelength / np.sin(0.5 * np.arctan(distance / place.distance))

        error = 0.5 / np.sqrt(spots["amplitude"] * spots["rocking_fwhm"])
        measured = radius + error * rng.normal(size=len(spots))
        single = ~spots.duplicated("peak", keep=False)
        parts.append(
            pd.DataFrame(
                {
                    "track": spots["peak"], "sample": name, "state_of_charge": charge,
                    "phase": spots["phase"].where(~single, 0), "d": spacing(measured),
                    "d_err": (spacing(measured - error) - spacing(measured + error)) / 2,
                    "intensity": spots["amplitude"] * spots["rocking_fwhm"], "good": True,
                    "true_peak": spots["peak"], "true_phase": spots["phase"], "true_d": spacing(radius),
                    "true_hkl": ["".join(map(str, particles.REFLECTIONS[index])) for index in spots["reflection"]],
                }
            )
        )  # fmt: skip
    table = pd.concat(parts).sort_values(["state_of_charge", "track", "phase", "intensity"], ignore_index=True)
    true = [name for name in table if name.startswith("true_")]
    return table.drop(columns=true), table[true]


@pytest.fixture(scope="module")
def tracks() -> tuple[pd.DataFrame, pd.DataFrame]:
    return series_of_tracks()


@pytest.fixture(scope="module")
def series(tracks: tuple[pd.DataFrame, pd.DataFrame]) -> LatticeSeries:
    return lattice_series(tracks[0], NCM, LatticeOptions())


@pytest.fixture(scope="module")
def summary(series: LatticeSeries) -> pd.DataFrame:
    return summarise(series, NCM, samples=200, rng=np.random.default_rng(0))


# Reflections


def test_reflections_are_those_of_the_space_group() -> None:
    found = allowed_reflections(NCM, 1.4, 5.0)
    assert found.hkl == ["0 0 3", "1 0 1", "0 0 6", "0 1 2", "1 0 4", "0 1 5", "0 0 9", "1 0 7", "0 1 8", "1 1 0"]
    cell = gemmi.UnitCell(2.87, 2.87, 14.2, 90, 90, 120)
    expected = [cell.calculate_d([int(index) for index in hkl.split()]) for hkl in found.hkl]
    np.testing.assert_allclose(found.d, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("lengths", "group"), [((4.1, 4.1, 4.1), "F m -3 m"), ((4.0, 4.0, 6.0), "P 42/m n m"), ((4.0, 5.0, 6.0), "P n m a")]
)
def test_spacings_agree_with_gemmi_in_every_lattice_system(lengths: tuple[float, float, float], group: str) -> None:
    lattice = as_lattice(UnitCell(lengths, None, group), "cell")
    found, cell = allowed_reflections(lattice, 0.8, 10.0), gemmi.UnitCell(*lengths, 90, 90, 90)
    operations = gemmi.SpaceGroup(group).operations()
    assert len(found.hkl) > 5
    for label, d in zip(found.hkl, found.d, strict=True):
        for hkl in label.split(" / "):
            indices = [int(index) for index in hkl.split()]
            assert not operations.is_systematically_absent(indices)
            assert cell.calculate_d(indices) == pytest.approx(d, rel=1e-9)


def test_families_with_equal_spacings_are_one() -> None:
    cubic = as_lattice(UnitCell((4.0, 4.0, 4.0), None, "F m -3 m"), "cell")
    assert "3 3 3 / 5 1 1" in allowed_reflections(cubic, 0.7, 5.0).hkl


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (UnitCell((4, 4, 5), None, "F m -3 m"), r"lengths \(4, 4, 5\)"),
        (UnitCell((4, 4, 5), (90, 90, 90), "R -3 m:H"), "angles"),
        (UnitCell((4, 5, 6), (90, 100, 90), "P 1 21/c 1"), "a monoclinic cell"),
        (UnitCell((5, 5, 5), (33, 33, 33), "R -3 m"), "rhombohedral axes"),
        (UnitCell((4, 4, 4), None, "Fm3q"), "space group Fm3q"),
    ],
)
def test_a_cell_that_is_not_supported_is_refused(cell: UnitCell, text: str) -> None:
    with pytest.raises(InputError, match=text):
        as_lattice(cell, "cell")


def test_cells_of_cif_files(tmp_path: Path) -> None:
    path = tmp_path / "ncm.cif"
    path.write_text(
        "data_global\n_journal x\ndata_NCM\n_cell_length_a 2.868(1)\n_cell_length_b 2.868(1)\n_cell_length_c 14.23\n"
        "_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 120\n_symmetry_space_group_name_H-M 'R -3 m'\n"
    )
    cell = read_cell(str(path))
    assert as_lattice(cell, "cif").values.tolist() == [2.868, 14.23]
    path.write_text("data_x\n_a 1\n")
    with pytest.raises(InputError, match=r"ncm\.cif: found no cell"):
        read_cell(str(path))


# hkl and phases of a simulated series


def test_tracks_get_their_hkl_and_phase(series: LatticeSeries, tracks: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Also 006 beside 012 and 107 beside 009, which differ by less than the particles do."""
    rows = series.table.join(tracks[1])
    assigned = rows["hkl"].str.match(r"^\d")
    assert assigned.mean() > 0.97
    assert (rows["hkl"].str.replace(" ", "") == rows["true_hkl"])[assigned].mean() > 0.995
    assert (rows["phase"] == rows["true_phase"])[assigned].mean() > 0.99
    assert set(rows.loc[~assigned, "hkl"]) <= {"ambiguous", "unexplained"}
    assert rows.loc[~assigned, ["a", "c"]].isna().all(axis=None)


def test_a_spacing_of_another_phase_is_unexplained(tracks: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Aluminium 200 at 2.024 A lies at 104, but does not move."""
    still = tracks[0][tracks[0]["track"] == tracks[0]["track"].iloc[0]].assign(
        track=10_000, d=2.024, d_err=2e-5, phase=0
    )
    still = still.drop_duplicates("sample")
    found = lattice_series(pd.concat([tracks[0], still]), NCM, LatticeOptions()).table
    assert set(found.loc[found["track"] == 10_000, "hkl"]) == {"unexplained"}


def test_the_cell_of_the_population_follows_the_truth(summary: pd.DataFrame) -> None:
    rich = np.minimum(summary["state_of_charge"], 0.6)
    poor = np.maximum(summary["state_of_charge"], 0.8)
    true = dict(zip("ac", particles.lattice(np.where(summary["phase"] == 0, rich, poor)), strict=True))
    first = dict(zip("ac", particles.lattice(CHARGES[0]), strict=True))
    assert summary["phase"].tolist() == [0, 0, 0, 0, 1, 1] or summary["phase"].tolist() == [0, 0, 0, 1, 0, 1, 1]
    large = summary["particles"] > 50
    for name in "ac":
        assert (np.abs(summary[f"cell_{name}"] - true[name]) < 3.5 * summary[f"cell_{name}_err"])[large].all()
        change = true[name] / first[name] - 1
        # The changes are known far better than the lattice parameters: particles differ by 1 %.
        assert np.abs(summary[f"cell_{name}_change"] - change)[large].max() < 4e-4
        assert (5 * summary[f"cell_{name}_change_err"] < summary[f"cell_{name}_err"] / summary[f"cell_{name}"])[
            large
        ].all()
    # What is common to all particles is in the intervals.
    half = (summary["c_high68"] - summary["c_low68"]) / 2
    assert (half[large] / summary["cell_c_err"][large]).to_numpy() == pytest.approx(1, abs=0.5)
    both = summary[summary["sample"] == "charge_070"]
    assert both["phase_fraction"].sum() == pytest.approx(1)
    assert both["phase_fraction"].iloc[1] == pytest.approx(0.5, abs=0.06)  # lever rule


def test_errors_of_strain_are_true(series: LatticeSeries, tracks: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    found = against_truth(series.table, tracks[1])
    assert found["strain_z_rms"] == pytest.approx(1, abs=0.08)
    assert found["d_z_rms"] == pytest.approx(1, abs=0.08)
    assert found["hkl_right"] > 0.995


def test_lattice_parameters_of_particles_follow_their_own_charge(series: LatticeSeries) -> None:
    """006 gives the c of each particle, relative to the reference state, in which they differ less."""
    rows = series.table[(series.table["sample"] == "charge_040") & (series.table["hkl"] == "0 0 6")]
    offsets = 0.03 * np.clip(np.random.default_rng(0).normal(size=100_000), -2, 2)
    c = [particles.lattice(charge + 4 * charge * (1 - charge) * offsets)[1] for charge in (0.4, 0.1)]
    assert width(rows["c"].to_numpy(), 14.4 * rows["strain_err"].to_numpy()) == pytest.approx(
        np.std(c[0] - c[1]), rel=0.3
    )


# The fit of the population


def random_spacings(rng: np.random.Generator, changes: np.ndarray) -> tuple[Spacings, np.ndarray]:
    """Sixty tracks of 006, 104 and 107 in the states of `changes` (g, p), with offsets of 1 %."""
    hkl = rng.integers(3, size=60)
    parts = coefficients([[0, 0, 6], [1, 0, 4], [1, 0, 7]], "hexagonal")[hkl]
    states = len(changes)
    track, group = np.repeat(np.arange(60), states), np.tile(np.arange(states), 60)
    error = rng.uniform(3e-5, 3e-4, len(track))
    own = rng.normal(0, [1e-4, 3e-4], (len(track), 2))
    log_d = log_spacing(parts[track], np.log(NCM.values) + changes[group] + own)[0]
    log_d += rng.normal(0, 0.01, 60)[track] + error * rng.normal(size=len(track))
    return Spacings(track, group, log_d, error), parts[track]


def test_errors_of_the_cell_are_those_of_repeated_measurements() -> None:
    rng, true = np.random.default_rng(1), np.array([[0.0, 0.0], [-0.01, 0.012], [-0.015, -0.02]])
    prior, z = Prior(np.log(NCM.values), np.full(3, PRIOR)), []
    for _ in range(60):
        spacings, parts = random_spacings(rng, true)
        begin = start(np.log(NCM.values) + true, 0.01, 3e-4)
        found, _ = fit_population(spacings, parts, begin, prior)
        change = (found.log_parameters - found.log_parameters[0])[1:] - true[1:]
        block = found.covariance.reshape(3, 2, 3, 2)
        for g in (1, 2):
            variance = [block[g, k, g, k] + block[0, k, 0, k] - 2 * block[g, k, 0, k] for k in range(2)]
            z.append(change[g - 1] / np.sqrt(variance))
    assert np.sqrt(np.mean(np.square(z))) == pytest.approx(1, abs=0.12)


def test_outliers_do_not_move_the_cell() -> None:
    rng, true = np.random.default_rng(2), np.array([[0.0, 0.0], [-0.01, 0.012]])
    spacings, parts = random_spacings(rng, true)
    wrong = spacings.log_d + np.where(rng.random(len(spacings.track)) < 0.05, 0.02, 0.0)
    prior = Prior(np.log(NCM.values), np.full(2, PRIOR))
    found, weights = fit_population(
        spacings._replace(log_d=wrong), parts, start(np.log(NCM.values) + true, 0.01, 3e-4), prior
    )
    change = found.log_parameters[1] - found.log_parameters[0]
    np.testing.assert_allclose(change, true[1], atol=5e-4)
    assert weights[wrong != spacings.log_d].max() < 0.3


def test_a_parameter_that_no_reflection_depends_on_is_not_determined() -> None:
    spacings, parts = random_spacings(np.random.default_rng(0), np.zeros((2, 2)))
    only = (parts[:, 0] == 0).nonzero()[0]
    _, number = np.unique(spacings.track[only], return_inverse=True)
    prior = Prior(np.log(NCM.values), np.full(2, PRIOR))
    begin = start(np.tile(np.log(NCM.values), (2, 1)), 0.01, 3e-4)
    found, _ = fit_population(spacings.take(only)._replace(track=number), parts[only], begin, prior)
    assert found.determined.tolist() == [[False, True], [False, True]]


# Particles


def exact(cell: tuple[float, float]) -> Population:
    return Population(np.log(np.tile(cell, (2, 1))), np.zeros((4, 4)), 0.01, np.full((2, 2), 1e-4))


def test_one_reflection_gives_c_with_the_a_of_the_population() -> None:
    parts = coefficients([[0, 0, 6], [1, 0, 4], [1, 0, 1]], "hexagonal")
    d = np.exp(log_spacing(parts, np.log([2.85, 14.4]))[0])
    spacings = Spacings(np.arange(3), np.zeros(3, np.int64), np.log(d), np.full(3, 1e-4))
    own = np.arange(3)
    found = particle_cells(spacings, parts, own, exact((2.85, 14.0)), relative=False, min_weight=0.3)
    np.testing.assert_allclose(np.exp(found.log_parameters[:, 1]), [14.4, 14.4, np.nan], rtol=1e-9)
    # Of 006 the error of c is that of d; that of 104 is larger by the inverse of its weight.
    weight = log_spacing(parts, np.log([2.85, 14.0]))[1][:, 1]
    np.testing.assert_allclose(found.error[:2, 1], 1e-4 / weight[:2], rtol=1e-9)
    # The error of a of the population is in that of c, except for 006.
    uncertain = exact((2.85, 14.0))._replace(covariance=np.diag([1e-6, 0.0, 0.0, 0.0]))
    found = particle_cells(spacings, parts, own, uncertain, relative=False, min_weight=0.3)
    by_a = 1e-3 * (1 - weight[1]) / weight[1]
    np.testing.assert_allclose(found.error[:2, 1], [1e-4, np.hypot(1e-4 / weight[1], by_a)], rtol=1e-9)
    found = particle_cells(spacings, parts, own, exact((2.8, 14.4)), relative=False, min_weight=0.3)
    assert np.exp(found.log_parameters[2, 0]) == pytest.approx(2.85, rel=1e-6)


def test_relative_spacings_do_not_depend_on_the_position_of_the_particle() -> None:
    parts = np.repeat(coefficients([[0, 0, 6]], "hexagonal"), 2, axis=0)
    population = exact((2.85, 14.0))
    log_d = np.log([2.4 * 1.01, 2.43 * 1.01])
    spacings = Spacings(np.zeros(2, np.int64), np.array([0, 1]), log_d, np.full(2, 1e-4))
    reference = np.zeros(2, np.int64)
    found = particle_cells(spacings, parts, reference, population, relative=True, min_weight=0.3)
    np.testing.assert_allclose(np.exp(found.log_parameters[:, 1]), [14.0, 14.0 * 2.43 / 2.4], rtol=1e-12)
    np.testing.assert_allclose(found.error[:, 1], [0, np.sqrt(2) * 1e-4], rtol=1e-9)
    strain, error = strains(spacings, reference)
    np.testing.assert_allclose(strain, [0, 2.43 / 2.4 - 1], rtol=1e-12)
    np.testing.assert_allclose(error, [0, np.sqrt(2) * 1e-4 * 2.43 / 2.4])


def test_several_reflections_of_a_particle_give_both_parameters() -> None:
    parts = coefficients([[0, 0, 6], [1, 0, 4], [1, 1, 0]], "hexagonal")
    log_d = log_spacing(parts, np.log([2.83, 14.4]))[0]
    spacings = Spacings(np.arange(3), np.zeros(3, np.int64), log_d, np.full(3, 1e-5))
    particle = np.array([7, 7, -1])
    found = particle_cells(
        spacings, parts, np.arange(3), exact((2.85, 14.0)), relative=False, min_weight=0.3, particle=particle
    )
    np.testing.assert_allclose(np.exp(found.log_parameters[:2]), [[2.83, 14.4]] * 2, rtol=1e-9)
    assert np.isfinite(found.error[:2]).all() and np.isnan(found.log_parameters[2, 1])


# Statistics


def test_the_width_leaves_out_errors_and_outliers() -> None:
    rng = np.random.default_rng(0)
    errors = rng.uniform(0.5, 3, 3000)
    values = rng.normal(0, 1.5, 3000) + errors * rng.normal(size=3000)
    values[:60] += 100
    assert width(values, errors) == pytest.approx(1.5, rel=0.15)
    assert width(errors * rng.normal(size=3000), errors) < 0.3


def test_intervals_of_medians_cover_the_true_median() -> None:
    rng, inside = np.random.default_rng(0), []
    for _ in range(200):
        found = limits(resampled_medians(rng.normal(size=40), draws(np.arange(40), 200, rng)))
        inside.append([found["low68"] < 0 < found["high68"], found["low95"] < 0 < found["high95"]])
    assert np.mean(inside, axis=0) == pytest.approx([0.68, 0.95], abs=0.08)


def test_phase_fractions_are_weighted_by_intensity() -> None:
    intensity, second = np.array([30.0, 10.0, 60.0]), np.array([True, False, False])
    value, drawn = phase_fraction(intensity, second, np.array([[1, 1, 1], [2, 0, 0]]))
    assert value == 0.3 and drawn.tolist() == [0.3, 1.0]


# The cycler


def test_voltages_come_from_the_table_of_the_cycler(tmp_path: Path) -> None:
    path = tmp_path / "cycler.txt"
    path.write_bytes("Operator: J\xf6rg\nt/s;U [V];Q\n0;3,6;0\n100;3,8;50\n-;-;-\n200;4,2;100\n".encode("latin-1"))
    options = Cycler(file=str(path), time="t/s", voltage="U [V]", charge="Q", capacity=100)
    states = {"a": 0.25, "b": 0.75}
    table = read_cycler(str(path), cycler_columns(options, {}))
    assert scan_voltages(table, states, {}, options) == pytest.approx({"a": 3.7, "b": 4.0})
    times = {"a": 150.0, "b": 200.0}
    table = read_cycler(str(path), cycler_columns(options, times))
    assert scan_voltages(table, states, times, options) == pytest.approx({"a": 4.0, "b": 4.2})
    with pytest.raises(InputError, match=r"t/s from 0 to 200, expected that of b \(201\)"):
        scan_voltages(table, states, {"a": 1.0, "b": 201.0}, options)
    with pytest.raises(InputError, match="no time for b"):
        scan_voltages(table, states, {"a": 1.0}, options)
    with pytest.raises(InputError, match=r"expected column time$"):
        read_cycler(str(path), ["time", "U [V]"])
    cycle = pd.DataFrame({"Q": [0.0, 100.0, 0.0], "U [V]": [3.6, 4.2, 3.5]})
    with pytest.raises(InputError, match="rises and falls"):
        scan_voltages(cycle, states, {}, options)


# The stage


def test_the_stage_writes_tables_and_voltages(tracks: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    write_table(tmp_path / "tracks.parquet", tracks[0])
    (tmp_path / "cycler.csv").write_text("time,voltage\n0,3.5\n10,4.5\n")
    options = LatticeOptions(bootstrap=100, cycler=Cycler(file=str(tmp_path / "cycler.csv")))
    out, summary = tmp_path / "lattice.csv", tmp_path / "summary.csv"
    times = [f"{name}={number}" for number, name in enumerate(NAMES)]
    found = lattice_stage(tmp_path / "tracks.parquet", out=out, summary=summary, scan_time=times, options=options)
    assert found["tracks_assigned"] > 0.97 * found["tracks"]
    table, states = read_csv(out), read_csv(summary)
    assert len(table) == len(tracks[0]) and set(table["hkl"]) >= {"0 0 6", "1 0 4", "1 0 7"}
    assert states.set_index("sample").loc["charge_070", "voltage"].tolist() == pytest.approx([3.8, 3.8])


def test_what_cannot_be_computed_ends_in_one_line(tracks: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    def run(table: pd.DataFrame, **options: object) -> None:
        write_table(tmp_path / "tracks.parquet", table)
        names = {name: tmp_path / f"{name}.csv" for name in ("out", "summary")}
        lattice_stage(tmp_path / "tracks.parquet", **names, options=LatticeOptions(**options))

    with pytest.raises(InputError, match=r"tracks\.parquet: found no good spot with a lattice spacing"):
        run(tracks[0].assign(d=np.nan))
    with pytest.raises(InputError, match="spots of one scan"):
        run(tracks[0][tracks[0]["sample"] == NAMES[0]])
    with pytest.raises(InputError, match=r"reference: found x"):
        run(tracks[0], reference="x")
    with pytest.raises(InputError, match="no reflection between"):
        run(tracks[0], cell=Cell(a=0.4, c=0.5, space_group="P 6/m m m"))
    assert not list(tmp_path.glob("*.csv"))
