import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cathodeflow.bragg.network_options import Augment, Train
from cathodeflow.bragg.training import join_patches, split_blocks, train_braggnn
from cathodeflow.bragg.training_patches import network_batch
from cathodeflow.checkpoints import generator, training_key
from cathodeflow.errors import InputError
from cathodeflow.io.models import discard_checkpoint, load_checkpoint, save_checkpoint
from cathodeflow.io.patch_table import TrainingPatches
from cathodeflow.options import option
from cathodeflow.training import loop
from cathodeflow.training.base_options import TrainingOptions
from cathodeflow.training.loop import fit
from cathodeflow.training.optimizers import build_optimizer


def small_network():
    """Batch statistics, dropout and momentum: all that resuming could forget."""
    layers = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1))
    random = generator(5)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.3)
    return layers


def small_training(checkpoint=None, *, model=None, on_epoch=None, key="k", **options):
    x = torch.randn(256, 6, generator=generator(1))
    y = x[:, :1] * x[:, 1:2] + 0.1 * torch.randn(256, 1, generator=generator(2))

    def train_batches(epoch):
        order = torch.randperm(192, generator=epoch.random)
        return ((x[rows], y[rows]) for rows in order.split(32))

    model = small_network() if model is None else model
    result = fit(
        model, lambda network, batch: {"loss": (network(batch[0]) - batch[1]).square().mean()},
        train_batches, lambda: [(x[192:], y[192:])],
        TrainingOptions(**{"epochs": 12, "seed": 7, "device": "cpu", "optimizer": "adamw", "learning_rate": 0.02,
                           "weight_decay": 0.01, "warm_up": 2} | options),
        checkpoint=checkpoint, on_epoch_end=on_epoch, key=key,
    )  # fmt: skip
    return model.state_dict(), result


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


KILLED = """
import runpy, sys, time, torch
torch.set_num_threads(int(sys.argv[3]))
module = runpy.run_path(sys.argv[1])
def on_epoch(record):
    print(record["epoch"], flush=True)
    # However late the killer is, it finds something to kill.
    time.sleep(600 if record["epoch"] == 10 else 0)
module["small_training"](sys.argv[2], on_epoch=on_epoch, epochs=12)
"""


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(tmp_path):
    unbroken, result = small_training()
    checkpoint = tmp_path / "checkpoints" / "last.pt"
    command = [sys.executable, "-c", KILLED, __file__, str(checkpoint), str(torch.get_num_threads())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "5":
                break
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    done = len(load_checkpoint(checkpoint)["history"])
    assert 5 <= done < 12
    epochs = []
    resumed, again = small_training(checkpoint, on_epoch=lambda record: epochs.append(record["epoch"]))
    assert epochs == list(range(done + 1, 13))
    assert equal(resumed, unbroken) and again == result
    # A finished training has nothing left to do, and gives the same once more.
    finished, once_more = small_training(checkpoint, on_epoch=epochs.append)
    assert len(epochs) == 12 - done and equal(finished, unbroken) and once_more == result
    discard_checkpoint(checkpoint)
    assert list(checkpoint.parent.iterdir()) == []


class Killed(Exception):
    pass


def test_averaged_weights_are_validated_and_training_goes_on_from_the_last_ones():
    steps, validated = [], []

    def loss_function(network, batch):
        state = {name: value.clone() for name, value in model.state_dict().items()}
        (steps if network.training else validated).append(state)
        return {"loss": (network(batch[0]) - batch[1]).square().mean()}

    model = small_network()
    x, y = torch.randn(64, 6, generator=generator(1)), torch.randn(64, 1, generator=generator(2))
    fit(
        model, loss_function, lambda epoch: [(x, y)] * 40, lambda: [(x, y)],
        TrainingOptions(epochs=2, seed=7, device="cpu", optimizer="sgd", learning_rate=0.01, ema_decay=0.9),
    )  # fmt: skip
    # What a step of the second epoch begins with is what the last of the first ended with.
    for name, found in validated[0].items():
        mean = steps[0][name].clone()
        for number, state in enumerate(steps[1:41], start=1):
            mean = (
                mean + (state[name] - mean) * max(0.1, 10 / (9 + number)) if mean.is_floating_point() else state[name]
            )
        torch.testing.assert_close(found, mean, msg=name)


def test_a_training_with_averaged_weights_goes_on_to_the_same_ones(tmp_path):
    unbroken, result = small_training(ema_decay=0.95)
    checkpoint = tmp_path / "t.ckpt"

    class Stop(Exception):
        pass

    def stop(record):
        if record["epoch"] == 5:
            raise Stop

    with pytest.raises(Stop):
        small_training(checkpoint, on_epoch=stop, ema_decay=0.95)
    resumed, again = small_training(checkpoint, ema_decay=0.95)
    assert equal(resumed, unbroken) and again == result
    assert not equal(unbroken, small_training()[0])


def stop_after(epoch):
    def on_epoch(record):
        if record["epoch"] == epoch:
            raise Killed

    return on_epoch


@pytest.mark.parametrize("spoil", ["other key", "other weights", "cut", "not one"])
def test_a_checkpoint_of_something_else_is_not_resumed(tmp_path, spoil):
    unbroken, _ = small_training(epochs=4)
    checkpoint, epochs = tmp_path / "last.pt", []
    other = small_network()
    other[0].weight.data += 0.01
    with pytest.raises(Killed):
        small_training(
            checkpoint, on_epoch=stop_after(2), epochs=4, key="l" if spoil == "other key" else "k",
            model=other if spoil == "other weights" else None,
        )  # fmt: skip
    if spoil == "cut":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-200])
    if spoil == "not one":
        save_checkpoint(checkpoint, {})
    weights, _ = small_training(checkpoint, on_epoch=lambda record: epochs.append(record["epoch"]), epochs=4)
    assert epochs == [1, 2, 3, 4] and equal(weights, unbroken)


