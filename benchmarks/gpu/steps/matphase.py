"""MatPhase at the paper's size: epochs a second, and the table that the time given is enough for."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cathodeflow.fibsem.appearance import render
from cathodeflow.fibsem.around import neighbours_of
from cathodeflow.fibsem.augment import grey_copies, label_copies
from cathodeflow.fibsem.counts import confusion, mean_iu
from cathodeflow.fibsem.idk import Pixels, choose_threshold, features, idk_probability, train_pixels
from cathodeflow.fibsem.local import predict_local
from cathodeflow.fibsem.passes import stochastic
from cathodeflow.fibsem.phases import assemble, entropy
from cathodeflow.fibsem.split import TEST, TRAIN, VALIDATION, grouped
from cathodeflow.fibsem.structure import PHASES, generate
from cathodeflow.fibsem.train_global import LabelledSlices, class_weights, train_unet
from cathodeflow.fibsem.train_local import LocalPixels, train_local
from cathodeflow.fibsem.unet import UNet
from cathodeflow.fibsem.windows import pad_slices
from cathodeflow.training import Record
from steps.measuring import Step, peak_memory, reset_peak, waiting

EPOCHS, BATCH, COPIES, PASSES = 100, 20, 10, 20
# Of the time left: for each of the two U-Nets, and for the networks of pixels and windows.
GLOBAL, LOCAL = 0.25, 0.12
# As published; the plain U-Net beside it has neither dropout nor weights.
UGSM: dict[str, Any] = {"dropout": 0.5, "dropout_where": "blocks"}


class Electrode:
    """Images of a simulated electrode, ten of each of 133 slices, divided by blocks of the stack."""

    def __init__(self, shape: tuple[int, int, int], copies: int) -> None:
        truth = generate(shape, seed=0)
        images = [grey_copies(render(truth, seed=0), copies=copies), label_copies(truth, copies=copies)]
        # (slice, copy, row, col), as one image after the other.
        self.grey, self.labels = (torch.from_numpy(np.ascontiguousarray(one)).flatten(0, -3) for one in images)
        table = grouped(shape[0], copies=copies)
        self.around = torch.from_numpy(neighbours_of(table["slice"].to_numpy(), table["copy"].to_numpy(), 1))
        first, role = table["copy"].to_numpy() == 0, table["role"].to_numpy()
        self.train = np.flatnonzero(role == TRAIN)
        self.first = {name: np.flatnonzero((role == name) & first) for name in (TRAIN, VALIDATION, TEST)}

    def part(self, rows: np.ndarray) -> LabelledSlices:
        """Give images to train or validate a U-Net on."""
        return LabelledSlices(self.grey, self.labels, self.around[rows])


def run(step: Step) -> None:
    """Train UGSM and a plain U-Net for as many epochs as there is time, then what MatPhase adds, and compare."""
    shape = step.choose((133, 224, 256), (24, 32, 32))
    begin = time.perf_counter()
    electrode = Electrode(shape, step.choose(COPIES, 2))
    step.write(f"{shape[0]} slices of {shape[1]} x {shape[2]}, {len(electrode.train)} images to train on, "
               f"simulated in {time.perf_counter() - begin:.1f} s")  # fmt: skip
    weights = class_weights(electrode.labels[electrode.train], PHASES)
    networks = {}
    for name, options in (("unet", {}), ("ugsm", {**UGSM, "weight": weights})):
        reset_peak(step.device)
        one = epoch_time(step, name, electrode, options)
        epochs = int(min(max(GLOBAL * step.left() / one, 1), step.choose(EPOCHS, 1)))
        networks[name] = trained(step, electrode, epochs, options)
        step.write(f"{name}: trained {epochs} of {EPOCHS} epochs, {peak_memory(step.device)}")
        table(step, f"{name}, {epochs} epochs", predicted(step, networks[name], electrode, TEST).argmax(1), electrode)
    matphase(step, electrode, networks["ugsm"])


def epoch_time(step: Step, name: str, electrode: Electrode, options: dict[str, Any]) -> float:
    """Measure an epoch, the second of two [s], and write epochs a second."""
    times: list[float] = []
    trained(step, electrode, 2, options, on_epoch=lambda _: times.append(time.perf_counter()))
    one = times[1] - times[0]
    waits = waiting(lambda: trained(step, electrode, 1, options), step.device)
    step.write(f"{name}: {1 / one:.4g} epochs/s, batch {BATCH}, {peak_memory(step.device)}, {waits}")
    return one


def trained(
    step: Step, electrode: Electrode, epochs: int, options: dict[str, Any],
    *, on_epoch: Callable[[Record], None] | None = None,
) -> UNet:  # fmt: skip
    """Train a U-Net as published, of small channels in reduced form."""
    sizes = step.choose({}, {"widths": (4, 8), "batch_size": 4})
    return train_unet(
        electrode.part(electrode.train), electrode.part(electrode.first[VALIDATION]), epochs=epochs, seed=0,
        device=step.device.type, on_epoch=on_epoch, **{"batch_size": BATCH, **sizes, **options},
    ).model  # fmt: skip


def predicted(step: Step, network: UNet, electrode: Electrode, role: str) -> Tensor:
    """Mean logits (n, class, row, col) of stochastic passes over the first images of slices of a role."""
    rows = electrode.first[role]
    return stochastic(network, electrode.grey[rows], numbers=rows.tolist(), passes=step.choose(PASSES, 2),
                      device=step.device).logits  # fmt: skip


def matphase(step: Step, electrode: Electrode, network: UNet) -> None:
    """Train what decides which pixels UGSM does not know, and LCGAR on these; compare on the test slices.

    The classifier learns from the validation slices, on which UGSM was not trained: the workflow trains UGSM twice more
    for that, for which there is no time here.
    """
    if step.left() <= 0:
        step.write("matphase: not reached")
        return
    logits = {role: predicted(step, network, electrode, role) for role in electrode.first}
    labels = {role: electrode.labels[rows] for role, rows in electrode.first.items()}
    doubt = {role: entropy(found) for role, found in logits.items()}
    wrong = {role: found.argmax(1) != labels[role] for role, found in logits.items()}
    step.measure(f"stochastic passes, T = {step.choose(PASSES, 2)}",
                 lambda: predicted(step, network, electrode, TEST), len(electrode.first[TEST]), "slices")  # fmt: skip
    half = len(electrode.first[VALIDATION]) // 2
    sets = [Pixels(features(logits[VALIDATION][part], doubt[VALIDATION][part]), wrong[VALIDATION][part].flatten())
            for part in (slice(half, None), slice(half))]  # fmt: skip
    classifier = train_pixels(*sets, epochs=step.choose(5, 1), pixels_per_epoch=200_000,
                              accelerator=step.device.type).model  # fmt: skip
    probability = {role: idk_probability(classifier, logits[role], doubt[role]) for role in logits}
    flags = [one[VALIDATION].flatten().numpy() for one in (probability, wrong)]
    value = choose_threshold(*flags, by="share", target=0.2).value
    idk = {role: one >= value for role, one in probability.items()}
    ends = np.quantile(electrode.grey[electrode.train].numpy(), (0.001, 0.999))

    def pixels(role: str) -> LocalPixels:
        padded = pad_slices(electrode.grey[electrode.first[role]], logits[role], idk[role], side=11, low=float(ends[0]),
                            high=float(ends[1]), device=step.device)  # fmt: skip
        numbers = idk[role].flatten().nonzero()[:, 0]
        # On the card, beside the windows that are gathered there.
        on_card = (one.to(step.device) for one in (numbers, labels[role].flatten()[numbers].long()))
        return LocalPixels(padded, *on_card, doubt[role].flatten()[numbers])

    parts = {role: pixels(role) for role in idk}
    reset_peak(step.device)
    times: list[float] = []
    keywords: dict[str, Any] = {"low": float(ends[0]), "high": float(ends[1]), "seed": 0}
    train_local(parts[TRAIN], parts[VALIDATION], epochs=2, on_epoch=lambda _: times.append(time.perf_counter()),
                **keywords)  # fmt: skip
    one = times[1] - times[0]
    few = step.choose(50_000, 1000)
    waits = waiting(
        lambda: train_local(parts[TRAIN], parts[VALIDATION], epochs=1, pixels_per_epoch=few, **keywords), step.device
    )
    step.write(f"lcgar: {len(parts[TRAIN].pixels) / one:.4g} windows/s in training, {1 / one:.4g} epochs/s, "
               f"{peak_memory(step.device)}, {waits}")  # fmt: skip
    epochs = int(min(max(LOCAL * step.left() / one, 1), step.choose(15, 1)))
    local = train_local(parts[TRAIN], parts[VALIDATION], epochs=epochs, **keywords).model
    answers = predict_local(local, parts[TEST].padded, parts[TEST].pixels)
    found = assemble(logits[TEST], idk[TEST], answers)
    table(step, f"matphase, lcgar {epochs} of 15 epochs", found.labels, electrode)


def table(step: Step, name: str, found: Tensor, electrode: Electrode) -> None:
    """Write the mean IoU and the pixel accuracy on the test slices."""
    counts = confusion(electrode.labels[electrode.first[TEST]].numpy(), found.cpu().numpy(), len(PHASES))
    right = np.trace(counts) / counts.sum()
    step.write(f"test: {name}: mean IoU {mean_iu(counts):.4f}, accuracy {right:.4f}")
