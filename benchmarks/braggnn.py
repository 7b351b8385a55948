"""BraggNN: patches per second, training epochs, and accuracy on simulated peaks, alone and overlapping.

Peers, measured in turns with ours in the same run: the network layer by layer in eager torch, and onnxruntime on the
graph that torch.onnx exports from it; rates are those of processor time on one thread. Accuracy is that of peaks which
the peak search finds on simulated frames. Beside the network, trained on peaks of the same distribution, stand what
needs no training: the centre of mass of the same patches and our fit of the frames; the Cramer-Rao bound (all seven
parameters of an elliptical Gaussian unknown); and, where CATHODEFLOW_DATA has them, the published weights, which were
trained on another experiment.
"""

import argparse
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from torch import nn

from cathodeflow.bragg.flags import flag_peaks, is_good
from cathodeflow.bragg.matching import match
from cathodeflow.bragg.model import BraggNN, from_weights
from cathodeflow.bragg.network_options import Locate, Train
from cathodeflow.bragg.peak_fits import fit_frame
from cathodeflow.bragg.peak_options import FindPeaks, Fit
from cathodeflow.bragg.peak_search import candidates
from cathodeflow.bragg.positions import build_locator
from cathodeflow.bragg.training import TrainedBraggNN, split_blocks, train_braggnn
from cathodeflow.bragg.training_patches import network_batch, prepare_patches
from cathodeflow.io.models import load_model
from cathodeflow.io.patch_table import TrainingPatches

BACKGROUND, THRESHOLD, CELL = 2.0, 6.0, 29
HIDDEN = Train().hidden_units
DATA = Path(os.environ.get("CATHODEFLOW_DATA", Path(__file__).parents[2] / "shared" / "data")) / "bragg_upstream"


class LayerByLayer(nn.Module):
    """The same weights, each layer computed as written down."""

    def __init__(self, model: BraggNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1, 11, 11) -> (n, 2)."""
        layers, block = self.model.cnn_layers, self.model.nlb
        y = layers[0](x)
        theta, phi, g = (layer(y).flatten(2) for layer in (block.theta_layer, block.phi_layer, block.g_layer))
        attended = torch.softmax(theta.transpose(1, 2) @ phi, -1) @ g.transpose(1, 2)
        y = y + block.out_cnn(attended.transpose(1, 2).unflatten(2, (9, 9)))
        return self.model.dense_layers(layers[1:](y).flatten(1))


def simulate(
    count: int, size: int, seed: int, *, neighbours: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Poisson counts of turned elliptical Gaussians, height 20 to 2000 (log-uniform), sigma 0.8 to 1.8 px.

    With `neighbours`, each has another such peak 3.5 to 8 px away. Returns patches (n, size, size), rows and columns
    (n,), and a draw of the error of an efficient estimator of the peaks alone (n,) [px].
    """
    random = np.random.default_rng(seed)
    row, col = size // 2 + random.uniform(-0.5, 0.5, (2, count))
    height = np.exp(random.uniform(np.log(20), np.log(2000), count))
    parameters = np.stack([row, col, height, *random.uniform(0.8, 1.8, (2, count)), random.uniform(0, np.pi, count)])
    r, c = np.mgrid[:size, :size]

    def image(values: np.ndarray) -> np.ndarray:
        row, col, height, major, minor, angle = values[:, :, None, None]
        along = (r - row) * np.cos(angle) + (c - col) * np.sin(angle)
        across = (c - col) * np.cos(angle) - (r - row) * np.sin(angle)
        return height * np.exp(-((along / major) ** 2 + (across / minor) ** 2) / 2)

    mean, steps = image(parameters) + BACKGROUND, np.diag([1e-4, 1e-4, 1e-2, 1e-4, 1e-4, 1e-4])
    slopes = [(image(parameters + s[:, None]) - image(parameters - s[:, None])) / (2 * s.sum()) for s in steps]
    jacobian = np.stack([*slopes, np.ones_like(mean)], 1)
    # Sigmas that nearly agree leave the angle open; the small number keeps the matrix regular.
    fisher = np.einsum("nkij,nlij->nkl", jacobian / mean[:, None], jacobian) + 1e-9 * np.eye(7)
    spread = np.linalg.cholesky(np.linalg.inv(fisher)[:, :2, :2])
    bound = np.hypot(*np.einsum("nij,nj->ni", spread, random.standard_normal((count, 2))).T)
    if neighbours:
        distance, angle = random.uniform(3.5, 8, count), random.uniform(0, 2 * np.pi, count)
        second = parameters[:, random.permutation(count)]
        second[:2] = row + distance * np.sin(angle), col + distance * np.cos(angle)
        mean = mean + image(second)
    return random.poisson(mean).astype(np.float32), row.astype("f4"), col.astype("f4"), bound


def rates(runs: dict[str, Callable[[], Any]], patches: int, rounds: int) -> dict[str, float]:
    """Best of several rounds in which all take turns [patches/s of processor time]."""
    best = dict.fromkeys(runs, np.inf)
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    return {name: patches / seconds for name, seconds in best.items()}


