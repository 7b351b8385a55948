"""Training of the network that classifies composition and state of cathodes, on crops of micrographs."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cathodeflow.checkpoints import training_key
from cathodeflow.errors import InputError
from cathodeflow.learning import limited_threads, resolve_device
from cathodeflow.seeds import derived_seed
from cathodeflow.sem.augment import augment, random_windows
from cathodeflow.sem.batches import Source, timed
from cathodeflow.sem.calibration import apply_temperature, fit_mean_temperature, fit_temperature
from cathodeflow.sem.instrument_changes import change_instrument
from cathodeflow.sem.losses import balanced_weights, classification_loss, crop_losses, group_loss, macro_f1
from cathodeflow.sem.model import SemNetwork, as_input, build_model
from cathodeflow.sem.network_options import Train
from cathodeflow.sem.nickel import fit_nickel
from cathodeflow.sem.ood import feature_statistics, group_means, with_reference
from cathodeflow.sem.predictions import BATCH, network_outputs
from cathodeflow.sem.rejection_training import measured_rejection, measured_texture
from cathodeflow.training.epochs import Epoch, Record
from cathodeflow.training.loop import TrainingResult, fit

# Crops whose features or texture are measured; more hardly change the statistics.
_MEASURED = 2048


class TrainedSem(NamedTuple):
    """A trained network.

    model : SemNetwork, on the CPU.
    training : TrainingResult, with its history.
    metrics : dict of float, on the validation crops, and per original with the prefix `original_`.
    metadata : dict for `cathodeflow.sem.model.save_network`: `temperature` of a crop's logits; `original_temperature`
        of an original's probabilities, the mean of its crops' after their temperature; `statistics` of features, and
        `nickel`, the regression of the nickel fraction on them (None for classes without); `texture`, the classifier of
        the texture, and `rejection`, the rule by which predictions are withheld.
    waiting : float, fraction of the training time spent waiting for crops.
    """

    model: SemNetwork
    training: TrainingResult
    metrics: dict[str, float]
    metadata: dict[str, Any]
    waiting: float


def train_network(
    crops: Any,
    table: pd.DataFrame,
    options: Train,
    *,
    classes: Sequence[str],
    checkpoint: str | os.PathLike[str] | None = None,
    on_epoch: Callable[[Record], None] | None = None,
) -> TrainedSem:
    """Train a network; the best epoch on the validation set is kept.

    With `progressive_fraction`, the first epochs are trained on random windows of the crops. With `mixup` (Zhang et
    al., ICLR 2018), crops are weighted means of two, with a weight per batch from Beta(mixup, mixup), and so is their
    loss. With `robust.group_weight`, losses are averaged over the classes in each session (`losses.group_loss`), or
    over the classes if there is no column session. With `monitor: macro_f1`, the loss decides between epochs of the
    same F1. With the same number of threads, CPUs give the same weights bit for bit.

    Parameters
    ----------
    crops : (n, side, side) uint8
        NumPy, Zarr or Dask array.
    table : DataFrame
        Columns crop (its number in `crops`), name (the original), label, split, and session; a row per crop.
    options : Train
    classes : sequence of str
        In the order of the outputs of the network.
    checkpoint, on_epoch
        Of `cathodeflow.training.loop.fit`; `on_epoch` is called at the end of each epoch.

    Raises
    ------
    InputError
        A class has no crops for training or validation, labels are no classes, or there is no such device.
    """
    device = resolve_device(options.device or "auto")
    labels, originals, numbers_of = _read_table(table, classes, len(crops))
    groups = _groups(table, labels, options)
    sources: dict[str, Source] = {}
    memory = int(options.memory_gb * 1e9)
    for split, numbers in numbers_of.items():
        sources[split] = Source(crops, numbers, batch_size=options.batch_size, memory=memory, device=device)
        memory = max(memory - sources[split].held_bytes, 0)
    weight = None
    if options.class_weights == "balanced":
        weight = balanced_weights(labels[numbers_of["train"]], len(classes))
    reduced_epochs = round(options.progressive_fraction * options.epochs)
    clock = {"waited": 0.0, "total": 0.0}

    def train_batches(epoch: Epoch) -> Iterator[tuple[Tensor, ...]]:
        # Augmentation has a generator of its own, on the device of the crops.
        own = torch.Generator(device).manual_seed(derived_seed(epoch.seed, 1))
        mixing = np.random.default_rng(derived_seed(epoch.seed, 2))
        for images, numbers in timed(sources["train"].shuffled(epoch.random), clock):
            batch = images.to(device).unsqueeze(1)
            if epoch.index < reduced_epochs:
                batch = random_windows(batch, options.progressive_size, own)
            x = change_instrument(batch.float().div_(255), own, options.robust)
            x = augment(x, own, options.augment)
            true = torch.from_numpy(labels[numbers]).to(device)
            if options.mixup:
                first = float(mixing.beta(options.mixup, options.mixup))
                order = torch.randperm(len(x), generator=own, device=device)
                mixed = first * x + (1 - first) * x[order]
                yield mixed, true, true[order], torch.full((len(x),), first)
            elif groups is not None:
                yield x, true, torch.from_numpy(groups[numbers]).to(device)
            else:
                yield x, true

    def validation_batches() -> Iterator[tuple[Tensor, Tensor]]:
        for images, numbers in sources["validation"].in_order():
            yield as_input(images, device), torch.from_numpy(labels[numbers]).to(device)

    def loss_of(logits: Tensor, true: Tensor) -> Tensor:
        scale = None if weight is None else weight.to(logits.device)
        return classification_loss(
            logits, true, loss=options.loss, weight=scale, label_smoothing=options.label_smoothing
        )

    def loss_function(network: nn.Module, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        logits = network(batch[0])
        accuracy = (logits.argmax(1) == batch[1]).float().mean()
        value = loss_of(logits, batch[1])
        if len(batch) == 3:
            each = crop_losses(
                logits, batch[1], loss=options.loss, label_smoothing=options.label_smoothing,
                weight=None if weight is None else weight.to(logits.device),
            )  # fmt: skip
            value = group_loss(each, batch[2], options.robust.group_weight)
        elif len(batch) > 3:
            value = batch[3][0] * value + (1 - batch[3][0]) * loss_of(logits, batch[2])
        return {"loss": value, "accuracy": accuracy, "logits": logits, "labels": batch[1]}

    def whole(kept: dict[str, Tensor]) -> dict[str, float]:
        score = macro_f1(kept["labels"].numpy(), kept["logits"].argmax(1).numpy(), len(classes))
        # Many epochs have the same F1 once it is 1.
        return {"macro_f1": score, "shortfall": 1 - score + 1e-6 * float(loss_of(kept["logits"], kept["labels"]))}

    model = build_model(classes, options)
    key = training_key(labels, *numbers_of.values(), *(source.digest() for source in sources.values()))
    with limited_threads(options.threads):
        result = fit(
            model, loss_function, train_batches, validation_batches, options,
            monitor="shortfall" if options.monitor == "macro_f1" else "loss", whole=whole, checkpoint=checkpoint,
            key=key, on_epoch_end=on_epoch, label="SEM network",
        )  # fmt: skip
        metrics, metadata = _measure(model, crops, numbers_of, labels, originals, device)
    return TrainedSem(model, result, metrics, metadata, clock["waited"] / max(clock["total"], 1e-9))


def _read_table(
    table: pd.DataFrame, classes: Sequence[str], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Find class and original of each crop, -1 for unused ones, and the crops of the training and validation set."""
    used = table[table.split.isin(["train", "validation"])]
    unknown = sorted(set(used.label) - set(classes))
    if unknown:
        raise InputError("crops", f"the label {unknown[0]}", f"one of the classes {', '.join(classes)}")
    if len(used) and not 0 <= used.crop.min() <= used.crop.max() < count:
        raise InputError("crops", f"crop number {used.crop.max()} in the table", f"numbers of {count} crops")
    missing = [
        f"{split} crops of {label}"
        for split in ("train", "validation")
        for label in classes
        if not ((used.split == split) & (used.label == label)).any()
    ]
    if missing:
        raise InputError("crops", f"no {', no '.join(missing)}", "some of every class for training and validation")
    labels, originals = np.full((2, count), -1, np.int64)
    rows = used.crop.to_numpy(np.int64)
    labels[rows] = [classes.index(label) for label in used.label]
    originals[rows] = np.unique(used.name, return_inverse=True)[1]
    return labels, originals, {s: np.sort(rows[(used.split == s).to_numpy()]) for s in ("train", "validation")}


