"""Training of a network on diffraction patterns only, on the true objects of simulated crystals, or on both."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cathodeflow.bcdi.losses import best, diffraction_loss, overlap_loss, placed_loss, residuals
from cathodeflow.bcdi.network import PhaseNetwork, make_network
from cathodeflow.bcdi.network_options import Augment, Train
from cathodeflow.checkpoints import training_key
from cathodeflow.errors import InputError
from cathodeflow.parallel import ordered_map
from cathodeflow.seeds import derived_seed
from cathodeflow.training.base_options import TrainingOptions
from cathodeflow.training.epochs import Epoch, Record
from cathodeflow.training.loop import TrainingResult, fit
from cathodeflow.training.optimizers import build_optimizer

# Number of volumes that identify the data of an interrupted training.
_KNOWN_BY = 8


class TrainedNetwork(NamedTuple):
    """A network with the weights and the threshold of its best epoch, and its training; both on the CPU."""

    model: PhaseNetwork
    training: TrainingResult


def train_network(
    amplitudes: Any,
    objects: Any,
    options: Train,
    *,
    initial_weights: Mapping[str, Tensor] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    key: str = "",
    on_epoch: Callable[[Record], None] | None = None,
    label: str = "BCDI network",
) -> TrainedNetwork:
    """Train; the epoch with the lowest validation loss is kept. Volumes are read one by one when they are needed.

    Parameters
    ----------
    amplitudes : (n, z, y, x) float
        Square roots of counts, zero frequency at index n // 2: any object with a shape that returns a volume for an
        index (NumPy, Zarr, Dask, HDF5).
    objects : (n, z, y, x) complex, or None
        Ground truth. If given, validation records the correlation of the candidate with the lowest residual, and of the
        best candidate. Required if `supervised` is above 0.
    options : Train
        Its `initial` and `threads` are for the caller.
    initial_weights : mapping of str to Tensor, optional
        Weights to start from, of a network of the same architecture, for any size of the volumes.
    checkpoint, label
        Of `cathodeflow.training.loop.fit`.
    key : str
        Digest of the data, such as that of its manifest, to which a checkpoint belongs. Default: a digest of a few
        volumes.
    on_epoch : callable, optional
        Called with the record of each epoch at its end.

    Raises
    ------
    InputError
        Shapes do not match, or a volume is 0 everywhere, negative or not finite.
    """
    model = make_network(options)
    if initial_weights is not None:
        model.load_state_dict(dict(initial_weights))
    _check(model, amplitudes, objects, options)
    seed, batch_size, threshold = options.seed or 0, options.batch_size, options.threshold
    count = amplitudes.shape[0]
    order = np.random.default_rng(derived_seed(seed, count)).permutation(count)
    n_validation = max(round(options.validation * count), 1)
    validation_rows, train_rows = (
        torch.from_numpy(np.sort(order[:n_validation])),
        torch.from_numpy(np.sort(order[n_validation:])),
    )
    sources = (amplitudes,) if objects is None else (amplitudes, objects)

    def train_batches(epoch: Epoch) -> Iterator[tuple[Tensor, ...]]:
        rows = train_rows[torch.randperm(len(train_rows), generator=epoch.random)]
        seeds = torch.randint(2**62, rows.shape, generator=epoch.random)
        # An incomplete batch would have the weight of a full one, and a single volume has no batch statistics.
        end = len(rows) - len(rows) % batch_size if len(rows) > batch_size else len(rows)
        return ordered_map(
            lambda some: _batch(sources, *some, options=options),
            zip(rows[:end].split(batch_size), seeds[:end].split(batch_size), strict=True),
            workers=options.num_workers,
        )

    def validation_batches() -> Iterator[tuple[Tensor, ...]]:
        return ordered_map(
            lambda rows: _batch(sources, rows), validation_rows.split(batch_size), workers=options.num_workers
        )

    weight_decay = options.weight_decay if options.optimizer == "adamw" else 0.0

    def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return build_optimizer(
            parameters, options.optimizer, learning_rate=options.learning_rate, weight_decay=weight_decay, exempt=False
        )

    def set_threshold(network: nn.Module, epoch: int) -> None:
        network.threshold = threshold[0] + (threshold[1] - threshold[0]) * epoch / max(options.epochs - 1, 1)

    # The constant schedule has no warm-up.
    scheduled = options if options.schedule == "cosine" else options.model_copy(update={"warm_up": 0})
    known = [_volume(source, row) for source in sources
             for row in np.linspace(0, count - 1, min(_KNOWN_BY, count)).astype(int).tolist()]  # fmt: skip
    result = fit(
        model, partial(network_loss, options=options), train_batches, validation_batches, scheduled,
        key=training_key(key, _settings(options), list(amplitudes.shape), *known), optimizer=optimizer,
        checkpoint=checkpoint, on_epoch_start=set_threshold, on_epoch_end=on_epoch, label=label,
    )  # fmt: skip
    set_threshold(model, result.best_epoch - 1)
    return TrainedNetwork(model, result)


def network_loss(network: nn.Module, batch: Sequence[Tensor], *, options: Train) -> dict[str, Tensor]:
    """Compute the loss of a batch for `cathodeflow.training.loop.fit`, and in validation residual and correlations.

    Parameters
    ----------
    network : nn.Module
    batch : (n, z, y, x) float32 amplitudes, and (n, z, y, x) complex64 true objects where they are known
    options : Train
        Its `loss`, `supervised` and `mean_fraction`.
    """
    measured = batch[0]
    found = network(measured)
    each = torch.zeros(found.shape[:2], device=found.device)
    if options.supervised < 1:
        each = each + (1 - options.supervised) * diffraction_loss(found, measured, options.loss)
    if options.supervised:
        each = each + options.supervised * placed_loss(found, batch[1])
    values = {"loss": best(each, mean_fraction=options.mean_fraction).mean()}
    if not network.training:
        # Chosen as in a prediction, without the truth. In training it would only take time.
        residual = residuals(found, measured)
        values["residual"] = residual.amin(1).mean()
        if len(batch) > 1:
            overlap = overlap_loss(found, batch[1])
            values["correlation"] = 1 - overlap.gather(1, residual.argmin(1, keepdim=True)).mean()
            values["best_correlation"] = 1 - overlap.amin(1).mean()
    return values


def _settings(options: Train) -> dict[str, Any]:
    """Options that affect the result, for the key of the checkpoint; the loop adds those of every training."""
    elsewhere = {*TrainingOptions.model_fields, "initial", "num_workers", "threads"}
    return options.model_dump(mode="json", exclude=elsewhere)


def _check(model: PhaseNetwork, amplitudes: Any, objects: Any, options: Train) -> None:
    if len(amplitudes.shape) != 4 or amplitudes.shape[0] < 2:
        raise InputError("training amplitudes", f"shape {tuple(amplitudes.shape)}", "(n, z, y, x), two or more volumes")
    model.check(amplitudes.shape[1:])
    if objects is None and options.supervised:
        raise InputError("supervised", f"{options.supervised:g} without objects", "0, or the true objects")
    if objects is not None and tuple(objects.shape) != tuple(amplitudes.shape):
        raise InputError("training objects", f"shape {tuple(objects.shape)}", f"{tuple(amplitudes.shape)}")


def _volume(source: Any, row: int) -> NDArray[Any]:
    volume = np.asarray(source[row])
    return volume.astype(np.complex64 if np.iscomplexobj(volume) else np.float32, copy=False)


def _batch(
    sources: Sequence[Any], rows: Tensor, seeds: Tensor | None = None, *, options: Train | None = None
) -> tuple[Tensor, ...]:
    """Read volumes, amplitudes first; they are augmented if options and a seed for each are given."""
    parts: list[list[NDArray[Any]]] = []
    for index, row in enumerate(rows.tolist()):
        volumes = [_volume(source, row) for source in sources]
        lowest, highest = float(volumes[0].min()), float(volumes[0].max())
        if not 0 <= lowest < highest < np.inf:
            found = "0 everywhere" if lowest == highest == 0 else f"from {lowest:.3g} to {highest:.3g}"
            raise InputError("training amplitudes", f"volume {row} {found}", "finite values, at least 0, not all equal")
        if options is not None and seeds is not None:
            random = np.random.default_rng(int(seeds[index]))
            fraction = float(np.exp(random.uniform(np.log(options.min_photon_fraction), 0)))
            volumes[0] = thinned(volumes[0], fraction, random)
            volumes = augmented(volumes, random, options.augment)
        parts.append(volumes)
    return tuple(torch.from_numpy(np.stack(volumes)) for volumes in zip(*parts, strict=True))


def thinned(amplitude: NDArray[np.float32], fraction: float, random: np.random.Generator) -> NDArray[np.float32]:
    """Keep each photon of an amplitude (square root of counts) with a probability: the noise of a shorter exposure.

    At least one photon is kept.
    """
    if fraction == 1:
        return amplitude
    counts = np.rint(np.square(amplitude, dtype=np.float64)).astype(np.int64)
    seen = counts > 0
    kept = random.binomial(counts[seen], fraction)
    if not kept.any():
        return amplitude
    fewer = np.zeros_like(amplitude)
    fewer[seen] = np.sqrt(kept)
    return fewer


def augmented(volumes: Sequence[NDArray[Any]], random: np.random.Generator, options: Augment) -> list[NDArray[Any]]:
    """Exchange axes if all are equally long, and mirror volumes of even sides about index n // 2, all alike."""
    if not (options.rotate90 or options.flip):
        return list(volumes)
    sides = volumes[0].shape
    axes = random.permutation(3) if options.rotate90 and len(set(sides)) == 1 else np.arange(3)
    mirrored = tuple(itertools.compress(range(3), random.integers(2, size=3))) if options.flip else ()
    # Mirroring an array moves index n // 2 to n // 2 - 1.
    return [np.roll(np.flip(volume.transpose(axes), mirrored), [1] * len(mirrored), mirrored) for volume in volumes]
