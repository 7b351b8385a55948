"""The training loop of all techniques: validation decides, and an interrupted training goes on where it was."""

import copy
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from cathodeflow.checkpoints import derived_seed, generator, matching_checkpoint, training_key
from cathodeflow.cluster import Processes, chosen
from cathodeflow.errors import InputError
from cathodeflow.io.models import save_checkpoint
from cathodeflow.learning import resolve_device, resolve_precision
from cathodeflow.training.base_options import TrainingOptions
from cathodeflow.training.ema import ExponentialMovingAverage, weights_of
from cathodeflow.training.epochs import Batch, Epoch, LossFunction, Record, train_epoch, validate
from cathodeflow.training.optimizers import build_optimizer
from cathodeflow.training.schedules import build_schedule

LOG = logging.getLogger(__name__)


class TrainingResult(NamedTuple):
    """What a training gave; the model itself holds the best epoch's weights.

    history : list of dict, per epoch `epoch` (from 1), `learning_rate`, and quantities as `train_*` and `validation_*`.
    best_epoch : int, counted from 1.
    best : dict, the history's entry of that epoch.
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
    """Train a model in place; it ends on the CPU, in evaluation mode, with the weights of its best epoch.

    All randomness of an epoch comes from (seed, epoch), so a training resumed from its checkpoint ends with the same
    weights as an unbroken one; on CPUs, with the same number of threads, bit for bit. Global random state is left as it
    was.

    Parameters
    ----------
    model : nn.Module
    loss_function : (model, batch) -> dict of scalar tensors
        Means over the batch. `loss` is minimised, everything is recorded. It must call `model(...)` itself. Tensors
        with axes, the first of which counts samples, are not recorded but kept for `whole`.
    train_batches : (Epoch) -> iterable of batches
        The batches of an epoch, sequences of tensors whose first axis counts samples.
    validation_batches : () -> iterable of batches
    options : TrainingOptions
        Those of a technique, or the base class itself. Without a device or a seed: "auto" and 0. Batches are made by
        `train_batches`, so `batch_size` is only part of the key. With the precision "16-mixed" leave `clip_norm` out:
        the loss scaler must see infinities itself. With `clip_norm`, a step whose gradient is not finite is left out.
        With `ema_decay`, the averaged weights are validated and kept.
    optimizer : (parameters) -> Optimizer, optional
        Default: that of the options (`build_optimizer`).
    monitor : str
        Which validation quantity decides, the lower the better; one of `loss_function`'s or of `whole`'s.
    whole : (dict of tensors) -> dict of float, optional
        Validation quantities that are no means over samples: from all the tensors with axes that `loss_function` gave
        in a validation, joined along their first axis and on the CPU.
    checkpoint : path, optional
        File for resuming, written after every epoch and kept at the end: `io.models.discard_checkpoint` removes it.
    key : str
        Digest of the data, and of what else decides the result but is not in the options (`checkpoints.training_key`).
        A checkpoint of another key, of other options (the device does not count) or of other initial weights is not
        resumed but overwritten.
    processes : Processes, optional
        By default those that the command line says. Each process takes its share of every batch, weighted by its number
        of samples, so that the mean gradient is that of one process, to rounding; under Slurm they are the tasks of the
        job. Not shared is a mean with other weights than 1 for every sample (classes): it is taken within each share.
        Batch norm takes its statistics over all processes on GPUs, and within each process on CPUs. All processes end
        with the same network; what others than the first write is thrown away (`io.atomic`).
    on_epoch_start : (network, index) -> None, optional
        Called in every process before an epoch, from 0, with the network that is being trained, which need not be
        `model` itself: for state of the network that changes over the epochs. Random numbers that it draws are those of
        the epoch.
    on_epoch_end : (record) -> None, optional
        Called in the first process with each epoch's new entry of the history.
    label : str
        What the log calls this training.

    Returns
    -------
    TrainingResult
        The same for the same seed: it holds no times.

    Raises
    ------
    InputError
        When there is nothing to train or validate on, validation never is finite, or there is no such device.
    """
    device = resolve_device(options.device or "auto")
    precision: Any = resolve_precision(options.precision, device)
    epochs, patience, seed = options.epochs, options.patience, options.seed or 0
    among = processes or chosen(Processes)
    settings = options.model_dump(mode="json", exclude={"device"}) | {"seed": seed, "precision": precision}
    key = training_key(key, model.state_dict(), settings, monitor, among.devices * among.num_nodes)
    with warnings.catch_warnings():
        # On every machine that has Slurm; where several processes want it, `cluster.launcher` gave the command.
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
        LOG.info("%s goes on after epoch %d of %d", label, len(history), epochs)
    monitored = "validation_" + monitor
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        bar = _progress(epochs, len(history), label, show=fabric.is_global_zero)
        for index in range(len(history), epochs):
            best = _best(history, monitored)
            if patience is not None and history and index - best > patience:
                LOG.info("%s stops: %d epochs without a better validation", label, patience)
                break
            torch.manual_seed(derived_seed(seed, index, fabric.global_rank))
            if on_epoch_start is not None:
                on_epoch_start(inner, index)
            factor = schedule(index)
            for group, rate in zip(stepper.param_groups, base_rates, strict=True):
                group["lr"] = rate * factor
            batches = train_batches(Epoch(index, derived_seed(seed, index), generator(seed, index)))
            record: Record = {"epoch": index + 1, "learning_rate": base_rates[0] * factor}
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
    """Words for Fabric: of several processes, each may have parameters that a loss does not depend on."""
    words = processes.model_dump()
    if processes.devices * processes.num_nodes > 1 and processes.strategy == "auto":
        words["strategy"] = "ddp_find_unused_parameters_true"
    return words


def _shared_norms(model: nn.Module, fabric: Fabric) -> nn.Module:
    """Copy of the model whose batch norms see all processes, where there are several on GPUs; else the model."""
    if fabric.world_size == 1 or not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
        return model
    if fabric.device.type != "cuda":
        LOG.warning("batch norm on CPUs takes its statistics within each of %d processes", fabric.world_size)
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))


def _best(history: list[Record], monitored: str) -> int:
    """Epoch of the lowest finite value, the first of equals."""
    values = [record[monitored] if math.isfinite(record[monitored]) else math.inf for record in history]
    return min(range(len(values)), key=values.__getitem__, default=0)


def _progress(epochs: int, done: int, label: str, *, show: bool) -> Any:
    if show and sys.stderr.isatty():
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
