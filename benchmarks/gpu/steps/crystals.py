"""Networks for phases on crystals that are made on the card while they are trained on, and what they are worth then."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor as Executor
from functools import partial
from typing import Any

import bcdi_network
import pandas as pd
import torch
from torch import Tensor

from cathodeflow.bcdi.network import PhaseNetwork, make_network
from cathodeflow.bcdi.network_options import Evaluate, Train
from cathodeflow.bcdi.outlines import Outlines, draw_outlines, drawing_pool, outline_stream
from cathodeflow.bcdi.rendering import render
from cathodeflow.bcdi.simulation_options import Simulate
from cathodeflow.bcdi.training import network_loss
from cathodeflow.bcdi.trials import try_starts
from cathodeflow.training.epochs import Record
from cathodeflow.training.loop import fit
from steps.measuring import Step, timed

SEED = 64
# Batches of an epoch: after each, the figures in validation are written.
BATCHES = 64
# As published, without truth; and the best of ours so far (docs/measured/bcdi.md), with it.
NETWORKS = {
    "autophasenn": Train(architecture="autophasenn", loss="l1", threshold=(0.1, 0.1), schedule="cyclic", seed=0),
    "candidates": Train(architecture="candidates", widths=(16, 48, 96, 192), supervised=1.0, final_rate=0.1, seed=0),
}
# Of the time left when each begins: training and trying of the published network, then of ours.
SHARES = {"autophasenn": (0.25, 0.15), "candidates": (0.65, 0.9)}
ITERATIONS = (20, 50, 100)


def run(step: Step) -> None:
    """Measure simulation, training, and both together; then train for the time that is left, and try the networks."""
    with drawing_pool(workers(step)) as pool:
        simulation(step, pool)
        for name in NETWORKS:
            together(step, name, pool)
        for name, (training, trying) in SHARES.items():
            if step.left() <= 0:
                step.write(f"{name}: training not reached")
                continue
            network = trained(step, name, training * step.left(), pool)
            trials(step, name, network, trying * step.left())


def size(step: Step) -> int:
    """Side of the volumes."""
    return step.choose(64, 16)


def options_of(step: Step, name: str) -> Train:
    """Options of a network and its training; of few channels and crystals in reduced form."""
    small = step.choose({}, {"widths": (4, 8), "batch_size": 2})
    return NETWORKS[name].model_copy(update={"device": step.device.type, **small})


def workers(step: Step) -> int:
    """Choose how many processes draw crystals: all cores but two."""
    return step.choose(max((os.cpu_count() or 2) - 2, 1), 1)


def simulation(step: Step, pool: Executor) -> None:
    """Crystals a second: drawn by one process, made by the card, and both at the same time."""
    side, batch = size(step), step.choose(64, 2)
    outlines = draw_outlines(range(batch), crystals(step))
    seconds = timed(lambda: draw_outlines(range(8), crystals(step)), step.device, repeats=1)
    step.write(f"crystals drawn by one process: {8 / seconds:.4g} crystals/s")
    label = f"crystals of {side}^3 made on the card, batch {batch}"
    step.measure(label, lambda: made(step, outlines), batch, "crystals")
    count = step.choose(40, 3)
    with_workers = stream(step, pool, batch, itertools.count())
    next(with_workers)
    begin = time.perf_counter()
    for _ in range(count):
        last = next(with_workers)
    float(last[0].sum())
    rate = count * batch / (time.perf_counter() - begin)
    with_workers.close()
    step.write(f"crystals of {side}^3, drawn by {workers(step)} processes and made: {rate:.4g} crystals/s")


def crystals(step: Step, seed: int = SEED) -> Simulate:
    """Choose the crystals: the default ones, or smaller ones where there are few voxels."""
    return Simulate(size=size(step), seed=seed, **step.choose({}, {"oversampling": (2.2, 3.8)}))


def made(step: Step, outlines: Outlines) -> tuple[Tensor, Tensor]:
    """Make amplitudes and objects on the card."""
    return tuple(render(outlines, size=size(step), device=step.device))


def stream(step: Step, pool: Executor, batch: int, numbers: Iterator[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of new crystals without end."""
    batches = (range(batch * number, batch * number + batch) for number in numbers)
    for outlines in outline_stream(batches, crystals(step), pool=pool):
        yield made(step, outlines)


