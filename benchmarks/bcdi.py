"""Phase retrieval against cohere-core on the same pattern of 64^3 voxels, and the network's short cut, on two cores.

cohere-core (BSD-3) is the engine of the beamline 34-ID-C; without it its rows are left out. It comes by

    uv pip install --no-deps cohere-core

(it needs no more for this than what is here). Ours and the peer run in turns in one process, with the same recipe,
shrink-wrap and number of threads. Errors are compared at one size of support: of each object as many voxels are kept,
the highest, as the smaller support has, since a larger support always fits better.
"""

import contextlib
import importlib.util
import io
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cathodeflow.bcdi import comparison
from cathodeflow.bcdi.network import PhaseNetwork, make_network
from cathodeflow.bcdi.network_options import Architecture, Infer, Refine, Train
from cathodeflow.bcdi.operators import amplitude as amplitude_of
from cathodeflow.bcdi.phase_options import SUPPORT_THRESHOLD, Phase
from cathodeflow.bcdi.prediction import Inferred, predict_objects
from cathodeflow.bcdi.refinement import refine_objects
from cathodeflow.bcdi.retrieval import retrieve
from cathodeflow.bcdi.simulation import crystal
from cathodeflow.learning import limited_threads

# As the peer's, and the usual ones of the field; ours are others.
USUAL = Phase(
    recipe="3*(20*ER+180*HIO)+20*ER", beta=0.9, shrink_every=20, sigma=(1.0, 1.0), threshold=0.1, starts=1,
    free_fraction=0, device="cpu",
)  # fmt: skip
WIDTHS = Train().widths
ENGINE = importlib.util.find_spec("cohere_core") is not None
# As published, our default, and one for CPUs.
NETWORKS: list[tuple[Architecture, tuple[int, ...]]] = [
    ("autophasenn", WIDTHS),
    ("unrolled", WIDTHS),
    ("candidates", (16, 32, 64, 128)),
]
HOW = "cohere-core is not installed, so there is no peer: uv pip install --no-deps cohere-core"


def main() -> None:
    with limited_threads(2):
        truth, measured = pattern(seed=7)
        print(f"a crystal of 64^3 voxels, phase range 2.5 rad, 1e7 photons, {USUAL.recipe}, shrink-wrap every 20")
        full = recipe(truth, measured)
        several(measured)
        short_cut(measured, full)


def pattern(seed: int) -> tuple[Tensor, Tensor]:
    """Simulate a crystal and its measured amplitude (z, y, x)."""
    rng = np.random.default_rng(seed)
    one = crystal(rng, size=64, habit="polyhedron", kind="smooth", regime="medium", phase_range=2.5, oversampling=3.0,
                  aspect=1.5, rounding=0.2, correlation=0.4)  # fmt: skip
    truth = torch.from_numpy(one.amplitude * np.exp(1j * one.phase)).to(torch.complex64)
    intensity = amplitude_of(truth).double().square().numpy()
    counts = rng.poisson(intensity * (1e7 / intensity.sum()))
    return truth, torch.from_numpy(np.sqrt(counts)).float()


def recipe(truth: Tensor, measured: Tensor) -> float:
    """Compare a whole run, three in turns; give our time [s]."""
    times: dict[str, list[float]] = {"ours": [], "cohere-core": []}
    found: dict[str, list[Tensor]] = {"ours": [], "cohere-core": []}
    for number in range(4):
        # The first pair warms up.
        runs = {"ours": lambda seed=number: retrieve(measured, USUAL.model_copy(update={"seed": seed})).objects[0]}
        if ENGINE:
            runs["cohere-core"] = lambda seed=number: cohere(measured, seed)
        for name, run in runs.items():
            start = time.perf_counter()
            one = run()
            if number:
                times[name].append(time.perf_counter() - start)
                found[name].append(one)
    for name, values in times.items():
        if values:
            print(f"  {name:12} {min(values):5.2f} s (three: {', '.join(f'{value:.2f}' for value in values)})")
    if not ENGINE:
        print(f"  {HOW}")
        return min(times["ours"])
    print(f"  ratio of the fastest {min(times['cohere-core']) / min(times['ours']):.2f}")
    report(found, measured, truth)
    return min(times["ours"])


