import math
import time

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_pre_hook

from cathodeflow.errors import InputError
from cathodeflow.learning import resolve_device, resolve_precision
from cathodeflow.sem.batches import Source, timed
from cathodeflow.sem.losses import (
    balanced_weights,
    classification_loss,
    macro_f1,
)
from cathodeflow.sem.model import SemNetwork, as_input, load_network, save_network
from cathodeflow.sem.network_options import Train
from cathodeflow.sem.ood import group_means, ood_score
from cathodeflow.sem.training import train_network
from cathodeflow.training.optimizers import build_optimizer
from cathodeflow.training.schedules import build_schedule

CLASSES = ["523_cycled", "523"]
OPTIONS = Train(epochs=4, batch_size=16, learning_rate=4e-3, progressive_size=24, threads=1, ema_decay=0.0,
                precision="32-true", device="cpu", seed=3)  # fmt: skip


def texture(random, deviation, side):
    field = gaussian_filter(random.normal(size=(side, side)), deviation, mode="wrap")
    return np.clip(random.uniform(90, 160) + random.uniform(10, 30) * field / field.std(), 0, 255).astype(np.uint8)


def textures(count=192, side=32, seed=0):
    """Fine and coarse structures of any brightness and contrast; 8 crops of each original, every third validates."""
    random = np.random.default_rng(seed)
    number = np.arange(count)
    label = np.where(number // 8 % 2 == 0, "523", "523_cycled")
    split = np.array(["train", "train", "validation"])[number // 16 % 3]
    images = np.stack([texture(random, 0.8 if one == "523" else 1.8, side) for one in label])
    name = [f"{one}/{original}" for one, original in zip(label, number // 8, strict=True)]
    return images, pd.DataFrame({"crop": number, "name": name, "label": label, "split": split})


def train(images, table, *, classes=CLASSES, checkpoint=None, on_epoch=None, **changed):
    """Train with some options changed, which are validated as those of a configuration are."""
    options = Train.model_validate(OPTIONS.model_dump() | changed)
    return train_network(images, table, options, classes=classes, checkpoint=checkpoint, on_epoch=on_epoch)


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    result = train(*textures())
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    return result


def test_textures_are_distinguished_within_seconds(trained, tmp_path):
    images, table = textures(96, seed=7)
    labels = np.array([CLASSES.index(label) for label in table.label])
    with torch.no_grad():
        logits = trained.model(as_input(images, "cpu"))
    assert (logits.argmax(1).numpy() == labels).mean() > 0.95
    assert trained.metrics.keys() == {"accuracy", "macro_f1", "original_accuracy", "original_macro_f1"}
    best = trained.training.best
    assert trained.metrics["accuracy"] == pytest.approx(best["validation_accuracy"])
    assert trained.metrics["macro_f1"] == pytest.approx(best["validation_macro_f1"])
    assert best["validation_shortfall"] == min(record["validation_shortfall"] for record in trained.training.history)
    assert {"train_loss", "train_accuracy", "validation_loss"} <= best.keys()
    # The file holds all that is needed later.
    save_network(tmp_path / "model.pt", trained.model, trained.metadata)
    model, metadata = load_network(tmp_path / "model.pt")
    assert 0.01 <= metadata["temperature"] <= 100 and 0.01 <= metadata["original_temperature"] <= 100
    # The second opinion comes from the texture alone, and counts where predictions are judged.
    assert (metadata["texture"].of_crops(images).argmax(1) == labels).mean() > 0.9
    assert len(metadata["rejection"].weights) == 4 and metadata["rejection"].weights[3] >= 0
    statistics = metadata["statistics"]
    # The OOD threshold comes from the originals of the validation set.
    images, table = textures()
    chosen = (table.split == "validation").to_numpy()
    with torch.no_grad():
        features = model.features(as_input(images[chosen], "cpu")).numpy()
    expected = np.sort(ood_score(group_means(features, table.name[chosen]), statistics))
    assert statistics.reference == pytest.approx(expected, rel=1e-3) and len(expected) == 8


class Killed(Exception):
    pass


def stop_after(epoch):
    def on_epoch(record):
        if record["epoch"] == epoch:
            raise Killed

    return on_epoch


@pytest.mark.parametrize("memory_gb", [4.0, 0.0])
def test_a_training_that_was_interrupted_ends_with_the_same_weights(trained, tmp_path, memory_gb):
    images, table = textures()
    options = {"memory_gb": memory_gb}
    unbroken = trained if memory_gb else train(images, table, **options)
    # Windows end after epoch 2, so both kinds of epochs come after the resumption.
    with pytest.raises(Killed):
        train(images, table, **options, checkpoint=tmp_path / "c.pt", on_epoch=stop_after(1))
    epochs = []
    resumed = train(
        images, table, **options, checkpoint=tmp_path / "c.pt", on_epoch=lambda record: epochs.append(record["epoch"])
    )
    assert epochs == [2, 3, 4] and same(resumed.model.state_dict(), unbroken.model.state_dict())
    assert resumed.training == unbroken.training and resumed.metrics == unbroken.metrics
    # Other crops are another training.
    other = images.copy()
    other[0, 0, 0] ^= 1
    with pytest.raises(Killed):
        train(other, table, **options, checkpoint=tmp_path / "c.pt", on_epoch=stop_after(1))


def test_the_order_of_the_table_decides_nothing_and_the_seed_does(trained):
    images, table = textures()
    again = train(images, table.sample(frac=1, random_state=1))
    assert same(again.model.state_dict(), trained.model.state_dict()) and again.metadata["temperature"] > 0
    other = train(images, table, seed=4, epochs=1)
    assert other.training.history[0] != trained.training.history[0]


def sides(**options):
    """Sides of the inputs of the network in each epoch of training, and in validation."""
    seen = {True: [], False: []}
    images, table = textures(48)

    def record(module, inputs):
        if isinstance(module, SemNetwork):
            seen[module.training].append(tuple(inputs[0].shape[2:]))

    handle = register_module_forward_pre_hook(record)
    try:
        train(images, table, batch_size=32, **options)
    finally:
        handle.remove()
    return [side for side, _ in seen[True]], set(seen[False])


def test_windows_in_the_first_epochs_only_and_never_in_validation():
    assert sides(progressive_size=24, progressive_fraction=0.5) == ([24, 24, 32, 32], {(32, 32)})
    assert sides(progressive_size=24, progressive_fraction=0.0) == ([32] * 4, {(32, 32)})
    assert sides(progressive_size=64, progressive_fraction=0.5) == ([32] * 4, {(32, 32)})


@pytest.mark.parametrize(
    "options",
    [
        {"heads": "axes", "loss": "focal", "optimizer": "sgd", "learning_rate": 0.02, "class_weights": "balanced"},
        {"optimizer": "adam", "schedule": "constant", "monitor": "loss", "weight_decay": 0.0, "normalization": "none"},
        {"precision": "bf16-mixed", "backbone": "mobilenetv3_small_050"},
    ],
)
def test_other_choices_train_too(options):
    result = train(*textures(96), **{"epochs": 2} | options)
    assert all(math.isfinite(record["train_loss"]) for record in result.training.history)
    assert result.model.architecture["heads"] == options.get("heads", "joint")
    if options.get("monitor") == "loss":
        losses = [record["validation_loss"] for record in result.training.history]
        assert result.training.best_epoch == 1 + int(np.argmin(losses))


def test_what_cannot_be_trained_on_is_named():
    images, table = textures(48)
    short = table[(table.label == "523") | (table.split == "train")]
    cases = [
        (short, {}, "found no validation crops of 523_cycled, expected some of every class"),
        (table, {"classes": ["523", "811"]}, "found the label 523_cycled, expected one of the classes 523, 811"),
        (table.assign(crop=table.crop + 1), {}, "found crop number 48 in the table, expected numbers of 48 crops"),
        (table, {"precision": "16-mixed"}, "precision: found 16-mixed on a CPU"),
    ]
    for bad, options, text in cases:
        with pytest.raises(InputError, match=text):
            train(images, bad, **options)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device: found cuda, but no GPU"):
            resolve_device("cuda")
    assert resolve_precision("auto", torch.device("cpu")) in ("bf16-mixed", "32-true")
    assert resolve_precision("bf16-mixed", torch.device("cpu")) == "bf16-mixed"


def numbered(count):
    """Crops whose pixels tell their number."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, 4, 4)).copy()


class Counting:
    """An array that counts how often each row is read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.chunks = array, array.shape, array.dtype, (16, 4, 4)
        self.reads = np.zeros(len(array), int)

    def __getitem__(self, rows):
        self.reads[rows] += 1
        return self.array[rows]


@pytest.mark.parametrize("kind", ["numpy", "zarr", "dask", "counted"])
@pytest.mark.parametrize("memory", [10**9, 0])
def test_every_crop_comes_once_however_it_is_stored(tmp_path, kind, memory):
    array = numbered(250)
    rows = np.flatnonzero(np.arange(250) % 5 != 3)
    if kind == "zarr":
        crops = zarr.create_array(str(tmp_path / "c.zarr"), data=array, chunks=(16, 4, 4), shards=(64, 4, 4))
    else:
        crops = {"numpy": array, "dask": da.from_array(array, (30, 4, 4)), "counted": Counting(array)}[kind]
    source = Source(crops, rows, batch_size=7, memory=memory)
    orders = []
    for seed in (1, 1, 2, None):
        random = None if seed is None else torch.Generator().manual_seed(seed)
        batches = list(source.in_order() if random is None else source.shuffled(random))
        assert [len(images) for images, _ in batches] == [7] * 28 + [4]
        for images, numbers in batches:
            assert images.dtype == torch.uint8 and torch.equal(images, torch.from_numpy(array[numbers]))
        orders.append(np.concatenate([numbers for _, numbers in batches]))
        assert sorted(orders[-1]) == rows.tolist()
    assert np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[0], orders[2])
    assert np.array_equal(orders[3], rows)
    if kind == "counted":
        assert crops.reads[rows].max() == (1 if memory else 4)


def test_crops_beyond_memory_are_mixed_across_the_store():
    count, batch = 40_000, 8
    array = np.zeros((count, 1, 1), np.uint8)
    source = Source(array, np.arange(count), batch_size=batch, memory=4000)
    order = np.concatenate([numbers for _, numbers in source.shuffled(torch.Generator().manual_seed(0))])
    assert np.array_equal(np.sort(order), np.arange(count))
    # A batch holds crops from all over, not from one or two originals.
    spread = [len(np.unique(part // 64)) for part in np.split(order, count // batch)]
    assert np.mean(spread) > 7 and np.percentile(spread, 1) >= 5
    assert abs(np.corrcoef(order, np.arange(count))[0, 1]) < 0.2


def test_errors_while_reading_ahead_reach_the_training():
    class Broken(Counting):
        def __getitem__(self, rows):
            raise OSError("disk gone")

    source = Source(Broken(numbered(200)), np.arange(200), batch_size=8, memory=0)
    with pytest.raises(OSError, match="disk gone"):
        list(source.shuffled(torch.Generator()))


def test_the_clock_counts_waiting_apart_from_work():
    def slow():
        for number in range(3):
            time.sleep(0.05)
            yield number

    clock, begun = {"waited": 0.0, "total": 0.0}, time.perf_counter()
    for _ in timed(slow(), clock):
        time.sleep(0.1)
    # A busy machine makes both longer, so only what is surely waiting or surely work is asked for.
    assert clock["waited"] > 0.14 and clock["total"] - clock["waited"] > 0.29
    assert clock["total"] <= time.perf_counter() - begun


def test_losses_by_name():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.4, 0.1], [0.0, 3.0, 0.0]])
    labels = torch.tensor([0, 2, 1])
    p = torch.softmax(logits, 1)[torch.arange(3), labels]
    weight = torch.tensor([1.0, 3.0, 0.5])
    mine = weight[labels]
    assert classification_loss(logits, labels, loss="cross_entropy", label_smoothing=0) == pytest.approx(
        float(-p.log().mean())
    )
    focal = classification_loss(logits, labels, loss="focal", label_smoothing=0)
    assert focal == pytest.approx(float((-p.log() * (1 - p) ** 2).mean()))
    for name, factor in (("cross_entropy", torch.ones(3)), ("focal", (1 - p) ** 2)):
        found = classification_loss(logits, labels, loss=name, label_smoothing=0, weight=weight)
        assert found == pytest.approx(float((-p.log() * factor * mine).sum() / mine.sum())), name
    smoothed = classification_loss(logits, labels, loss="cross_entropy", label_smoothing=0.3)
    expected = -(0.7 * p.log() + 0.1 * torch.log_softmax(logits, 1).sum(1)).mean()
    assert smoothed == pytest.approx(float(expected))
    assert balanced_weights([0, 0, 0, 1, 2, 2], 3).tolist() == pytest.approx([2 / 3, 2, 1])
    assert F.cross_entropy(logits, labels, weight=balanced_weights([0, 1, 2], 3)) == pytest.approx(-p.log().mean())


def test_macro_f1_counts_classes_alike():
    labels, predictions = [0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 1, 0]
    assert macro_f1(labels, predictions, 3) == pytest.approx((2 * 3 / 8 + 2 * 2 / 5 + 0) / 3)
    # A fourth class that neither occurs nor is predicted has no F1.
    assert macro_f1(labels, predictions, 4) == macro_f1(labels, predictions, 3)


def test_optimisers_and_schedules_by_name():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    for name, kind in (("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)):
        stepper = build_optimizer(module.parameters(), name, learning_rate=0.1, weight_decay=0.5)
        assert type(stepper) is kind and stepper.defaults["lr"] == 0.1
        for parameter in module.parameters():
            nn.init.ones_(parameter)
            parameter.grad = torch.zeros_like(parameter)
        stepper.step()
        # Without a gradient only decay moves anything.
        assert float(module[0].weight.detach().max()) < 0.96
        assert all(torch.equal(one, torch.ones_like(one)) for one in (module[0].bias, module[1].weight, module[1].bias))
    constant = build_schedule("constant", 9, warm_up=1)
    assert [constant(epoch) for epoch in range(4)] == [0.5, 1, 1, 1]
    cosine = build_schedule("cosine", 9, warm_up=0)
    factors = [cosine(epoch) for epoch in range(9)]
    assert factors[0] == 1 and factors == sorted(factors, reverse=True) and factors[-1] < 0.1


def test_mixed_crops_are_trained_on_with_both_labels_and_differ_from_single_ones(trained):
    images, table = textures()
    single = train(images, table, mixup=0.0, epochs=1)
    mixed = train(images, table, mixup=1.0, epochs=1)
    assert not same(single.model.state_dict(), mixed.model.state_dict())
    # Half of the crops are mostly of another class than the label that is counted: the loss is higher.
    assert mixed.training.best["train_loss"] > single.training.best["train_loss"] - 0.05
    again = train(images, table, mixup=1.0, epochs=1)
    assert same(again.model.state_dict(), mixed.model.state_dict())


def test_a_frozen_network_trains_its_last_layer_only(trained, tmp_path):
    save_network(tmp_path / "first.pt", trained.model, trained.metadata)
    images, table = textures(96, seed=4)
    result = train(images, table, frozen=True, weights=str(tmp_path / "first.pt"), epochs=1, mixup=0.0)
    assert same(trained.model.backbone.state_dict(), result.model.backbone.state_dict())
    assert result.metrics["accuracy"] > 0.9


def test_groups_are_classes_in_their_sessions():
    images, table = textures(96, seed=4)
    losses = []
    for sessions in (None, "late", np.where(table.index < 32, "early", "late")):
        given = table if sessions is None else table.assign(session=sessions)
        result = train(images, given, mixup=0.0, epochs=1, robust={"group_weight": 10.0})
        losses.append(result.training.history[0]["train_loss"])
    # One session is none; two weight their crops otherwise.
    assert losses[0] == losses[1] != losses[2]
    with pytest.raises(ValueError, match=r"mixup: 0 where robust\.group_weight is set"):
        train(images, table, mixup=0.2, robust={"group_weight": 1.0})