def test_half_a_checkpoint_beside_the_previous_one_does_no_harm(tmp_path):
    unbroken, _ = small_training(epochs=4)
    checkpoint, epochs = tmp_path / "last.pt", []
    with pytest.raises(Killed):
        small_training(checkpoint, on_epoch=stop_after(2), epochs=4)
    rest = tmp_path / ".last.pt.abcd_123"
    rest.mkdir()
    (rest / "lock").touch()
    (rest / "partial.pt").write_bytes(checkpoint.read_bytes()[:500])
    weights, _ = small_training(checkpoint, on_epoch=lambda record: epochs.append(record["epoch"]), epochs=4)
    assert epochs == [3, 4] and equal(weights, unbroken)
    discard_checkpoint(checkpoint)
    assert list(tmp_path.iterdir()) == []


def test_global_random_numbers_are_neither_used_nor_changed():
    models = small_network(), small_network()
    torch.manual_seed(1)
    first, _ = small_training(model=models[0], epochs=2)
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after)
    second, _ = small_training(model=models[1], epochs=2)
    assert equal(first, second)


def test_random_numbers_differ_from_epoch_to_epoch():
    seen = []
    x = torch.ones(4, 1)

    def loss_function(network, batch):
        if network.training:
            seen.append(torch.rand(3))
        return {"loss": network(batch[0]).square().mean()}

    for seed in (1, 2, 1):
        fit(Scalar(1.0), loss_function, lambda epoch: [(x,)], lambda: [(x,)], TrainingOptions(**PLAIN | {"seed": seed}))
    first, other, again = (torch.stack(seen[start : start + 9]) for start in (0, 9, 18))
    assert len(torch.unique(torch.cat([first, other]), dim=0)) == 18 and torch.equal(first, again)


class Scalar(nn.Module):
    def __init__(self, value=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value]))

    def forward(self, x):
        return self.value * x


PLAIN = {"epochs": 9, "schedule": "constant", "device": "cpu"}


