"""How long the networks of slices will be trained, from two epochs on a few slices of noise."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from cathodeflow.fibsem import split
from cathodeflow.fibsem.global_training import LabelledSlices, train_network
from cathodeflow.fibsem.labelled_stack import open_labels
from cathodeflow.fibsem.local_training import LocalPixels, fit_local, window_side_of
from cathodeflow.fibsem.network_options import TrainGlobal, TrainLocal
from cathodeflow.fibsem.options import Section
from cathodeflow.fibsem.slice_options import Slices
from cathodeflow.fibsem.windows import pad_slices
from cathodeflow.io.slices import open_stack
from cathodeflow.io.sources import is_remote
from cathodeflow.learning import resolve_device
from cathodeflow.training_time import Estimate, epoch_time

# Slices that are measured, and time of a validation relative to a training step, which also has a backward pass.
_SLICES, _VALIDATION = 2, 1 / 3
# Largest side of the slices that are measured: the time is proportional to the pixels.
_LARGEST = 256
# Rows and columns of the slices from which windows are measured, and the usual fraction of IDK pixels.
_SIDE, _IDK = 96, 0.1


class _Volume(NamedTuple):
    """Number of labelled slices to train on, and their size [px]."""

    n_slices: int
    rows: int
    cols: int


def estimate(section: Section, samples: Mapping[str, Slices], device: str) -> Estimate | None:
    """Estimate the time of all networks and local models of all volumes; None if nothing is trained here.

    The IDK classifiers, which see single pixels, are not included.

    Raises
    ------
    InputError
        A file cannot be read, or the labelled slices cannot be split.
    """
    trained = [sample for sample in samples.values() if sample.role == "train"]
    if not trained or any(is_remote(sample.images) or is_remote(sample.labels or "") for sample in trained):
        return None
    volumes = [_volume(section, sample) for sample in trained]
    if section.pooled:
        volumes = [_Volume(sum(volume.n_slices for volume in volumes), *np.max([volume[1:] for volume in volumes], 0))]
    cross_fitted = {method.network for method in section.methods.values()}
    seconds = 0.0
    for volume in volumes:
        slice_times = {name: _slice_time(options, device, volume) for name, options in section.networks.items()}
        for name in section.augment.splits:
            images, n_validation = _counts(section, name, volume.n_slices)
            for network, options in section.networks.items():
                # The networks without a fold are trained for as many steps as the network itself.
                times = 1 + (options.folds or 0) * (network in cross_fitted)
                seconds += times * options.epochs * (images + _VALIDATION * n_validation) * slice_times[network]
            for method in section.methods.values():
                local = method.train_local
                windows = local.pixels_per_epoch or round(_IDK * images * volume.rows * volume.cols)
                context = section.networks[method.network].context
                seconds += local.epochs * windows * _window_time(local, device, context)
    count = len(section.networks) + len(section.methods)
    what = f"{count} networks and local models on {sum(volume.n_slices for volume in volumes)} labelled slices"
    runs = len(section.seeds)
    return Estimate(what + f", {runs} times" * (runs > 1), runs * seconds)


def _volume(section: Section, sample: Slices) -> _Volume:
    if sample.simulated:
        made = section.simulate
        return _Volume(made.n_slices, made.rows, made.cols)
    stack = open_stack(sample.images, section.volume.choice())
    labels = open_labels(sample.labels, stack, section.volume)
    return _Volume(stack.n_slices if labels is None else len(labels.labelled), *stack.shape)


def _counts(section: Section, name: str, n_slices: int) -> tuple[int, int]:
    """Return the number of images for training, with the copies of slices, and of slices for validation."""
    options = section.augment.model_copy(update={"seed": section.augment.seed or 0})
    pairs = {"paper": split.paper, "grouped": split.grouped}[name](n_slices, options)
    validation = (pairs["role"] == split.VALIDATION) & (pairs["copy"] == 0)
    return int((pairs["role"] == split.TRAIN).sum()), int(validation.sum())


def _slice_time(options: TrainGlobal, device: str, volume: _Volume) -> float:
    """Measure the time of a training step per slice [s]; 0 for a random forest, which has no steps."""
    if options.architecture == "forest":
        return 0.0
    random = np.random.default_rng(0)
    count = _SLICES + 1
    shape = (min(volume.rows, _LARGEST), min(volume.cols, _LARGEST))
    images = torch.from_numpy(random.integers(0, 256, (count, *shape), np.uint8))
    labels = torch.from_numpy(random.integers(0, 2, (count, *shape), np.uint8))
    near = torch.arange(count)[:, None].repeat(1, options.context)
    train, validation = (LabelledSlices(images, labels, part) for part in (near[:_SLICES], near[_SLICES:]))
    changed = {"batch_size": min(options.batch_size, _SLICES), "device": options.device or device}
    short = options.model_copy(update={"epochs": 2, "patience": None, **changed})
    seconds = epoch_time(
        lambda note: train_network(train, validation, short, n_classes=2, on_epoch=note), threads=options.threads
    )
    trained_on = volume[1:] if options.crop is None else [min(side, options.crop) for side in volume[1:]]
    measured = shape if options.crop is None else [min(side, options.crop) for side in shape]
    return seconds / (_SLICES + _VALIDATION) * math.prod(trained_on) / math.prod(measured)


def _window_time(options: TrainLocal, device: str, context: int) -> float:
    """Measure the time of a training step per window [s]."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand((2, _SIDE, _SIDE), generator=random)
    logits = torch.rand((2, 2, _SIDE, _SIDE), generator=random)
    near = torch.arange(2)[:, None].repeat(1, context)
    count = min(2 * options.batch_size, _SIDE * _SIDE)
    where, side = resolve_device(options.device or device), window_side_of(options)
    padded = pad_slices(images, logits, logits[:, 0] > 0, side=side, low=0.0, high=1.0, device=where, near=near)
    train, validation = (
        LocalPixels(padded, torch.arange(n), torch.arange(n) % 2, torch.rand(n, generator=random))
        for n in (count, max(2, count // 4))
    )
    short = options.model_copy(update={"epochs": 2, "patience": None, "pixels_per_epoch": count})
    seconds = epoch_time(
        lambda note: fit_local(train, validation, short, low=0.0, high=1.0, on_epoch=note), threads=options.threads
    )
    return seconds / (count * (1 + _VALIDATION / 4))
