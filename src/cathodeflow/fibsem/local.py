"""The local model with global annotated regions (LCGAR): phases of single pixels from the windows around them."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.checkpoints import derived_seed, training_key
from cathodeflow.errors import InputError
from cathodeflow.fibsem.networks import initialised
from cathodeflow.fibsem.pacing import Pacing, paced, pool_size
from cathodeflow.fibsem.windows import Padded, gather
from cathodeflow.sem.learning import resolve_precision
from cathodeflow.training import Record, TrainingResult, fit, warm_up_cosine

Inputs = Literal["image", "image+classes", "image+logits", "all"]
SLOPE = 0.01


class LCGAR(nn.Module):  # type: ignore[misc]
    """Windows around pixels -> logits of their phases (the paper's table 4).

    Convolutions 3x3 32, 32, pooling, 3x3 16, 16, pooling, 1x1 8, 8; the global model's logits of the pixel join the
    flattened features; a dense layer of 128 with dropout, batch normalisation, and the output. Leaky ReLU.

    Parameters
    ----------
    n_classes : int
    context : int
        Neighbouring slices whose image enters as channels.
    side : int
        Of a window, odd, at least 5 [px].
    inputs : {"image", "image+classes", "image+logits", "all"}
        The rows Only-Image, Image+UGSM-Y, Image+UGSM-Emb and MatPhase of the paper's table 2.
    widths : (int, int, int)
        Channels of the three pairs of convolutions.
    dense : int
    dropout : float

    Raises
    ------
    InputError
        When `side` is even or too small for two poolings.
    """

    grey_low: Tensor
    grey_high: Tensor

    def __init__(
        self,
        n_classes: int = 3,
        *,
        context: int = 1,
        side: int = 11,
        inputs: Inputs = "all",
        widths: Sequence[int] = (32, 16, 8),
        dense: int = 128,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if side < 5 or side % 2 == 0:
            raise InputError("window", f"a side of {side} px", "an odd number, at least 5")
        self.architecture: dict[str, Any] = {
            "n_classes": n_classes, "context": context, "side": side, "inputs": inputs, "widths": list(widths),
            "dense": dense, "dropout": dropout,
        }  # fmt: skip
        self.register_buffer("grey_low", torch.zeros(()))
        self.register_buffer("grey_high", torch.ones(()))
        self.channels = context + (n_classes if inputs in ("image+classes", "all") else 0)
        self.convolutions = nn.ModuleList()
        before = self.channels
        for width, kernel in zip(widths, (3, 3, 1), strict=True):
            for _ in range(2):
                self.convolutions.append(nn.Conv2d(before, width, kernel, padding=kernel // 2))
                before = width
        flat = before * (side // 4) ** 2 + (n_classes if inputs in ("image+logits", "all") else 0)
        self.hidden = nn.Linear(flat, dense)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.BatchNorm1d(dense)
        self.output = nn.Linear(dense, n_classes)

    def set_grey(self, low: float, high: float) -> None:
        """Set the grey in the training slices that becomes -1 and 1 (`windows.pad_slices`); kept as weights are."""
        if not high > low:
            raise InputError("training slices", f"grey from {low:g} to {high:g}", "some contrast")
        self.grey_low.fill_(low)
        self.grey_high.fill_(high)

    def forward(self, windows: Tensor, logits: Tensor) -> Tensor:
        """Turn (n, context + n_classes, side, side) windows and (n, n_classes) logits into (n, n_classes) logits."""
        x = windows[:, : self.channels]
        for place, convolution in enumerate(self.convolutions):
            x = convolution(x)
            # The activation rises, so the greatest of four is the same before and after it.
            x = F.leaky_relu(_pooled(x) if place in (1, 3) else x, SLOPE, inplace=True)
        flat = x.flatten(1).float()
        if self.architecture["inputs"] in ("image+logits", "all"):
            flat = torch.cat([flat, logits], 1)
        with torch.autocast(flat.device.type, enabled=False):
            return self.output(self.norm(self.dropout(F.leaky_relu(self.hidden(flat), SLOPE))))


def _pooled(x: Tensor) -> Tensor:
    """Greatest of 2x2; an odd last row and column are left out."""
    if x.requires_grad:
        return F.max_pool2d(x, 2)
    rows, cols = (side // 2 * 2 for side in x.shape[2:])
    upper, lower = x[:, :, 0:rows:2], x[:, :, 1:rows:2]
    both = torch.maximum(upper, lower)
    return torch.maximum(both[..., 0:cols:2], both[..., 1:cols:2])


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
    inputs: Inputs = "all",
    dropout: float = 0.2,
    weight: Sequence[float] | None = None,
    pacing: Pacing = "linear",
    start_share: float = 0.3,
    full_at: float = 0.5,
    stages: int = 3,
    epochs: int = 15,
    batch_size: int = 1024,
    pixels_per_epoch: int | None = None,
    learning_rate: float = 2e-3,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    accelerator: str = "cpu",
    precision: str = "auto",
    on_epoch: Callable[[Record], None] | None = None,
    label: str = "LCGAR",
) -> TrainedLCGAR:
    """Train on windows around pixels, from those of low entropy to all (HCL-USI); the best epoch in validation is kept.

    Parameters
    ----------
    train, validation : LocalPixels
    low, high : float
        Of the `pad_slices` that made both; kept in the model.
    inputs, dropout
        Of `LCGAR`.
    weight : sequence of float, optional
        Of the classes in the cross-entropy.
    pacing, start_share, full_at, stages
        Of `pacing.pool_size`, with epochs as its steps.
    epochs, batch_size
        15 and 1024 in the paper.
    pixels_per_epoch : int, optional
        Default: as many as there are.
    learning_rate : float
        Adam's at first; it follows half a cosine.
    patience, seed, checkpoint, accelerator, on_epoch, label
        Of `cathodeflow.training.fit`.
    precision : str
        Of `lightning_fabric.Fabric`, or "auto" (`resolve_precision`).

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
        lambda: LCGAR(n_classes, context=context, side=padded.side, inputs=inputs, dropout=dropout), seed
    ).to(memory_format=torch.channels_last)
    model.set_grey(low, high)
    scale = None if weight is None else torch.tensor(weight, dtype=torch.float32)
    order = torch.argsort(train.entropy, stable=True)
    count = len(order)
    # `fit` makes each epoch's generator from the epoch's number, so its seed tells the epoch.
    epoch_of = {derived_seed(seed, epoch): epoch for epoch in range(epochs)}

    def train_batches(random: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        step = epoch_of[random.initial_seed()]
        size = pool_size(step, epochs, count, pacing, start_share, full_at=full_at, stages=stages)
        for rows in paced(order, size, random, batch_size=batch_size, count=pixels_per_epoch or count):
            # Batch normalisation has no variance of one pixel.
            if len(rows) > 1:
                yield *gather(train.padded, train.pixels[rows]), train.labels[rows].long()

    def validation_batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        parts = zip(validation.pixels.split(batch_size), validation.labels.split(batch_size), strict=True)
        return ((*gather(validation.padded, pixels), labels.long()) for pixels, labels in parts)

    def loss_function(network: nn.Module, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        found = network(batch[0], batch[1])
        place = None if scale is None else scale.to(found.device)
        accuracy = (found.argmax(1) == batch[2]).float().mean()
        return {"loss": F.cross_entropy(found, batch[2], weight=place), "accuracy": accuracy}

    settings = [model.architecture, weight, pacing, start_share, full_at, stages, batch_size, pixels_per_epoch,
                learning_rate]  # fmt: skip
    data = [part for one in (train, validation) for part in (*one.padded[:4], *one[1:])]
    result = fit(
        model, loss_function, train_batches, validation_batches,
        epochs=epochs, patience=patience, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch, label=label,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=learning_rate),
        schedule=warm_up_cosine(epochs), key=training_key(settings, *data), accelerator=accelerator,
        precision=resolve_precision(precision, padded.image.device),
    )  # fmt: skip
    return TrainedLCGAR(model, result)


def predict_local(
    model: LCGAR, padded: Padded, pixels: Tensor, *, together: int = 1024, precision: str = "auto"
) -> Tensor:
    """Logits (n, n_classes) float32, on the CPU, of pixels (`windows.gather`).

    Parameters
    ----------
    model : LCGAR
        Moved to where the slices are.
    padded : Padded
        Made with the model's `grey_low`, `grey_high` and side.
    pixels : (n,) int64
    together : int
        Windows in memory at a time.
    precision : str
        "bf16-mixed", "32-true", or "auto" (`resolve_precision`).

    Raises
    ------
    InputError
        When windows or the number of slices beside each other are not those of the model.
    """
    place = padded.image.device
    if (padded.side, padded.neighbours.shape[1]) != (model.architecture["side"], model.architecture["context"]):
        found = f"windows of {padded.side} px from {padded.neighbours.shape[1]} slices"
        raise InputError("LCGAR", found, f"{model.architecture['side']} px from {model.architecture['context']}")
    model = model.to(place, memory_format=torch.channels_last).eval()
    bfloat = resolve_precision(precision, place) == "bf16-mixed"
    found = torch.empty(len(pixels), model.architecture["n_classes"])
    with torch.inference_mode(), torch.autocast(place.type, torch.bfloat16, enabled=bfloat):
        for start in range(0, len(pixels), together):
            some = slice(start, start + together)
            found[some] = model(*gather(padded, pixels[some])).float().cpu()
    return found