def together(step: Step, name: str, pool: Executor) -> None:
    """Volumes a second in training on one batch that stays, and on new crystals for every step."""
    options = options_of(step, name)
    network, batch = make_network(options).to(step.device).train(), options.batch_size
    optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)

    def one(parts: tuple[Tensor, Tensor], precision: str) -> None:
        with torch.autocast(step.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            value = network_loss(network, parts, options=options)["loss"]
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()

    fixed = made(step, draw_outlines(range(batch), crystals(step)))
    label = f"{name} at {size(step)}^3, batch {batch}"
    rates = {
        precision: step.measure(f"{label}, training, {precision}", lambda p=precision: one(fixed, p), batch, "volumes")
        for precision in ("32-true", "bf16-mixed")
    }
    fresh = stream(step, pool, batch, itertools.count())
    next(fresh)
    count = step.choose(20, 2)

    def several() -> None:
        for _ in range(count):
            one(next(fresh), "bf16-mixed")

    rate = step.measure(f"{label}, training on new crystals, bf16-mixed", several, count * batch, "volumes")
    fresh.close()
    step.write(f"{label}: making the crystals takes {100 * max(0.0, 1 - rate / rates['bf16-mixed']):.0f} % of the time")


def trained(step: Step, name: str, seconds: float, pool: Executor) -> PhaseNetwork:
    """Train on new crystals for about this time; every epoch's figures on unseen crystals are written."""
    options = options_of(step, name)
    network, batch = make_network(options), options.batch_size
    batches = step.choose(BATCHES, 2)
    begin = time.perf_counter()
    # Far from the numbers that are trained on.
    unseen = [
        made(step, draw_outlines(range(start, start + batch), crystals(step, SEED + 1)))
        for start in range(0, step.choose(4, 1) * batch, batch)
    ]
    one = epoch_seconds(step, name, batches, pool)
    left = seconds - (time.perf_counter() - begin)
    epochs = step.choose(max(int(left / one), 1), 1)
    step.write(f"{name}: {epochs} epochs of {batches * batch} new crystals, {one:.3g} s each")

    def on_epoch(record: Record) -> None:
        shown = ("validation_loss", "validation_correlation")
        figures = ", ".join(f"{part[11:]} {record[part]:.4f}" for part in shown if part in record)
        step.write(f"{name}: epoch {record['epoch']:.0f}, {record['epoch'] * batches * batch:.0f} crystals, {figures}")

    begin = time.perf_counter()
    network = fitted(step, pool, name, network, batches, epochs, unseen, on_epoch)
    step.write(f"{name}: trained for {time.perf_counter() - begin:.0f} s")
    return network


def epoch_seconds(step: Step, name: str, batches: int, pool: Executor) -> float:
    """Time of an epoch [s], from the second half of a short training."""
    few = max(batches // 8, 1)
    parts = [made(step, draw_outlines(range(2), crystals(step, SEED + 2)))]
    times = []
    for _ in range(2):
        begin = time.perf_counter()
        fitted(step, pool, name, make_network(options_of(step, name)), few, 1, parts, None)
        times.append(time.perf_counter() - begin)
    return times[1] * batches / few


def fitted(
    step: Step, pool: Executor, name: str, network: PhaseNetwork, batches: int, epochs: int,
    unseen: list[tuple[Tensor, Tensor]], on_epoch: Callable[[Record], None] | None,
) -> PhaseNetwork:  # fmt: skip
    """Train for some epochs, each on crystals of its own; one set of processes draws them all."""
    # `adam` decays no weights.
    options = options_of(step, name).model_copy(update={"epochs": epochs, "warm_up": 0, "weight_decay": 0.0})
    fresh = stream(step, pool, options.batch_size, itertools.count())
    fit(
        network, partial(network_loss, options=options), lambda _: itertools.islice(fresh, batches),
        lambda: iter(unseen), options, on_epoch_end=on_epoch, label=name,
    )  # fmt: skip
    fresh.close()
    return network


def trials(step: Step, name: str, network: PhaseNetwork, seconds: float) -> None:
    """Phase unseen crystals from the network's image and from random starts; write successes by regime."""
    end = time.monotonic() + seconds
    rows: list[dict[str, Any]] = []
    options = Evaluate(iterations=step.choose(ITERATIONS, (2,)), device=step.device.type)
    unseen = bcdi_network.unseen(10_000, Simulate(size=step.choose(64, 32), seed=SEED))
    regimes = len(bcdi_network.REGIMES)
    for number, (metadata, seed, amplitude, truth) in enumerate(unseen, 1):
        seeded = options.model_copy(update={"seed": seed})
        rows += [{**metadata, **trial} for trial in try_starts(network, amplitude, truth, seeded)]
        over = time.monotonic() > end or (step.reduced and number >= regimes)
        if number % regimes == 0 and (over or number % (10 * regimes) == 0):
            successes(step, name, rows, number // regimes)
        if over and number >= regimes:
            break


def successes(step: Step, name: str, rows: list[dict[str, Any]], each: int) -> None:
    """Write shares of successes in %, with Wilson's intervals."""
    step.write(f"{name}: successes [%] by iterations, {each} unseen crystals of each regime")
    for line in bcdi_network.table(pd.DataFrame(rows), 1).splitlines():
        step.write(f"{name}:   {line}")
