from itertools import permutations
from typing import get_args

import numpy as np
import pytest
import torch
import zarr

from cathodeflow.bcdi.ambiguities import align
from cathodeflow.bcdi.losses import LOSSES
from cathodeflow.bcdi.network_options import Architecture, Augment, Infer, Refine, Train
from cathodeflow.bcdi.operators import amplitude as amplitude_of
from cathodeflow.bcdi.prediction import predict_objects
from cathodeflow.bcdi.recipe import parse
from cathodeflow.bcdi.refinement import fine_tune, refine_objects, refinement
from cathodeflow.bcdi.training import augmented, thinned
from cathodeflow.bcdi.training import train_network as train_with
from cathodeflow.errors import InputError
from cathodeflow.options import from_config
from cathodeflow.training.schedules import cyclic

SMALL = {"widths": (4, 8, 16, 32), "candidates": 2, "stages": 1, "device": "cpu", "precision": "32-true"}
ARCHITECTURES = get_args(Architecture)
PLAIN = Infer(device="cpu", precision="32-true")
STILL = Augment(rotate90=False, flip=False)


def train_network(amplitudes, objects=None, **given):
    keywords = {name: given.pop(name) for name in ("initial_weights", "checkpoint", "on_epoch") if name in given}
    return train_with(amplitudes, objects, Train(**given), **keywords)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def crystals(n, side=16, seed=0, photons=1e5):
    """Boxes without some of their corners, with a smooth phase; and amplitudes, square roots of counts."""
    random = np.random.default_rng(seed)
    grid = (np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij")) - side // 2) / side
    objects = np.zeros((n, side, side, side), np.complex64)
    for one in objects:
        inside = (np.abs(grid) <= random.uniform(0.12, 0.2, (3, 1, 1, 1))).all(0)
        for _ in range(3):
            normal = random.normal(size=3)
            inside &= np.einsum("i,izyx->zyx", normal / np.linalg.norm(normal), grid) <= random.uniform(0.1, 0.2)
        phase = np.einsum("i,izyx->zyx", random.normal(size=3) * 30, grid**2) + random.normal() * 30 * grid[0] * grid[2]
        one[inside] = np.exp(1j * phase[inside])
    far = amplitude_of(torch.from_numpy(objects)).numpy() ** 2
    counts = random.poisson(far * (photons / far.sum((1, 2, 3), keepdims=True)))
    return np.sqrt(counts).astype(np.float32), objects


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_without_truth_finds_crystals(architecture):
    amplitudes, objects = crystals(36)
    # The published one takes longer.
    epochs = 14 if architecture == "autophasenn" else 8
    trained = train_network(amplitudes, objects, architecture=architecture, epochs=epochs, batch_size=4, loss="mix",
                            learning_rate=4e-3, augment=STILL, **SMALL)  # fmt: skip
    first, last = trained.training.history[0], trained.training.history[-1]
    assert last["train_loss"] < 0.85 * first["train_loss"]
    assert trained.training.best["validation_loss"] < 0.9 * first["validation_loss"]
    assert trained.training.best["validation_correlation"] > 0.55
    assert last["skipped_steps"] == 0
    assert trained.model.threshold == pytest.approx(0.07 + 0.03 * (trained.training.best_epoch - 1) / (epochs - 1))
    # What validation says is what the network does.
    test, truth = crystals(4, seed=9)
    found = predict_objects(trained.model, test, PLAIN)
    for candidates, one in zip(found.objects, truth, strict=True):
        assert align(candidates[:1], torch.from_numpy(one))[1].item() > 0.5


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_falls(loss):
    amplitudes, _ = crystals(16)
    history = train_network(amplitudes, architecture="candidates", loss=loss, epochs=6, batch_size=4, schedule="constant",
                            learning_rate=3e-3, **SMALL).training.history  # fmt: skip
    assert history[-1]["train_loss"] < history[0]["train_loss"] and "validation_correlation" not in history[0]


def test_a_supervised_share_brings_the_truth_nearer():
    amplitudes, objects = crystals(16)
    found = [
        train_network(amplitudes, objects, architecture="candidates", loss="l1", supervised=weight, epochs=8,
                      batch_size=4, learning_rate=3e-3, **SMALL).training.history[-1]["validation_correlation"]
        for weight in (0.0, 0.75)
    ]  # fmt: skip
    assert found[1] > found[0]


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path):
    amplitudes, _ = crystals(12)
    store = zarr.create_array(tmp_path / "amplitudes", shape=amplitudes.shape, chunks=(1, 16, 16, 16), dtype="float32")
    store[:] = amplitudes
    options = {"architecture": "unrolled", "epochs": 4, "batch_size": 4, "min_photon_fraction": 0.1, "ema_decay": 0.5,
               "optimizer": "adamw", "schedule": "cyclic", **SMALL}  # fmt: skip
    whole = train_network(amplitudes, **options)

    def stop(record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    path = tmp_path / "state.pth"
    with pytest.raises(KeyboardInterrupt):
        train_network(store, checkpoint=path, on_epoch=stop, **options)
    epochs = []
    resumed = train_network(store, checkpoint=path, on_epoch=lambda record: epochs.append(record["epoch"]), **options)
    assert epochs == [3, 4] and resumed.training == whole.training
    assert resumed.model.architecture == whole.model.architecture
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])
    # Other data does not go on from it.
    epochs.clear()
    train_network(amplitudes * 2, checkpoint=path, on_epoch=lambda record: epochs.append(record["epoch"]), **options)
    assert epochs == [1, 2, 3, 4]


