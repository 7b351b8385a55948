"""Train the network that tells composition and state of cathodes on crops of micrographs."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cathodeflow.checkpoints import derived_seed, training_key
from cathodeflow.errors import InputError
from cathodeflow.learning import limited_threads, resolve_device, resolve_precision
from cathodeflow.sem.augment import augment, random_windows
from cathodeflow.sem.batches import Source, timed
from cathodeflow.sem.calibration import apply_temperature, fit_mean_temperature, fit_temperature
from cathodeflow.sem.evaluate import network_outputs
from cathodeflow.sem.learning import (
    Loss,
    OptimizerName,
    Schedule,
    balanced_weights,
    build_optimizer,
    build_schedule,
    classification_loss,
    macro_f1,
)
from cathodeflow.sem.model import Heads, SemNetwork, Standardise, as_input, build_model
from cathodeflow.sem.strangeness import feature_statistics, group_means, with_reference
from cathodeflow.training import Record, TrainingResult, fit

# Training crops whose features are measured; more change the statistics little.
_MEASURED = 2048


class TrainedSem(NamedTuple):
    """A trained network.

    model : SemNetwork, on the CPU.
    training : TrainingResult, its history.
    metrics : dict of float, on the validation crops, and per original with the prefix `original_`.
    metadata : dict for `cathodeflow.sem.model.save_network`: `temperature` of a crop's logits; `original_temperature`
        of an original's probabilities, the mean of its crops' after their temperature; `statistics` of features.
    waiting : float, share of the epochs' time spent waiting for crops.
    """

    model: SemNetwork
    training: TrainingResult
    metrics: dict[str, float]
    metadata: dict[str, Any]
    waiting: float


def train_network(
    crops: Any,
    table: pd.DataFrame,
    *,
    classes: Sequence[str],
    backbone: str = "resnet18_half",
    weights: str | os.PathLike[str] = "none",
    heads: Heads = "joint",
    dropout: float = 0.1,
    standardise: Standardise = "crop",
    loss: Loss = "cross_entropy",
    label_smoothing: float = 0.05,
    class_weights: Literal["none", "balanced"] = "none",
    optimizer: OptimizerName = "adamw",
    learning_rate: float = 2e-3,
    weight_decay: float = 0.05,
    schedule: Schedule = "cosine",
    warm_up: int = 1,
    epochs: int = 12,
    patience: int | None = 16,
    monitor: Literal["macro_f1", "loss"] = "macro_f1",
    batch_size: int = 32,
    first_side: int = 128,
    first_share: float = 0.67,
    flip: bool = True,
    turn: bool = True,
    rotation: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
    gamma: float = 1.6,
    noise: float = 0.0,
    blur: float = 1.0,
    mixup: float = 0.2,
    average: float = 0.998,
    memory_gb: float = 4.0,
    precision: str = "auto",
    threads: int = 2,
    device: str = "auto",
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    on_epoch: Callable[[Record], None] | None = None,
) -> TrainedSem:
    """Train; the epoch that is best in validation is kept.

    Parameters
    ----------
    crops : (n, side, side) uint8
        NumPy, Zarr or Dask array.
    table : DataFrame
        Columns crop (its number in `crops`), name (the original), label, split; a row for each crop.
    classes : sequence of str
        In the order of the network's outputs.
    backbone, weights, heads, dropout, standardise
        Of `cathodeflow.sem.model.build_model`.
    loss : {"cross_entropy", "focal"}
        `classification_loss`.
    label_smoothing : float
        Share of each label spread over all classes.
    class_weights : {"none", "balanced"}
        Weigh the loss by the reciprocal of the classes' number of training crops.
    optimizer, learning_rate, weight_decay
        AdamW spares biases and the parameters of norms from decay; SGD has a momentum of 0.9.
    schedule, warm_up, epochs, patience
        Epochs of rising learning rate, then half a cosine or a constant; of `cathodeflow.training.fit`.
    monitor : {"macro_f1", "loss"}
        Which validation figure decides; of epochs with the same F1, the one with the lower loss.
    batch_size : int
    first_side, first_share
        In this share of the epochs, the first, windows of this side [px] at random places are trained on.
    flip, turn, rotation, brightness, contrast, gamma, noise, blur
        Of `cathodeflow.sem.augment.augment`.
    mixup : float
        Crops are means of two, in shares of the distribution Beta(mixup, mixup), and so is their loss; 0: single crops.
    average
        Of `cathodeflow.training.fit`.
    memory_gb : float
        Crops of training and validation up to this size are kept in memory [GB].
    precision : str
        Of `lightning_fabric.Fabric`, or "auto" (`resolve_precision`).
    threads : int
        Threads on a CPU; the same number gives the same weights bit for bit.
    device : {"auto", "cpu", "cuda"}
    seed : int
    checkpoint, on_epoch
        Of `cathodeflow.training.fit`.

    Raises
    ------
    InputError
        When a class has no crops to train or to validate on, labels are no classes, or the device is missing.
    """
    place = resolve_device(device)
    arithmetic = resolve_precision(precision, place)
    labels, originals, rows_of = _read_table(table, classes, len(crops))
    sources: dict[str, Source] = {}
    memory = int(memory_gb * 1e9)
    for split, rows in rows_of.items():
        sources[split] = Source(crops, rows, batch_size=batch_size, memory=memory, device=place)
        memory = max(memory - sources[split].held_bytes, 0)
    weight = None
    if class_weights == "balanced":
        weight = balanced_weights(labels[rows_of["train"]], len(classes))
    changes: dict[str, Any] = {
        "flip": flip, "turn": turn, "rotation": rotation, "brightness": brightness, "contrast": contrast,
        "gamma": gamma, "noise": noise, "blur": blur,
    }  # fmt: skip
    # `fit` makes each epoch's generator from the epoch's number, so its seed tells the epoch.
    windowed = {derived_seed(seed, epoch) for epoch in range(round(first_share * epochs))}
    clock = {"waited": 0.0, "total": 0.0}

    def train_batches(random: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
        # Changes have numbers of their own, drawn where the crops are.
        epoch_seed = random.initial_seed()
        own = torch.Generator(place).manual_seed(derived_seed(epoch_seed, 1))
        mixing = np.random.default_rng(derived_seed(epoch_seed, 2))
        for images, rows in timed(sources["train"].shuffled(random), clock):
            batch = images.to(place).unsqueeze(1)
            if epoch_seed in windowed:
                batch = random_windows(batch, first_side, own)
            x, right = augment(batch.float().div_(255), own, **changes), torch.from_numpy(labels[rows]).to(place)
            if mixup:
                # One share for the whole batch (Zhang et al., ICLR 2018).
                share = float(mixing.beta(mixup, mixup))
                order = torch.randperm(len(x), generator=own, device=place)
                mixed = share * x + (1 - share) * x[order]
                yield mixed, right, right[order], torch.full((len(x),), share)
            else:
                yield x, right

    def validation_batches() -> Iterator[tuple[Tensor, Tensor]]:
        for images, rows in sources["validation"].in_order():
            yield as_input(images, place), torch.from_numpy(labels[rows]).to(place)

    def loss_of(logits: Tensor, right: Tensor) -> Tensor:
        scale = None if weight is None else weight.to(logits.device)
        return classification_loss(logits, right, loss=loss, weight=scale, label_smoothing=label_smoothing)

    def loss_function(network: nn.Module, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        logits = network(batch[0])
        accuracy = (logits.argmax(1) == batch[1]).float().mean()
        value = loss_of(logits, batch[1])
        if len(batch) > 2:
            value = batch[3][0] * value + (1 - batch[3][0]) * loss_of(logits, batch[2])
        return {"loss": value, "accuracy": accuracy, "logits": logits, "labels": batch[1]}

    def whole(kept: dict[str, Tensor]) -> dict[str, float]:
        score = macro_f1(kept["labels"].numpy(), kept["logits"].argmax(1).numpy(), len(classes))
        # The loss decides between epochs of the same F1, which are many once it is 1.
        return {"macro_f1": score, "shortfall": 1 - score + 1e-6 * float(loss_of(kept["logits"], kept["labels"]))}

    model = build_model(
        classes, backbone=backbone, weights=weights, heads=heads, dropout=dropout, standardise=standardise, seed=seed
    )
    settings = [model.architecture, loss, label_smoothing, class_weights, optimizer, learning_rate, weight_decay,
                schedule, warm_up, batch_size, first_side, first_share, changes, mixup, memory_gb, threads]  # fmt: skip
    with limited_threads(threads):
        result = fit(
            model, loss_function, train_batches, validation_batches,
            epochs=epochs, patience=patience, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch, label="SEM network",
            optimizer=lambda parameters: build_optimizer(
                list(parameters), name=optimizer, learning_rate=learning_rate, weight_decay=weight_decay
            ),
            schedule=build_schedule(schedule, epochs=epochs, warm_up=warm_up),
            average=average, monitor="shortfall" if monitor == "macro_f1" else "loss", whole=whole,
            key=training_key(settings, labels, *rows_of.values(), *(source.digest() for source in sources.values())),
            accelerator=place.type, precision=arithmetic,
        )  # fmt: skip
        metrics, metadata = _measure(model, crops, rows_of["validation"], rows_of["train"], labels, originals, place)
    return TrainedSem(model, result, metrics, metadata, clock["waited"] / max(clock["total"], 1e-9))


def _read_table(
    table: pd.DataFrame, classes: Sequence[str], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Find each crop's class and original, -1 where it is not used, and the crops of training and validation."""
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
        raise InputError("crops", f"no {', no '.join(missing)}", "some of every class to train and to validate on")
    labels, originals = np.full((2, count), -1, np.int64)
    rows = used.crop.to_numpy(np.int64)
    labels[rows] = [classes.index(label) for label in used.label]
    originals[rows] = np.unique(used.name, return_inverse=True)[1]
    return labels, originals, {s: np.sort(rows[(used.split == s).to_numpy()]) for s in ("train", "validation")}


