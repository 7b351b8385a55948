"""Comparison of search settings: counts by hand, and injected peaks against the truth of a simulated scan."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cathodeflow import bragg
from cathodeflow.bragg.binning import bin_frame
from cathodeflow.bragg.injection import inject, reference
from cathodeflow.bragg.peak_options import FindPeaks, Simulate, Study
from cathodeflow.bragg.peak_search import candidates
from cathodeflow.bragg.search_study import Found, StudyFrame, count_known, recommend, search_all, summarise
from cathodeflow.bragg.simulation import raw_frame, simulate_scan
from cathodeflow.bragg.study_plots import search_settings
from cathodeflow.errors import InputError
from cathodeflow.io.figures import save_figure
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.io.tables import write_table
from cathodeflow.options import from_config, from_flags

SETTINGS = {"binning": (1, 2), "min_value": (20.0, 80.0), "min_persistence": (12.0, 30.0)}


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of a simulated scan with their truth."""
    folder = tmp_path_factory.mktemp("study")
    options = Simulate(seed=4, n_frames=6, rows=160, cols=160, n_peaks=60)
    simulated = simulate_scan(options, state_of_charge=0.3)
    bad = simulated.mask != 0
    frames = (
        (index, np.where(bad, 0, raw_frame(simulated, index) - simulated.dark.astype(float))) for index in range(6)
    )
    write_frames(folder / "frames.h5", frames, shape=bad.shape, mask=bad)
    write_table(folder / "truth.parquet", simulated.truth)
    return folder


@pytest.fixture(scope="module")
def tables(scan: Path) -> dict[str, pd.DataFrame]:
    """Comparisons with the truth and by injected peaks."""
    made = {}
    for name, given in (("truth", {"truth": [scan / "truth.parquet"]}), ("injected", {})):
        options = Study(**SETTINGS, n_frames=6, repeats=3, inject_fraction=0.4)
        metrics = bragg.study([scan / "frames.h5"], out=scan / f"{name}.csv", **given, options=options)
        made[name] = pd.read_csv(scan / f"{name}.csv")
        assert len(made[name]) == metrics["settings"] == 8 and made[name]["recommended"].sum() == 1
    return made


def test_injected_peaks_are_found_as_often_as_true_ones(tables: dict[str, pd.DataFrame]) -> None:
    true, injected = tables["truth"], tables["injected"]
    assert true["known"].min() > 60 and injected["known"].min() > 60
    # The fractions of the settings differ by tens of per cent, those of both methods by a few: 4.6 is one standard error.
    assert np.ptp(true["found_fraction"]) > 0.15
    assert np.abs(true["found_fraction"] - injected["found_fraction"]).max() < 0.12
    assert np.abs(true["found_fraction"] - injected["found_fraction"]).mean() < 0.06
    assert np.abs(np.log(injected["error"] / true["error"])).max() < 0.8
    # Both say where noise is found, and where it is not.
    for table in (true, injected):
        false = table.set_index(["binning", "min_value", "min_persistence"])["false_fraction"]
        assert false[2, 20, 12] > 0.1 and false[1, 80, 30] < 0.05, false


def test_a_lower_limit_finds_more_true_and_more_false_peaks(tables: dict[str, pd.DataFrame]) -> None:
    for table in tables.values():
        for _, rows in table.groupby(["binning", "min_value"]):
            ordered = rows.sort_values("min_persistence")
            assert (np.diff(ordered["found"]) <= 0).all() and (np.diff(ordered["peaks"]) <= 0).all()
        assert (table["found"] + table["missed"] == table["known"]).all()
        assert ((table["found_fraction_low"] <= table["found_fraction"]) & table["found_fraction_high"].le(1)).all()


def test_the_searches_are_those_of_find_peaks(scan: Path) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(10, (64, 64)).astype(np.float32)
    counts[20, 30] = 200
    bad = np.zeros((64, 64), bool)
    frame = StudyFrame(counts, bad, bad, None, 1, 1)
    options = Study(**SETTINGS)
    for (binning, min_value, min_persistence), found in search_all(frame, options, (1, 2), fit=False):
        searched = candidates(
            bin_frame(counts, binning), FindPeaks(min_value=min_value, min_persistence=min_persistence)
        )
        expected = np.stack([searched["row"], searched["col"]], axis=1)
        assert ((found.position + 0.5) / binning - 0.5).tolist() == expected.tolist()


def test_known_peaks_are_counted_one_to_one() -> None:
    positions = np.array([[10.0, 10.0], [10.5, 10.0], [50.0, 50.0], [80.0, 80.0]])
    found = Found(positions, np.array([True, True, False, True]), None)
    known = np.array([[10.1, 10.0], [50.0, 51.0], [30.0, 30.0], [81.0, 80.0]])
    counted = np.array([True, True, True, False])
    counts, errors = count_known(found, known, counted, np.empty((0, 2)), Study())
    # The second position at (10, 10) is false; a weak known peak is neither counted nor false.
    assert counts == {"known": 3, "found": 2, "peaks": 4, "false": 1}
    np.testing.assert_allclose(errors, [0.1])
    with_others, _ = count_known(found, known, counted, np.array([[10.6, 10.0]]), Study())
    assert with_others == {**counts, "false": 0}


