import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cathodeflow.bragg import plots
from cathodeflow.bragg.comparison import detection, error_by_intensity
from cathodeflow.bragg.matching import compare_peaks
from cathodeflow.bragg.peak_options import Simulate
from cathodeflow.bragg.simulation import expected_frame, simulate_scan
from cathodeflow.errors import InputError
from cathodeflow.io.figures import save_figure
from cathodeflow.plotting import training_curves


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(Simulate(seed=5, n_frames=6, rows=64, cols=96, n_peaks=60), state_of_charge=0.2)


def figures(scan, n):
    """Every figure, of the first n peaks."""
    rng = np.random.default_rng(0)
    truth = scan.truth[scan.truth["amplitude"] > 20].head(n).reset_index(drop=True)
    pairs = pd.DataFrame({"frame": truth["frame"], "intensity": truth["amplitude"]})
    for who in ("fit", "network"):
        for axis in ("row", "col"):
            pairs[f"{who}_{axis}"] = truth[axis] + rng.normal(0, 0.1, len(truth))
    peaks = compare_peaks(pairs, truth, max_distance=3)
    chosen = plots.choose_cases(peaks["network_fit"], columns=4).ravel()
    errors = error_by_intensity(peaks["network_fit"], peaks["intensity"], peaks["frame"], n_bins=4, rng=rng)
    recall = detection(peaks, truth, max_distance=3, n_bins=4)
    history = [{"epoch": k, "train_loss": 1 / (k + 1), "validation_loss": 1.1 / (k + 1), "rate": 1} for k in range(n)]
    patches = rng.poisson(5, (len(chosen), 11, 11)).astype(np.float32)
    corners = np.floor(truth[["row", "col"]].to_numpy()[chosen]).astype(int) - 5
    return {
        "patches": plots.patch_sheet(patches, corners, peaks.iloc[chosen]),
        "distances": plots.distances(peaks),
        "intensity": plots.error_against_intensity({"network_fit": errors}),
        "with truth": plots.error_against_intensity({"network_fit": errors}, recall),
        "frame": plots.frame_with_peaks(expected_frame(scan, 0), peaks[peaks["frame"] == 0], title="Frame 0"),
        "training": training_curves(history, unit="squared patch sizes"),
    }


def test_axes_have_units_and_nothing_global_changes(scan):
    before = dict(matplotlib.rcParams)
    for name, figure in figures(scan, 60).items():
        for axes in figure.axes if name != "patches" else ():
            for text in (axes.get_xlabel(), axes.get_ylabel()):
                assert "[" in text or text in ("Peaks", "Epoch", ""), (name, text)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("n", [0, 2])
def test_few_peaks_or_none_still_give_figures_without_a_warning(scan, n, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, figure in figures(scan, n).items():
            save_figure(tmp_path / f"{name}.png", figure, dpi=30)
        empty = plots.frame_with_peaks(
            np.zeros((5, 400)), pd.DataFrame(columns=["network_row", "network_col", "intensity"])
        )
        save_figure(tmp_path / "empty.png", empty, dpi=30)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_figure_gives_the_same_bytes(scan, suffix, tmp_path):
    for folder in ("one", "two"):
        save_figure(tmp_path / folder / f"distances.{suffix}", figures(scan, 60)["distances"], dpi=40)
    one, two = ((tmp_path / folder / f"distances.{suffix}").read_bytes() for folder in ("one", "two"))
    assert one == two
    assert matplotlib.__version__.encode() not in one


def test_an_unknown_suffix_is_named(scan, tmp_path):
    with pytest.raises(InputError, match=r"'\.bmp', expected one of"):
        save_figure(tmp_path / "a.bmp", training_curves([], unit="px"))


@given(st.lists(st.floats(0, 5) | st.just(float("nan")), max_size=30), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_cases_are_the_nearest_and_furthest_and_no_peak_comes_twice(distance, columns):
    values = np.array(distance, dtype=float)
    chosen = plots.choose_cases(values, columns=columns)
    finite = np.sort(values[np.isfinite(values)])
    width = min(columns, len(finite) // 3)
    assert chosen.shape == (3, width) and len(np.unique(chosen)) == chosen.size
    if width:
        assert values[chosen[0]].tolist() == finite[:width].tolist()
        assert values[chosen[2]].tolist() == finite[::-1][:width].tolist()
        assert finite[width - 1] <= values[chosen[1]].min() and values[chosen[1]].max() <= finite[-width]