def test_weights_of_a_training_begin_another_at_another_size():
    amplitudes, _ = crystals(8)
    first = train_network(amplitudes, architecture="candidates", epochs=2, batch_size=4, **SMALL)
    larger, _ = crystals(4, side=32)
    options = {"architecture": "candidates", "epochs": 1, "learning_rate": 1e-9, "batch_size": 2, **SMALL}
    second = train_network(larger, initial_weights=first.model.state_dict(), **options)
    for name, value in first.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], value, atol=1e-6, rtol=1e-4)


def test_turns_of_the_amplitude_are_those_of_the_object():
    one = torch.randn(8, 8, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    seen = set()
    for seed in range(40):
        amplitude, turn = augmented([amplitude_of(one).numpy(), one.numpy()], np.random.default_rng(seed), Augment())
        np.testing.assert_allclose(amplitude_of(torch.from_numpy(turn)), amplitude, atol=1e-4)
        seen.add(amplitude.tobytes())
    assert len(seen) > 20
    volume = np.arange(4 * 4 * 8).reshape(4, 4, 8)
    assert all(augmented([volume], np.random.default_rng(seed), Augment())[0].shape == (4, 4, 8) for seed in range(9))
    cube = np.arange(64).reshape(4, 4, 4)
    flips, turns = (
        {augmented([cube], np.random.default_rng(seed), options)[0].tobytes() for seed in range(60)}
        for options in (Augment(rotate90=False), Augment(flip=False))
    )
    assert len(flips) == 8 and turns == {cube.transpose(axes).tobytes() for axes in permutations(range(3))}
    assert augmented([cube], np.random.default_rng(1), STILL)[0] is cube


def test_thinning_gives_the_noise_of_a_shorter_exposure():
    random = np.random.default_rng(0)
    counts = random.poisson(9.0, (40, 40, 40))
    fewer = thinned(np.sqrt(counts).astype(np.float32), 0.3, random) ** 2
    assert fewer.mean() == pytest.approx(2.7, rel=0.02) and fewer.var() == pytest.approx(2.7, rel=0.03)
    assert np.abs(fewer - np.rint(fewer)).max() < 1e-5 and (fewer <= counts + 1e-5).all()
    single = np.zeros((4, 4, 4), np.float32)
    single[1, 1, 1] = 1
    assert thinned(single, 1e-9, random).sum() == 1


def test_a_step_whose_gradient_is_not_finite_is_left_out():
    """The loss of one pattern overflows; without the check every weight would be NaN."""
    amplitudes, _ = crystals(12)
    amplitudes[3] *= 1e18
    trained = train_network(
        amplitudes, architecture="candidates", epochs=2, batch_size=1, loss="poisson", seed=1, **SMALL
    )
    assert all(value.isfinite().all() for value in trained.model.state_dict().values())
    assert trained.training.history[0]["skipped_steps"] > 0


def test_fine_tuning_lowers_the_residual_and_leaves_the_network_alone():
    amplitudes, _ = crystals(16)
    model = train_network(
        amplitudes, architecture="unrolled", epochs=3, batch_size=4, learning_rate=3e-3, **SMALL
    ).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measured = crystals(1, seed=7)[0][0]
    tuned = fine_tune(model, measured, PLAIN.model_copy(update={"fine_tune": 25, "learning_rate": 2e-3}))
    assert len(tuned.losses) == 26 and min(tuned.losses) < 0.9 * tuned.losses[0]
    found = [predict_objects(one, measured, PLAIN) for one in (model, tuned.model)]
    assert found[1].residuals[0] < 0.95 * found[0].residuals[0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # A rate that destroys the network is not kept.
    spoilt = fine_tune(model, measured, PLAIN.model_copy(update={"fine_tune": 3, "learning_rate": 10.0}))
    again = predict_objects(spoilt.model, measured, PLAIN)
    assert again.residuals[0] <= found[0].residuals[0] + 1e-4


def test_refinement_from_near_the_truth_reaches_it():
    one = torch.from_numpy(crystals(1, side=32)[1][0])
    truth, near = (torch.polar(one.abs(), factor * one.angle()) for factor in (5, 2.5))
    measured = 100 * amplitude_of(truth)
    found = refine_objects(measured, torch.stack([near, near.roll(2, 0)]), Refine(iterations=30, device="cpu"))
    assert found.objects.shape == (2, 32, 32, 32) and found.errors.shape == (2, 30)
    assert align(found.objects, truth)[1].min() > 0.97 > 0.9 > align(near[None], truth)[1].item()
    assert found.errors[:, -1].max() < 0.01
    mask = torch.rand(32, 32, 32, generator=torch.Generator().manual_seed(0)) > 0.1
    spoilt = refine_objects(
        torch.where(mask, measured, 1e4), near, Refine(recipe="20*HIO+5*ER", device="cpu"), mask=mask
    )
    assert spoilt.errors.shape == (1, 25) and align(spoilt.objects, truth)[1].item() > 0.95
    assert all(sum(step.iterations for step in parse(refinement(count))) == count for count in (1, 2, 7, 50, 400))


def test_schedules_repeat():
    factor = cyclic()
    assert [round(factor(epoch), 3) for epoch in (0, 6, 12, 18)] == [0.1, 1.0, 0.1, 0.55]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"loss": "mse"}, "loss: found 'mse'"),
        ({"supervised": 2.0}, "supervised: found 2.0"),
        ({"validation": 1.0}, "validation: found 1.0"),
        ({"min_photon_fraction": 0.0}, "min_photon_fraction: found 0.0"),
        ({"threshold": (-0.1, 0.1)}, "threshold: found"),
        ({"optimizer": "sgd"}, "optimizer: found 'sgd'"),
        ({"schedule": "step"}, "schedule: found 'step'"),
        ({"precision": "16-mixed"}, "precision: found '16-mixed'"),
        ({"architecture": "vgg"}, "architecture: found 'vgg'"),
        ({"average": 0.5}, "average: found .*bcdi.train.ema_decay|average was renamed to ema_decay"),
        ({"turns": True}, "augment.rotate90"),
    ],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(InputError, match=named):
        from_config(Train, options, "bcdi.train")