def report(
    found: dict[str, list[Tensor]], measured: Tensor, truth: Tensor | None = None, *, valid: Tensor | None = None
) -> None:
    """Print errors at equal support on the measured pixels, of the best of each kind and in the mean."""
    voxels = min(int((one != 0).sum()) for several in found.values() for one in several)
    for name, objects in found.items():
        errors = [error_at(one, measured, voxels, valid) for one in objects]
        filled = [100 * float((one != 0).float().mean()) for one in objects]
        line = f"  {name:12} error {min(errors):.4f} (best), {np.mean(errors):.4f} (mean), at {voxels} voxels;"
        line += f" support before {np.mean(filled):.1f} % of the volume"
        if truth is not None:
            right = comparison.against_truth(torch.stack(objects), truth, threshold=SUPPORT_THRESHOLD).correlation
            line += f"; best correlation with the truth {right.max():.4f}"
        print(line)


def error_at(one: Tensor, measured: Tensor, voxels: int, valid: Tensor | None = None) -> float:
    """Relative error of the amplitude of an object's highest voxels, on the scale that fits best.

    Only pixels that are `valid` count: one that was not measured is not a zero.
    """
    height = one.abs().flatten()
    kept = torch.where(one.abs() >= height.topk(voxels).values[-1], one, 0)
    calculated = amplitude_of(kept).double()
    wanted = measured.double()
    if valid is not None:
        calculated, wanted = calculated[valid], wanted[valid]
    scale = (calculated * wanted).sum() / calculated.square().sum()
    return float(torch.linalg.vector_norm(scale * calculated - wanted) / torch.linalg.vector_norm(wanted))


def cohere(measured: Tensor, seed: int, *, shrink: tuple[int, int] = (20, 20)) -> Tensor:
    """Phase with cohere-core's torch engine on the CPU; its image is the conjugate of ours, its zeros are too."""
    from cohere_core.controller.phasing import create_rec

    torch.manual_seed(seed)
    params = {
        "algorithm_sequence": USUAL.recipe, "hio_beta": USUAL.beta, "initial_support_area": [0.5, 0.5, 0.5],
        "shrink_wrap_trigger": list(shrink), "shrink_wrap_type": "GAUSS", "shrink_wrap_threshold": USUAL.threshold,
        "shrink_wrap_gauss_sigma": USUAL.sigma[0],
    }  # fmt: skip
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder, "data.npy")
        np.save(path, measured.numpy())
        work = create_rec(params, os.fspath(path), "torch", -1, debug=True)
        work.iterate()
        return torch.as_tensor(work.get_image()).to(torch.complex64).conj().resolve_conj()


def several(measured: Tensor, count: int = 8) -> None:
    """Compare several starts in one batch with as many runs."""
    together = seconds(lambda: retrieve(measured, USUAL.model_copy(update={"starts": count})))
    apart = seconds(lambda: [retrieve(measured, USUAL, numbers=[k]) for k in range(count)])
    print(f"{count} starts: at once {together:.2f} s, in {count} runs {apart:.2f} s, ratio {apart / together:.2f}")


def short_cut(measured: Tensor, full: float) -> None:
    """Time the network's image and 20 iterations that start from its best candidate, against the full run."""
    print("prediction of a network (random weights) and 20 iterations from it, with a shrink-wrap, on two cores")
    for architecture, widths in NETWORKS:
        network = make_network(Train(architecture=architecture, widths=widths, seed=0)).eval()
        exact = images(network, measured, "32-true")
        for precision in ("32-true", "bf16-mixed"):
            away = images(network, measured, precision) - exact
            error = float(torch.linalg.vector_norm(away) / torch.linalg.vector_norm(exact))
            image = partial(predict_objects, network, measured, Infer(precision=precision, device="cpu"))

            def both(image: Callable[[], Inferred] = image) -> None:
                refine_objects(measured, image().objects[0], Refine(iterations=20, device="cpu"))

            first, whole = quickest(image), quickest(both)
            name = f"{architecture} {'-'.join(map(str, widths))}"
            times = f"network {1e3 * first:4.0f} ms, with iterations {1e3 * whole:4.0f} ms"
            print(f"  {name:28} {precision:10} {times}, ratio to the full run {full / whole:.1f}; error {error:.1e}")


def images(network: PhaseNetwork, measured: Tensor, precision: str) -> Tensor:
    """Candidates in the order of the network, to compare those of two kinds of arithmetic."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision != "32-true"):
        found: Tensor = network(measured[None])
    return found


def seconds(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def quickest(action: Callable[[], Any], repeats: int = 3) -> float:
    """Return the shortest of some repeats, after one that warms up."""
    action()
    return min(seconds(action) for _ in range(repeats))


if __name__ == "__main__":
    main()
