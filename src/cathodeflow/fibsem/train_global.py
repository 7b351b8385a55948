"""Train a U-Net on labelled slices: the global models `unet`, `ugsm` and `context`."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.checkpoints import training_key
from cathodeflow.errors import InputError
from cathodeflow.fibsem.networks import initialised
from cathodeflow.fibsem.passes import VIEWS
from cathodeflow.fibsem.unet import DropoutKind, DropoutWhere, UNet
from cathodeflow.learning import held, resolve_device, resolve_precision
from cathodeflow.training import Record, TrainingResult, fit, warm_up_cosine

#: Label of pixels whose phase is not known; they are not trained on.
UNKNOWN = 255


class LabelledSlices(NamedTuple):
    """Slices to train on.

    slices : (slice, row, col), any numeric type [grey].
    labels : (slice, row, col) uint8, phases; `UNKNOWN` where not known.
    neighbours : (m, context) int64, for each of the m samples its slices, the labelled one in the middle: some rows of
        `unet.neighbours`.
    """

    slices: Tensor
    labels: Tensor
    neighbours: Tensor


class TrainedUNet(NamedTuple):
    """A trained network and its training; both on the CPU."""

    model: UNet
    training: TrainingResult


def train_unet(
    train: LabelledSlices,
    validation: LabelledSlices,
    *,
    n_classes: int = 3,
    widths: Sequence[int] = (16, 32, 64, 128),
    dropout: float = 0.0,
    dropout_where: DropoutWhere = "blocks",
    dropout_kind: DropoutKind = "element",
    weight: Sequence[float] | None = None,
    flips: bool = True,
    crop: int | None = None,
    epochs: int = 100,
    batch_size: int = 20,
    learning_rate: float = 2e-3,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    on_epoch: Callable[[Record], None] | None = None,
    label: str = "U-Net",
) -> TrainedUNet:
    """Train with cross-entropy; the epoch of the lowest loss in validation is kept.

    Parameters
    ----------
    train, validation : LabelledSlices
        The context is the width of `neighbours`.
    n_classes, widths, dropout, dropout_where, dropout_kind
        Of `UNet`. The paper's UGSM: dropout 0.5 after blocks. In validation dropout is on as well.
    weight : sequence of float, optional
        Of the classes in the loss, such as `class_weights`; the paper's UGSM is trained with weights.
    flips : bool
        Mirror training slices along rows and columns at random.
    crop : int, optional
        Side of the random part of a larger training slice that is trained on [px].
    epochs, batch_size
        100 and 20 in the paper.
    learning_rate : float
        Adam's; an epoch of warm-up, then half a cosine.
    device : {"auto", "cpu", "cuda"}
    precision : str
        Of `lightning_fabric.Fabric`, or "auto" (`resolve_precision`).
    patience, seed, checkpoint, on_epoch, label
        Of `cathodeflow.training.fit`.

    Raises
    ------
    InputError
        When there are no slices, they have no contrast, or a label is no class.
    """
    for name, part in (("training", train), ("validation", validation)):
        if not len(part.neighbours):
            raise InputError(f"{name} slices", "none", "at least one")
        if part.slices.shape != part.labels.shape:
            found = f"slices {tuple(part.slices.shape)} with labels {tuple(part.labels.shape)}"
            raise InputError(f"{name} slices", found, "the same shape")
        labels = part.labels[_middle(part.neighbours)]
        if bool(((labels >= n_classes) & (labels != UNKNOWN)).any()):
            found = f"the label {int(labels[labels != UNKNOWN].max())}"
            raise InputError(f"{name} slices", found, f"0 to {n_classes - 1}, or {UNKNOWN} where it is not known")
    model = initialised(
        lambda: UNet(
            n_classes, context=train.neighbours.shape[1], widths=widths, dropout=dropout, dropout_where=dropout_where,
            dropout_kind=dropout_kind,
        ), seed,
    ).to(memory_format=torch.channels_last)  # fmt: skip
    seen = train.slices[_middle(train.neighbours)].double()
    model.standardise(float(seen.mean()), float(seen.std(correction=0)))
    scale = None if weight is None else torch.tensor(weight, dtype=torch.float32)

    place = resolve_device(device)
    settings = [model.architecture, weight, flips, crop, batch_size, learning_rate]
    key = training_key(settings, *train, *validation)
    # Slices and labels of both may be the same tensors, with other neighbours.
    grey, phases, other_grey, other_phases = held([*train[:2], *validation[:2]], place)
    train = train._replace(slices=grey, labels=phases)
    validation = validation._replace(slices=other_grey, labels=other_phases)

    def train_batches(random: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(train.neighbours), generator=random).split(batch_size):
            yield _changed(*_sample(train, rows), crop, flips, random)

    def validation_batches() -> Iterator[tuple[Tensor, Tensor]]:
        return (_sample(validation, rows) for rows in torch.arange(len(validation.neighbours)).split(batch_size))

    def loss_function(network: nn.Module, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        found, target = network(batch[0]).float(), batch[1].long()
        place = None if scale is None else scale.to(found.device)
        known = target != UNKNOWN
        loss = F.cross_entropy(found, target, weight=place, ignore_index=UNKNOWN, reduction="sum")
        # Over all weights; 1 keeps a batch without any known pixel finite.
        total = known.sum() if place is None else place[target[known]].sum()
        right = (found.argmax(1) == target)[known].float().sum()
        return {"loss": loss / total.clamp_min(1), "accuracy": right / known.sum().clamp_min(1)}

    result = fit(
        model, loss_function, train_batches, validation_batches,
        epochs=epochs, patience=patience, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch, label=label,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=learning_rate),
        schedule=warm_up_cosine(epochs, warm_up=1), key=key,
        accelerator=place.type, precision=resolve_precision(precision, place),
    )  # fmt: skip
    return TrainedUNet(model, result)


def class_weights(labels: ArrayLike, classes: Sequence[str]) -> list[float]:
    """Weights by which each class counts as much in the loss; their mean over the pixels is 1.

    Parameters
    ----------
    labels : array of uint8
        `UNKNOWN` pixels do not count.
    classes : sequence of str
        Names of the labels 0, 1, ...

    Raises
    ------
    InputError
        When a class has no pixels.

    Examples
    --------
    >>> [round(one, 3) for one in class_weights([0, 0, 0, 1, 255], ["pore", "active"])]
    [0.667, 2.0]
    """
    counts = np.bincount(np.asarray(labels, dtype=np.uint8).ravel(), minlength=256)[: len(classes)]
    if not counts.all():
        absent = ", ".join(name for name, count in zip(classes, counts, strict=True) if not count)
        raise InputError("training slices", f"no pixel of {absent}", "some of every class")
    return [float(counts.sum() / (len(classes) * count)) for count in counts]


def _middle(neighbours: Tensor) -> Tensor:
    return neighbours[:, neighbours.shape[1] // 2]


def _sample(part: LabelledSlices, rows: Tensor) -> tuple[Tensor, Tensor]:
    chosen = part.neighbours[rows]
    return part.slices[chosen].float(), part.labels[_middle(chosen)]


def _changed(x: Tensor, y: Tensor, crop: int | None, flips: bool, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut a random part out of each sample, and mirror each at random."""
    rows, cols = (side if crop is None else min(side, crop) for side in y.shape[1:])
    grey, labels = [], []
    for one, target in zip(x, y, strict=True):
        top, left = (
            int(torch.randint(side - kept + 1, (), generator=random))
            for side, kept in zip(target.shape, (rows, cols), strict=True)
        )
        view = VIEWS[int(torch.randint(len(VIEWS), (), generator=random))] if flips else ()
        # Axes of views are those of (n, channel, row, col).
        grey.append(one[:, top : top + rows, left : left + cols].flip([axis - 1 for axis in view]))
        labels.append(target[top : top + rows, left : left + cols].flip([axis - 2 for axis in view]))
    return torch.stack(grey), torch.stack(labels)