def test_the_recommended_setting_has_the_best_score_and_then_the_smallest_error() -> None:
    def row(
        persistence: float, found: int, false: int, error: float
    ) -> tuple[tuple[float, ...], dict[str, int], np.ndarray]:
        counts = {"known": 1000, "found": found, "peaks": found + false, "false": false}
        return (1, 20.0, persistence), counts, np.full(found, error)

    table = summarise([row(5, 900, 800, 0.01), row(10, 895, 10, 0.05), row(15, 893, 12, 0.04), row(20, 700, 0, 0.02)])
    assert table.loc[recommend(table), "min_persistence"] == 15
    assert table["recommended"].tolist() == [False, False, True, False]
    nothing = summarise([((1, 20.0, 5.0), {"known": 3, "found": 0, "peaks": 0, "false": 0}, np.empty(0))])
    assert recommend(nothing) is None and np.isnan(nothing["false_fraction"][0])


def test_injected_peaks_have_their_own_counting_noise_and_leave_bad_pixels() -> None:
    bad = np.zeros((40, 40), bool)
    bad[20, 21] = True
    frame = StudyFrame(np.zeros((40, 40), np.float32), bad, np.zeros_like(bad), None, 1, 1)
    peak = {"row": [20.0], "col": [20.0], "amplitude": [100.0], "fwhm_row": [3.0], "fwhm_col": [3.0], "mixing": [0.0]}
    options = Study(gain=2.0)
    rng = np.random.default_rng(1)
    tops = np.array([inject(frame, pd.DataFrame(peak), options, rng).counts[20, 20] for _ in range(400)])
    assert abs(tops.mean() - 100) < 3 and 160 < tops.var() < 250
    assert inject(frame, pd.DataFrame(peak), options, rng).counts[20, 21] == 0


def test_the_background_of_the_copies_is_that_of_the_frames_without_peaks() -> None:
    rng = np.random.default_rng(2)
    smooth = 5 + 10 * np.linspace(0, 1, 96)[None, :] * np.ones((96, 1))
    bad = np.zeros((96, 96), bool)
    frames = []
    for _ in range(6):
        counts = rng.poisson(smooth).astype(np.float32)
        counts[40:43, 50:53] += 400
        frames.append(StudyFrame(counts, bad, bad, None, 1, 1))
    options = Study(binning=(1,), min_value=(20.0,), min_persistence=(15.0,))
    found = [next(search_all(frame, options, [1]))[1] for frame in frames]
    background = reference(frames, found).background
    assert abs((background - smooth)[5:-5, 5:-5]).max() < 2.5 and abs((background - smooth).mean()) < 0.2


def test_frames_with_binning_are_compared_at_their_own_and_larger_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    frame = rng.poisson(5, (64, 64)).astype(float)
    frame[30:32, 30:32] += 300
    write_frames(tmp_path / "f.h5", [(0, frame)], shape=(64, 64), binning=2)
    truth = {"frame": [0], "peak": [0], "phase": [0], "row": [61.5], "col": [61.5], "amplitude": [300.0]}
    truth |= {"fwhm_row": [4.0], "fwhm_col": [4.0], "mixing": [0.0], "isolated": [True], "masked": [False]}
    write_table(tmp_path / "t.parquet", {**truth, "hkl": ["101"], "state_of_charge": [0.1]})
    options = Study(binning=(1, 2), min_value=(20.0,), min_persistence=(50.0,))
    bragg.study([tmp_path / "f.h5"], truth=[tmp_path / "t.parquet"], out=tmp_path / "s.csv", options=options)
    table = pd.read_csv(tmp_path / "s.csv")
    assert table["binning"].tolist() == [2] and table["found"].tolist() == [1] and table["error"][0] < 1
    with pytest.raises(InputError, match="frames with binning 2, expected a binning of at most 1"):
        only = Study(binning=(1,))
        bragg.study([tmp_path / "f.h5"], out=tmp_path / "x.csv", options=only)
    with pytest.raises(InputError, match="2 tables, expected 1"):
        bragg.study([tmp_path / "f.h5"], truth=["a", "b"], out=tmp_path / "x.csv")


def test_the_figure_is_drawn_also_where_nothing_is_found(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    empty = tables["truth"].assign(error=np.nan, false_fraction=np.nan, recommended=False)
    for name, table in (("full", tables["truth"]), ("empty", empty)):
        save_figure(tmp_path / f"{name}.png", search_settings(table), dpi=40)
    made = bragg.figures(study=_written(tables["truth"], tmp_path), out=tmp_path / "figures")
    assert made.figures == [f"{tmp_path}/figures/study.png"] and (tmp_path / "figures" / "study.png").is_file()


def _written(table: pd.DataFrame, folder: Path) -> Path:
    table.to_csv(folder / "study.csv", index=False)
    return folder / "study.csv"


def test_lists_of_settings_are_read_from_flags_and_configuration() -> None:
    flags = from_flags(Study, {"binning": "1,4", "min_value": "10,20.5"})
    assert flags.binning == from_config(Study, {"binning": [1, 4]}, "own.yaml").binning == (1, 4)
    assert flags.min_value == (10.0, 20.5)
    with pytest.raises(InputError, match="expected 1, 2 or 4"):
        from_flags(Study, {"binning": "3"})
