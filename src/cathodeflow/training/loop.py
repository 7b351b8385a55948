"""The training loop of all techniques: selects the epoch by validation, and resumes an interrupted training."""

import copy
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from cathodeflow.checkpoints import generator, matching_checkpoint, training_key
from cathodeflow.cluster import Processes, chosen
from cathodeflow.errors import InputError
from cathodeflow.io.models import save_checkpoint
from cathodeflow.learning import resolve_device, resolve_precision
from cathodeflow.progress import draws_bars
from cathodeflow.seeds import derived_seed
from cathodeflow.training.base_options import TrainingOptions
from cathodeflow.training.ema import ExponentialMovingAverage, weights_of
from cathodeflow.training.epochs import Batch, Epoch, LossFunction, Record, train_epoch, validate
from cathodeflow.training.optimizers import build_optimizer
from cathodeflow.training.schedules import build_schedule

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOG = logging.getLogger(__name__)
# Seconds after which an epoch says how far it is.
_TOLD_EVERY = 60.0


class TrainingResult(NamedTuple):
    """Result of a training; the model itself has the weights of the best epoch.

    history : list of dict, for each epoch: `epoch` (from 1), `learning_rate`, and values as `train_*`, `validation_*`.
    best_epoch : int, counted from 1.
    best : dict, the entry of that epoch in the history.
    """

    history: list[Record]
    best_epoch: int
    best: Record


def fit(
    model: nn.Module,
    loss_function: LossFunction,
    train_batches: Callable[[Epoch], Iterable[Batch]],
    validation_batches: Callable[[], Iterable[Batch]],
    options: TrainingOptions,
    *,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
    monitor: str = "loss",
    whole: Callable[[dict[str, Tensor]], dict[str, float]] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    key: str = "",
    processes: Processes | None = None,
    on_epoch_start: Callable[[nn.Module, int], None] | None = None,
    on_epoch_end: Callable[[Record], None] | None = None,
    label: str = "training",
) -> TrainingResult:
    """Train a model in place; afterwards it is on the CPU, in evaluation mode, with the weights of the best epoch.

    All random numbers of an epoch depend on (seed, epoch), so a training resumed from its checkpoint ends with the same
    weights as an uninterrupted one; on CPUs with the same number of threads, bit for bit. The global random state is
    unchanged.

    Parameters
    ----------
    model : nn.Module
    loss_function : (model, batch) -> dict of scalar tensors
        Means over the batch. `loss` is minimised, all values are recorded. It must call `model(...)` itself. Tensors
        with axes, the first of which is that of the samples, are not recorded but kept for `whole`.
    train_batches : (Epoch) -> iterable of batches
        The batches of an epoch: sequences of tensors whose first axis is that of the samples.
    validation_batches : () -> iterable of batches
    options : TrainingOptions
        Options of a technique, or the base class itself. Default of the device: "auto"; of the seed: 0. Batches are
        made by `train_batches`, so `batch_size` only affects the key. With the precision "16-mixed", do not set
        `clip_norm`: the loss scaler must detect infinities itself. With `clip_norm`, steps whose gradient is not finite
        are skipped. With `ema_decay`, the averaged weights are validated and kept.
    optimizer : (parameters) -> Optimizer, optional
        Default: that of the options (`build_optimizer`).
    monitor : str
        Validation quantity that is minimised by the choice of the epoch: one of `loss_function` or of `whole`.
    whole : (dict of tensors) -> dict of float, optional
        Validation quantities that are not means over samples, computed from all tensors with axes that `loss_function`
        returned in a validation, joined along their first axis and on the CPU.
    checkpoint : path, optional
        File for resuming, written after every epoch and kept at the end; `io.models.discard_checkpoint` removes it.
    key : str
        Digest of the data, and of other inputs that affect the result but are not options (`checkpoints.training_key`).
        A checkpoint with another key, other options (except the device) or other initial weights is not
        resumed but overwritten.
    processes : Processes, optional
        Default: those of the command line. Each process takes a part of every batch, weighted by its number
        of samples, so that the mean gradient equals that of one process up to rounding; under Slurm they are the tasks
        of the job. Means with other weights (class weights) are exceptions: they are computed within each part. The
        statistics of batch norm cover all processes on GPUs, but are separate for each process on CPUs. All processes
        end with the same network; files that other processes than the first write are discarded (`io.atomic`).
    on_epoch_start : (network, index) -> None, optional
        Called in every process before an epoch, from 0, with the network in training, which may differ from
        `model`: for state of the network that changes over the epochs. Random numbers that it draws are those of
        the epoch.
    on_epoch_end : (record) -> None, optional
        Called in the first process with the new entry of the history after each epoch.
    label : str
        Name of the training in the log.

    Returns
    -------
    TrainingResult
        The same for the same seed, as it contains no times.

    Raises
    ------
    InputError
        There is no training or validation data, the validation is never finite, or there is no such device.
    """
    from lightning_fabric import Fabric  # as slow to import as torch: not for those that only predict

    device = resolve_device(options.device or "auto")
    precision: Any = resolve_precision(options.precision, device)
    epochs, patience, seed = options.epochs, options.patience, options.seed or 0
    among = processes or chosen(Processes)
    settings = options.model_dump(mode="json", exclude={"device"}) | {"seed": seed, "precision": precision}
    key = training_key(key, model.state_dict(), settings, monitor, among.devices * among.num_nodes)
    with warnings.catch_warnings():
        # Shown on every machine with Slurm; if several processes need srun, `cluster.launcher` has added it.
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        fabric = Fabric(accelerator=device.type, precision=precision, **_among(among))
    fabric.launch()
    inner = _shared_norms(model, fabric)
    stepper = _optimizer(options, inner.parameters()) if optimizer is None else optimizer(inner.parameters())
    schedule = build_schedule(options.schedule, epochs, warm_up=options.warm_up, final=options.final_rate)
    base_rates = [group["lr"] for group in stepper.param_groups]
    wrapped, stepper = fabric.setup(inner, stepper)
    history: list[Record] = []
    best_weights = weights_of(inner)
    mean = ExponentialMovingAverage(inner, options.ema_decay)
    if checkpoint is not None and (state := matching_checkpoint(checkpoint, key)) is not None:
        inner.load_state_dict(state["model"])
        stepper.load_state_dict(state["optimizer"])
        history, best_weights, mean.state = state["history"], state["best"], state["ema"]
        LOG.info("%s: resuming after epoch %d of %d", label, len(history), epochs)
    monitored = "validation_" + monitor
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        bar = _progress(epochs, len(history), label, show=fabric.is_global_zero)
        for index in range(len(history), epochs):
            best = _best(history, monitored)
            if patience is not None and history and index - best > patience:
                LOG.info(
                    "%s: early stopping after %d epochs without improvement on the validation set", label, patience
                )
                break
            torch.manual_seed(derived_seed(seed, index, fabric.global_rank))
            if on_epoch_start is not None:
                on_epoch_start(inner, index)
            factor = schedule(index)
            for group, rate in zip(stepper.param_groups, base_rates, strict=True):
                group["lr"] = rate * factor
            batches = train_batches(Epoch(index, derived_seed(seed, index), generator(seed, index)))
            record: Record = {"epoch": index + 1, "learning_rate": base_rates[0] * factor}
            batches = _told(batches, f"{label}: epoch {index + 1} of {epochs}", show=fabric.is_global_zero)
            record |= train_epoch(fabric, wrapped, stepper, loss_function, batches, options.clip_norm, mean.update)
            with mean.in_place():
                record |= validate(fabric, wrapped, loss_function, validation_batches(), whole)
                history.append(fabric.broadcast(record))
                if _best(history, monitored) == index:
                    best_weights = weights_of(inner)
            if fabric.is_global_zero:
                if checkpoint is not None:
                    save_checkpoint(checkpoint, {"key": key, "model": inner.state_dict(), "history": history,
                                                 "optimizer": stepper.state_dict(), "best": best_weights,
                                                 "ema": mean.state})  # fmt: skip
                _report(bar, label, epochs, history, monitored)
                if on_epoch_end is not None:
                    on_epoch_end(history[-1])
        if bar is not None:
            bar.close()
    best = _best(history, monitored)
    if not history or not math.isfinite(history[best][monitored]):
        raise InputError(label, f"no finite {monitored.replace('_', ' ')} in {len(history)} epochs", "a finite one")
    fabric.barrier()
    model.load_state_dict(best_weights)
    model.to("cpu").eval()
    return TrainingResult(history, best + 1, history[best])


