"""Training of a global network on labelled slices: the models `unet`, `ugsm` and `context`, and other architectures."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.checkpoints import training_key
from cathodeflow.errors import InputError
from cathodeflow.fibsem.architectures import build_network
from cathodeflow.fibsem.forest import fit_forest
from cathodeflow.fibsem.global_network import GlobalNetwork
from cathodeflow.fibsem.grey_augmentation import changed_grey
from cathodeflow.fibsem.initial_weights import initialised
from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.mc_dropout import VIEWS
from cathodeflow.fibsem.network_options import TrainGlobal
from cathodeflow.fibsem.stored_slices import StoredSlices
from cathodeflow.learning import held, resolve_device
from cathodeflow.training.epochs import Epoch, Record
from cathodeflow.training.loop import TrainingResult, fit

#: Label of pixels of unknown class, which are ignored in the loss.
UNKNOWN = UNLABELLED
# Images in memory at a time where all are gone through.
_TOGETHER = 16


class LabelledSlices(NamedTuple):
    """Slices with labels.

    slices : (slice, row, col), any numeric type [grey]; in memory, or in a store.
    labels : (slice, row, col) uint8, classes; `UNKNOWN` where not known; in memory, or in a store.
    neighbours : (m, context) int64, indices of the slices of each of the m samples, the labelled one in the middle:
        rows of `neighbours.neighbours`.
    """

    slices: Tensor | StoredSlices
    labels: Tensor | StoredSlices
    neighbours: Tensor


class TrainedNetwork(NamedTuple):
    """A trained network and its training; both on the CPU."""

    model: GlobalNetwork
    training: TrainingResult


def train_network(
    train: LabelledSlices,
    validation: LabelledSlices,
    options: TrainGlobal,
    *,
    n_classes: int,
    weight: Sequence[float] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    on_epoch: Callable[[Record], None] | None = None,
    label: str = "global network",
) -> TrainedNetwork:
    """Train with cross-entropy; the epoch with the lowest validation loss is kept.

    Parameters
    ----------
    train, validation : LabelledSlices
        With as many `neighbours` as the context of the options. Dropout stays active in validation.
    options : TrainGlobal
        The paper's UGSM: dropout 0.5 after blocks, 100 epochs of batches of 20.
    n_classes : int
    weight : sequence of float, optional
        Class weights of the loss, such as `class_weights`; the paper's UGSM is trained with weights.
    checkpoint, on_epoch, label
        Of `cathodeflow.training.loop.fit`; `on_epoch` is called at the end of each epoch.

    Raises
    ------
    InputError
        There are no slices, they have no contrast, a label is outside the classes, or the context differs.
    """
    for name, part in (("training", train), ("validation", validation)):
        if not len(part.neighbours):
            raise InputError(f"{name} slices", "none", "at least one")
        if part.slices.shape != part.labels.shape:
            found = f"slices {tuple(part.slices.shape)} with labels {tuple(part.labels.shape)}"
            raise InputError(f"{name} slices", found, "the same shape")
        for labels in _pieces(part.labels, part.neighbours):
            if bool(((labels >= n_classes) & (labels != UNKNOWN)).any()):
                found = f"the label {int(labels[labels != UNKNOWN].max())}"
                raise InputError(f"{name} slices", found, f"0 to {n_classes - 1}, or {UNKNOWN} where it is not known")
        if part.neighbours.shape[1] != options.context:
            raise InputError(f"{name} slices", f"a context of {part.neighbours.shape[1]}", str(options.context))
    if options.architecture == "forest":
        forest, history = fit_forest(
            _one_by_one(train), _one_by_one(validation), options, n_train=len(train.neighbours), n_classes=n_classes,
            unknown=UNKNOWN, moments=_moments(train), weight=weight,
        )  # fmt: skip
        for record in history:
            if on_epoch is not None:
                on_epoch(record)
        return TrainedNetwork(forest, TrainingResult(history, len(history), history[-1]))
    model = initialised(lambda: build_network(options, n_classes=n_classes), options.seed or 0)
    if all(parameter.ndim < 5 for parameter in model.parameters()):
        model = model.to(memory_format=torch.channels_last)
    mean, deviation = _moments(train)
    model.set_normalization(mean, deviation)
    scale = None if weight is None else torch.tensor(weight, dtype=torch.float32)
    parts = [part.digest if isinstance(part, StoredSlices) else part for part in (*train, *validation)]
    key = training_key(weight, *parts)
    # Slices and labels of both may be the same tensors, with other neighbours.
    data = [*train[:2], *validation[:2]]
    tensors = [part for part in data if isinstance(part, Tensor)]
    if len(tensors) == len(data):
        on_device = held(tensors, resolve_device(options.device or "auto"))
        train = train._replace(slices=on_device[0], labels=on_device[1])
        validation = validation._replace(slices=on_device[2], labels=on_device[3])

    def train_batches(epoch: Epoch) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in _batches(torch.randperm(len(train.neighbours), generator=epoch.random), options):
            x, y = _augmented(*_sample(train, rows), options, epoch.random)
            yield changed_grey(x, options.augment, deviation, epoch.random), y

    def validation_batches() -> Iterator[tuple[Tensor, Tensor]]:
        return (
            _sample(validation, rows) for rows in torch.arange(len(validation.neighbours)).split(options.batch_size)
        )

    def loss_function(network: nn.Module, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        found, target = network(batch[0]).float(), batch[1].long()
        weights = None if scale is None else scale.to(found.device)
        known = target != UNKNOWN
        loss = F.cross_entropy(found, target, weight=weights, ignore_index=UNKNOWN, reduction="sum")
        # Divided by all weights; at least 1, so that a batch without any known pixel is finite.
        total = known.sum() if weights is None else weights[target[known]].sum()
        right = (found.argmax(1) == target)[known].float().sum()
        return {"loss": loss / total.clamp_min(1), "accuracy": right / known.sum().clamp_min(1)}

    result = fit(
        model, loss_function, train_batches, validation_batches, options, checkpoint=checkpoint, on_epoch_end=on_epoch,
        key=key, label=label,
    )  # fmt: skip
    return TrainedNetwork(model, result)


def class_weights(labels: ArrayLike, classes: Sequence[str]) -> list[float]:
    """Compute weights with which all classes have the same total weight in the loss; their mean over the pixels is 1.

    Parameters
    ----------
    labels : array of uint8
        `UNKNOWN` pixels are ignored.
    classes : sequence of str
        Names of the labels 0, 1, ...

    Raises
    ------
    InputError
        A class has no pixels.

    Examples
    --------
    >>> [round(weight, 3) for weight in class_weights([0, 0, 0, 1, 255], ["pore", "active"])]
    [0.667, 2.0]
    """
    return balanced_weights(np.bincount(np.asarray(labels, dtype=np.uint8).ravel(), minlength=256), classes)


def balanced_weights(pixels: NDArray[np.integer], classes: Sequence[str]) -> list[float]:
    """Compute the weights of `class_weights` from the number of pixels of each label; others than classes do not count.

    Raises
    ------
    InputError
        A class has no pixels.
    """
    counts = pixels[: len(classes)]
    if not counts.all():
        absent = ", ".join(name for name, count in zip(classes, counts, strict=True) if not count)
        raise InputError("training slices", f"no pixel of {absent}", "pixels of every class")
    return [float(counts.sum() / (len(classes) * count)) for count in counts]


def count_labels(labels: Tensor | StoredSlices, neighbours: Tensor) -> NDArray[np.integer]:
    """Count the pixels (256,) of each label in some samples, a few at a time.

    Parameters
    ----------
    labels, neighbours
        Of `LabelledSlices`.
    """
    counts = (np.bincount(part.numpy().ravel(), minlength=256) for part in _pieces(labels, neighbours))
    return np.sum(list(counts), axis=0)


def _pieces(images: Tensor | StoredSlices, neighbours: Tensor) -> Iterator[Tensor]:
    """Yield the images of the samples themselves, a few at a time."""
    for rows in _middle(neighbours).split(_TOGETHER):
        yield images[rows]


def _moments(part: LabelledSlices) -> tuple[float, float]:
    """Mean and standard deviation of the intensities [grey] of all samples."""
    count = part.neighbours.shape[0] * part.slices.shape[1] * part.slices.shape[2]
    mean = sum(float(grey.double().sum()) for grey in _pieces(part.slices, part.neighbours)) / count
    squares = sum(float((grey.double() - mean).square().sum()) for grey in _pieces(part.slices, part.neighbours))
    return mean, (squares / count) ** 0.5


def _middle(neighbours: Tensor) -> Tensor:
    return neighbours[:, neighbours.shape[1] // 2]


def _sample(part: LabelledSlices, rows: Tensor) -> tuple[Tensor, Tensor]:
    chosen = part.neighbours[rows]
    return part.slices[chosen].float(), part.labels[_middle(chosen)]


def _batches(order: Tensor, options: TrainGlobal) -> list[Tensor]:
    """Divide samples into batches."""
    parts = list(order.split(options.batch_size))
    # Some architectures of segmentation-models-pytorch normalise means over whole images, and need two.
    if options.architecture.startswith("smp.") and len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _one_by_one(part: LabelledSlices) -> Iterator[tuple[Tensor, Tensor]]:
    return (_sample(part, rows) for rows in torch.arange(len(part.neighbours)).split(1))


def _augmented(x: Tensor, y: Tensor, options: TrainGlobal, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Crop each sample at random, and reflect it at random."""
    rows, cols = (side if options.crop is None else min(side, options.crop) for side in y.shape[1:])
    grey, labels = [], []
    for image, target in zip(x, y, strict=True):
        top, left = (
            int(torch.randint(side - kept + 1, (), generator=random))
            for side, kept in zip(target.shape, (rows, cols), strict=True)
        )
        view = VIEWS[int(torch.randint(len(VIEWS), (), generator=random))] if options.augment.flip else ()
        # Axes of views are those of (n, channel, row, col).
        grey.append(image[:, top : top + rows, left : left + cols].flip([axis - 1 for axis in view]))
        labels.append(target[top : top + rows, left : left + cols].flip([axis - 2 for axis in view]))
    return torch.stack(grey), torch.stack(labels)