def plain_sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def walk(target=0.45, **options):
    """The weight climbs from 0 by 0.1 per epoch, however the validation fares."""
    model = Scalar()
    one = torch.ones(1, 1)

    def loss_function(network, batch):
        found = network(batch[0])
        return {"loss": -found.mean() if batch[1].isnan().all() else (found - batch[1]).abs().mean()}

    result = fit(
        model, loss_function, lambda epoch: [(one, one * torch.nan)], lambda: [(one, one * target)],
        TrainingOptions(**PLAIN | options), optimizer=plain_sgd,
    )  # fmt: skip
    return model.value.item(), result


def test_the_best_epoch_is_chosen_by_validation_and_patience_ends_the_training():
    value, result = walk(0.41)
    assert (result.best_epoch, len(result.history)) == (4, 9) and value == pytest.approx(0.4)
    assert result.best["validation_loss"] == pytest.approx(0.01, abs=1e-6)
    value, result = walk(0.41, patience=2)
    assert (result.best_epoch, len(result.history)) == (4, 6) and value == pytest.approx(0.4)
    assert [record["epoch"] for record in result.history] == list(range(1, 7))


def test_figures_over_the_whole_validation_decide_where_a_mean_over_batches_would_not():
    """The worst sample of all: batches of 3 and 1 samples, whose means of worst ones are something else."""
    targets, seen = torch.tensor([[0.2], [0.3], [0.4], [0.7]]), []

    def loss_function(network, batch):
        error = (network(torch.ones(len(batch[0]), 1)) - batch[0]).abs()
        return {"loss": -network(torch.ones(1, 1)).mean() if network.training else error.mean(), "error": error}

    def whole(kept):
        seen.append(kept)
        return {"worst": kept["error"].max()}

    model = Scalar()
    result = fit(
        model, loss_function, lambda epoch: [(torch.ones(1, 1),)], lambda: [(targets[:3],), (targets[3:],)],
        TrainingOptions(**PLAIN), optimizer=plain_sgd, monitor="worst", whole=whole,
    )  # fmt: skip
    # Half way between the outermost targets, 0.45, is nearest to 0.4 and 0.5; the mean error is least from 0.3 to 0.4.
    assert result.best_epoch in (4, 5) and result.best["validation_worst"] == pytest.approx(0.3, abs=1e-5)
    assert all(kept.keys() == {"error"} and kept["error"].shape == (4, 1) for kept in seen) and len(seen) == 9
    assert result.history[0].keys() == {
        "epoch", "learning_rate", "train_loss", "validation_loss", "validation_worst"
    }  # fmt: skip
    # A mean is that of all samples, whatever their batches.
    assert [record["validation_loss"] for record in result.history] == pytest.approx(
        [(targets - 0.1 * n).abs().mean().item() for n in range(1, 10)], abs=1e-5
    )
    assert [record["validation_worst"] for record in result.history] == pytest.approx(
        [max(abs(0.1 * n - 0.2), abs(0.1 * n - 0.7)) for n in range(1, 10)], abs=1e-5
    )


def test_the_schedule_multiplies_the_learning_rate():
    value, result = walk(9.0, schedule="cosine", warm_up=1, final_rate=0.2, epochs=3)
    assert value == pytest.approx(0.1 * (0.5 + 1 + 0.6))
    assert [record["learning_rate"] for record in result.history] == pytest.approx([0.05, 0.1, 0.06])
    assert [record["learning_rate"] for record in walk(9.0)[1].history] == [0.1] * 9


