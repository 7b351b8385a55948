"""Trainings on a graphics card: as on a CPU, repeatable, in mixed precision, resumed, and two at once."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cathodeflow.bcdi.network_options import Train
from cathodeflow.bcdi.simulation import block
from cathodeflow.bcdi.simulation_options import Simulate
from cathodeflow.bcdi.training import train_network
from cathodeflow.fibsem.global_training import LabelledSlices
from cathodeflow.fibsem.global_training import train_network as train_global
from cathodeflow.fibsem.idk import Pixels, train_pixels
from cathodeflow.fibsem.local_training import LocalPixels, fit_local
from cathodeflow.fibsem.network_options import TrainGlobal, TrainIdk, TrainLocal
from cathodeflow.fibsem.windows import pad_slices
from cathodeflow.sem.network_options import Augment
from cathodeflow.sem.network_options import Train as TrainSem
from cathodeflow.sem.training import train_network as train_sem

from .training_alone import train

pytestmark = pytest.mark.gpu


def losses(trained) -> list[float]:
    """Losses in validation."""
    return [record["validation_loss"] for record in trained.training.history]


def test_bragg_training_goes_as_on_a_cpu(device):
    np.testing.assert_allclose(losses(train(device.type)), losses(train("cpu")), rtol=0.02)


def test_bragg_training_repeats(device):
    first, again = (train(device.type) for _ in range(2))
    np.testing.assert_allclose(losses(first), losses(again), rtol=1e-3)


def test_mixed_precision_learns_as_well(device):
    mixed, whole = (losses(train(device.type, epochs=6, precision=name))[-1] for name in ("bf16-mixed", "32-true"))
    assert mixed < 1.5 * whole


class Interrupted(Exception):
    """The training was ended from outside."""


def test_an_interrupted_training_goes_on(device, tmp_path):
    unbroken = losses(train(device.type, epochs=4))

    def stop(record):
        if record["epoch"] == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(device.type, epochs=4, checkpoint=tmp_path / "train.ckpt", on_epoch=stop)
    seen = []
    resumed = train(device.type, epochs=4, checkpoint=tmp_path / "train.ckpt", on_epoch=seen.append)
    assert [record["epoch"] for record in seen] == [3, 4]
    np.testing.assert_allclose(losses(resumed), unbroken, rtol=1e-3)


def test_phase_network_training_goes_as_on_a_cpu(device):
    crystals = block(range(6), Simulate(size=16, seed=1, oversampling=(2.2, 3.8)))
    amplitudes = np.sqrt(crystals.counts, dtype=np.float32)
    options = Train(architecture="candidates", widths=(4, 8), candidates=2, epochs=2, batch_size=2, precision="32-true")
    found = [
        losses(train_network(amplitudes, None, options.model_copy(update={"device": place})))
        for place in ("cpu", device.type)
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=0.02)


def test_unet_training_goes_as_on_a_cpu(device):
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, (6, 4, 4)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    grey = torch.from_numpy((60 * labels + random.integers(0, 40, labels.shape)).astype(np.uint8))
    parts = [
        LabelledSlices(grey, torch.from_numpy(labels), torch.arange(6)[some, None]) for some in (slice(4), slice(4, 6))
    ]
    # Dropout draws other numbers on a card.
    options = TrainGlobal(widths=(4, 8), dropout=0, epochs=2, batch_size=2, precision="32-true")
    found = [
        losses(train_global(*parts, options.model_copy(update={"device": place}), n_classes=3))
        for place in ("cpu", device.type)
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=0.02)


def test_idk_training_goes_as_on_a_cpu(device):
    features = torch.randn(600, 4, generator=torch.Generator().manual_seed(0))
    wrong = features[:, 3] > 0.5
    parts = [Pixels(features[some], wrong[some]) for some in (slice(400), slice(400, 600))]
    options = TrainIdk(epochs=2, batch_size=64)
    found = [
        losses(train_pixels(*parts, options.model_copy(update={"device": place}))) for place in ("cpu", device.type)
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=0.02)


def test_lcgar_training_goes_as_on_a_cpu(device):
    random = torch.Generator().manual_seed(0)
    slices, logits = torch.rand(3, 16, 16, generator=random), torch.randn(3, 3, 16, 16, generator=random)
    labels = (3 * slices).long().flatten()
    entropy = torch.rand(labels.shape, generator=random)
    options = TrainLocal(dropout=0, epochs=2, batch_size=32, precision="32-true")
    found = []
    for place in ("cpu", device.type):
        padded = pad_slices(slices, logits, slices > 0.5, side=options.side, low=0, high=1, device=place)
        parts = [LocalPixels(padded, some, labels[some], entropy[some]) for some in torch.arange(192).split(128)]
        found.append(losses(fit_local(*parts, options, low=0, high=1)))
    np.testing.assert_allclose(found[1], found[0], rtol=0.02)


def test_sem_training_goes_as_on_a_cpu(device):
    crops = np.random.default_rng(0).integers(0, 256, (32, 32, 32), np.uint8)
    crops[::2] //= 4
    number = np.arange(32)
    table = pd.DataFrame({
        "crop": number, "name": [f"image {one // 4}" for one in number], "label": np.where(number % 2, "a", "b"),
        "split": np.where(number < 24, "train", "validation"),
    })  # fmt: skip
    # Augmentation and dropout draw other numbers on a card.
    without = Augment(flip=False, rotate90=False, gamma=1, blur=0)
    options = TrainSem(augment=without, normalization="none", mixup=0, dropout=0, progressive_fraction=0, epochs=2,
                       batch_size=8, precision="32-true", threads=1)  # fmt: skip
    found = [
        losses(train_sem(crops, table, options.model_copy(update={"device": place}), classes=["a", "b"]))
        for place in ("cpu", device.type)
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=0.02)


def test_two_processes_share_a_card(device):
    script = Path(__file__).with_name("training_alone.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), device.type]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    answers = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    alone = losses(train(device.type))
    for answer in answers:
        np.testing.assert_allclose([float(one) for one in answer.split()], alone, rtol=1e-2)
