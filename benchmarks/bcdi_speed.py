"""Time of the phasing loop on one thread: ours, a plain torch loop, and cohere-core, in turns in one process.

    python benchmarks/bcdi_speed.py [repeats] [seed]

Processor time of the thread, the shortest of the repeats: on a machine shared with other programs, wall time is also
theirs. All have the same recipe, first support and shrink-wrap (every 20 iterations; sigma 1, threshold 0.1). The plain
loop is what a user of torch would write: whole transforms, no memory that is used again. cohere-core (BSD-3) comes by
`uv pip install --no-deps cohere-core`; it runs without PSF (coherence) and without twin removal, and once more with
shrink-wrap in every iteration, its own setting at 34-ID-C. It is left out at 128^3, where it takes minutes.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from bcdi import ENGINE, HOW, USUAL, cohere, error_at
from torch import Tensor

from cathodeflow.bcdi.operators import amplitude as amplitude_of
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.recipe import parse
from cathodeflow.bcdi.retrieval import retrieve
from cathodeflow.bcdi.simulation import crystal
from cathodeflow.bcdi.support import box_support, shrink_wrap
from cathodeflow.learning import limited_threads

RECIPES = {32: USUAL.recipe, 64: USUAL.recipe, 128: "80*HIO"}


def main() -> None:
    repeats, seed = (int(value) for value in (*sys.argv[1:], *("3", "7")[len(sys.argv) - 1 :]))
    with limited_threads(1):
        for size, recipe in RECIPES.items():
            measured = pattern(size, seed)
            options = USUAL.model_copy(update={"recipe": recipe, "support": 0.5})
            runs: dict[str, Callable[[], Tensor]] = {
                "ours": lambda o=options, m=measured: retrieve(m, o).objects[0],
                "plain torch": lambda o=options, m=measured: plain(m, o),
                "ours, default shrink-wrap": lambda o=options, m=measured: retrieve(m, Phase(
                    recipe=o.recipe, starts=1, free_fraction=0, device="cpu")).objects[0],
                "ours, each of 4 starts": lambda o=options, m=measured: retrieve(
                    m, o.model_copy(update={"starts": 4})
                ).objects[0],
            }  # fmt: skip
            if ENGINE and size < 128:
                runs["cohere-core"] = lambda m=measured: cohere(m, 0)
                runs["cohere-core, shrink-wrap always"] = lambda m=measured: cohere(m, 0, shrink=(1, 1))
            compare(f"{size}^3, {recipe}", runs, measured, repeats)
    if not ENGINE:
        print(HOW)


def compare(title: str, runs: dict[str, Callable[[], Tensor]], measured: Tensor, repeats: int) -> None:
    """Print the shortest time of each run, its ratio to ours, and the errors at one size of support."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    found: dict[str, Tensor] = {}
    for number in range(repeats):
        for name, run in runs.items():
            if name.startswith("cohere") and number:
                continue
            begun = time.thread_time()
            found[name] = run()
            times[name].append((time.thread_time() - begun) / (4 if "of 4" in name else 1))
    voxels = min(int((one != 0).sum()) for one in found.values())
    for name, values in times.items():
        ratio = min(values) / min(times["ours"])
        error = error_at(found[name], measured, voxels)
        print(f"RESULT {title}: {name:32} {min(values):6.2f} s, {ratio:5.2f} of ours, error {error:.4f}", flush=True)


def plain(measured: Tensor, options: Phase) -> Tensor:
    """Phase with whole transforms and new memory in every step."""
    shape = tuple(measured.shape)
    support = box_support(shape, options.support)  # type: ignore[arg-type]
    wanted = torch.fft.ifftshift(measured)
    x = torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)) * support
    x *= torch.linalg.vector_norm(wanted) / torch.linalg.vector_norm(x)
    number, y = 0, x
    for step in parse(options.recipe):
        for _ in range(step.iterations):
            wave = torch.fft.fftn(x, norm="ortho")
            y = torch.fft.ifftn(wave * (wanted / wave.abs().clamp_min(1e-12)), norm="ortho")
            x = torch.where(support, y, 0 if step.algorithm == "ER" else x - options.beta * y)
            number += 1
            if number % options.shrink_every == 0:
                kept = torch.where(support, y, 0)
                support = shrink_wrap(kept[None], sigma=options.sigma[0], threshold=options.threshold)[0]
    return torch.where(support, y, 0)


def pattern(size: int, seed: int) -> Tensor:
    """Simulate the measured amplitude (z, y, x) of a crystal of 2.5 rad, 1e7 photons."""
    rng = np.random.default_rng(seed)
    one = crystal(rng, size=size, habit="polyhedron", kind="smooth", regime="medium", phase_range=2.5,
                  oversampling=3.0, aspect=1.5, rounding=0.2, correlation=0.4)  # fmt: skip
    intensity = amplitude_of(torch.from_numpy(one.amplitude * np.exp(1j * one.phase))).double().square().numpy()
    return torch.from_numpy(np.sqrt(rng.poisson(intensity * (1e7 / intensity.sum())))).float()


if __name__ == "__main__":
    main()
