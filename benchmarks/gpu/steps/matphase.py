"""MatPhase at the paper's size: epochs a second, and the table that the time given is enough for."""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cathodeflow.fibsem.appearance import render
from cathodeflow.fibsem.augmentation import grey_copies, label_copies
from cathodeflow.fibsem.global_network import GlobalNetwork
from cathodeflow.fibsem.global_training import LabelledSlices, class_weights, train_network
from cathodeflow.fibsem.idk import Pixels, choose_threshold, features, idk_probability, train_pixels
from cathodeflow.fibsem.local import LCGAR
from cathodeflow.fibsem.local_prediction import predict_local
from cathodeflow.fibsem.local_training import LocalPixels, fit_local
from cathodeflow.fibsem.mc_dropout import predict_slices
from cathodeflow.fibsem.neighbours import neighbours_of
from cathodeflow.fibsem.network_options import PredictGlobal, TrainGlobal, TrainIdk, TrainLocal
from cathodeflow.fibsem.phases import assemble, entropy
from cathodeflow.fibsem.slice_counts import confusion, mean_iou
from cathodeflow.fibsem.slice_options import Augment, Simulate
from cathodeflow.fibsem.split import TEST, TRAIN, VALIDATION, grouped
from cathodeflow.fibsem.structure import PHASES, generate
from cathodeflow.fibsem.windows import pad_slices
from cathodeflow.training.epochs import Record
from steps.measuring import Step, peak_memory, reset_peak, waiting

COPIES = 10
# Of the time left: for each of the two U-Nets, and for the networks of pixels and windows.
GLOBAL, LOCAL = 0.25, 0.12
# As published; the plain U-Net beside it has neither dropout nor weights.
NETWORKS = {"unet": TrainGlobal(dropout=0, class_weights="none", seed=0), "ugsm": TrainGlobal(seed=0)}


class Electrode:
    """Images of a simulated electrode, ten of each of 133 slices, divided by blocks of the stack."""

    def __init__(self, shape: tuple[int, int, int], copies: int) -> None:
        options, specimen = Augment(copies=copies), Simulate()
        truth = generate(shape, specimen, seed=0)
        images = [grey_copies(render(truth, specimen, seed=0), options), label_copies(truth, options)]
        # (slice, copy, row, col), as one image after the other.
        self.grey, self.labels = (torch.from_numpy(np.ascontiguousarray(one)).flatten(0, -3) for one in images)
        table = grouped(shape[0], options)
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
    networks = {}
    for name, published in NETWORKS.items():
        small = step.choose({}, {"widths": (4, 8), "batch_size": 4, "passes": 2})
        options = published.model_copy(update={"device": step.device.type, **small})
        reset_peak(step.device)
        one = epoch_time(step, name, electrode, options)
        epochs = int(min(max(GLOBAL * step.left() / one, 1), step.choose(options.epochs, 1)))
        networks[name] = trained(electrode, epochs, options)
        step.write(f"{name}: trained {epochs} of {options.epochs} epochs, {peak_memory(step.device)}")
        found = predicted(networks[name], electrode, TEST, options).argmax(1)
        table(step, f"{name}, {epochs} epochs", found, electrode)
    matphase(step, electrode, networks["ugsm"], options)


def epoch_time(step: Step, name: str, electrode: Electrode, options: TrainGlobal) -> float:
    """Measure an epoch, the second of two [s], and write epochs a second."""
    times: list[float] = []
    trained(electrode, 2, options, on_epoch=lambda _: times.append(time.perf_counter()))
    one = times[1] - times[0]
    waits = waiting(lambda: trained(electrode, 1, options), step.device)
    step.write(f"{name}: {1 / one:.4g} epochs/s, batch {options.batch_size}, {peak_memory(step.device)}, {waits}")
    return one


def trained(
    electrode: Electrode, epochs: int, options: TrainGlobal, *, on_epoch: Callable[[Record], None] | None = None
) -> GlobalNetwork:
    """Train a U-Net for some epochs."""
    weight = class_weights(electrode.labels[electrode.train], PHASES) if options.class_weights == "balanced" else None
    return train_network(
        electrode.part(electrode.train), electrode.part(electrode.first[VALIDATION]),
        options.model_copy(update={"epochs": epochs}), n_classes=len(PHASES), weight=weight, on_epoch=on_epoch,
    ).model  # fmt: skip