def test_callers_are_told_the_epoch_also_of_a_training_that_goes_on(tmp_path):
    """State of the network that a hook sets, and batches that depend on the epoch."""
    x = torch.ones(4, 1)

    def training(last, **options):
        model, seen = Scalar(), []

        def start(network, index):
            network.shift = 0.25 * index
            seen.append(index)

        def batches(epoch):
            assert epoch.random.initial_seed() == epoch.seed == generator(3, epoch.index).initial_seed()
            return [(x * (epoch.index + 1),)]

        def loss_function(network, batch):
            return {"loss": network(batch[0]).mean() - model.shift, "shift": torch.tensor(model.shift)}

        result = fit(
            model, loss_function, batches, lambda: [(x,)], TrainingOptions(**PLAIN | {"epochs": 4, "seed": 3}),
            optimizer=plain_sgd, on_epoch_start=start, on_epoch_end=stop_after(last), **options,
        )  # fmt: skip
        return model.value.item(), seen, result

    value, seen, unbroken = training(None)
    assert value == pytest.approx(-0.1 * (1 + 2 + 3 + 4)) and seen == [0, 1, 2, 3]
    assert [record["validation_shift"] for record in unbroken.history] == [0, 0.25, 0.5, 0.75]
    with pytest.raises(Killed):
        training(2, checkpoint=tmp_path / "c.pt")
    again, seen, resumed = training(None, checkpoint=tmp_path / "c.pt")
    assert again == value and resumed == unbroken and seen == [2, 3]


def test_options_decide_whether_a_checkpoint_is_resumed_and_the_device_does_not(tmp_path):
    epochs = []
    for options in ({}, {"device": "auto"}, {"weight_decay": 0.02}, {"batch_size": 7}):
        epochs.append([])
        small_training(
            tmp_path / "c.pt", epochs=1, on_epoch=lambda record: epochs[-1].append(record["epoch"]), **options
        )
    assert epochs == [[1], [1] if torch.cuda.is_available() else [], [1], [1]]


def test_a_technique_inherits_options_and_the_published_optimizers():
    class Train(TrainingOptions):
        epochs: int = option(12, "Maximum number of epochs.", ge=1)

    assert Train().epochs == 12 and Train().model_dump(exclude={"epochs"}) == TrainingOptions().model_dump(
        exclude={"epochs"}
    )
    # One step each by hand: a matrix decays, a bias does not.
    for name, exempt, bias in (("adamw", True, 1.9), ("adamw", False, 1.8), ("sgd", True, 1.81)):
        matrix, vector = nn.Parameter(torch.full((2, 2), 2.0)), nn.Parameter(torch.full((2,), 2.0))
        stepper = build_optimizer([matrix, vector], name, learning_rate=0.1, weight_decay=0.5, exempt=exempt)
        (matrix.sum() + vector.sum()).backward()
        stepper.step()
        decayed = {"adamw": 1.8, "sgd": 2 - 0.1 * 1.9 * (1 + 0.5 * 2)}[name]
        assert matrix[0, 0].item() == pytest.approx(decayed, rel=1e-5)
        assert vector[0].item() == pytest.approx(bias, rel=1e-5)


def test_long_gradients_are_shortened_and_infinite_ones_left_out():
    value, _ = walk(9.0, clip_norm=0.25, epochs=4)
    assert value == pytest.approx(0.1)
    bad = torch.tensor([[torch.inf]])
    model = Scalar(1.0)
    result = fit(
        model, lambda network, batch: {"loss": network(batch[0]).mean()},
        lambda epoch: [(bad,), (torch.ones(1, 1),)], lambda: [(torch.ones(1, 1),)],
        TrainingOptions(**PLAIN | {"epochs": 1, "clip_norm": 10.0}), optimizer=plain_sgd,
    )  # fmt: skip
    assert model.value.item() == pytest.approx(0.9) and result.best["skipped_steps"] == 1


def test_nothing_to_train_on_or_nothing_finite_is_an_error():
    with pytest.raises(InputError, match="no finite validation loss in 9 epochs"):
        walk(torch.inf)
    one = [(torch.ones(1, 1),)]
    for train, validation, kind in (([], one, "train"), (one, [], "validation")):
        with pytest.raises(InputError, match=f"{kind} data: found no samples"):
            fit(Scalar(), lambda network, batch: {"loss": network(batch[0]).mean()},
                lambda epoch, train=train: train, lambda validation=validation: validation, TrainingOptions(**PLAIN))  # fmt: skip


