"""How long the networks of micrographs will be trained, from two epochs on a few crops of noise."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cathodeflow.learning import resolve_device
from cathodeflow.sem.network_options import Train
from cathodeflow.sem.options import DataSet, Section
from cathodeflow.sem.training import train_network
from cathodeflow.training_time import Estimate, epoch_time

# Crops that are measured on a CPU; a GPU is faster with full batches.
_CROPS = 8


def estimate(section: Section, samples: Mapping[str, DataSet], device: str) -> Estimate | None:
    """Estimate the time of all networks; None if nothing is trained."""
    if not any(data_set.role == "train" for data_set in samples.values()):
        return None
    crops = section.crops
    held_out = round(crops.size * crops.ratio)
    n_train = crops.size - held_out
    networks = section.networks
    seconds = sum(
        _crop_time(options, device, crops.side, held_out / n_train) * n_train * _full_epochs(options, crops.side)
        for options in networks.values()
    )
    epochs = "+".join(str(options.epochs) for options in networks.values())
    return Estimate(f"{epochs} epochs of {n_train} crops of {crops.side} x {crops.side} px", seconds)


def _full_epochs(options: Train, side: int) -> float:
    """Return the epochs, those on smaller windows as the fraction of the pixels that they have."""
    reduced = round(options.progressive_fraction * options.epochs)
    return options.epochs - reduced + reduced * min(1.0, options.progressive_size / side) ** 2


def _crop_time(options: Train, device: str, side: int, validation: float) -> float:
    """Measure the time per training crop [s], with its share of validation crops."""
    device = options.device or device
    batch = min(options.batch_size, _CROPS) if resolve_device(device).type == "cpu" else options.batch_size
    n_train, n_validation = 2 * batch, max(2, round(2 * batch * validation))
    count = n_train + n_validation
    table = pd.DataFrame(
        {
            "crop": np.arange(count),
            "name": [f"image {number}" for number in range(count)],
            "label": [("a", "b")[number % 2] for number in range(count)],
            "split": ["train"] * n_train + ["validation"] * n_validation,
            "session": None,
        }
    )
    noise = np.random.default_rng(0).integers(0, 256, (count, side, side), np.uint8)
    changed = {"epochs": 2, "batch_size": batch, "progressive_fraction": 0.0, "patience": None, "device": device}
    short = options.model_copy(update=changed)
    seconds = epoch_time(
        lambda note: train_network(noise, table, short, classes=["a", "b"], on_epoch=note),
        threads=getattr(options, "threads", None),
    )
    return seconds / n_train
