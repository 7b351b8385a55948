"""A training in two processes (gloo, on CPUs) against one process with the same batches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """\
import sys, torch
from torch import nn
from torch.nn import functional as F
from cathodeflow.io.tables import write_json
from cathodeflow.training.loop import fit
from cathodeflow.training.base_options import TrainingOptions

data = torch.Generator().manual_seed(3)
inputs = torch.randn(43, 5, generator=data)
labels = inputs @ torch.randn(5, 2, generator=data)
# Batches of 8, of 3 and of 1: shares of 4 and 4, of 2 and 1, and of 1 and none.
cuts = (8, 8, 8, 8, 7, 3, 1)

def train_batches(epoch):
    order = torch.randperm(43, generator=epoch.random)
    return zip(inputs[order].split(cuts), labels[order].split(cuts))

def loss(network, batch):
    value = F.mse_loss(network(batch[0]), batch[1])
    return {"loss": value, "twice": 2 * value.detach()}

torch.set_num_threads(1)
for number in range(2):
    torch.manual_seed(number)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
    # As BraggNN has one: it has no part in the loss.
    model.register_parameter("spare", nn.Parameter(torch.ones(2)))
    result = fit(model, loss, train_batches, lambda: [(inputs, labels)],
                 TrainingOptions(epochs=4, schedule="constant", clip_norm=1.0, precision="32-true", device="cpu", seed=1),
                 optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05),
                 checkpoint=f"{number}.ckpt")
    weights = {name: value.tolist() for name, value in model.state_dict().items()}
    write_json(f"{number}.json", {"history": result.history, "weights": weights})
print("end")
"""


def run(folder: Path, devices: int) -> tuple[list[dict], str]:
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "CATHODEFLOW_PROCESSES_DEVICES": str(devices)}
    result = subprocess.run([sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(2)], result.stdout


def test_two_processes_follow_the_curve_of_one(tmp_path: Path) -> None:
    alone, _ = run(tmp_path / "one", 1)
    together, output = run(tmp_path / "two", 2)
    assert output.count("end") == 2
    # Two trainings one after the other, as some stages have.
    for ours, theirs in zip(together, alone, strict=True):
        assert len(ours["history"]) == 4
        for row, expected in zip(ours["history"], theirs["history"], strict=True):
            assert row == pytest.approx(expected, rel=1e-5)
        for name, values in theirs["weights"].items():
            for left, right in zip(ours["weights"][name], values, strict=True):
                assert left == pytest.approx(right, rel=1e-4, abs=1e-6)
    # The second process wrote nothing, and left nothing half-written.
    files = {"script.py", *(f"{number}.{suffix}" for number in range(2) for suffix in ("json", "ckpt"))}
    assert {path.name for path in (tmp_path / "two").iterdir()} == files
