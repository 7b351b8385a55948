"""Train a U-Net on images of slices and their labels, with neighbouring slices beside them if wanted."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.checkpoints import derived_seed, training_key
from cathodeflow.errors import InputError
from cathodeflow.fibsem.networks import initialised
from cathodeflow.fibsem.unet import UNet
from cathodeflow.sem.learning import limited_threads, resolve_device, resolve_precision
from cathodeflow.training import Record, TrainingResult, fit, warm_up_cosine


class Images(NamedTuple):
    """Images and what is around them.

    grey : (n, row, col), any numeric type.
    labels : (n, row, col) uint8.
    neighbours : (n, context) int, images that each is seen with (`neighbours_of`).
    """

    grey: NDArray[Any]
    labels: NDArray[np.uint8]
    neighbours: NDArray[np.int64]


class TrainedUNet(NamedTuple):
    """A trained network and its training, on the CPU, and the class weights of its loss."""

    model: UNet
    training: TrainingResult
    weights: list[float]


def neighbours_of(slices: NDArray[np.integer], copies: NDArray[np.integer], context: int) -> NDArray[np.int64]:
    """Tell which images show the neighbouring slices of each image's slice, in the same copy.

    Parameters
    ----------
    slices, copies : (n,) int
        Of each image.
    context : int
        1, 3 or 5.

    Returns
    -------
    (n, context) int
        Where a neighbour is missing, the nearest image in its place that there is.

    Examples
    --------
    >>> neighbours_of(np.array([4, 5, 6]), np.zeros(3, int), 3).tolist()
    [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
    """
    place = {key: number for number, key in enumerate(zip(slices.tolist(), copies.tolist(), strict=True))}
    out = np.empty((len(slices), context), np.int64)
    for (number, copy), row in place.items():
        out[row, context // 2] = row
        for step in (-1, 1):
            nearest = row
            for distance in range(1, context // 2 + 1):
                nearest = place.get((number + step * distance, copy), nearest)
                out[row, context // 2 + step * distance] = nearest
    return out


def balanced(labels: NDArray[np.uint8], n_classes: int, classes: Sequence[str]) -> list[float]:
    """Weigh classes by the inverse of their share of the pixels, with the mean 1.

    Raises
    ------
    InputError
        A class is absent.
    """
    counts = np.bincount(labels.ravel(), minlength=n_classes)
    if not counts.all():
        absent = ", ".join(name for name, count in zip(classes, counts, strict=True) if not count)
        raise InputError("training slices", f"no pixel of {absent}", "every class, or class_weights: none")
    weights = 1 / counts
    return [float(one) for one in weights * len(weights) / weights.sum()]


def train_unet(
    images: Images,
    train_rows: NDArray[np.integer],
    validation_rows: NDArray[np.integer],
    *,
    classes: Sequence[str],
    widths: Sequence[int] = (16, 32, 64, 128),
    dropout: float = 0.5,
    dropout_where: Literal["blocks", "deep"] = "blocks",
    dropout_kind: Literal["element", "channel"] = "element",
    class_weights: Literal["balanced", "none"] = "balanced",
    epochs: int = 100,
    patience: int = 100,
    batch_size: int = 20,
    crop: int | None = None,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    flip: bool = True,
    brightness: float = 0.0,
    precision: str = "auto",
    threads: int = 2,
    device: str = "auto",
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    on_epoch: Callable[[Record], None] | None = None,
    label: str = "U-Net",
) -> TrainedUNet:
    """Train a U-Net; the epoch of the best validation mIU is kept.

    Parameters
    ----------
    images : Images
    train_rows, validation_rows : (n,) int
        Images to train and to validate on.
    classes : sequence of str
        Names of the labels.
    widths, dropout, dropout_where, dropout_kind
        Of `UNet`.
    class_weights : {"balanced", "none"}
        Of the cross-entropy.
    crop : int, optional
        Side of the square cut from each image at a place of its own [px].
    learning_rate, weight_decay : float
        Of AdamW at first; the rate follows half a cosine.
    flip : bool
        Mirror rows and columns of half of the images each.
    brightness : float
        Largest change of grey either way, in standard deviations.
    precision, threads, device, seed, checkpoint, on_epoch, label
        Of `cathodeflow.training.fit`; `precision` also "auto".

    Returns
    -------
    TrainedUNet

    Raises
    ------
    InputError
        No images, or a class is absent from those to train on while the loss is weighted.
    """
    for name, rows in (("train", train_rows), ("validate", validation_rows)):
        if not len(rows):
            raise InputError("images", f"none to {name} on", "at least one")
    place = resolve_device(device)
    n_classes = len(classes)
    weights = [1.0] * n_classes
    if class_weights == "balanced":
        weights = balanced(images.labels[train_rows], n_classes, classes)
    side = None if crop is None else tuple(min(crop, length) for length in images.grey.shape[1:])
    context = images.neighbours.shape[1]
    model = initialised(
        lambda: UNet(
            n_classes, context=context, widths=widths, dropout=dropout, dropout_where=dropout_where,
            dropout_kind=dropout_kind,
        ),
        seed,
    ).to(memory_format=torch.channels_last)  # fmt: skip
    seen = images.grey[train_rows]
    model.standardise(float(seen.mean(dtype=np.float64)), float(seen.std(dtype=np.float64)))
    deviation = float(model.grey_deviation)

    def batch(rows: NDArray[np.integer]) -> tuple[Tensor, Tensor]:
        grey = torch.from_numpy(images.grey[images.neighbours[rows]].astype(np.float32))
        return grey.to(place), torch.from_numpy(images.labels[rows].astype(np.int64)).to(place)

    def train_batches(random: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order = train_rows[torch.randperm(len(train_rows), generator=random).numpy()]
        own = np.random.default_rng(derived_seed(random.initial_seed(), 1))
        for start in range(0, len(order), batch_size):
            grey, right = batch(order[start : start + batch_size])
            if side is not None:
                grey, right = _cropped(grey, right, side, own)
            if flip:
                grey, right = _flipped(grey, right, own)
            if brightness:
                shift = own.uniform(-brightness, brightness, len(grey)) * deviation
                grey = grey + torch.from_numpy(shift.astype(np.float32)).to(place)[:, None, None, None]
            yield grey, right

    def validation_batches() -> Iterator[tuple[Tensor, Tensor]]:
        starts = range(0, len(validation_rows), batch_size)
        return (batch(validation_rows[start : start + batch_size]) for start in starts)

    scale = torch.tensor(weights, device=place)

    def loss_function(network: nn.Module, data: Sequence[Tensor]) -> dict[str, Tensor]:
        logits = network(data[0])
        found = logits.argmax(1)
        pairs = torch.bincount((data[1] * n_classes + found).flatten(), minlength=n_classes**2)
        return {
            "loss": F.cross_entropy(logits, data[1], weight=scale),
            "accuracy": (found == data[1]).float().mean(),
            "confusion": pairs.view(1, n_classes, n_classes),
        }

    def whole(kept: dict[str, Tensor]) -> dict[str, float]:
        counts = kept["confusion"].sum(0).double()
        union = counts.sum(0) + counts.sum(1) - counts.diagonal()
        miu = float((counts.diagonal()[union > 0] / union[union > 0]).mean())
        return {"miu": miu, "shortfall": 1 - miu}

    settings = [model.architecture, class_weights, batch_size, crop, learning_rate, weight_decay, flip, brightness]
    with limited_threads(threads):
        training = fit(
            model, loss_function, train_batches, validation_batches,
            epochs=epochs, patience=patience, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch, label=label,
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay),
            schedule=warm_up_cosine(epochs), monitor="shortfall", whole=whole,
            key=training_key(settings, *images, train_rows, validation_rows), accelerator=place.type,
            precision=resolve_precision(precision, place),
        )  # fmt: skip
    return TrainedUNet(model, training, weights)


def _cropped(grey: Tensor, labels: Tensor, side: tuple[int, ...], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    corners = [rng.integers(0, length - one + 1, len(grey)) for length, one in zip(labels.shape[1:], side, strict=True)]
    windows = [(slice(top, top + side[0]), slice(left, left + side[1])) for top, left in zip(*corners, strict=True)]
    parts = [(grey[k, :, rows, cols], labels[k, rows, cols]) for k, (rows, cols) in enumerate(windows)]
    return torch.stack([one for one, _ in parts]), torch.stack([one for _, one in parts])


def _flipped(grey: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    for axis in (-2, -1):
        mirrored = torch.from_numpy(rng.random(len(grey)) < 0.5).to(grey.device)
        grey = torch.where(mirrored[:, None, None, None], grey.flip(axis), grey)
        labels = torch.where(mirrored[:, None, None], labels.flip(axis), labels)
    return grey, labels
