"""Train BraggNN on random patches on a device; prints the losses in validation. One process of `test_training`."""

import sys

import numpy as np

from cathodeflow.bragg.network_options import Train
from cathodeflow.bragg.training import train_braggnn
from cathodeflow.io.patch_table import TrainingPatches


def train(device: str, *, epochs: int = 2, precision: str = "32-true", **words):
    """Train on spots whose place is known."""
    random = np.random.default_rng(0)
    count = 256
    row, col = 6 + random.uniform(-0.5, 0.5, (2, count, 1, 1))
    r, c = np.mgrid[:13, :13]
    spots = random.poisson(200 * np.exp(-((r - row) ** 2 + (c - col) ** 2) / 3)).astype(np.float32)
    number = np.arange(count)
    error = np.full((count, 2), 0.05, np.float32)
    table = TrainingPatches(spots, row.ravel().astype("f4"), col.ravel().astype("f4"), number, number, error)
    options = Train(epochs=epochs, precision=precision, seed=0, device=device)
    return train_braggnn(table, number % 4 == 0, options, patch_size=11, **words)


if __name__ == "__main__":
    losses = [record["validation_loss"] for record in train(sys.argv[1]).training.history]
    print(" ".join(f"{loss:.9e}" for loss in losses))
