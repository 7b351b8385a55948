import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cathodeflow.bragg.binning import to_binned
from cathodeflow.bragg.comparison import compare_positions, detection, error_by_intensity, summary
from cathodeflow.bragg.matching import compare_peaks, match, pair
from cathodeflow.bragg.network_options import Compare
from cathodeflow.bragg.peak_options import Simulate
from cathodeflow.bragg.simulation import simulate_scan


def brute_force(a, b, a_frame, b_frame, max_distance):
    """Take the nearest pair left, again and again."""
    pairs, free_a, free_b = set(), set(range(len(a))), set(range(len(b)))
    while True:
        left = [
            (np.hypot(*(a[i] - b[j])), i, j)
            for i in free_a
            for j in free_b
            if a_frame[i] == b_frame[j] and np.hypot(*(a[i] - b[j])) <= max_distance
        ]
        if not left:
            return pairs
        _, i, j = min(left)
        pairs.add((i, j))
        free_a.remove(i)
        free_b.remove(j)


@given(st.integers(0, 1000), st.integers(0, 12), st.integers(0, 12), st.floats(0.5, 6))
@settings(max_examples=60, deadline=None)
def test_match_is_what_brute_force_finds(seed, n_a, n_b, max_distance):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 12, (n_a, 2)), rng.uniform(0, 12, (n_b, 2))
    a_frame, b_frame = rng.integers(100, 103, n_a), rng.integers(100, 103, n_b)
    found = match(a, b, max_distance=max_distance, a_frame=a_frame, b_frame=b_frame)
    assert set(zip(found.a.tolist(), found.b.tolist(), strict=True)) == brute_force(
        a, b, a_frame, b_frame, max_distance
    )
    assert len(set(found.a.tolist())) == len(set(found.b.tolist())) == len(found.distance)
    assert found.distance == pytest.approx(np.hypot(*(a[found.a] - b[found.b]).T))
    swapped = match(b, a, max_distance=max_distance, a_frame=b_frame, b_frame=a_frame)
    assert set(zip(swapped.b.tolist(), swapped.a.tolist(), strict=True)) == set(
        zip(found.a.tolist(), found.b.tolist(), strict=True)
    )


def test_match_leaves_out_what_is_not_finite_and_far_frames():
    found = match(
        [[np.nan, 1], [5, 5], [5, 5]], [[5, 5.5], [0, 1]], max_distance=2, a_frame=[0, 10**7, 1], b_frame=[1, 0]
    )
    assert (found.a.tolist(), found.b.tolist(), found.distance.tolist()) == ([2], [0], [0.5])


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_summary_agrees_with_numpy(values):
    result = summary([*values, np.nan, np.inf])
    assert result["count"] == len(values) and result["mean"] == pytest.approx(np.mean(values))
    for name, percent in (("median", 50), ("p75", 75), ("p95", 95), ("p99_5", 99.5)):
        assert result[name] == np.percentile(values, percent)


def rayleigh(n, rng, sigma=0.1):
    return np.hypot(*rng.normal(0, sigma, (2, n)))


def test_error_by_intensity_finds_the_error_that_was_put_in():
    rng = np.random.default_rng(0)
    intensity = np.exp(rng.uniform(np.log(30), np.log(3000), 6000))
    distance = rayleigh(6000, rng, sigma=1 / np.sqrt(intensity))
    table = error_by_intensity(distance, intensity, rng.integers(60, size=6000), n_bins=6, rng=rng)
    assert table["count"].sum() == 6000 and table["count"].between(999, 1001).all()
    # Median of a Rayleigh distribution; within a bin sigma hardly varies.
    expected = np.sqrt(2 * np.log(2) / table["intensity"])
    assert table["median"].to_numpy() == pytest.approx(expected.to_numpy(), rel=0.08)
    assert ((table["low"] <= table["median"]) & (table["median"] <= table["high"])).all()
    # Standard error of a median: 1 / (2 f sqrt(n)), with f = ln 2 / median for a Rayleigh distribution.
    width = 2 * 1.96 * table["median"] / (2 * np.log(2) * np.sqrt(table["count"]))
    assert ((table["high"] - table["low"]) / width).between(0.6, 1.6).all()


def test_intervals_grow_when_the_peaks_of_a_frame_err_together():
    rng = np.random.default_rng(1)
    frame = np.repeat(np.arange(30), 50)
    together = np.repeat(rayleigh(30, rng), 50)
    wide, narrow = (
        error_by_intensity(values, np.ones(1500), frame, n_bins=1, rng=np.random.default_rng(2)).iloc[0]
        for values in (together, rng.permutation(together))
    )
    assert wide["high"] - wide["low"] > 3 * (narrow["high"] - narrow["low"])


def found_peaks(truth, rng, sigma):
    return truth[["frame"]].assign(
        row=truth["row"] + rng.normal(0, sigma, len(truth)),
        col=truth["col"] + rng.normal(0, sigma, len(truth)),
        persistence=truth["amplitude"] * 0.8,
        candidate=np.arange(len(truth)),
    )


@pytest.fixture(scope="module")
def truth():
    return simulate_scan(Simulate(seed=5, n_frames=20, rows=128, cols=128, n_peaks=150), state_of_charge=0.2).truth


