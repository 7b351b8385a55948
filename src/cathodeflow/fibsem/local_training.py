"""Training of LCGAR on windows around pixels, in the order of the fine-grained curriculum (HCL-USI)."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.checkpoints import training_key
from cathodeflow.errors import InputError
from cathodeflow.fibsem.curriculum import pool_size
from cathodeflow.fibsem.grey_augmentation import changed_grey
from cathodeflow.fibsem.initial_weights import initialised
from cathodeflow.fibsem.local import LCGAR, WIDTHS, LocalNetwork, require_windows, window_side
from cathodeflow.fibsem.local_baselines import (
    LocalUNet,
    WindowResNet,
    masked_loss,
    slice_batches,
    slice_targets,
)
from cathodeflow.fibsem.mc_dropout import VIEWS
from cathodeflow.fibsem.network_options import TrainLocal
from cathodeflow.fibsem.windows import Padded, gather
from cathodeflow.learning import held
from cathodeflow.training.base_options import Device
from cathodeflow.training.epochs import Epoch, Record
from cathodeflow.training.loop import TrainingResult, fit

#: Channels of the local U-Net at each resolution.
UNET_WIDTHS = (16, 32, 64)


class LocalPixels(NamedTuple):
    """Pixels to train on.

    padded : Padded, the slices.
    pixels : (n,) int64, their flat indices (`windows.gather`): usually the IDK pixels.
    labels : (n,) integer, reference classes.
    entropy : (n,) float, of the global model [nat].
    """

    padded: Padded
    pixels: Tensor
    labels: Tensor
    entropy: Tensor


class TrainedLocal(NamedTuple):
    """A trained network and its training; both on the CPU."""

    model: LocalNetwork
    training: TrainingResult


def fit_local(
    train: LocalPixels,
    validation: LocalPixels,
    options: TrainLocal,
    *,
    low: float,
    high: float,
    weight: Sequence[float] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    on_epoch: Callable[[Record], None] | None = None,
    label: str = "LCGAR",
) -> TrainedLocal:
    """Train LCGAR, or another local network, around pixels, from low entropy to all.

    The epoch with the lowest validation loss is kept.

    Parameters
    ----------
    train, validation : LocalPixels
        On the device of the training, padded for the `window` of the network.
    options : TrainLocal
        The device is that of the pixels.
    low, high : float
        Of the `pad_slices` that made both sets; stored in the network.
    weight : sequence of float, optional
        Class weights of the cross-entropy.
    checkpoint, on_epoch, label
        Of `cathodeflow.training.loop.fit`; `on_epoch` is called at the end of each epoch.

    Raises
    ------
    InputError
        There are no pixels in one of the sets.
    """
    for name, part in (("training", train), ("validation", validation)):
        if not len(part.pixels):
            raise InputError(f"{name} pixels", "no IDK pixel", "at least one: lower the threshold of train_idk")
    padded = train.padded
    context, n_classes = padded.neighbours.shape[1], padded.logits.shape[-1]
    model = initialised(lambda: build_local(options, n_classes=n_classes, context=context), options.seed or 0)
    model = model.to(memory_format=torch.channels_last)
    model.set_grey(low, high)
    require_windows(model, padded)
    scale = None if weight is None else torch.tensor(weight, dtype=torch.float32)
    data = [part for pixels in (train, validation) for part in (*pixels.padded[:4], *pixels[1:])]
    key = training_key(weight, *data)
    order = torch.argsort(train.entropy.cpu(), stable=True)
    train, validation = (
        part._replace(pixels=pixels, labels=labels)
        for part in (train, validation)
        for pixels, labels in [held([part.pixels, part.labels], padded.image.device)]
    )
    count, deviation = len(order), float(padded.image.std())

    def train_batches(epoch: Epoch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        random = epoch.random
        drawn = options.pixels_per_epoch or count
        if options.curriculum.pacing == "strict":
            batches = iter(order[:: max(1, count // drawn)].split(options.batch_size))
        else:
            size = pool_size(epoch.index, options.epochs, count, options.curriculum)
            batches = paced(order, size, random, batch_size=options.batch_size, count=drawn)
        for rows in batches:
            # Batch normalisation needs more than one pixel.
            if len(rows) > 1:
                windows, logits = gather(train.padded, train.pixels[rows])
                if options.augment.flip:
                    windows = windows.flip(VIEWS[int(torch.randint(len(VIEWS), (), generator=random))])
                grey = changed_grey(windows[:, :context], options.augment, deviation, random)
                windows[:, :context] = grey
                yield windows, logits, train.labels[rows].long()

    def validation_batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        parts = zip(
            validation.pixels.split(options.batch_size), validation.labels.split(options.batch_size), strict=True
        )
        return ((*gather(validation.padded, pixels), labels.long()) for pixels, labels in parts)

    def loss_function(network: nn.Module, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        found = network(batch[0], batch[1])
        weights = None if scale is None else scale.to(found.device)
        accuracy = (found.argmax(1) == batch[2]).float().mean()
        return {"loss": F.cross_entropy(found, batch[2], weight=weights), "accuracy": accuracy}

    if isinstance(model, LocalUNet):
        train_batches, validation_batches, loss_function = _of_slices(model, train, validation, scale)
    placed = options.model_copy(update={"device": cast(Device, padded.image.device.type)})
    result = fit(
        model, loss_function, train_batches, validation_batches, placed, checkpoint=checkpoint,
        key=key, on_epoch_end=on_epoch, label=label,
    )  # fmt: skip
    return TrainedLocal(model, result)


def window_side_of(options: TrainLocal) -> int:
    """Side of the windows that the network of these options takes [px]."""
    return window_side(options.side, options.padding if options.architecture == "lcgar" else "zeros")


def build_local(options: TrainLocal, *, n_classes: int, context: int) -> LocalNetwork:
    """Build the local network of the options, with random weights of torch's default generator."""
    shared: dict[str, Any] = {"context": context, "side": options.side, "inputs": options.inputs}
    if options.architecture == "unet":
        return LocalUNet(n_classes, widths=UNET_WIDTHS, **shared)
    if options.architecture != "lcgar":
        return WindowResNet(n_classes, name=options.architecture, **shared)
    return LCGAR(n_classes, padding=options.padding, dropout=options.dropout, widths=WIDTHS, **shared)


