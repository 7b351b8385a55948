import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import precision_recall_curve, roc_auc_score

from cathodeflow.checkpoints import generator
from cathodeflow.errors import InputError
from cathodeflow.fibsem import idk
from cathodeflow.fibsem.bundle import load_bundle, save_bundle
from cathodeflow.fibsem.idk import (
    Pixels,
    classify_pixels,
    evaluate_threshold,
    features,
    idk_probability,
)
from cathodeflow.fibsem.network_options import TrainIdk
from cathodeflow.fibsem.phases import entropy


def train_pixels(train, validation, *, n_outputs=1, weight=None, **options):
    """Train on all pixels in every epoch unless a number is given."""
    options = TrainIdk(**{"pixels_per_epoch": None, "device": "cpu"} | options)
    return idk.train_pixels(train, validation, options, n_outputs=n_outputs, weight=weight)


def choose_threshold(probability, wrong, *, by="f1", **target):
    return idk.choose_threshold(probability, wrong, TrainIdk(threshold=by, **target))


def outputs(n=2, side=48, seed=0):
    """Logits of a global model that is wrong where two of them are close, mostly by taking class 2 for class 0."""
    logits = torch.randn(n, 3, side, side, generator=generator(seed)) * 3
    p = torch.softmax(logits, 1)
    truth = p.argmax(1)
    close = (logits[:, 2] - logits[:, 0]).abs() < 1.5
    flip = close & (torch.rand(truth.shape, generator=generator(seed, 1)) < 0.8) & (truth != 1)
    return logits, entropy(logits), torch.where(flip, 2 - truth, truth)


def test_features_are_rows_of_pixels():
    logits, uncertainty, _ = outputs(2, 5)
    table = features(logits, uncertainty)
    assert table.shape == (50, 4)
    assert torch.equal(table[25 + 7, :3], logits[1, :, 1, 2]) and table[25 + 7, 3] == uncertainty[1, 1, 2]


def test_the_classifier_finds_wrong_pixels_better_than_entropy_does():
    parts = []
    for seed in (0, 1):
        logits, uncertainty, truth = outputs(seed=seed)
        parts.append(Pixels(features(logits, uncertainty), (logits.argmax(1) != truth).flatten()))
    logits, uncertainty, truth = outputs(seed=2)
    wrong = (logits.argmax(1) != truth).flatten().numpy()
    trained = train_pixels(*parts, epochs=5, batch_size=256, learning_rate=5e-3)
    probability = idk_probability(trained.model, logits, uncertainty)
    assert probability.shape == uncertainty.shape and not trained.model.training
    by_entropy = roc_auc_score(wrong, uncertainty.flatten())
    assert roc_auc_score(wrong, probability.flatten()) > max(by_entropy + 0.05, 0.9)
    again = train_pixels(*parts, epochs=5, batch_size=256, learning_rate=5e-3)
    assert torch.equal(idk_probability(again.model, logits, uncertainty), probability)
    # Probabilities mean what they say.
    assert abs(float(probability.mean()) - wrong.mean()) < 0.02


def test_a_network_with_as_many_outputs_as_classes_is_the_control():
    parts = []
    for seed in (0, 1):
        logits, uncertainty, truth = outputs(seed=seed)
        parts.append(Pixels(features(logits, uncertainty), truth.flatten()))
    trained = train_pixels(*parts, n_outputs=3, epochs=3, batch_size=256, pixels_per_epoch=2000, weight=[1, 1, 2])
    logits, uncertainty, truth = outputs(seed=2)
    found = classify_pixels(trained.model, logits, uncertainty)
    assert found.shape == logits.shape
    assert (found.argmax(1) == truth).float().mean() > 0.5


def test_feature_scales_do_not_matter(tmp_path):
    x = torch.randn(2000, 4, generator=generator(0))
    target = x[:, 0] * x[:, 1] > 0
    losses = []
    for scale in (1.0, 1e4):
        part = Pixels(x * scale + 5 * scale, target)
        trained = train_pixels(part, part, epochs=2)
        losses.append(trained.training.best["validation_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    save_bundle(tmp_path / "idk.pth", {"idk": trained.model}, {"threshold": 0.5})
    networks, metadata = load_bundle(tmp_path / "idk.pth")
    read = networks["idk"]
    assert torch.equal(read(part.features), trained.model(part.features)) and metadata["threshold"] == 0.5


def test_pixels_that_cannot_be_trained_on_are_refused():
    x = torch.randn(10, 4)
    some = Pixels(x, torch.arange(10) < 3)
    with pytest.raises(InputError, match="right and wrong"):
        train_pixels(Pixels(x, torch.zeros(10, dtype=torch.bool)), some)
    with pytest.raises(InputError, match="validation pixels: found 0"):
        train_pixels(some, Pixels(x[:0], some.target[:0]))


def test_a_constant_feature_is_no_reason_to_fail():
    x = torch.randn(100, 4)
    x[:, 2] = 7.0
    part = Pixels(x, x[:, 0] > 0)
    assert np.isfinite(train_pixels(part, part, epochs=1).training.best["validation_loss"])


@pytest.mark.parametrize("levels", [7, 10**6])
def test_thresholds_are_the_best_of_all(levels):
    random = np.random.default_rng(0)
    wrong = random.random(500) < 0.3
    probability = np.round(np.clip(random.normal(0.3 + 0.3 * wrong, 0.2), 0, 1) * levels) / levels
    precision, recall, value = precision_recall_curve(wrong, probability)
    f1 = 2 * precision * recall / (precision + recall)
    found = choose_threshold(probability, wrong)
    assert 2 * found.precision * found.recall / (found.precision + found.recall) == pytest.approx(np.nanmax(f1))
    assert found == evaluate_threshold(probability, wrong, found.value)
    for share in (0.05, 0.2, 0.9):
        found = choose_threshold(probability, wrong, by="fraction", target=share)
        shares = np.array([(probability >= one).mean() for one in value])
        expected = shares[shares <= share].max(initial=0)
        assert found.share == pytest.approx(expected)
    found = choose_threshold(probability, wrong, by="recall", target=0.8)
    assert found.recall >= 0.8
    assert ((probability[wrong] > found.value).mean()) < 0.8
    # What is just met is enough.
    four = choose_threshold([0.9, 0.8, 0.7, 0.6], [True, False, True, False], by="recall", target=0.5)
    assert four == (0.9, 1.0, 0.5, 0.25)


def test_where_nothing_is_wrong_nothing_is_idk():
    for by in ("f1", "recall"):
        found = choose_threshold(np.array([0.1, 0.2, 0.2], np.float32), [False] * 3, by=by)
        assert found.share == 0 and np.isnan(found.precision) and np.isnan(found.recall)
    assert choose_threshold([0.5, 0.5], [True, False], by="fraction", target=0.5).share == 0
    with pytest.raises(InputError, match="finite"):
        choose_threshold([np.nan, 0.5], [True, False])
    with pytest.raises(ValidationError, match="target"):
        choose_threshold([0.5], [True], by="fraction", target=0)
