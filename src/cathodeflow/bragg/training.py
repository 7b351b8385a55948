"""Train BraggNN on patches cut from one's own frames."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.bragg.model import BraggNN, from_weights
from cathodeflow.bragg.training_patches import TrainingPatches, network_batch
from cathodeflow.checkpoints import generator, training_key
from cathodeflow.errors import InputError
from cathodeflow.training.base_options import Device, Precision, TrainingOptions
from cathodeflow.training.epochs import Epoch, Record
from cathodeflow.training.loop import TrainingResult, fit

PERCENTILES = (50.0, 75.0, 95.0, 99.5)
_INITIALISATION = 2**32 - 1
_CENTRING = 512
# Where Huber's loss turns from quadratic to linear [px].
_BEND = 0.1

Loss = Literal["huber", "mse"]


class TrainedBraggNN(NamedTuple):
    """A trained network: `model`, `training` (its history) and `metrics` on the validation patches [px]."""

    model: BraggNN
    training: TrainingResult
    metrics: dict[str, float]


def join_patches(tables: Sequence[TrainingPatches]) -> tuple[TrainingPatches, NDArray[np.int64]]:
    """Put the patches of several scans together.

    Returns
    -------
    patches : TrainingPatches
    scan : (n,) int64
        Number of the table that each comes from.
    """
    joined = TrainingPatches(*(np.concatenate(columns) for columns in zip(*tables, strict=True)))
    return joined, np.repeat(np.arange(len(tables)), [len(table.row) for table in tables])


def split_blocks(
    fidx: ArrayLike, scan: ArrayLike | None = None, *, validation: float = 0.2, block: int = 16
) -> NDArray[np.bool_]:
    """Choose validation peaks as whole blocks of neighbouring frames, evenly spread over every scan.

    A spot shines on several frames in a row, so rows drawn at random would be validated on peaks trained on.

    Parameters
    ----------
    fidx : (n,) int
        Frame of each peak.
    scan : (n,) int, optional
        Scan of each peak.
    validation : float
        Share of the blocks, in (0, 1).
    block : int
        Frames in a block; fewer in scans too short for both kinds.

    Returns
    -------
    (n,) bool
        True where a peak is for validation.
    """
    frame = np.asarray(fidx, dtype=np.int64)
    number = np.zeros(len(frame), np.int64) if scan is None else np.asarray(scan)
    chosen = np.zeros(len(frame), bool)
    for one in np.unique(number):
        mine = number == one
        offset = frame[mine] - frame[mine].min()
        length = int(offset.max()) + 1
        width = max(1, min(block, int(length * validation)))
        blocks = -(-length // width)
        wanted = min(max(1, round(validation * blocks)), blocks - 1)
        if wanted < 1:
            continue
        which = ((np.arange(wanted) + 0.5) * blocks / wanted).astype(np.int64)
        chosen[mine] = np.isin(offset // width, which)
    return chosen


def train_braggnn(
    patches: TrainingPatches,
    is_validation: NDArray[np.bool_],
    *,
    patch_size: int = 11,
    dense: tuple[int, ...] = (16, 8, 4, 2),
    max_shift: int = 1,
    symmetries: bool = True,
    overlap: float = 0.3,
    loss: Loss = "huber",
    epochs: int = 100,
    patience: int | None = 30,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    warm_up: int = 1,
    final_rate: float = 0.01,
    seed: int = 0,
    initial: dict[str, Tensor] | None = None,
    checkpoint: Any = None,
    precision: Precision = "32-true",
    accelerator: Device = "auto",
    on_epoch: Callable[[Record], None] | None = None,
) -> TrainedBraggNN:
    """Train on patches with random shifts and turns, drawn anew in every epoch; the best epoch in validation is kept.

    Parameters
    ----------
    patches : TrainingPatches
        Of all scans (`join_patches`), with a margin of at least `max_shift`.
    is_validation : (n,) bool
        `split_blocks`.
    patch_size, dense
        Of the network.
    max_shift : int
        Largest shift of a training patch [px]; validation patches are not shifted.
    symmetries : bool
        Turn and mirror training patches, all 8 ways.
    overlap : float
        Share of the training patches to which another peak is added as a neighbour: peaks found in frames overlap,
        those with trustworthy labels do not.
    loss : {"huber", "mse"}
        Mean squared error as published, or Huber's loss, which grows linearly beyond 0.1 px: the few overlapping peaks
        that nothing can place well would outweigh all others.
    epochs, patience, batch_size, learning_rate
        Adam's learning rate; patience in epochs without a better validation.
    warm_up, final_rate
        Epochs of rising learning rate, and its factor at the end of a cosine over `epochs`.
    seed : int
    initial : state_dict, optional
        Weights to start from, rather than random ones.
    checkpoint, precision, accelerator, on_epoch
        Of `cathodeflow.training.base_options.TrainingOptions` (`accelerator` is its device) and `training.loop.fit`.

    Raises
    ------
    InputError
        When one of both kinds of patches is missing, the margin is too small, or `initial` does not fit.
    """
    margin = (patches.patches.shape[-1] - patch_size) // 2
    if margin < max_shift:
        raise InputError("patches", f"a margin of {margin} px around {patch_size} px", f"at least {max_shift} px")
    train, validation = np.flatnonzero(~is_validation), np.flatnonzero(is_validation)
    if min(len(train), len(validation)) == 0:
        raise InputError("patches", f"{len(train)} to train and {len(validation)} to validate on", "some of both")
    if initial is None:
        model = BraggNN(patch_size, dense, generator=generator(seed, _INITIALISATION))
        still = np.zeros(min(len(train), _CENTRING), np.int64)
        some = train[np.linspace(0, len(train) - 1, len(still)).astype(np.int64)]
        centre_output(model, *network_batch(patches, some, still, still, still, patch_size=patch_size))
    else:
        model = from_weights(initial, patch_size=patch_size, where="initial weights")
    still = np.zeros(len(validation), np.int64)
    inputs, labels = map(
        torch.from_numpy, network_batch(patches, validation, still, still, still, patch_size=patch_size)
    )

    def train_batches(epoch: Epoch) -> Iterator[tuple[Tensor, Tensor]]:
        random = epoch.random
        order = torch.randperm(len(train), generator=random).numpy()
        shifts = torch.randint(-max_shift, max_shift + 1, (2, len(train)), generator=random).numpy()
        turns = torch.randint(8 if symmetries else 1, (len(train),), generator=random).numpy()
        neighbours, offsets = draw_neighbours(train, patch_size, overlap, random)
        for start in range(0, len(train), batch_size):
            now = slice(start, start + batch_size)
            batch = network_batch(
                patches, train[order[now]], shifts[0, now], shifts[1, now], turns[now],
                patch_size=patch_size, neighbour=neighbours[now], offset=offsets[now],
            )  # fmt: skip
            yield torch.from_numpy(batch[0]), torch.from_numpy(batch[1])

    def validation_batches() -> Iterator[tuple[Tensor, Tensor]]:
        return zip(inputs.split(batch_size), labels.split(batch_size), strict=True)

    def loss_function(network: nn.Module, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        found = network(batch[0])
        distance = (found - batch[1]).detach().square().sum(1).sqrt().mean() * patch_size
        error = (
            F.mse_loss(found, batch[1]) if loss == "mse" else F.smooth_l1_loss(found, batch[1], beta=_BEND / patch_size)
        )
        return {"loss": error, "distance": distance}

    options = TrainingOptions(
        epochs=epochs, patience=patience, batch_size=batch_size, learning_rate=learning_rate, warm_up=warm_up,
        final_rate=final_rate, precision=precision, device=accelerator, seed=seed,
    )  # fmt: skip
    settings = [patch_size, max_shift, symmetries, overlap, loss]
    result = fit(
        model, loss_function, train_batches, validation_batches, options, checkpoint=checkpoint, label="BraggNN",
        key=training_key(settings, *patches, is_validation), on_epoch_end=on_epoch,
    )  # fmt: skip
    with torch.no_grad():
        found = torch.cat([model(part) for part in inputs.split(batch_size)])
    return TrainedBraggNN(model, result, distance_summary((found - labels).numpy() * patch_size))


def draw_neighbours(
    rows: NDArray[np.integer], patch_size: int, overlap: float, random: torch.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw, for as many patches as there are rows, the row of a neighbour or -1, and where it lies (row, col) [px].

    Neighbours are 3 px away, where two peaks begin to be told apart, up to where they leave the patch.
    """
    count = len(rows)
    chosen = torch.rand(count, generator=random).numpy() < overlap
    other = rows[torch.randint(count, (count,), generator=random).numpy()]
    distance = 3 + torch.rand(count, generator=random, dtype=torch.float64).numpy() * (patch_size / 2)
    angle = 2 * np.pi * torch.rand(count, generator=random, dtype=torch.float64).numpy()
    offset = np.rint(np.stack([distance * np.sin(angle), distance * np.cos(angle)], 1)).astype(np.int64)
    return np.where(chosen, other, -1).astype(np.int64), offset


def centre_output(model: BraggNN, inputs: NDArray[np.float32], labels: NDArray[np.float32]) -> None:
    """Move the bias of the last layer so that the mean output is the mean label.

    An untrained network is several pixels off; on the way there Adam's first steps would switch off units of the narrow
    dense layers.
    """
    last = list(model.dense_layers)[-1]
    with torch.no_grad():
        last.bias += torch.from_numpy(labels).mean(0) - model(torch.from_numpy(inputs)).mean(0)


def distance_summary(errors: NDArray[np.floating]) -> dict[str, float]:
    """Summarise position errors the way BraggNN's authors do.

    Parameters
    ----------
    errors : (n, 2) floating
        Found minus true position [px].

    Returns
    -------
    dict
        Mean, and 50, 75, 95 and 99.5 percentile of the distance [px].
    """
    distance = np.hypot(errors[:, 0], errors[:, 1])
    percentiles = {f"distance_p{q:g}": float(np.percentile(distance, q)) for q in PERCENTILES}
    return {"distance_mean": float(distance.mean())} | percentiles
