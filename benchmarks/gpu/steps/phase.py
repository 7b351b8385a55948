"""Phase retrieval: iterations a second beside the time of their FFTs, and a network with 20 iterations."""

import numpy as np
import torch
from torch import Tensor

from cathodeflow.bcdi.network import make_network
from cathodeflow.bcdi.network_options import Architecture, Infer, Refine, Train
from cathodeflow.bcdi.operators import amplitude as amplitude_of
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.prediction import predict_objects
from cathodeflow.bcdi.refinement import refine_objects
from cathodeflow.bcdi.retrieval import retrieve
from cathodeflow.bcdi.simulation import crystal
from cathodeflow.bcdi.simulation_options import SimulateScan
from steps.measuring import Step, timed

NETWORKS: dict[Architecture, tuple[int, ...]] = {"autophasenn": Train().widths, "candidates": (16, 48, 96, 192)}
# Short and long recipe: their difference is free of what happens once.
SHORT, LONG = 40, 240


def run(step: Step) -> None:
    """Measure the iterations at each size and number of starts, then the networks."""
    for side in step.choose((64, 128), (32,)):
        measured = pattern(side)
        for starts in step.choose((1, 16), (1, 2)):
            iterations(step, measured, starts)
    measured = pattern(step.choose(64, 32))
    for architecture, widths in NETWORKS.items():
        for batch in step.choose((1, 16), (1, 2)):
            short_cut(step, measured, architecture, step.choose(widths, (4, 8)), batch)


def pattern(side: int) -> Tensor:
    """Simulate the measured amplitude (z, y, x) of a crystal of 1e7 photons."""
    rng = np.random.default_rng(7)
    shape = SimulateScan().model_dump(include={"habit", "kind", "regime", "aspect", "rounding", "correlation"})
    one = crystal(rng, size=side, phase_range=2.5, oversampling=3.0, **shape)
    truth = torch.from_numpy(one.amplitude * np.exp(1j * one.phase)).to(torch.complex64)
    intensity = amplitude_of(truth).double().square().numpy()
    return torch.from_numpy(np.sqrt(rng.poisson(intensity * (1e7 / intensity.sum())))).float()


def iterations(step: Step, measured: Tensor, starts: int) -> None:
    """Write iterations a second with a shrink-wrap every 10, and the share of their Fourier transforms."""
    side, device = measured.shape[0], step.device
    label = f"{side}^3, {starts} start{'s' if starts > 1 else ''}"
    short, long = step.choose((SHORT, LONG), (2, 6))

    def recipe(count: int) -> object:
        return retrieve(measured, Phase(recipe=f"{count}*RAAR", starts=starts, device=device.type))

    whole = f"{label}, {long} iterations of RAAR, copies and start included"
    step.measure(whole, lambda: recipe(long), long, "iterations")
    if step.left() <= 0:
        step.write(f"{label}, iterations alone: not reached")
        return
    times = [timed(lambda count=count: recipe(count), device, repeats=3, most=4) for count in (short, long)]
    each = max(times[1] - times[0], 1e-9) / (long - short)
    waves = torch.randn(starts, side, side, side, dtype=torch.complex64, device=device)
    axes = (1, 2, 3)
    repeats = step.choose(20, 1)

    def transforms() -> None:
        for _ in range(repeats):
            torch.fft.ifftn(torch.fft.fftn(waves, dim=axes), dim=axes)

    pair = timed(transforms, device, repeats=3, most=2) / repeats
    step.write(f"{label}, iterations alone: {1 / each:.4g} iterations/s ({starts / each:.4g} of single starts); "
               f"forward and inverse FFT of the whole volumes alone {1e3 * pair:.3g} ms, an iteration "
               f"{each / pair:.2f} times that (it transforms the support's box alone)")  # fmt: skip


def short_cut(step: Step, measured: Tensor, architecture: Architecture, widths: tuple[int, ...], batch: int) -> None:
    """Time images of a network with random weights, and 20 iterations from the best candidate of each volume."""
    network = make_network(Train(architecture=architecture, widths=widths, seed=0)).eval()
    volumes = np.stack([measured.numpy()] * batch)
    options = Refine(iterations=20, device=step.device.type)
    side = measured.shape[0]

    def images() -> Tensor:
        return predict_objects(network, volumes, Infer(device=step.device.type)).objects[:, :1]

    def refined() -> None:
        for volume, start in zip(volumes, images(), strict=True):
            refine_objects(torch.from_numpy(volume), start, options)

    label = f"{architecture} {'-'.join(map(str, widths))} at {side}^3, batch {batch}"
    step.measure(f"{label}, image alone, copies included", images, batch, "volumes")
    step.measure(f"{label}, image and 20 iterations", refined, batch, "volumes")
