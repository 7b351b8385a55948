"""The training loop of all techniques: validation decides, and an interrupted training goes on where it was."""

import copy
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
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

LOG = logging.getLogger(__name__)

Batch = Sequence[Tensor]
Record = dict[str, float]


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
    loss_function: Callable[[nn.Module, Batch], dict[str, Tensor]],
    train_batches: Callable[[torch.Generator], Iterable[Batch]],
    validation_batches: Callable[[], Iterable[Batch]],
    *,
    epochs: int,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    seed: int,
    patience: int | None = None,
    schedule: Callable[[int], float] | None = None,
    monitor: str = "loss",
    whole: Callable[[dict[str, Tensor]], dict[str, float]] | None = None,
    clip_norm: float | None = None,
    average: float = 0.0,
    checkpoint: str | os.PathLike[str] | None = None,
    key: str = "",
    accelerator: str = "auto",
    processes: Processes | None = None,
    precision: Any = "32-true",
    on_epoch: Callable[[Record], None] | None = None,
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
    train_batches : (torch.Generator) -> iterable of batches
        An epoch's batches, sequences of tensors whose first axis counts samples.
    validation_batches : () -> iterable of batches
    epochs : int
        Upper limit.
    optimizer : (parameters) -> Optimizer
    seed : int
    patience : int, optional
        Stop after this many epochs without a better validation.
    schedule : (epoch) -> float, optional
        Factor on the optimizer's learning rates in an epoch.
    monitor : str
        Which validation quantity decides, the lower the better; one of `loss_function`'s or of `whole`'s.
    whole : (dict of tensors) -> dict of float, optional
        Validation quantities that are no means over samples: from all the tensors with axes that `loss_function` gave
        in a validation, joined along their first axis and on the CPU.
    clip_norm : float, optional
        Largest norm of the gradient. With it, a step whose gradient is not finite is left out.
    average : float
        Weights that are validated and kept are the mean over the steps before, each counting this factor less than the
        next (an exponential moving average, with its buffers); 0: those of the last step.
    checkpoint : path, optional
        File for resuming, written after every epoch and kept at the end: `io.models.discard_checkpoint` removes it.
    key : str
        Digest of options and data (`checkpoints.training_key`). A checkpoint with another key, or of other initial
        weights, is not resumed but overwritten.
    accelerator, precision
        Of `lightning_fabric.Fabric`. With "16-mixed" leave `clip_norm` out: its loss scaler must see infinities itself.
    processes : Processes, optional
        By default those that the command line says. Each process takes its share of every batch, weighted by its number
        of samples, so that the mean gradient is that of one process, to rounding; under Slurm they are the tasks of the
        job. Not shared is a mean with other weights than 1 for every sample (classes): it is taken within each share.
        Batch norm takes its statistics over all processes on GPUs, and within each process on CPUs. All processes end
        with the same network; what others than the first write is thrown away (`io.atomic`).
    on_epoch : (record) -> None, optional
        Called with each epoch's new entry of the history.
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
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise InputError("device", f"{accelerator}, but no GPU that torch can use", "cpu or auto")
    among = processes or chosen(Processes)
    settings = (seed, epochs, patience, monitor, clip_norm, average, str(precision), among.devices * among.num_nodes)
    key = training_key(key, model.state_dict(), *settings)
    with warnings.catch_warnings():
        # On every machine that has Slurm; where several processes want it, `cluster.launcher` gave the command.
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        fabric = Fabric(accelerator=accelerator, precision=precision, **_among(among))
    fabric.launch()
    inner = _shared_norms(model, fabric)
    stepper = optimizer(inner.parameters())
    base_rates = [group["lr"] for group in stepper.param_groups]
    wrapped, stepper = fabric.setup(inner, stepper)
    history: list[Record] = []
    best_weights = _weights(inner)
    mean = _Average(inner, average)
    if checkpoint is not None and (state := matching_checkpoint(checkpoint, key)) is not None:
        inner.load_state_dict(state["model"])
        stepper.load_state_dict(state["optimizer"])
        history, best_weights = state["history"], state["best"]
        mean.load(state["average"])
        LOG.info("%s goes on after epoch %d of %d", label, len(history), epochs)
    monitored = "validation_" + monitor
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        bar = _progress(epochs, len(history), label, show=fabric.is_global_zero)
        for epoch in range(len(history), epochs):
            best = _best(history, monitored)
            if patience is not None and history and epoch - best > patience:
                LOG.info("%s stops: %d epochs without a better validation", label, patience)
                break
            torch.manual_seed(derived_seed(seed, epoch, fabric.global_rank))
            factor = schedule(epoch) if schedule else 1.0
            for group, rate in zip(stepper.param_groups, base_rates, strict=True):
                group["lr"] = rate * factor
            batches = train_batches(generator(seed, epoch))
            record: Record = {"epoch": epoch + 1, "learning_rate": base_rates[0] * factor}
            record |= _train(fabric, wrapped, stepper, loss_function, batches, clip_norm, mean.update)
            with mean.in_place():
                record |= _validate(fabric, wrapped, loss_function, validation_batches(), whole)
                history.append(fabric.broadcast(record))
                if _best(history, monitored) == epoch:
                    best_weights = _weights(inner)
            if fabric.is_global_zero:
                if checkpoint is not None:
                    save_checkpoint(checkpoint, {"key": key, "model": inner.state_dict(), "history": history,
                                                 "optimizer": stepper.state_dict(), "best": best_weights,
                                                 "average": mean.weights})  # fmt: skip
                _report(bar, label, epochs, history, monitored)
                if on_epoch is not None:
                    on_epoch(history[-1])
        if bar is not None:
            bar.close()
    best = _best(history, monitored)
    if not history or not math.isfinite(history[best][monitored]):
        raise InputError(label, f"no finite {monitored.replace('_', ' ')} in {len(history)} epochs", "a finite one")
    fabric.barrier()
    model.load_state_dict(best_weights)
    model.to("cpu").eval()
    return TrainingResult(history, best + 1, history[best])