def _measure(
    model: SemNetwork, crops: Any, validation: NDArray[np.int64], train: NDArray[np.int64], labels: NDArray[np.int64],
    originals: NDArray[np.int64], device: torch.device,
) -> tuple[dict[str, float], dict[str, Any]]:  # fmt: skip
    """Figures of merit in validation, temperatures, and where features lie."""
    some = train[np.linspace(0, len(train) - 1, min(len(train), _MEASURED)).astype(np.int64)]
    # Every class must be among them, however rare.
    some = np.union1d(some, [train[labels[train] == label][0] for label in np.unique(labels[train])])
    features = network_outputs(model, crops, some, device=device).features
    logits, of_validation = network_outputs(model, crops, validation, device=device)
    model.to("cpu")
    right, groups = labels[validation], originals[validation]
    temperature = fit_temperature(logits, right)
    means = group_means(apply_temperature(logits, temperature), groups)
    first = np.unique(groups, return_index=True)[1]
    statistics = with_reference(feature_statistics(features, labels[some], originals[some]), of_validation, groups)
    metrics: dict[str, float] = {}
    for prefix, answers, truth in (("", logits, right), ("original_", means, right[first])):
        metrics[prefix + "accuracy"] = float((answers.argmax(1) == truth).mean())
        metrics[prefix + "macro_f1"] = macro_f1(truth, answers.argmax(1), logits.shape[1])
    return metrics, {
        "temperature": temperature,
        "original_temperature": fit_mean_temperature(means, right[first]),
        "statistics": statistics,
    }