def _of_slices(model: LocalUNet, train: LocalPixels, validation: LocalPixels, scale: Tensor | None) -> tuple[Any, ...]:
    """Batches of training and validation, and loss, of a network on whole slices; a slice per step."""
    parts = {
        name: (part.padded, *slice_targets(part.padded, part.pixels, part.labels))
        for name, part in (("train", train), ("validation", validation))
    }

    def train_batches(epoch: Epoch) -> Iterator[tuple[Tensor, Tensor]]:
        padded, target, numbers = parts["train"]
        for x, y in slice_batches(
            model, padded, target, numbers, torch.randperm(len(numbers), generator=epoch.random).split(1)
        ):
            view = VIEWS[int(torch.randint(len(VIEWS), (), generator=epoch.random))]
            yield x.flip(view), y.flip([axis - 1 for axis in view])

    def validation_batches() -> Iterator[tuple[Tensor, Tensor]]:
        padded, target, numbers = parts["validation"]
        return slice_batches(model, padded, target, numbers, torch.arange(len(numbers)).split(1))

    def loss_function(network: nn.Module, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        weight = None if scale is None else scale.to(batch[0].device)
        return masked_loss(network(batch[0]), batch[1], weight)

    return train_batches, validation_batches, loss_function


def paced(order: Tensor, size: int, random: torch.Generator, *, batch_size: int, count: int) -> Iterator[Tensor]:
    """Draw batches from a pool, shuffled: with a strict order, the last batches would undo the first.

    Parameters
    ----------
    order : (n,) int64
        Indices of pixels from low to high entropy: `torch.argsort(entropy, stable=True)`.
    size : int
        Size of the pool, the first pixels of `order`.
    random : torch.Generator
    batch_size : int
    count : int
        Pixels to draw. A smaller pool is repeated in another order, so that an epoch has the same number of batches for
        every pacing.

    Yields
    ------
    (batch_size,) int64
        The last batch may be smaller.
    """
    left = count
    kept = torch.empty(0, dtype=torch.int64)
    while left > 0:
        drawn = torch.randperm(size, generator=random)[: left - len(kept)]
        kept = torch.cat([kept, drawn])
        whole = len(kept) if len(kept) >= left else len(kept) - len(kept) % batch_size
        for part in kept[:whole].split(batch_size) if whole else ():
            yield order[part]
        left, kept = left - whole, kept[whole:]
