"""Train LCGAR on windows around pixels, in the order of the fine-grained curriculum (HCL-USI)."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.checkpoints import training_key
from cathodeflow.errors import InputError
from cathodeflow.fibsem.local import LCGAR, Edges, Inputs, require_windows
from cathodeflow.fibsem.networks import initialised
from cathodeflow.fibsem.pacing import Pacing, paced, pool_size
from cathodeflow.fibsem.passes import VIEWS
from cathodeflow.fibsem.windows import Padded, gather
from cathodeflow.training.base_options import Device, Precision, TrainingOptions
from cathodeflow.training.epochs import Epoch, Record
from cathodeflow.training.loop import TrainingResult, fit


class LocalPixels(NamedTuple):
    """Pixels to train on.

    padded : Padded, the slices.
    pixels : (n,) int64, numbers in them (`windows.gather`): usually the IDK pixels.
    labels : (n,) integer, their phases.
    entropy : (n,) float, the global model's [nat].
    """

    padded: Padded
    pixels: Tensor
    labels: Tensor
    entropy: Tensor


class TrainedLCGAR(NamedTuple):
    """A trained network and its training; both on the CPU."""

    model: LCGAR
    training: TrainingResult


def train_local(
    train: LocalPixels,
    validation: LocalPixels,
    *,
    low: float,
    high: float,
    side: int = 11,
    inputs: Inputs = "all",
    edges: Edges = "zero",
    dropout: float = 0.2,
    weight: Sequence[float] | None = None,
    pacing: Pacing = "linear",
    start_share: float = 0.3,
    full_at: float = 0.5,
    stages: int = 3,
    flips: bool = True,
    average: float = 0.0,
    epochs: int = 15,
    batch_size: int = 1024,
    pixels_per_epoch: int | None = None,
    learning_rate: float = 2e-3,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    precision: Precision = "auto",
    on_epoch: Callable[[Record], None] | None = None,
    label: str = "LCGAR",
) -> TrainedLCGAR:
    """Train on windows around pixels, from those of low entropy to all (HCL-USI); the best epoch in validation is kept.

    Parameters
    ----------
    train, validation : LocalPixels
        On the device to train on.
    low, high : float
        Of the `pad_slices` that made both; kept in the model.
    side, inputs, edges, dropout
        Of `LCGAR`; both are padded for its `window`.
    weight : sequence of float, optional
        Of the classes in the cross-entropy.
    pacing, start_share, full_at, stages
        Of `pacing.pool_size`, with epochs as its steps.
    flips : bool
        Mirror windows along rows and columns, each batch as a whole.
    average
        Decay of the exponential moving average, `ema_decay` of `TrainingOptions`.
    epochs, batch_size
        15 and 1024 in the paper.
    pixels_per_epoch : int, optional
        Default: as many as there are.
    learning_rate : float
        Adam's at first; it follows half a cosine.
    patience, seed, precision
        Of `cathodeflow.training.base_options.TrainingOptions`.
    checkpoint, on_epoch, label
        Of `cathodeflow.training.loop.fit`; `on_epoch` is called at the end of each epoch.

    Raises
    ------
    InputError
        When there are no pixels to train or to validate on.
    """
    for name, part in (("training", train), ("validation", validation)):
        if not len(part.pixels):
            raise InputError(f"{name} pixels", "none that is IDK", "at least one")
    padded = train.padded
    context, n_classes = padded.neighbours.shape[1], padded.logits.shape[-1]
    model = initialised(
        lambda: LCGAR(n_classes, context=context, side=side, inputs=inputs, edges=edges, dropout=dropout), seed
    ).to(memory_format=torch.channels_last)
    model.set_grey(low, high)
    require_windows(model, padded)
    scale = None if weight is None else torch.tensor(weight, dtype=torch.float32)
    order = torch.argsort(train.entropy, stable=True)
    count = len(order)

    def train_batches(epoch: Epoch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        random = epoch.random
        size = pool_size(epoch.index, epochs, count, pacing, start_share, full_at=full_at, stages=stages)
        for rows in paced(order, size, random, batch_size=batch_size, count=pixels_per_epoch or count):
            # Batch normalisation has no variance of one pixel.
            if len(rows) > 1:
                windows, logits = gather(train.padded, train.pixels[rows])
                if flips:
                    windows = windows.flip(VIEWS[int(torch.randint(len(VIEWS), (), generator=random))])
                yield windows, logits, train.labels[rows].long()

    def validation_batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        parts = zip(validation.pixels.split(batch_size), validation.labels.split(batch_size), strict=True)
        return ((*gather(validation.padded, pixels), labels.long()) for pixels, labels in parts)

    def loss_function(network: nn.Module, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        found = network(batch[0], batch[1])
        place = None if scale is None else scale.to(found.device)
        accuracy = (found.argmax(1) == batch[2]).float().mean()
        return {"loss": F.cross_entropy(found, batch[2], weight=place), "accuracy": accuracy}

    options = TrainingOptions(
        epochs=epochs, patience=patience, batch_size=batch_size, learning_rate=learning_rate, ema_decay=average,
        precision=precision, device=cast(Device, padded.image.device.type), seed=seed,
    )  # fmt: skip
    settings = [model.architecture, weight, pacing, start_share, full_at, stages, flips, pixels_per_epoch]
    data = [part for one in (train, validation) for part in (*one.padded[:4], *one[1:])]
    result = fit(
        model, loss_function, train_batches, validation_batches, options, checkpoint=checkpoint,
        key=training_key(settings, *data), on_epoch_end=on_epoch, label=label,
    )  # fmt: skip
    return TrainedLCGAR(model, result)