def _optimizer(options: TrainingOptions, parameters: Iterable[nn.Parameter]) -> Optimizer:
    return build_optimizer(
        parameters, options.optimizer, learning_rate=options.learning_rate, weight_decay=options.weight_decay
    )


def _among(processes: Processes) -> dict[str, Any]:
    """Return keywords for Fabric: with several processes, a loss may not depend on all parameters."""
    words = processes.model_dump()
    if processes.devices * processes.num_nodes > 1 and processes.strategy == "auto":
        words["strategy"] = "ddp_find_unused_parameters_true"
    return words


def _shared_norms(model: nn.Module, fabric: "Fabric") -> nn.Module:
    """Return a copy of the model with batch norm over all processes if there are several on GPUs, else the model."""
    if fabric.world_size == 1 or not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
        return model
    if fabric.device.type != "cuda":
        LOG.warning("batch norm on CPUs: statistics are separate for each of %d processes", fabric.world_size)
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))


def _best(history: list[Record], monitored: str) -> int:
    """Epoch with the lowest finite value; of equal ones the first."""
    values = [record[monitored] if math.isfinite(record[monitored]) else math.inf for record in history]
    return min(range(len(values)), key=values.__getitem__, default=0)


def _told(batches: Iterable[Batch], what: str, *, show: bool) -> Iterator[Batch]:
    """Log the number of the batch from time to time, so that a long epoch is not silent."""
    last = time.monotonic()
    for number, batch in enumerate(batches, 1):
        yield batch
        if show and time.monotonic() - last >= _TOLD_EVERY:
            LOG.info("%s: %d batches done", what, number)
            last = time.monotonic()


def _progress(epochs: int, done: int, label: str, *, show: bool) -> Any:
    if show and draws_bars():
        return tqdm(total=epochs, initial=done, desc=label, unit="epoch", dynamic_ncols=True)
    return None


def _report(bar: Any, label: str, epochs: int, history: list[Record], monitored: str) -> None:
    record, best = history[-1], history[_best(history, monitored)]
    if bar is not None:
        bar.update()
        bar.set_postfix({"validation": f"{record[monitored]:.4g}", "best": f"{best[monitored]:.4g}"})
        return
    values = ", ".join(f"{name} {value:.4g}" for name, value in record.items() if name != "epoch")
    LOG.info("%s: epoch %d of %d: %s; best %.4g", label, len(history), epochs, values, best[monitored])