def test_supervision_needs_objects():
    amplitudes, _ = crystals(4)
    with pytest.raises(InputError, match="supervised: found 1 without objects"):
        train_network(amplitudes, supervised=1.0, epochs=1, **SMALL)


def test_bad_volumes_are_named():
    amplitudes, objects = crystals(4)
    spoilt = {name: amplitudes.copy() for name in ("zero", "negative", "nan")}
    spoilt["zero"][2], spoilt["negative"][2, 0, 0, 0], spoilt["nan"][2, 0, 0, 0] = 0, -1, np.nan
    for volumes, named in [
        (spoilt["zero"], "volume 2 0 everywhere"), (spoilt["negative"], "volume 2 from -1"), (spoilt["nan"], "volume 2 from nan"),
        (amplitudes[:, :12], "divisible by 16"), (amplitudes[:1], "two or more volumes"), (amplitudes[0], "two or more"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=named):
            train_network(volumes, epochs=1, **SMALL)
    with pytest.raises(InputError, match="training objects: found shape"):
        train_network(amplitudes, objects[:3], epochs=1, **SMALL)
    model = train_network(amplitudes, epochs=1, **SMALL).model
    for volume, named in [
        (amplitudes[0, :12], "divisible by 16"),
        (amplitudes[0] * 0, "0 everywhere"),
        (amplitudes, "4 volumes"),
    ]:
        with pytest.raises(InputError, match=named):
            fine_tune(model, volume, PLAIN.model_copy(update={"fine_tune": 1}))
    with pytest.raises(InputError, match="at least 1"):
        fine_tune(model, amplitudes[0], PLAIN)