@pytest.mark.parametrize("keyed", [True, False])
def test_compare_finds_the_errors_that_were_put_in(truth, keyed):
    rng = np.random.default_rng(0)
    seen = truth[truth["isolated"] & (truth["amplitude"] > 20) & ~truth["masked"]].reset_index(drop=True)
    fitted, located = found_peaks(seen, rng, 0.02), found_peaks(seen, rng, 0.05)
    located["col"] += 0.1
    if not keyed:
        fitted = fitted.drop(columns="candidate").sample(frac=1, random_state=1)
    result = compare_positions(fitted, located, truth, Compare(), binning=1)
    metrics = result.metrics
    assert metrics["network_truth_count"] == metrics["fit_truth_count"] == metrics["found"] == len(seen)
    assert metrics["fit_truth_median"] == pytest.approx(0.02 * np.sqrt(2 * np.log(2)), rel=0.1)
    assert metrics["network_truth_bias_col"] == pytest.approx(0.1, abs=4 * 0.05 / np.sqrt(len(seen)))
    assert metrics["network_truth_bias_row"] == pytest.approx(0.0, abs=4 * 0.05 / np.sqrt(len(seen)))
    assert metrics["network_fit_median"] == pytest.approx(np.median(result.peaks["network_fit"]))
    strong = [(table["amplitude"] >= 30) & ~table["masked"] for table in (seen, truth)]
    assert metrics["precision"] == 1 and metrics["recall"] == pytest.approx(strong[0].sum() / strong[1].sum())
    assert result.by_amplitude["recovered"].sum() == len(seen)
    assert (result.peaks["amplitude"].to_numpy() == seen["amplitude"].to_numpy()).all()
    assert metrics["network_truth_isolated_count"] == len(seen)
    json.dumps(metrics, allow_nan=False)


def test_a_fit_that_strays_does_not_move_the_truth_of_its_peak():
    true = pd.DataFrame(
        {"frame": 0, "row": [10.0, 16.0], "col": 10.0, "amplitude": 50.0, "isolated": False, "peak": [1, 2]}
    )
    pairs = pd.DataFrame({"frame": [0], "intensity": 40.0, "network_row": 10.1, "network_col": 10.0, "fit_col": 10.0})
    for fit_row, peak in ((10.3, 1), (14.5, 1), (16.0, 2)):
        table = compare_peaks(pairs.assign(fit_row=fit_row), true, max_distance=3)
        assert table["peak"].tolist() == [peak]


def test_truth_of_binned_frames():
    raw = pd.DataFrame({"row": [0.5, 10.5], "col": [2.5, 3.0], "fwhm_row": [4.0, 4.0], "fwhm_col": [2.0, 2.0]})
    binned = to_binned(raw, 2)
    assert binned["row"].tolist() == [0.0, 5.0] and binned["col"].tolist() == [1.0, 1.25]
    assert binned["fwhm_row"].tolist() == [2.0, 2.0]
    assert to_binned(raw, 1).equals(raw)


def test_recall_and_precision_count_what_they_say():
    true = pd.DataFrame({"frame": 0, "row": [5.0, 20, 40, 60], "col": 5.0, "amplitude": [10.0, 100, 100, 1000]})
    true["masked"] = [False, False, False, True]
    peaks = pd.DataFrame({"frame": 0, "network_row": [20.5, 60, 80], "network_col": 5.0, "intensity": [90.0, 900, 12]})
    table = detection(peaks, true, max_distance=2, n_bins=2)
    # Below and above sqrt(10 * 900): the masked one is not missed, yet what found it is correct.
    assert table["true"].tolist() == [1, 2] and table["recovered"].tolist() == [0, 1]
    assert table["recall"].tolist() == [0.0, 0.5]
    assert table["found"].tolist() == [2, 1] and table["correct"].tolist() == [1, 1]
    assert table["precision"].tolist() == [0.5, 1.0]


def test_a_peak_without_a_fit_still_has_its_truth():
    true = pd.DataFrame(
        {"frame": [3], "row": [5.0], "col": [5.0], "amplitude": [50.0], "isolated": [True], "peak": [8]}
    )
    located = pd.DataFrame({"frame": [3, 3], "row": [5.3, 50], "col": [5.4, 50], "persistence": [40.0, 9]})
    pairs = pair(located.iloc[:0], located, max_distance=3, intensity="persistence")
    table = compare_peaks(pairs, true, max_distance=3)
    assert table["peak"].tolist() == [8, -1] and table["isolated"].tolist() == [True, False]
    assert table["network_truth"].iloc[0] == pytest.approx(0.5)
    assert table[["network_fit", "fit_truth"]].isna().all().all() and np.isnan(table["amplitude"].iloc[1])


@pytest.mark.parametrize("with_truth", [True, False])
@pytest.mark.parametrize("empty_truth", [True, False])
def test_nothing_found_gives_nulls_and_no_warning(truth, with_truth, empty_truth):
    none = found_peaks(truth.iloc[:0], np.random.default_rng(0), 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = (truth.iloc[:0] if empty_truth else truth) if with_truth else None
        result = compare_positions(none, none, given, Compare(), binning=1)
    assert result.peaks.empty and all(table.empty for table in result.by_intensity.values())
    assert result.metrics["network_fit_count"] == 0 and result.metrics["network_fit_median"] is None
    if with_truth:
        assert result.metrics["recall"] == (None if empty_truth else 0) and result.metrics["precision"] is None
    json.dumps(result.metrics, allow_nan=False)