def speed(count: int, rounds: int) -> None:
    """Print patches per second of every engine on one thread, and the ratio to each peer."""
    torch.set_num_threads(1)
    model = BraggNN(11, HIDDEN, generator=torch.Generator().manual_seed(0)).eval()
    patches = np.random.default_rng(0).random((count, 11, 11), dtype=np.float32)
    counts = np.tile(np.array([0, 100], np.float32), (count, 1))
    inputs = torch.from_numpy(patches[:, None])
    layers = LayerByLayer(model)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    with TemporaryDirectory() as folder:
        exported = Path(folder) / "layers.onnx"
        torch.onnx.export(
            layers, (inputs[:2],), exported, dynamo=True, verbose=False, external_data=False,
            input_names=["x"], dynamic_shapes=({0: torch.export.Dim("n")},),
        )  # fmt: skip
        session = onnxruntime.InferenceSession(exported, settings)

    @torch.inference_mode()
    def eager() -> None:
        for part in inputs.split(64):
            layers(part)

    def onnx() -> None:
        for start in range(0, count, 64):
            session.run(None, {"x": patches[start : start + 64, None]})

    runs: dict[str, Callable[[], Any]] = {"layers, eager torch": eager, "layers, onnxruntime": onnx}
    for uncertainty in (False, True):
        for engine in ("torch", "onnx"):
            options = Locate(engine=engine, device="cpu", uncertainty=uncertainty)
            locator = build_locator(model, options, workers=1)
            label = f"ours, {engine}" + (", with standard errors" if uncertainty else "")
            runs[label] = lambda locator=locator: locator(patches, counts)
    for run in runs.values():
        run()
    found = rates(runs, count, rounds)
    print(f"\n1 thread, {count} patches, batch 64         patches/s   / eager   / onnxruntime")
    for name, rate in found.items():
        ratios = (rate / found[peer] for peer in ("layers, eager torch", "layers, onnxruntime"))
        print(f"{name:<40}{rate:>10.0f}" + "".join(f"{ratio:>10.2f}" for ratio in ratios))


def preparation(rounds: int) -> None:
    """Print patches per second of cutting and cleaning."""
    random = np.random.default_rng(0)
    frame = random.poisson(3.0, (2048, 2048)).astype(np.float32)
    rows, cols = random.integers(0, 2048, (2, 20_000))
    table, *_ = training_table(5000, 0)
    zero = np.zeros(5000, np.int64)
    runs: dict[str, Callable[[], Any]] = {
        "prepare_patches": lambda: prepare_patches(frame, rows, cols, patch_size=11, min_value=5),
        "network_batch (x 4)": lambda: [
            network_batch(table, np.arange(5000), zero, zero, zero + 7, patch_size=11) for _ in range(4)
        ],
    }
    for run in runs.values():
        run()
    print("\npreparation, 1 thread                    patches/s")
    for name, rate in rates(runs, 20_000, rounds).items():
        print(f"{name:<40}{rate:>10.0f}")


def training_table(
    count: int, seed: int, *, neighbours: bool = False
) -> tuple[TrainingPatches, np.ndarray, np.ndarray]:
    """Make a table of thresholded patches of simulated peaks; also return the counts and the bound's errors."""
    images, row, col, bound = simulate(count, 13, seed, neighbours=neighbours)
    number = np.arange(count)
    # The labels are the truth.
    error = np.zeros((count, 2), np.float32)
    patches = np.where(images < THRESHOLD, 0, images)
    return TrainingPatches(patches, row, col, number // 20, number, error), images, bound


def quality(count: int, epochs: int, overlap: float, threads: int, seed: int, tested: int) -> None:
    """Train, print the time of epochs and the errors on new peaks."""
    torch.set_num_threads(threads)
    table, *_ = training_table(count, seed)
    start = time.perf_counter()
    held = split_blocks(table.fidx, validation=0.1, block=16)
    trained = train_braggnn(table, held, Train(epochs=epochs, overlap=overlap, seed=seed), patch_size=11)
    total = time.perf_counter() - start
    zero = np.zeros(count, np.int64)
    start = time.perf_counter()
    for first in range(0, count, 128):
        now = np.arange(first, min(first + 128, count))
        network_batch(table, now, zero[now], zero[now], zero[now], patch_size=11)
    share = (time.perf_counter() - start) / (total / epochs)
    print(f"\ntraining: {count} peaks, {epochs} epochs, overlap {overlap}, {threads} thread(s), seed {seed}: "
          f"{total:.0f} s, "
          f"{total / epochs:.2f} s per epoch, {100 * share:.1f} % of it making patches")  # fmt: skip
    parts = [found_peaks(tested, seed + 1, neighbours=neighbours) for neighbours in (False, True)]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Found._fields if name != "fits"}
    joined = {
        label: (
            np.concatenate([part.fits[label][0] for part in parts]),
            np.concatenate([part.fits[label][1] for part in parts]),
        )
        for label in parts[0].fits
    }
    every = Found(fits=joined, **arrays)
    for label, peaks in zip(("isolated", "beside a neighbour", "all"), (*parts, every), strict=True):
        accuracy(label, trained, peaks)