def predicted(network: GlobalNetwork, electrode: Electrode, role: str, options: TrainGlobal) -> Tensor:
    """Mean logits (n, class, row, col) of stochastic passes over the first images of slices of a role."""
    rows = electrode.first[role]
    return predict_slices(
        network, electrode.grey[rows][:, None], indices=rows.tolist(), passes=options.passes, tta=options.tta,
        tile=PredictGlobal().tile, overlap=PredictGlobal().overlap, seed=0, precision=options.precision,
        device=options.device,
    ).logits  # fmt: skip


def matphase(step: Step, electrode: Electrode, network: GlobalNetwork, options: TrainGlobal) -> None:
    """Train what decides which pixels UGSM does not know, and LCGAR on these; compare on the test slices.

    The classifier learns from the validation slices, on which UGSM was not trained: the workflow trains UGSM twice more
    for that, for which there is no time here.
    """
    if step.left() <= 0:
        step.write("matphase: not reached")
        return
    logits = {role: predicted(network, electrode, role, options) for role in electrode.first}
    labels = {role: electrode.labels[rows] for role, rows in electrode.first.items()}
    uncertainty = {role: entropy(found) for role, found in logits.items()}
    wrong = {role: found.argmax(1) != labels[role] for role, found in logits.items()}
    step.measure(
        f"stochastic passes, T = {options.passes}", lambda: predicted(network, electrode, TEST, options),
        len(electrode.first[TEST]), "slices",
    )  # fmt: skip
    half = len(electrode.first[VALIDATION]) // 2
    sets = [Pixels(features(logits[VALIDATION][part], uncertainty[VALIDATION][part]), wrong[VALIDATION][part].flatten())
            for part in (slice(half, None), slice(half))]  # fmt: skip
    idk_options = TrainIdk(epochs=step.choose(5, 1), device=step.device.type, seed=0)
    classifier = train_pixels(*sets, idk_options).model
    probability = {role: idk_probability(classifier, logits[role], uncertainty[role]) for role in logits}
    flags = [one[VALIDATION].flatten().numpy() for one in (probability, wrong)]
    value = choose_threshold(*flags, idk_options).value
    idk = {role: one >= value for role, one in probability.items()}
    published = TrainLocal(seed=0)
    ends = np.quantile(electrode.grey[electrode.train].numpy(), (0.001, 0.999))

    def pixels(role: str) -> LocalPixels:
        padded = pad_slices(
            electrode.grey[electrode.first[role]], logits[role], idk[role], side=published.side, low=float(ends[0]),
            high=float(ends[1]), device=step.device,
        )  # fmt: skip
        numbers = idk[role].flatten().nonzero()[:, 0]
        # On the card, beside the windows that are gathered there.
        on_card = (one.to(step.device) for one in (numbers, labels[role].flatten()[numbers].long()))
        return LocalPixels(padded, *on_card, uncertainty[role].flatten()[numbers])

    parts = {role: pixels(role) for role in idk}
    reset_peak(step.device)
    times: list[float] = []

    def fitted(on_epoch: Callable[[Record], None] | None = None, **changed: int) -> LCGAR:
        ours = published.model_copy(update=changed)
        return fit_local(parts[TRAIN], parts[VALIDATION], ours, low=float(ends[0]), high=float(ends[1]),
                         on_epoch=on_epoch).model  # fmt: skip

    fitted(lambda _: times.append(time.perf_counter()), epochs=2)
    one = times[1] - times[0]
    few = step.choose(50_000, 1000)
    waits = waiting(lambda: fitted(epochs=1, pixels_per_epoch=few), step.device)
    step.write(f"lcgar: {len(parts[TRAIN].pixels) / one:.4g} windows/s in training, {1 / one:.4g} epochs/s, "
               f"{peak_memory(step.device)}, {waits}")  # fmt: skip
    epochs = int(min(max(LOCAL * step.left() / one, 1), step.choose(published.epochs, 1)))
    answers = predict_local(fitted(epochs=epochs), parts[TEST].padded, parts[TEST].pixels, precision="auto")
    found = assemble(logits[TEST], idk[TEST], answers)
    table(step, f"matphase, lcgar {epochs} of {published.epochs} epochs", found.labels, electrode)


def table(step: Step, name: str, found: Tensor, electrode: Electrode) -> None:
    """Write the mean IoU and the pixel accuracy on the test slices."""
    counts = confusion(electrode.labels[electrode.first[TEST]].numpy(), found.cpu().numpy(), len(PHASES))
    right = np.trace(counts) / counts.sum()
    step.write(f"test: {name}: mean IoU {mean_iou(counts):.4f}, accuracy {right:.4f}")
