"""Train a network on diffraction alone, which needs no image, or on simulated crystals with their truth, or on both."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cathodeflow.bcdi.losses import LossName, best, diffraction_loss, overlap_loss, placed_loss, residuals
from cathodeflow.bcdi.network import WIDTHS, Architecture, PhaseNetwork, make_network
from cathodeflow.checkpoints import derived_seed, training_key
from cathodeflow.errors import InputError
from cathodeflow.learning import resolve_device, resolve_precision
from cathodeflow.parallel import ordered_map
from cathodeflow.training import Record, TrainingResult, fit, warm_up_cosine

ScheduleName = Literal["constant", "cosine", "cyclic"]
# How many volumes tell whether an interrupted training was on the same data.
_KNOWN_BY = 8


class TrainedNetwork(NamedTuple):
    """A network with the weights and the threshold of its best epoch, and its training; both on the CPU."""

    model: PhaseNetwork
    training: TrainingResult


def train_network(
    amplitudes: Any,
    objects: Any = None,
    *,
    architecture: Architecture = "unrolled",
    widths: Sequence[int] = WIDTHS,
    candidates: int = 4,
    stages: int = 2,
    initial: Mapping[str, Tensor] | None = None,
    loss: LossName = "mix",
    supervised: float = 0.0,
    mean_share: float = 0.05,
    threshold: tuple[float, float] = (0.07, 0.10),
    validation_share: float = 0.1,
    turns: bool = True,
    least_photons: float = 1.0,
    epochs: int = 100,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    optimizer: Literal["adam", "adamw"] = "adam",
    weight_decay: float = 0.01,
    schedule: ScheduleName = "cosine",
    clip_norm: float = 1.0,
    average: float = 0.0,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    key: str = "",
    readers: int = 2,
    device: str = "auto",
    precision: str = "auto",
    on_epoch: Callable[[Record], None] | None = None,
    label: str = "BCDI network",
) -> TrainedNetwork:
    """Train; the epoch of the lowest loss in validation is kept. Volumes are read when they are needed, one by one.

    Parameters
    ----------
    amplitudes : (n, z, y, x) float
        Square roots of counts, zero frequency at index n // 2: anything with a shape that gives a volume for a number
        (NumPy, Zarr, Dask, HDF5).
    objects : (n, z, y, x) complex, optional
        Truth. With it, validation records the correlation of the candidate of the lowest residual, and of the best.
    architecture, widths, candidates, stages
        Of `network.PhaseNetwork`.
    initial : mapping of str to Tensor, optional
        Weights to begin with, from a network of the same architecture and any size of volume.
    loss : {"l1", "pearson", "poisson", "mix"}
        Of `losses.diffraction_loss`; "l1" as published.
    supervised : float
        Share of `losses.placed_loss` in the loss, 0 to 1, the rest being `loss`; above 0 it needs `objects`.
    mean_share : float
        Of the candidates' mean in the loss, beside the best one (`losses.best`).
    threshold : (float, float)
        The network's threshold in the first and in the last epoch, linear in between.
    validation_share : float
        Share of the volumes, drawn by the seed, that is validated on; at least one.
    turns : bool
        Mirror training volumes along their axes and exchange equal axes at random: what the object does its amplitude
        does as well.
    least_photons : float
        Each training volume keeps a random share of its photons from this to 1 (its logarithm is drawn evenly): each
        photon stays with that probability, which gives the noise of a shorter exposure exactly. 1: all stay.
    epochs, batch_size, learning_rate
        Batch and rate as published.
    optimizer : {"adam", "adamw"}
    weight_decay : float
        Of AdamW.
    schedule : {"constant", "cosine", "cyclic"}
        Of the learning rate: `warm_up_cosine` after an epoch of rise, or `cyclic`.
    clip_norm : float
        Largest norm of the gradient; where it is not finite the step is left out.
    average, patience, seed, checkpoint, on_epoch, label
        Of `cathodeflow.training.fit`.
    key : str
        Digest of the data, such as that of its manifest. Without one a few volumes stand for it when an interrupted
        training goes on.
    readers : int
        Threads that read and change volumes.
    device : {"auto", "cpu", "cuda"}
    precision : {"auto", "bf16-mixed", "32-true"}

    Raises
    ------
    InputError
        A shape that does not fit, a volume that is 0 everywhere, negative or not finite, an option out of range.
    """
    model = make_network(architecture, seed=seed, widths=widths, threshold=threshold[1], candidates=candidates,
                         stages=stages)  # fmt: skip
    if initial is not None:
        model.load_state_dict(dict(initial))
    _check(model, amplitudes, objects, supervised, threshold, validation_share, least_photons, optimizer, schedule)
    place = resolve_device(device)
    arithmetic = resolve_precision(precision, place)
    if arithmetic == "16-mixed":
        raise InputError("precision", "16-mixed", "bf16-mixed, 32-true or auto: intensities are beyond its range")
    count = amplitudes.shape[0]
    order = np.random.default_rng(derived_seed(seed, count)).permutation(count)
    held = max(round(validation_share * count), 1)
    validation_rows, train_rows = torch.from_numpy(np.sort(order[:held])), torch.from_numpy(np.sort(order[held:]))
    sources = (amplitudes,) if objects is None else (amplitudes, objects)

    def train_batches(random: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
        rows = train_rows[torch.randperm(len(train_rows), generator=random)]
        seeds = torch.randint(2**62, rows.shape, generator=random)
        # A rest of a batch would weigh as much as a whole one, and a single volume has no statistics of its own.
        end = len(rows) - len(rows) % batch_size if len(rows) > batch_size else len(rows)
        return ordered_map(
            lambda some: _batch(sources, *some, turns=turns, least_photons=least_photons),
            zip(rows[:end].split(batch_size), seeds[:end].split(batch_size), strict=True),
            workers=readers,
        )

    def validation_batches() -> Iterator[tuple[Tensor, ...]]:
        return ordered_map(lambda rows: _batch(sources, rows), validation_rows.split(batch_size), workers=readers)

    def steps(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        if optimizer == "adamw":
            return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
        return torch.optim.Adam(parameters, lr=learning_rate)

    rate = {"constant": lambda epoch: 1.0, "cosine": warm_up_cosine(epochs, warm_up=1), "cyclic": cyclic()}[schedule]

    def threshold_of(epoch: int) -> float:
        return threshold[0] + (threshold[1] - threshold[0]) * epoch / max(epochs - 1, 1)

    def begin(epoch: int) -> float:
        model.threshold = threshold_of(epoch)
        return rate(epoch)

    settings = [model.architecture, loss, supervised, mean_share, threshold, validation_share, turns, least_photons,
                batch_size, learning_rate, optimizer, weight_decay, schedule]  # fmt: skip
    known = [_volume(source, row) for source in sources
             for row in np.linspace(0, count - 1, min(_KNOWN_BY, count)).astype(int).tolist()]  # fmt: skip
    result = fit(
        model, partial(network_loss, loss=loss, supervised=supervised, mean_share=mean_share),
        train_batches, validation_batches,
        epochs=epochs, optimizer=steps, seed=seed, patience=patience, schedule=begin, clip_norm=clip_norm,
        average=average, checkpoint=checkpoint, key=training_key(key, settings, list(amplitudes.shape), *known),
        accelerator=place.type, precision=arithmetic, on_epoch=on_epoch, label=label,
    )  # fmt: skip
    model.threshold = threshold_of(result.best_epoch - 1)
    return TrainedNetwork(model, result)


def network_loss(
    network: nn.Module, batch: Sequence[Tensor], *, loss: LossName, supervised: float, mean_share: float
) -> dict[str, Tensor]:
    """Loss of a batch for `cathodeflow.training.fit`; in validation, residual and correlations as well.

    Parameters
    ----------
    network : nn.Module
    batch : (n, z, y, x) float32 amplitudes, and (n, z, y, x) complex64 true objects where they are known
    loss, supervised, mean_share
        Of `train_network`.
    """
    measured = batch[0]
    found = network(measured)
    each = torch.zeros(found.shape[:2], device=found.device)
    if supervised < 1:
        each = each + (1 - supervised) * diffraction_loss(found, measured, loss)
    if supervised:
        each = each + supervised * placed_loss(found, batch[1])
    values = {"loss": best(each, share=mean_share).mean()}
    if not network.training:
        # As `infer` chooses, which has no truth. In training it would only take time.
        residual = residuals(found, measured)
        values["residual"] = residual.amin(1).mean()
        if len(batch) > 1:
            overlap = overlap_loss(found, batch[1])
            values["correlation"] = 1 - overlap.gather(1, residual.argmin(1, keepdim=True)).mean()
            values["best_correlation"] = 1 - overlap.amin(1).mean()
    return values


def cyclic(*, half_period: int = 6, lowest: float = 0.1) -> Callable[[int], float]:
    """Learning-rate schedule: up and down in straight lines, half as high each time (L. N. Smith, WACV 2017).

    Parameters
    ----------
    half_period : int
        Epochs of a rise.
    lowest : float
        Factor between cycles.

    Examples
    --------
    >>> factor = cyclic(half_period=2, lowest=0.0)
    >>> [factor(epoch) for epoch in range(7)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5]
    """

    def factor(epoch: int) -> float:
        cycle, place = divmod(epoch, 2 * half_period)
        return lowest + (1 - lowest) * (1 - abs(place / half_period - 1)) / 2**cycle

    return factor


def _check(
    model: PhaseNetwork,
    amplitudes: Any,
    objects: Any,
    supervised: float,
    threshold: tuple[float, float],
    validation_share: float,
    least_photons: float,
    optimizer: str,
    schedule: str,
) -> None:
    if len(amplitudes.shape) != 4 or amplitudes.shape[0] < 2:
        raise InputError("training amplitudes", f"shape {tuple(amplitudes.shape)}", "(n, z, y, x), two or more volumes")
    model.check(amplitudes.shape[1:])
    if not 0 <= supervised <= 1:
        raise InputError("supervised", str(supervised), "0 to 1")
    if objects is None and supervised:
        raise InputError("supervised", f"{supervised:g} without objects", "0, or the true objects")
    if objects is not None and tuple(objects.shape) != tuple(amplitudes.shape):
        raise InputError("training objects", f"shape {tuple(objects.shape)}", f"{tuple(amplitudes.shape)}")
    if not 0 <= threshold[0] < 1:
        raise InputError("threshold", str(threshold[0]), "at least 0, below 1")
    if not 0 < validation_share < 1:
        raise InputError("validation_share", str(validation_share), "above 0, below 1")
    if not 0 < least_photons <= 1:
        raise InputError("least_photons", str(least_photons), "above 0, at most 1")
    for name, value, known in (
        ("optimizer", optimizer, ("adam", "adamw")), ("schedule", schedule, ("constant", "cosine", "cyclic")),
    ):  # fmt: skip
        if value not in known:
            raise InputError(name, str(value), "one of " + ", ".join(known))


def _volume(source: Any, row: int) -> NDArray[Any]:
    volume = np.asarray(source[row])
    return volume.astype(np.complex64 if np.iscomplexobj(volume) else np.float32, copy=False)


def _batch(
    sources: Sequence[Any],
    rows: Tensor,
    seeds: Tensor | None = None,
    *,
    turns: bool = False,
    least_photons: float = 1.0,
) -> tuple[Tensor, ...]:
    """Read volumes, amplitudes first; with a seed for each they are changed at random."""
    parts: list[list[NDArray[Any]]] = []
    for place, row in enumerate(rows.tolist()):
        volumes = [_volume(source, row) for source in sources]
        least, most = float(volumes[0].min()), float(volumes[0].max())
        if not 0 <= least < most < np.inf:
            found = "0 everywhere" if least == most == 0 else f"from {least:.3g} to {most:.3g}"
            raise InputError("training amplitudes", f"volume {row} {found}", "finite, at least 0, not all the same")
        if seeds is not None:
            random = np.random.default_rng(int(seeds[place]))
            volumes[0] = thinned(volumes[0], float(np.exp(random.uniform(np.log(least_photons), 0))), random)
            volumes = turned(volumes, random) if turns else volumes
        parts.append(volumes)
    return tuple(torch.from_numpy(np.stack(volumes)) for volumes in zip(*parts, strict=True))


def thinned(amplitude: NDArray[np.float32], share: float, random: np.random.Generator) -> NDArray[np.float32]:
    """Keep each photon of an amplitude, a square root of counts, with a probability: the noise of a shorter exposure.

    At least one photon stays.
    """
    if share == 1:
        return amplitude
    counts = np.rint(np.square(amplitude, dtype=np.float64)).astype(np.int64)
    seen = counts > 0
    kept = random.binomial(counts[seen], share)
    if not kept.any():
        return amplitude
    fewer = np.zeros_like(amplitude)
    fewer[seen] = np.sqrt(kept)
    return fewer


def turned(volumes: Sequence[NDArray[Any]], random: np.random.Generator) -> list[NDArray[Any]]:
    """Mirror volumes of even sides about index n // 2, and exchange their axes where all are equal, all alike."""
    sides = volumes[0].shape
    axes = random.permutation(3) if len(set(sides)) == 1 else np.arange(3)
    mirrored = tuple(itertools.compress(range(3), random.integers(2, size=3)))
    # Mirroring an array moves index n // 2 to the one before.
    return [np.roll(np.flip(volume.transpose(axes), mirrored), [1] * len(mirrored), mirrored) for volume in volumes]
