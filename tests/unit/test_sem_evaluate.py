import dask.array as da
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from torch import nn

from cathodeflow.errors import InputError
from cathodeflow.sem.backbones import Backbone
from cathodeflow.sem.calibration import expected_calibration_error
from cathodeflow.sem.model import SemNetwork
from cathodeflow.sem.network_options import Train
from cathodeflow.sem.options import Test as EvaluationOptions
from cathodeflow.sem.predictions import (
    FIGURES,
    bootstrap,
    crop_predictions,
    figures_of_merit,
    marginals,
    network_outputs,
    original_predictions,
)
from cathodeflow.statistics import wilson

CLASSES = ["333", "333_cycled", "622", "622_cycled"]


def small_network(classes=CLASSES, channels=6, seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(1, channels, 5, stride=2), nn.BatchNorm2d(channels), nn.ReLU())
    options = Train(backbone="small", heads="joint", dropout=0.5, normalization="none")
    return SemNetwork(Backbone(network, channels, 0.5, 0.2), classes, options)


def random_crops(n, side=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side), dtype=np.uint8)


def predictions(n_originals=40, crops=5, seed=0, skill=1.5, classes=CLASSES):
    """Crops of originals some of which are harder than others."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(n_originals) % len(classes), crops)
    logits = rng.normal(0, 1, (len(label), len(classes)))
    logits[np.arange(len(label)), label] += np.repeat(rng.normal(skill, 1, n_originals), crops)
    name = np.repeat([f"{number:03d}" for number in rng.permutation(n_originals)], crops)
    table = pd.DataFrame({"crop": np.arange(len(label)), "name": name, "label": np.array(classes)[label]})
    return crop_predictions(logits, table, classes, temperature=1.0)


@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_outputs_are_the_networks_in_the_order_asked_for_whatever_the_batch(kind):
    model, crops = small_network(), random_crops(23)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(crops[:, None]).float() / 255).numpy()
    source = crops if kind == "numpy" else da.from_array(crops, chunks=(7, 24, 24))
    model.train()
    found = network_outputs(model, source, batch_size=4, device="cpu")
    np.testing.assert_allclose(found.logits, expected, atol=1e-5)
    some = network_outputs(model, source, [3, 9, 21], batch_size=64, device="cpu")
    np.testing.assert_allclose(some.logits, expected[[3, 9, 21]], atol=1e-5)
    assert some.features.shape == (3, 6) and found.logits.dtype == np.float32
    assert not torch.is_inference(next(model.parameters())) and np.ptp(expected) > 0.05


def test_half_precision_stays_near_and_no_crops_give_empty_outputs():
    model, crops = small_network(), random_crops(9)
    where = {"batch_size": 64, "device": "cpu"}
    full, half = (network_outputs(model, crops, arithmetic=name, **where) for name in ("32-true", "bf16-mixed"))
    np.testing.assert_allclose(half.logits, full.logits, atol=0.02)
    assert (half.logits != full.logits).any()
    nothing = network_outputs(model, crops[:0], **where)
    assert nothing.logits.shape == (0, 4) and nothing.features.shape == (0, 6)


def test_predictions_of_crops_and_of_originals_by_hand():
    table = pd.DataFrame({"crop": [4, 7, 9], "name": ["b", "a", "b"], "label": ["622", "333", "622"]}, index=[5, 6, 8])
    p = np.array([[0.5, 0.3, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]])
    crops = crop_predictions(np.log(p), table, CLASSES, temperature=1.0)
    assert crops["crop"].tolist() == [4, 7, 9] and crops["prediction"].tolist() == ["333", "333", "622"]
    assert crops["correct"].tolist() == [False, True, True]
    np.testing.assert_allclose(crops[[f"p_{name}" for name in CLASSES]], p)
    np.testing.assert_allclose(crops["confidence"], [0.5, 0.7, 0.7])
    sharp = crop_predictions(np.log(p), table, CLASSES, temperature=0.5)
    assert sharp["confidence"][1] == pytest.approx(0.49 / 0.52)

    originals = original_predictions(crops, CLASSES, temperature=1.0)
    assert originals["name"].tolist() == ["a", "b"] and originals["crops"].tolist() == [1, 2]
    assert originals["prediction"].tolist() == ["333", "622"] and originals["correct"].all()
    np.testing.assert_allclose(originals.loc[1, [f"p_{name}" for name in CLASSES]].astype(float), [0.3, 0.2, 0.4, 0.1])
    sharper = original_predictions(crops, CLASSES, temperature=0.5)
    assert sharper["confidence"][1] == pytest.approx(0.16 / 0.30)


def test_composition_is_that_of_the_summed_probabilities_not_of_the_predicted_class():
    table = pd.DataFrame({"crop": [0, 1], "name": ["a", "b"], "label": ["622", "622_cycled"]})
    p = np.array([[0.4, 0.0, 0.3, 0.3], [0.05, 0.45, 0.0, 0.5]])
    merit = figures_of_merit(crop_predictions(np.log(p + 1e-12), table, CLASSES, temperature=1.0), CLASSES, bins=10)
    assert merit["accuracy"] == 0.5 and merit["composition_accuracy"] == 0.5
    # The first one's composition is right though its class is wrong; the second one's is a tie of sums.
    first = figures_of_merit(
        crop_predictions(np.log(p + 1e-12), table, CLASSES, temperature=1.0).head(1), CLASSES, bins=10
    )
    assert (first["accuracy"], first["composition_accuracy"], first["state_accuracy"]) == (0, 1, 1)
    states = marginals(p, CLASSES, axis="state")
    assert states.names == ["", "cycled"]
    np.testing.assert_allclose(states.values, [[0.7, 0.3], [0.05, 0.95]])


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 10**6), st.sampled_from([-2.0, 0.0, 1.5, 9.0]))
def test_figures_are_those_of_scikit_learn(originals, crops, seed, skill):
    table = predictions(originals, crops, seed, skill)
    found = figures_of_merit(table, CLASSES, bins=12)
    p, label = table[[f"p_{name}" for name in CLASSES]].to_numpy(), table["label"].map(CLASSES.index).to_numpy(int)
    expected = {
        "accuracy": metrics.accuracy_score(table["label"], table["prediction"]),
        "macro_f1": metrics.f1_score(table["label"], table["prediction"], average="macro", zero_division=0),
        "nll": metrics.log_loss(label, p, labels=range(4)),
        "ece": expected_calibration_error(p, label, bins=12),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
    for axis, part in (("composition", 0), ("state", 2)):
        parts = [name.partition("_")[part] for name in CLASSES]
        sums = np.stack([p[:, [one == other for one in parts]].sum(1) for other in sorted(set(parts))], 1)
        right = np.array(sorted(set(parts)))[sums.argmax(1)] == [name.partition("_")[part] for name in table["label"]]
        assert found[f"{axis}_accuracy"] == pytest.approx(right.mean())


def test_resampling_is_that_of_rows_drawn_one_by_one():
    table = predictions(27, 3, seed=3)
    fast = bootstrap(table, CLASSES, EvaluationOptions(bins=10, bootstrap_samples=4000, confidence=0.9, seed=0))
    rng = np.random.default_rng(1)
    by_class = {name: one["name"].unique() for name, one in table.groupby("label")}
    rows = table.groupby("name").indices
    slow = []
    for _ in range(600):
        # One fewer than there are, weighed up by repeating them: of 7 originals 6 are drawn, 7/6 = 35/30 each,
        # and of 6 there are 5, 6/5 = 36/30 each.
        chosen = [
            np.tile(
                np.concatenate([rows[one] for one in rng.choice(names, len(names) - 1)]), {7: 35, 6: 36}[len(names)]
            )
            for names in by_class.values()
        ]
        slow.append(figures_of_merit(table.iloc[np.concatenate(chosen)], CLASSES, bins=10))
    slow = pd.DataFrame(slow)
    for figure in FIGURES:
        row = fast[(fast["figure"] == figure) & fast["label"].isna()].iloc[0]
        spread = slow[figure].std()
        expected = slow[figure].quantile([0.05, 0.95])
        if figure == "ece":
            # Without what resampling adds to it.
            expected += row["value"] - slow[figure].median()
        np.testing.assert_allclose(row[["low", "high"]].astype(float), expected, atol=0.3 * spread)


def test_intervals_hold_the_true_accuracy_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside = widths = 0
    for trial in range(150):
        # Originals are all right or all wrong: 20 crops of each tell no more than one.
        label = np.repeat(np.arange(48) % 4, 20)
        right = np.repeat(rng.random(48) < 0.8, 20)
        table = pd.DataFrame({"crop": 0, "name": np.repeat([f"{n}" for n in range(48)], 20)})
        table["label"] = np.array(CLASSES)[label]
        logits = 5 * np.eye(4)[np.where(right, label, (label + 1) % 4)]
        table = crop_predictions(logits, table, CLASSES, temperature=1.0)
        found = bootstrap(table, CLASSES, EvaluationOptions(bins=5, bootstrap_samples=300, confidence=0.9, seed=trial))
        low, high = found.loc[0, ["low", "high"]]
        inside += low <= 0.8 <= high
        widths += (high - low) / 150
    assert 0.82 < inside / 150 < 0.97
    assert widths == pytest.approx(2 * 1.645 * np.sqrt(0.16 / 48), rel=0.1)


def test_what_is_all_right_gets_an_interval_of_that_many_originals_and_one_seed_one_result():
    table = predictions(40, 5, skill=40)
    options = EvaluationOptions(bins=10, bootstrap_samples=200, confidence=0.95, seed=0)
    for predicted in (table, original_predictions(table, CLASSES, temperature=1.0)):
        found = bootstrap(predicted, CLASSES, options)
        overall = found[found["label"].isna()].set_index("figure")
        for figure in ("accuracy", "composition_accuracy", "state_accuracy", "macro_f1"):
            assert overall.loc[figure, ["value", "low", "high"]].tolist() == pytest.approx([1, 0.9124, 1], abs=1e-3)
        each = found[found["label"].notna()]
        assert each["label"].tolist() == CLASSES and (each["originals"] == 10).all()
        assert each["low"].to_numpy() == pytest.approx(wilson(10, 10)[0])
    mixed = predictions(40, 5)
    again = [bootstrap(mixed, CLASSES, options.model_copy(update={"seed": 4})) for _ in range(2)]
    pd.testing.assert_frame_equal(*again)
    values = figures_of_merit(mixed, CLASSES, bins=10)
    assert again[0].head(len(FIGURES)).set_index("figure")["value"].to_dict() == pytest.approx(values)
    shares = again[0][again[0]["figure"] != "ece"]
    assert (shares["low"] < shares["value"]).all() and (shares["value"] < shares["high"]).all()


def test_every_resample_has_as_many_originals_of_each_class():
    # All of one class are right and none of the other: then the accuracy is a half in every resample, and its interval
    # is that of 10 right ones of 20. Were classes drawn together, it would scatter.
    label = np.repeat([0, 1], 40)
    table = pd.DataFrame({"crop": range(80), "name": np.arange(80) // 4, "label": np.array(["333", "622"])[label]})
    table["name"] = table["name"].map("{:02d}".format)
    predicted = crop_predictions(np.tile([1.0, 0.0], (80, 1)), table, ["333", "622"], temperature=1.0)
    options = EvaluationOptions(bins=5, bootstrap_samples=200, confidence=0.95, seed=0)
    found = bootstrap(predicted, ["333", "622"], options).set_index("figure").loc[["accuracy"]].iloc[0]
    assert found[["value", "low", "high"]].tolist() == pytest.approx([0.5, *wilson(10, 20)])


def test_classes_without_originals_or_with_one():
    table = predictions(3, 6)
    found = bootstrap(table, CLASSES, EvaluationOptions(bins=5, bootstrap_samples=100, confidence=0.95, seed=0))
    assert found["label"].dropna().tolist() == CLASSES[:3]
    # One original in each class is drawn every time: calibration has no interval then, rather than one of no width.
    known = found[~found["figure"].isin(["ece", "nll"])]
    assert (known["low"] < known["high"]).all() and found["value"].notna().all()
    assert found.drop(known.index)[["low", "high"]].isna().all(axis=None) and len(found) == len(known) + 2


def test_labels_that_the_network_does_not_know_are_named():
    table = predictions(4, 1).replace({"label": {"622": "811"}})
    with pytest.raises(InputError, match="label: found 811, expected one of the network's classes: 333, 333_cycled"):
        figures_of_merit(table, CLASSES, bins=5)


def test_a_calibration_error_lies_within_its_interval():
    """Resampling adds noise to it, which moved whole intervals above the value."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        p = rng.dirichlet((1.0, 1.0, 1.0), 30)
        labels = ["abc"[int(rng.choice(3, p=row))] for row in p]
        table = pd.DataFrame(p, columns=["p_a", "p_b", "p_c"]).assign(
            name=[f"{k:02d}" for k in range(30)], label=labels, prediction=["abc"[k] for k in p.argmax(1)]
        )
        found = (
            bootstrap(table, ["a", "b", "c"], EvaluationOptions(bootstrap_samples=300, seed=seed))
            .set_index("figure")
            .loc["ece"]
        )
        assert 0 <= found["low"] <= found["value"] <= found["high"] and found["high"] > found["low"]