def _groups(table: pd.DataFrame, labels: NDArray[np.int64], options: Train) -> NDArray[np.int64] | None:
    """Give each crop the number of its class in its session; None if all crops have the same weight."""
    if not options.robust.group_weight:
        return None
    sessions = table["session"].fillna("").astype(str) if "session" in table else pd.Series("", index=table.index)
    groups = np.zeros(len(labels), np.int64)
    groups[table["crop"]] = np.unique(table["label"].astype(str) + "\n" + sessions, return_inverse=True)[1]
    return groups


def _measure(
    model: SemNetwork, crops: Any, numbers_of: dict[str, NDArray[np.int64]], labels: NDArray[np.int64],
    originals: NDArray[np.int64], device: torch.device,
) -> tuple[dict[str, float], dict[str, Any]]:  # fmt: skip
    """Compute validation metrics, temperatures, and statistics of the features."""
    train, validation = numbers_of["train"], numbers_of["validation"]
    some = _spread(train)
    # With at least one crop of every class, however rare.
    some = np.union1d(some, [train[labels[train] == label][0] for label in np.unique(labels[train])])
    features = network_outputs(model, crops, some, batch_size=BATCH, device=device).features
    logits, of_validation = network_outputs(model, crops, validation, batch_size=BATCH, device=device)
    model.to("cpu")
    true, groups = labels[validation], originals[validation]
    temperature = fit_temperature(logits, true)
    means = group_means(apply_temperature(logits, temperature), groups)
    first = np.unique(groups, return_index=True)[1]
    statistics = with_reference(feature_statistics(features, labels[some], originals[some]), of_validation, groups)
    _, images = np.unique(originals[some], return_index=True)
    nickel = fit_nickel(group_means(features, originals[some]), [model.classes[labels[some[at]]] for at in images])
    metrics: dict[str, float] = {}
    for prefix, scores, truth in (("", logits, true), ("original_", means, true[first])):
        metrics[prefix + "accuracy"] = float((scores.argmax(1) == truth).mean())
        metrics[prefix + "macro_f1"] = macro_f1(truth, scores.argmax(1), logits.shape[1])
    metadata = {
        "temperature": temperature,
        "original_temperature": fit_mean_temperature(means, true[first]),
        "statistics": statistics,
        "nickel": nickel,
        "texture": measured_texture(crops, some, _spread(validation), labels),
    }
    rejection = measured_rejection(model, crops, validation, labels, originals, metadata, device=device)
    return metrics, {**metadata, "rejection": rejection}


def _spread(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose crops of which more is measured, evenly."""
    return numbers[np.linspace(0, len(numbers) - 1, min(len(numbers), _MEASURED)).astype(np.int64)]