class Found(NamedTuple):
    """Peaks that the search found on a frame.

    `patches` (n, 11, 11) and `counts` (n, 2) as the network takes them; `true` (n, 2) row and column in the patch;
    `fits` positions (n, 2), and which are good (n,), by label; `bound` (n,) errors of an efficient estimator [px].
    """

    patches: np.ndarray
    counts: np.ndarray
    true: np.ndarray
    fits: dict[str, tuple[np.ndarray, np.ndarray]]
    bound: np.ndarray


def found_peaks(count: int, seed: int, *, neighbours: bool) -> Found:
    """Simulate a frame of cells with a peak each, and find, cut and fit those that are the brightest of their patch."""
    across = int(np.sqrt(count))
    images, row, col, bound = simulate(across**2, CELL, seed, neighbours=neighbours)
    frame = images.reshape(across, across, CELL, CELL).transpose(0, 2, 1, 3).reshape(across * CELL, across * CELL)
    corner = np.stack(np.divmod(np.arange(across**2), across)) * CELL
    truth = np.stack([row, col]) + corner
    found = candidates(frame, FindPeaks(min_value=THRESHOLD, min_persistence=THRESHOLD))
    pixels = np.stack([found["row"], found["col"]], axis=1).astype(float)
    central = np.flatnonzero(found["central"])
    mine, of, _ = match(pixels[central], truth.T, max_distance=2)
    chosen = central[mine]
    rows, cols = pixels[chosen].astype(int).T
    patches, counts = prepare_patches(frame, rows, cols, patch_size=11, min_value=THRESHOLD)
    origin = np.stack([rows, cols]) - 5
    fitted = {}
    for label, options in {"fit": Fit(), "fit, rotation: auto": Fit(rotation="auto")}.items():
        fits = fit_frame(frame, found["row"], found["col"], options)
        flags = flag_peaks(fits, found["row"], found["col"], options, mask=np.zeros(frame.shape, bool))
        at = np.stack([fits.row, fits.col])[:, chosen] - origin
        fitted[label] = (at.T, is_good(fits, flags)[chosen])
    return Found(patches, counts, (truth[:, of] - origin).T, fitted, bound[of])


def accuracy(label: str, trained: TrainedBraggNN, peaks: Found) -> None:
    """Print the errors of every method on the same peaks."""
    patches, counts, true = peaks.patches, peaks.counts, peaks.true.T
    r, c = np.mgrid[:11, :11]
    mass = patches.sum((1, 2))
    found = {label: at.T for label, (at, _) in peaks.fits.items()}
    found["centre of mass"] = np.stack([(patches * r).sum((1, 2)), (patches * c).sum((1, 2))]) / mass
    for path in sorted(DATA.glob("*.pth")):
        located = build_locator(
            from_weights(load_model(path)[0], patch_size=11, where=path.name), Locate(uncertainty=False)
        )(patches)
        found[f"weights of another experiment, {path.stem}"] = np.stack([located.row, located.col])
    located = build_locator(trained.model, Locate(), errors=trained.errors)(patches, counts)
    found["network"] = np.stack([located.row, located.col])
    turned = build_locator(trained.model, Locate(tta=True, uncertainty=False))(patches)
    found["network, mean of 8 symmetries"] = np.stack([turned.row, turned.col])
    print(f"\nerror on {len(patches)} peaks, {label} [px]".ljust(57) + "median      mean     p95   / bound")
    rows = {"Cramer-Rao bound": peaks.bound} | {name: np.hypot(*(at - true)) for name, at in found.items()}
    rows |= {
        f"{label}, {np.mean(good):.0%} that are good": rows[label][good] for label, (_, good) in peaks.fits.items()
    }
    for name, error in rows.items():
        print(f"{name:<52}{np.median(error):>10.4f}{error.mean():>10.4f}{np.percentile(error, 95):>8.3f}"
              f"{np.median(error) / np.median(peaks.bound):>10.2f}")  # fmt: skip
    z = np.abs((found["network"] - true) / np.stack([located.row_std, located.col_std]))  # type: ignore[arg-type]
    print(f"standard errors of the network: {100 * (z < 1).mean():.0f} % of errors within one (68 wanted), "
          f"{100 * (z < 2).mean():.0f} % within two (95 wanted)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peaks", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--overlap", type=float, default=0.3)
    parser.add_argument("--tested", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}")
    speed(arguments.patches, arguments.rounds)
    preparation(arguments.rounds)
    quality(arguments.peaks, arguments.epochs, arguments.overlap, arguments.threads, arguments.seed, arguments.tested)


if __name__ == "__main__":
    main()