def _among(processes: Processes) -> dict[str, Any]:
    """Words for Fabric: of several processes, each may have parameters that a loss does not depend on."""
    words = processes.model_dump()
    if processes.devices * processes.num_nodes > 1 and processes.strategy == "auto":
        words["strategy"] = "ddp_find_unused_parameters_true"
    return words


def warm_up_cosine(epochs: int, *, warm_up: int = 0, final: float = 0.01) -> Callable[[int], float]:
    """Learning-rate schedule: a linear rise, then half a cosine (Loshchilov and Hutter, ICLR 2017).

    Parameters
    ----------
    epochs : int
        Where the cosine ends.
    warm_up : int
        Epochs of the rise.
    final : float
        Factor at the end.

    Examples
    --------
    >>> factor = warm_up_cosine(12, warm_up=2, final=0.0)
    >>> [round(factor(epoch), 3) for epoch in (0, 1, 2, 7)]
    [0.333, 0.667, 1.0, 0.5]
    """

    def factor(epoch: int) -> float:
        if epoch < warm_up:
            return (epoch + 1) / (warm_up + 1)
        done = min((epoch - warm_up) / max(epochs - warm_up, 1), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    return factor


class _Average:
    """Exponential moving average of a model's weights and buffers; without a factor it does nothing."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        self._model, self._factor = model, factor
        self.weights: dict[str, Any] = {**_weights(model), "steps": 0} if factor else {}

    def load(self, weights: dict[str, Any]) -> None:
        """Go on from the average of a checkpoint."""
        self.weights = weights

    def update(self) -> None:
        """Take in the weights after a step; while there were few, the average is over their last tenth."""
        if not self._factor:
            return
        self.weights["steps"] += 1
        share = max(1 - self._factor, 10 / (9 + self.weights["steps"]))
        for name, value in self._model.state_dict().items():
            old = self.weights[name] = self.weights[name].to(value.device)
            if value.is_floating_point():
                old.lerp_(value.detach(), share)
            else:
                old.copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the model, and then what was there before back."""
        if not self._factor:
            yield
            return
        before = _weights(self._model)
        self._model.load_state_dict({name: value for name, value in self.weights.items() if name != "steps"})
        try:
            yield
        finally:
            self._model.load_state_dict(before)


def _train(
    fabric: Fabric, model: Any, optimizer: Any, loss_function: Callable[..., dict[str, Tensor]],
    batches: Iterable[Batch], clip_norm: float | None, after_step: Callable[[], None],
) -> Record:  # fmt: skip
    model.train()
    totals: dict[str, Tensor] = {}
    count = skipped = 0
    for full in batches:
        share, samples = _share(full, fabric.global_rank, fabric.world_size)
        batch = fabric.to_device(share)
        values = loss_function(model, batch)
        optimizer.zero_grad(set_to_none=True)
        # The processes' gradients are averaged: a share counts as many times as it has samples.
        alone = fabric.world_size == 1
        fabric.backward(values["loss"] if alone else values["loss"] * (samples * fabric.world_size / len(full[0])))
        norm = None
        if clip_norm is not None:
            norm = fabric.clip_gradients(model, optimizer, max_norm=clip_norm, error_if_nonfinite=False)
        # Clipping by a norm of infinity or NaN has written NaN into every gradient.
        if norm is not None and not torch.isfinite(norm):
            skipped += 1
        else:
            optimizer.step()
            after_step()
        count += _add(totals, values, samples)
    if fabric.world_size > 1:
        place = {"dtype": torch.float64, "device": fabric.device}
        counted = {name: torch.as_tensor(value, **place) for name, value in (totals | {"": count}).items()}
        totals = {name: fabric.all_reduce(value, reduce_op="sum") for name, value in counted.items()}
        count = int(totals.pop(""))
    return _means(totals, count, "train") | ({"skipped_steps": skipped} if clip_norm is not None else {})


def _validate(
    fabric: Fabric, model: Any, loss_function: Callable[..., dict[str, Tensor]], batches: Iterable[Batch],
    whole: Callable[[dict[str, Tensor]], dict[str, float]] | None,
) -> Record:  # fmt: skip
    model.eval()
    totals: dict[str, Tensor] = {}
    kept: dict[str, list[Tensor]] = {}
    count = 0
    # Every process validates on everything: they all see the same numbers and stop at the same epoch.
    with torch.no_grad():
        for cpu_batch in batches:
            batch = fabric.to_device(cpu_batch)
            values = loss_function(model, batch)
            count += _add(totals, values, len(batch[0]))
            if whole is not None:
                for name, value in values.items():
                    if value.ndim:
                        kept.setdefault(name, []).append(value)
    record = _means(totals, count, "validation")
    if whole is not None:
        found = whole({name: torch.cat(parts).cpu() for name, parts in kept.items()})
        record |= {f"validation_{name}": float(value) for name, value in found.items()}
    return record


def _add(totals: dict[str, Tensor], values: dict[str, Tensor], samples: int) -> int:
    for name, value in values.items():
        # Kept on the device: fetching every step's value would stop it each time.
        if value.ndim == 0:
            totals[name] = totals.get(name, 0.0) + value.detach().double() * samples
    return samples


def _means(totals: dict[str, Tensor], count: int, kind: str) -> Record:
    if count == 0:
        raise InputError(f"{kind} data", "no samples", "at least one")
    return {f"{kind}_{name}": float(total) / count for name, total in totals.items()}


def _share(batch: Batch, rank: int, world: int) -> tuple[Batch, int]:
    """Part of a batch that a process takes, and its samples; one that counts 0 where there are too few for all."""
    if world == 1:
        return batch, len(batch[0])
    parts = [tensor.tensor_split(world)[rank] for tensor in batch]
    return ([tensor[:1] for tensor in batch], 0) if not len(parts[0]) else (parts, len(parts[0]))


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


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy({name: value.detach().cpu() for name, value in model.state_dict().items()})


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
