"""A pass over the data: one epoch of training, or one validation."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cathodeflow.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Batch = Sequence[Tensor]
LossFunction = Callable[[nn.Module, Batch], dict[str, Tensor]]
Record = dict[str, float]


@dataclass(frozen=True)
class Epoch:
    """An epoch and its random numbers, which depend only on (seed, index).

    index : int, from 0.
    seed : int, of this epoch; for further generators, mix it with a number (`seeds.derived_seed`).
    random : torch.Generator, on the CPU, seeded with it.
    """

    index: int
    seed: int
    random: torch.Generator


def train_epoch(
    fabric: "Fabric", model: Any, optimizer: Any, loss_function: LossFunction,
    batches: Iterable[Batch], clip_norm: float | None, after_step: Callable[[], None],
) -> Record:  # fmt: skip
    """Train on the batches of an epoch; return the means of the values of the loss function as `train_*`."""
    model.train()
    totals: dict[str, Tensor] = {}
    count = skipped = 0
    for full in batches:
        share, samples = _share(full, fabric.global_rank, fabric.world_size)
        batch = fabric.to_device(share)
        values = loss_function(model, batch)
        optimizer.zero_grad(set_to_none=True)
        # The gradients of the processes are averaged, so each part is weighted by its number of samples.
        alone = fabric.world_size == 1
        fabric.backward(values["loss"] if alone else values["loss"] * (samples * fabric.world_size / len(full[0])))
        norm = None
        if clip_norm is not None:
            norm = fabric.clip_gradients(model, optimizer, max_norm=clip_norm, error_if_nonfinite=False)
        # Clipping by a norm of infinity or NaN sets every gradient to NaN.
        if norm is not None and not torch.isfinite(norm):
            skipped += 1
        else:
            optimizer.step()
            after_step()
        count += _add(totals, values, samples)
    if fabric.world_size > 1:
        kind = {"dtype": torch.float64, "device": fabric.device}
        counted = {name: torch.as_tensor(value, **kind) for name, value in (totals | {"": count}).items()}
        totals = {name: fabric.all_reduce(value, reduce_op="sum") for name, value in counted.items()}
        count = int(totals.pop(""))
    return _means(totals, count, "train") | ({"skipped_steps": skipped} if clip_norm is not None else {})


def validate(
    fabric: "Fabric", model: Any, loss_function: LossFunction, batches: Iterable[Batch],
    whole: Callable[[dict[str, Tensor]], dict[str, float]] | None,
) -> Record:  # fmt: skip
    """Apply the loss function to all validation batches; return means and values of `whole` as `validation_*`."""
    model.eval()
    totals: dict[str, Tensor] = {}
    kept: dict[str, list[Tensor]] = {}
    count = 0
    # Every process validates on all batches, so all have the same values and stop at the same epoch.
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
        # Kept on the device, as fetching the value of every step would synchronise it each time.
        if value.ndim == 0:
            totals[name] = totals.get(name, 0.0) + value.detach().double() * samples
    return samples


def _means(totals: dict[str, Tensor], count: int, kind: str) -> Record:
    if count == 0:
        raise InputError(f"{kind} data", "no samples", "at least one")
    return {f"{kind}_{name}": float(total) / count for name, total in totals.items()}


def _share(batch: Batch, rank: int, world: int) -> tuple[Batch, int]:
    """Return the part of a batch for a process, and its number of samples; 0 if there are too few samples."""
    if world == 1:
        return batch, len(batch[0])
    parts = [tensor.tensor_split(world)[rank] for tensor in batch]
    return ([tensor[:1] for tensor in batch], 0) if not len(parts[0]) else (parts, len(parts[0]))
