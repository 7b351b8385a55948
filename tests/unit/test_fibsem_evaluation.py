import dask.array as da
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.special import softmax
from sklearn import metrics as sklearn

from cathodeflow.errors import InputError
from cathodeflow.fibsem import evaluation
from cathodeflow.fibsem.options import Metrics
from cathodeflow.fibsem.slice_counts import (
    Counts,
    boundary_counts,
    confusion,
    count_slice,
    figures_of_merit,
    speck_counts,
)
from cathodeflow.sem.calibration import expected_calibration_error

CLASSES = ("pore", "active", "binder")
SETTINGS = {"classes": CLASSES, "model": "unet", "seed": 3, "split": "grouped"}


def phases(n=6, rows=40, cols=50, errors=0.1, seed=0):
    """Smooth regions of three phases, and a prediction with logits that is wrong where these were disturbed."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(n, 3, rows, cols)), (0, 0, 3, 3))
    field /= field.std()
    noise = ndimage.gaussian_filter(rng.normal(size=field.shape), (0, 0, 1, 1)) * 10 * errors
    logits = 3 * (field + noise)
    return field.argmax(1).astype(np.uint8), logits.argmax(1).astype(np.uint8), softmax(logits, 1)


def evaluate(*arrays, **more):
    """Evaluate with 300 bootstrap samples; options are given like other keywords."""
    options = {"bootstrap_samples": 300} | {name: more.pop(name) for name in Metrics.model_fields if name in more}
    given = {**SETTINGS, "rng": np.random.default_rng(0), "options": Metrics(**options), **more}
    return evaluation.evaluate(*arrays, **given)


def count(*arrays, **options):
    return evaluation.count(*arrays, classes=CLASSES, options=Metrics(**options))


def compare(first, second, **more):
    return evaluation.compare(first, second, classes=CLASSES, rng=np.random.default_rng(0), options=Metrics(), **more)


def whole(counts):
    return {
        name: float(value)
        for name, value in figures_of_merit(Counts(*(part.sum(0) for part in counts)), CLASSES).items()
    }


def test_a_case_worked_by_hand():
    truth = np.array([[0, 0, 0, 1, 1, 1, 1, 1, 2, 2]])
    prediction = np.array([[0, 0, 1, 1, 1, 1, 1, 2, 2, 0]])
    row = evaluate(truth[None], prediction[None]).overall.iloc[0]
    # Right: 2 of 3 pore, 4 of 5 active, 1 of 2 binder; taken for them wrongly: 1, 1, 1 pixels.
    iou = [2 / 4, 4 / 6, 1 / 3]
    expected = {
        "f1_pore": 4 / 6,
        "f1_active": 8 / 10,
        "f1_binder": 2 / 4,
        "accuracy": 0.7,
        "miu": sum(iou) / 3,
        "fiu": (3 * iou[0] + 5 * iou[1] + 2 * iou[2]) / 10,
        "fraction_pore": 0.3,
        "fraction_active": 0.5,
        "true_fraction_binder": 0.2,
        "fraction_error_binder": 0.0,
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert row["model"] == "unet" and row["seed"] == 3 and row["split"] == "grouped"


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.03, 0.3, 3.0]))
def test_shares_of_pixels_are_those_of_scikit_learn(seed, errors):
    truth, prediction, p = phases(3, errors=errors, seed=seed)
    if seed % 3 == 0:  # a class that is not predicted, and one that is nowhere
        prediction[prediction == 2], truth[truth == 2] = 1, 0
    found = whole(count(truth, prediction, p, bins=12))
    a, b = truth.ravel(), prediction.ravel()
    here = sorted(set(a) | set(b))
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(a, b))
    assert found["miu"] == pytest.approx(sklearn.jaccard_score(a, b, average="macro", labels=here))
    assert found["fiu"] == pytest.approx(sklearn.jaccard_score(a, b, average="weighted", labels=here))
    for place, name in enumerate(CLASSES):
        expected = sklearn.f1_score(a, b, labels=[place], average="macro") if place in here else np.nan
        assert found[f"f1_{name}"] == pytest.approx(expected, nan_ok=True)
        assert found[f"fraction_{name}"] == pytest.approx((b == place).mean())
        assert found[f"fraction_error_{name}"] == pytest.approx((b == place).mean() - (a == place).mean())
    np.testing.assert_array_equal(confusion(truth, prediction, 3), sklearn.confusion_matrix(a, b, labels=range(3)))


def test_calibration_error_is_that_of_all_pixels_at_once_and_nan_without_probabilities():
    truth, prediction, p = phases(4)
    found = whole(count(truth, prediction, p, bins=12))
    expected = expected_calibration_error(np.moveaxis(p, 1, -1).reshape(-1, 3), truth.ravel(), bins=12)
    assert found["ece"] == pytest.approx(expected, abs=1e-12) and expected > 0.005
    half = whole(count(truth, prediction, p.astype(np.float16), bins=12))
    assert half["ece"] == pytest.approx(expected, abs=2e-3)
    assert np.isnan(evaluate(truth, prediction).overall["ece"][0])


@pytest.mark.parametrize("tolerance", [0, 1, 2, 2.9, 5])
def test_boundary_counts_are_those_of_distances(tolerance):
    truth, prediction, _ = phases(1, errors=0.3)
    found = boundary_counts(truth[0], prediction[0], 3, tolerance_px=tolerance)
    for place in range(3):
        edges = []
        for labels in (truth[0], prediction[0]):
            mask = np.pad(labels == place, 1, mode="edge")
            beside = [np.roll(mask, step, axis) for step in (1, -1) for axis in (0, 1)]
            edges.append((mask & ~np.logical_and.reduce(beside))[1:-1, 1:-1])
        true, predicted = edges
        near_true, near_predicted = (ndimage.distance_transform_edt(~edge) <= tolerance for edge in edges)
        expected = [predicted.sum(), (predicted & near_true).sum(), true.sum(), (true & near_predicted).sum()]
        assert found[place].tolist() == expected


def test_boundaries_that_are_moved_agree_up_to_the_tolerance():
    truth = np.repeat([[0, 1]], 20, axis=1).repeat(10, axis=0)
    scores = []
    for shift in (0, 1, 2, 3, 4):
        moved = truth.copy()
        moved[:, 20 : 20 + shift] = 0
        scores.append(evaluate(truth[None], moved[None]).overall["boundary_f1"][0])
    assert scores == [1, 1, 1, 0, 0]
    # A class with a boundary on one side alone scores 0; without any boundary there is nothing to score.
    # Of class 0 four predicted pixels of 14 are far from the true boundary then.
    speck = truth.copy()
    speck[5, 5] = 2
    assert evaluate(truth[None], speck[None]).overall["boundary_f1"][0] == pytest.approx((20 / 24 + 1) / 3)
    flat = np.zeros((1, 8, 8), int)
    assert np.isnan(evaluate(flat, flat).overall["boundary_f1"][0])


def test_the_boundary_score_is_the_harmonic_mean_of_precision_and_recall():
    # Of 10 predicted boundary pixels 8 are near the true boundary, of 20 true ones 6 near the predicted.
    counts = Counts(np.ones(()), np.eye(1), np.array([[10.0, 8.0, 20.0, 6.0]]), np.zeros(3), np.zeros((5, 3)))
    found = figures_of_merit(counts, ["pore"])["boundary_f1"]
    assert float(found) == pytest.approx(2 / (1 / 0.8 + 1 / 0.3))


def test_specks_by_hand():
    #       a speck with a right pixel | a false one, by corners | one at the edge | one too large
    prediction = np.zeros((12, 20), int)
    prediction[2, 2:4] = 1
    prediction[5, 5] = prediction[6, 6] = prediction[7, 5] = 2
    prediction[0, 10] = prediction[11, 19] = 1
    prediction[4:6, 12:16] = 1
    truth = np.zeros((12, 20), int)
    truth[2, 3] = 1
    truth[9, 9] = truth[9, 12] = 2
    assert speck_counts(truth, prediction, 3, speck_px=7).tolist() == [2, 1, 3]
    assert speck_counts(truth, prediction, 3, speck_px=8).tolist() == [3, 2, 3]
    assert speck_counts(truth, prediction, 3, speck_px=2).tolist() == [1, 0, 3]
    # A hole in a region is a speck of what is in it.
    ring = np.ones((9, 9), int)
    ring[4, 4] = 0
    assert speck_counts(np.ones((9, 9), int), ring, 2, speck_px=3).tolist() == [1, 1, 0]
    several = evaluate(np.stack([truth, truth]), np.stack([prediction, truth]), speck_px=8).overall.iloc[0]
    assert (several["specks"], several["false_specks"], several["true_specks"]) == (3, 1, 3)


def test_best_and_worst_slices():
    truth = np.zeros((8, 10, 10), np.uint8)
    prediction = truth.copy()
    for number, wrong in enumerate([3, 0, 7, 1, 9, 5, 2, 8]):
        prediction[number, 0, :wrong] = 1
    row = evaluate(truth, prediction, extremes=3).overall.iloc[0]
    assert row["accuracy_best3"] == pytest.approx(0.99) and row["accuracy_worst3"] == pytest.approx(0.92)
    assert row["accuracy_worst3_deviation"] == pytest.approx(0.01)
    few = evaluate(truth[:1], prediction[:1]).overall.iloc[0]
    assert few["accuracy_best5"] == few["accuracy_worst5"] == pytest.approx(0.97)
    assert np.isnan(few["accuracy_best5_deviation"])


class Watched:
    """An array that notes how many slices are asked for at a time."""

    def __init__(self, array, block):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.chunks, self.asked = (block, *array.shape[1:]), []

    def __getitem__(self, key):
        self.asked.append(range(self.shape[0])[key])
        return self.array[key]


def test_any_kind_of_array_is_read_once_a_block_at_a_time(monkeypatch):
    truth, prediction, p = phases(11)
    expected = evaluate(truth, prediction, p)
    stores = [zarr.array(one, chunks=(3, *one.shape[1:])) for one in (truth, prediction)]
    blocks = da.from_array(p, chunks=((4, 5, 2), 3, 20, 50))
    found = evaluate(*stores, blocks)
    pd.testing.assert_frame_equal(found.overall, expected.overall)
    pd.testing.assert_frame_equal(found.slices, expected.slices)
    watched = [Watched(one, 4) for one in (truth, prediction, p)]
    # Slices of labels fit, those of probabilities do not, which are then read one by one.
    monkeypatch.setattr(evaluation, "_TOGETHER", 4 * truth[0].nbytes)
    pd.testing.assert_frame_equal(evaluate(*watched).overall, expected.overall)
    assert [len(one) for one in watched[0].asked] == [4, 4, 3]
    assert [len(one) for one in watched[2].asked] == [1] * 11
    assert all([i for one in each.asked for i in one] == list(range(11)) for each in watched)


def test_rows_of_slices_are_what_each_slice_gives_alone():
    truth, prediction, p = phases(5)
    found = evaluate(truth, prediction, p, originals=["b", "a", "b", "c", "c"])
    assert found.slices["slice"].tolist() == list(range(5)) and found.slices["original"].tolist() == list("babcc")
    for number in range(5):
        alone = evaluate(*(one[number : number + 1] for one in (truth, prediction, p))).overall
        for name in ("miu", "fiu", "f1_binder", "accuracy", "boundary_f1", "specks", "ece", "fraction_pore"):
            assert found.slices[name][number] == pytest.approx(alone[name][0]), name
    assert found.overall["accuracy"][0] == pytest.approx(found.slices["accuracy"].mean())
    assert found.overall[["slices", "originals"]].values.tolist() == [[5, 3]]
    assert found.counts.confusion.shape == (5, 3, 3)


def test_columns_stand_in_the_order_of_the_contract():
    found = evaluate(*phases(3)).overall
    first = ["model", "seed", "split", "miu", "fiu", *(f"f1_{name}" for name in CLASSES), "accuracy"]
    assert found.columns[: len(first)].tolist() == first
    for name in ("accuracy_best5", "accuracy_worst5", "boundary_f1", "specks", "ece", "true_fraction_binder"):
        assert np.isfinite(found[name][0]), name
    for name in ("miu", "fiu", "f1_pore", "accuracy", "boundary_f1", "specks", "ece", "fraction_error_binder"):
        assert found[f"{name}_low"][0] <= found[name][0] or name == "ece", name
        assert found[f"{name}_high"][0] >= found[name][0], name
    assert not any(name.startswith("true") and name.endswith("_low") for name in found)


def test_intervals_are_those_of_originals_drawn_one_by_one():
    truth, prediction, _ = phases(24, errors=0.2)
    prediction[:8] = truth[:8]  # originals differ
    originals = np.arange(24) // 2
    found = evaluate(truth, prediction, originals=originals, bootstrap_samples=4000, confidence=0.9).overall.iloc[0]
    rng, slow = np.random.default_rng(1), []
    for _ in range(150):
        drawn = rng.integers(0, 12, 11)
        members = np.concatenate([np.flatnonzero(originals == one) for one in drawn])
        slow.append(whole(count(truth[members], prediction[members])))
    slow = pd.DataFrame(slow)
    for name in ("miu", "fiu", "f1_binder", "accuracy", "boundary_f1", "false_specks", "fraction_error_pore"):
        limits = slow[name].quantile([0.05, 0.95])
        np.testing.assert_allclose(
            found[[f"{name}_low", f"{name}_high"]].astype(float), limits, atol=0.4 * slow[name].std()
        )


def test_slices_of_one_original_tell_no_more_than_one():
    truth, prediction, _ = phases(12, errors=0.2)
    ten = [np.repeat(one, 10, axis=0) for one in (truth, prediction)]
    once = evaluate(truth, prediction, bootstrap_samples=2000).overall
    grouped = evaluate(*ten, originals=np.arange(12).repeat(10), bootstrap_samples=2000).overall
    apart = evaluate(*ten, bootstrap_samples=2000).overall
    width = [(one["miu_high"] - one["miu_low"])[0] for one in (once, grouped, apart)]
    assert width[1] == pytest.approx(width[0], rel=1e-9) and width[2] == pytest.approx(width[0] / 10**0.5, rel=0.15)
    single = evaluate(truth, prediction, originals=np.zeros(12)).overall
    assert np.isnan(single[["miu_low", "miu_high"]]).all(axis=None) and np.isfinite(single["miu"][0])


def test_differences_have_narrower_intervals_than_models_on_slices_of_unlike_difficulty():
    rng = np.random.default_rng(0)
    truth = np.zeros((30, 20, 20), np.uint8)
    truth[:, 8:] = 1
    hard, better = truth.copy(), truth.copy()
    for number, share in enumerate(rng.uniform(0, 0.5, 30)):
        wrong = rng.random((20, 20)) < share
        hard[number][wrong] = 2
        better[number][wrong & (rng.random((20, 20)) < 0.9)] = 2
    first, second = (evaluate(truth, one) for one in (better, hard))
    found = compare(first.counts, second.counts)
    found = found.set_index("figure")
    gain = first.overall["miu"][0] - second.overall["miu"][0]
    assert found.loc["miu", "difference"] == pytest.approx(gain)
    assert 0 < found.loc["miu", "low"] < gain < found.loc["miu", "high"]
    width = (second.overall["miu_high"] - second.overall["miu_low"])[0]
    assert found.loc["miu", "high"] - found.loc["miu", "low"] < width / 3
    nothing = compare(first.counts, first.counts)
    assert (nothing.drop(columns="figure").fillna(0) == 0).all(axis=None)
    one = compare(first.counts, second.counts, originals=np.zeros(30))
    assert one["low"].isna().all()
    with pytest.raises(InputError, match="reference: found counts of other slices"):
        compare(first.counts, evaluate(hard, hard).counts)


def test_bad_input_is_named():
    truth, prediction, p = phases(3, 8, 9)
    with pytest.raises(InputError, match=r"prediction: found the shape \(3, 8, 8\), expected \(3, 8, 9\)"):
        evaluate(truth, prediction[..., :8])
    with pytest.raises(InputError, match=r"probabilities: found the shape \(3, 2, 8, 9\), expected \(3, 3, 8, 9\)"):
        evaluate(truth, prediction, p[:, :2])
    with pytest.raises(InputError, match=r"truth: found the shape \(0, 8, 9\)"):
        evaluate(truth[:0], prediction[:0])
    with pytest.raises(InputError, match=r"truth: found the shape \(8, 9\)"):
        evaluate(truth[0], prediction[0])
    wrong = truth.copy()
    wrong[1, 2, 3], wrong[1, 3, 3] = 9, 200
    with pytest.raises(InputError, match="truth, slice 1: found the labels 9, 200, expected 0 to 2"):
        evaluate(wrong, prediction)
    with pytest.raises(InputError, match="prediction, slice 0: found labels of type float64, expected integers"):
        evaluate(truth, prediction * 1.0)
    with pytest.raises(InputError, match="probabilities, slice 0: found values from -2 to 5, expected 0 to 1"):
        evaluate(truth, prediction, np.where(np.arange(9) > 3, -2.0, 5.0) * np.ones_like(p))
    with pytest.raises(InputError, match="probabilities, slice 0: found values from nan"):
        evaluate(truth, prediction, np.full_like(p, np.nan))
    with pytest.raises(InputError, match=r"originals: found the shape \(2,\), expected one for each of 3 slices"):
        evaluate(truth, prediction, originals=[0, 1])
    with pytest.raises(InputError, match="probabilities: found 1 classes"):
        count_slice(truth[0], prediction[0], p[0, :1], n_classes=3, options=Metrics())
    with pytest.raises(InputError, match=r"prediction: found a slice of shape \(8,\)"):
        count_slice(truth[0], prediction[0, :, 0], n_classes=3, options=Metrics())