def test_keys_see_values_shapes_types_and_order():
    array, tensor = np.arange(6.0), torch.arange(6.0)
    parts = [
        (array,), (array.reshape(2, 3),), (array.astype("f4"),), (array + 1e-12,), (tensor,), ({"a": tensor},),
        ({"b": tensor},), ({"a": 1},), ({"a": 2},), ("a", "b"), ("ab",), (array, tensor), (tensor, array),
    ]  # fmt: skip
    assert len({training_key(*part) for part in parts}) == len(parts)
    assert training_key({"a": 1, "b": array[0]}) == training_key({"b": array.copy()[0], "a": 1})


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(2, 400), min_size=1, max_size=4), share=st.floats(0.05, 0.5),
       block=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))  # fmt: skip
def test_validation_takes_whole_blocks_of_frames_of_every_scan(lengths, share, block, seed):
    random = np.random.default_rng(seed)
    fidx = np.concatenate([np.arange(n) for n in lengths for _ in range(2)])
    scan = np.concatenate([np.full(n, i) for i, n in enumerate(lengths) for _ in range(2)])
    order = random.permutation(len(fidx))
    chosen = split_blocks(fidx[order], scan[order], validation=share, block=block)
    for number, length in enumerate(lengths):
        frames, mine = fidx[order][scan[order] == number], chosen[scan[order] == number]
        held, kept = set(frames[mine]), set(frames[~mine])
        assert held and kept and not held & kept
        width = max(1, min(block, int(length * share)))
        assert abs(len(held) - share * length) <= max(1.5 * width, share * width + width)
        runs = 1 + np.count_nonzero(np.diff(sorted(held)) > 1)
        assert runs <= -(-len(held) // width) + 1


def test_a_scan_of_one_frame_is_for_training():
    assert not split_blocks([4, 4, 4], validation=0.2, block=16).any()


def simulated_peaks(count, seed, size=13):
    """Poisson peaks on a background that fills the patch: their centre of mass is pulled to the middle."""
    random = np.random.default_rng(seed)
    row, col = size // 2 + random.uniform(-0.5, 0.5, (2, count))
    sigma, height = random.uniform(1.0, 1.6, count), random.uniform(100, 1000, count)
    r, c = np.mgrid[:size, :size]
    distance = (r - row[:, None, None]) ** 2 + (c - col[:, None, None]) ** 2
    mean = height[:, None, None] * (np.exp(-distance / (2 * sigma[:, None, None] ** 2)) + 0.1)
    number = np.arange(count)
    patches = random.poisson(mean).astype(np.float32)
    error = np.full((count, 2), 0.05, np.float32)
    return TrainingPatches(patches, row.astype("f4"), col.astype("f4"), number // 10, number, error)


def centre_of_mass_error(table, rows):
    patches, (r, c) = table.patches[rows, 1:-1, 1:-1], np.mgrid[:11, :11]
    total = patches.sum((1, 2))
    row, col = (patches * r).sum((1, 2)) / total, (patches * c).sum((1, 2)) / total
    return np.median(np.hypot(row + 1 - table.row[rows], col + 1 - table.col[rows]))


def test_a_short_training_beats_the_centre_of_mass():
    table, scan = join_patches([simulated_peaks(800, 0), simulated_peaks(800, 1)])
    held = split_blocks(table.fidx, scan, validation=0.2, block=5)
    trained = train_braggnn(
        table,
        held,
        Train(
            epochs=10,
            batch_size=32,
            final_rate=0.05,
            augment=Augment(rotate90=False, flip=False),
            overlap=0.0,
            loss="mse",
            device="cpu",
        ),
        patch_size=11,
    )
    losses = [record["train_loss"] for record in trained.training.history]
    assert losses[-1] < 0.2 * losses[0]
    assert trained.metrics["distance_p50"] < 0.6 * centre_of_mass_error(table, held)
    assert trained.metrics["distance_p50"] <= trained.metrics["distance_p75"] <= trained.metrics["distance_p99.5"]


def test_braggnn_resumes_to_the_same_weights_and_starts_from_given_ones(tmp_path):
    table = simulated_peaks(200, 2)
    held, options = (
        split_blocks(table.fidx, validation=0.2, block=16),
        Train(epochs=3, batch_size=32, device="cpu", seed=4),
    )
    unbroken = train_braggnn(table, held, options, patch_size=11)
    with pytest.raises(Killed):
        train_braggnn(table, held, options, patch_size=11, checkpoint=tmp_path / "c.pt", on_epoch=stop_after(2))
    epochs: list[float] = []
    resumed = train_braggnn(
        table,
        held,
        options,
        patch_size=11,
        checkpoint=tmp_path / "c.pt",
        on_epoch=lambda record: epochs.append(record["epoch"]),
    )
    assert epochs == [3] and equal(resumed.model.state_dict(), unbroken.model.state_dict())
    assert resumed.training == unbroken.training
    other = train_braggnn(
        table._replace(row=table.row + 0.01), held, options, patch_size=11, checkpoint=tmp_path / "c.pt"
    )
    assert not equal(other.model.state_dict(), unbroken.model.state_dict())
    little = options.model_copy(update={"epochs": 1, "learning_rate": 1e-9})
    tuned = train_braggnn(table, held, little, patch_size=11, pretrained=unbroken.model.state_dict())
    assert tuned.metrics["distance_mean"] == pytest.approx(unbroken.metrics["distance_mean"], rel=1e-3)


@pytest.mark.parametrize("loss", ["huber", "mse"])
def test_losses_and_distances_are_those_of_the_validation_peaks_in_pixels(loss):
    table = simulated_peaks(60, 3)
    held = split_blocks(table.fidx, validation=0.3, block=16)
    options = Train(epochs=1, batch_size=32, device="cpu", seed=4, loss=loss, precision="32-true", ema_decay=0)
    trained = train_braggnn(table, held, options, patch_size=11)
    still, rows = np.zeros(held.sum(), np.int64), np.flatnonzero(held)
    inputs, labels = network_batch(table, rows, still, still, still, patch_size=11)
    with torch.no_grad():
        error = 11 * (trained.model(torch.from_numpy(inputs)).numpy() - labels)
    found = trained.training.best
    assert found["validation_distance"] == pytest.approx(np.hypot(*error.T).mean(), rel=1e-4)
    # The loss is in sides of the patch; Huber's bends at a tenth of a pixel.
    bent = np.where(np.abs(error) < 0.1, 0.5 * error**2 / 0.1, np.abs(error) - 0.05) / 11
    expected = bent.mean() if loss == "huber" else (error**2).mean() / 11**2
    assert found["validation_loss"] == pytest.approx(expected, rel=1e-4)


def test_unusable_training_data_is_named():
    table = simulated_peaks(20, 3)
    held = split_blocks(table.fidx, validation=0.5, block=16)
    with pytest.raises(InputError, match="a margin of 1 px around 11 px, expected at least 3 px"):
        train_braggnn(table, held, Train(max_shift=3), patch_size=11)
    with pytest.raises(InputError, match="20 for training and 0 for validation"):
        train_braggnn(table, np.zeros(20, bool), Train(), patch_size=11)


def test_paths_may_be_strings(tmp_path):
    small_training(str(tmp_path / "a.pt"), epochs=1)
    assert Path(tmp_path / "a.pt").is_file()


def test_a_long_epoch_says_how_far_it_is(monkeypatch, caplog):
    monkeypatch.setattr(loop, "_TOLD_EVERY", 0.0)
    batches = [(torch.zeros(2, 1),)] * 3
    with caplog.at_level("INFO"):
        assert list(loop._told(batches, "network: epoch 1 of 2", show=True)) == batches
        list(loop._told(batches, "network: epoch 1 of 2", show=False))
    assert caplog.messages == [f"network: epoch 1 of 2: {count} batches done" for count in (1, 2, 3)]
