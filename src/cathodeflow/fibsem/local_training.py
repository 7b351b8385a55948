"""Training of LCGAR on windows around pixels, in the order of the fine-grained curriculum (HCL-USI)."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.checkpoints import training_key
from cathodeflow.errors import InputError
from cathodeflow.fibsem.curriculum import pool_size
from cathodeflow.fibsem.grey_augmentation import changed_grey
from cathodeflow.fibsem.initial_weights import initialised
from cathodeflow.fibsem.local import LCGAR, WIDTHS, require_windows
from cathodeflow.fibsem.mc_dropout import VIEWS
from cathodeflow.fibsem.options import TrainLocal
from cathodeflow.fibsem.windows import Padded, gather
from cathodeflow.learning import held
from cathodeflow.training.base_options import Device
from cathodeflow.training.epochs import Epoch, Record
from cathodeflow.training.loop import TrainingResult, fit


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


class TrainedLCGAR(NamedTuple):
    """A trained network and its training; both on the CPU."""

    model: LCGAR
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
) -> TrainedLCGAR:
    """Train LCGAR on windows around pixels, from low entropy to all; the epoch with the lowest validation loss is kept.

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
    model = initialised(
        lambda: LCGAR(
            n_classes,
            context=context,
            side=options.side,
            inputs=options.inputs,
            padding=options.padding,
            dropout=options.dropout,
            widths=WIDTHS,
        ),
        options.seed or 0,
    ).to(memory_format=torch.channels_last)
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
        size = pool_size(epoch.index, options.epochs, count, options.curriculum)
        drawn = options.pixels_per_epoch or count
        for rows in paced(order, size, random, batch_size=options.batch_size, count=drawn):
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

    placed = options.model_copy(update={"device": cast(Device, padded.image.device.type)})
    result = fit(
        model, loss_function, train_batches, validation_batches, placed, checkpoint=checkpoint,
        key=key, on_epoch_end=on_epoch, label=label,
    )  # fmt: skip
    return TrainedLCGAR(model, result)


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
