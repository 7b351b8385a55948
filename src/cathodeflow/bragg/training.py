"""Training of BraggNN on patches cut from the user's own frames."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.bragg.calibration import calibrate
from cathodeflow.bragg.model import BraggNN, from_weights
from cathodeflow.bragg.neighbours import draw_neighbours
from cathodeflow.bragg.network_options import Augment, Locate, Train
from cathodeflow.bragg.positions import build_locator
from cathodeflow.bragg.training_patches import network_batch
from cathodeflow.checkpoints import generator, training_key
from cathodeflow.errors import InputError
from cathodeflow.io.patch_table import TrainingPatches
from cathodeflow.learning import held, resolve_device
from cathodeflow.training.epochs import Epoch, Record
from cathodeflow.training.loop import TrainingResult, fit

PERCENTILES = (50.0, 75.0, 95.0, 99.5)
_INITIALISATION = 2**32 - 1
_CALIBRATION = 2**32 - 2
_CENTRING = 512
# Distance at which the Huber loss becomes linear [px].
_BEND = 0.1


class TrainedBraggNN(NamedTuple):
    """A trained network: `model`, `training` (its history) and `metrics` on the validation patches [px].

    `errors` : coefficients of its standard errors (`calibration.fit_errors`); None without errors of the labels.
    """

    model: BraggNN
    training: TrainingResult
    metrics: dict[str, float]
    errors: list[float] | None


def join_patches(tables: Sequence[TrainingPatches]) -> tuple[TrainingPatches, NDArray[np.int64]]:
    """Concatenate the patches of several scans.

    Returns
    -------
    patches : TrainingPatches
    scan : (n,) int64
        Index of the table that each patch comes from.
    """
    joined = TrainingPatches(*(np.concatenate(columns) for columns in zip(*tables, strict=True)))
    return joined, np.repeat(np.arange(len(tables)), [len(table.row) for table in tables])


def split_blocks(fidx: ArrayLike, scan: ArrayLike | None = None, *, validation: float, block: int) -> NDArray[np.bool_]:
    """Choose the validation peaks as whole blocks of neighbouring frames, evenly spread over every scan.

    A spot is visible on several successive frames: with peaks drawn at random, the network would be validated on peaks
    that it was trained on.

    Parameters
    ----------
    fidx : (n,) int
        Frame of each peak.
    scan : (n,) int, optional
        Scan of each peak.
    validation : float
        Fraction of the blocks for validation, in (0, 1).
    block : int
        Frames per block; fewer in scans too short for blocks of both kinds.

    Returns
    -------
    (n,) bool
        True for validation peaks.
    """
    frame = np.asarray(fidx, dtype=np.int64)
    number = np.zeros(len(frame), np.int64) if scan is None else np.asarray(scan)
    chosen = np.zeros(len(frame), bool)
    for index in np.unique(number):
        mine = number == index
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
    options: Train,
    *,
    patch_size: int,
    pretrained: dict[str, Tensor] | None = None,
    checkpoint: Any = None,
    on_epoch: Callable[[Record], None] | None = None,
) -> TrainedBraggNN:
    """Train on patches that are augmented again in every epoch; the epoch with the lowest validation loss is kept.

    Parameters
    ----------
    patches : TrainingPatches
        Of all scans (`join_patches`), with a margin of at least `max_shift`.
    is_validation : (n,) bool
        `split_blocks`.
    options : Train
        Only training patches are augmented. `overlap` adds a second peak to a patch: peaks on frames overlap, but those
        with reliable labels do not. The Huber loss grows linearly beyond 0.1 px: with the squared error, the few
        overlapping peaks that no network can locate would outweigh all others. `seed`: None is 0.
    patch_size : int
        Side of the network's input [px].
    pretrained : state_dict, optional
        The weights of the file `initial`.
    checkpoint, on_epoch
        As for `cathodeflow.training.loop.fit`.

    Returns
    -------
    TrainedBraggNN

    Raises
    ------
    InputError
        There are no training or no validation patches, the margin is too small, or `pretrained` does not fit.
    """
    max_shift, batch_size, seed = options.max_shift, options.batch_size, options.seed or 0
    margin = (patches.patches.shape[-1] - patch_size) // 2
    if margin < max_shift:
        raise InputError("patches", f"a margin of {margin} px around {patch_size} px", f"at least {max_shift} px")
    train, validation = np.flatnonzero(~is_validation), np.flatnonzero(is_validation)
    if min(len(train), len(validation)) == 0:
        raise InputError(
            "patches", f"{len(train)} for training and {len(validation)} for validation", "at least one of each"
        )
    if pretrained is None:
        model = BraggNN(patch_size, options.hidden_units, generator=generator(seed, _INITIALISATION))
        still = np.zeros(min(len(train), _CENTRING), np.int64)
        some = train[np.linspace(0, len(train) - 1, len(still)).astype(np.int64)]
        centre_output(model, *network_batch(patches, some, still, still, still, patch_size=patch_size))
    else:
        model = from_weights(pretrained, patch_size=patch_size, where="initial weights")
    still = np.zeros(len(validation), np.int64)
    inputs, labels = map(
        torch.from_numpy, network_batch(patches, validation, still, still, still, patch_size=patch_size)
    )

    of_validation = held([inputs, labels], resolve_device(options.device or "auto"))
    allowed = symmetries(options.augment)

    def train_batches(epoch: Epoch) -> Iterator[tuple[Tensor, Tensor]]:
        random = epoch.random
        order = torch.randperm(len(train), generator=random).numpy()
        shifts = torch.randint(-max_shift, max_shift + 1, (2, len(train)), generator=random).numpy()
        turns = allowed[torch.randint(len(allowed), (len(train),), generator=random).numpy()]
        neighbours, offsets = draw_neighbours(train, patch_size, options.overlap, random)
        for start in range(0, len(train), batch_size):
            now = slice(start, start + batch_size)
            batch = network_batch(
                patches, train[order[now]], shifts[0, now], shifts[1, now], turns[now],
                patch_size=patch_size, neighbour=neighbours[now], offset=offsets[now],
            )  # fmt: skip
            yield torch.from_numpy(batch[0]), torch.from_numpy(batch[1])

    def validation_batches() -> Iterator[tuple[Tensor, Tensor]]:
        return zip(*(tensor.split(batch_size) for tensor in of_validation), strict=True)

    def loss_function(network: nn.Module, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        found = network(batch[0])
        distance = (found - batch[1]).detach().square().sum(1).sqrt().mean() * patch_size
        error = (
            F.mse_loss(found, batch[1])
            if options.loss == "mse"
            else F.smooth_l1_loss(found, batch[1], beta=_BEND / patch_size)
        )
        return {"loss": error, "distance": distance}

    result = fit(
        model, loss_function, train_batches, validation_batches, options, checkpoint=checkpoint, label="BraggNN",
        key=training_key(patch_size, *patches, is_validation), on_epoch_end=on_epoch,
    )  # fmt: skip
    with torch.no_grad():
        found = torch.cat([model(part) for part in inputs.split(batch_size)])
    errors = calibrate(
        build_locator(model, Locate(engine="onnx", device="cpu", gain=options.gain), workers=options.threads),
        patches, validation, patch_size=patch_size, gain=options.gain, random=generator(seed, _CALIBRATION),
    )  # fmt: skip
    return TrainedBraggNN(model, result, distance_summary((found - labels).numpy() * patch_size), errors)


def symmetries(augment: Augment) -> NDArray[np.int64]:
    """Return the symmetries of a patch to draw from, as `network_batch` numbers them.

    Examples
    --------
    >>> symmetries(Augment(flip=False)), symmetries(Augment(rotate90=False))
    (array([0, 3, 5, 6]), array([0, 2, 4, 6]))
    """
    rotations, reflections = (0, 3, 5, 6), (0, 2, 4, 6)
    if augment.rotate90 and augment.flip:
        return np.arange(8)
    return np.array(rotations if augment.rotate90 else reflections if augment.flip else (0,))


def centre_output(model: BraggNN, inputs: NDArray[np.float32], labels: NDArray[np.float32]) -> None:
    """Set the bias of the last layer so that the mean prediction is the mean label.

    An untrained network is several pixels off; the first Adam steps towards the labels would inactivate units of the
    narrow dense layers.
    """
    last = list(model.dense_layers)[-1]
    with torch.no_grad():
        last.bias += torch.from_numpy(labels).mean(0) - model(torch.from_numpy(inputs)).mean(0)


def distance_summary(errors: NDArray[np.floating]) -> dict[str, float]:
    """Summarise position errors as the authors of BraggNN do.

    Parameters
    ----------
    errors : (n, 2) floating
        Predicted minus true position [px].

    Returns
    -------
    dict
        Mean, and 50, 75, 95 and 99.5 percentile of the distance [px].
    """
    distance = np.hypot(errors[:, 0], errors[:, 1])
    percentiles = {f"distance_p{q:g}": float(np.percentile(distance, q)) for q in PERCENTILES}
    return {"distance_mean": float(distance.mean())} | percentiles
