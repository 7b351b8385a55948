"""What a network is worth as a start of phasing: success against iterations, beside random starts, by regime of strain.

    python benchmarks/bcdi_network.py FOLDER --crystals 4000 --epochs 8 --minutes 60 -- --widths 16,48,96,192
    python benchmarks/bcdi_network.py FOLDER --model FOLDER/model.pt

Simulates crystals, trains and tries both kinds of start on as many unseen crystals of each regime. What stands in
FOLDER is not made again, and a training that was ended goes on. Flags after -- are those of `cathodeflow bcdi train`.

Success is a correlation with the truth above .95 after shift, global phase and twin are resolved. Both starts have the
same recipe and shrink-wrap. "1" is one random start, and the network's candidate of the lowest residual; "best of 4"
of four random starts, and of four candidates, is that of the lowest error after phasing.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cathodeflow.bcdi.displacement import REGIMES
from cathodeflow.bcdi.figures_of_merit import success_rates
from cathodeflow.bcdi.network import PhaseNetwork, restored
from cathodeflow.bcdi.network_options import Evaluate
from cathodeflow.bcdi.simulation import block
from cathodeflow.bcdi.simulation_options import Simulate
from cathodeflow.bcdi.trials import best_trials, try_starts
from cathodeflow.io.models import load_model
from cathodeflow.seeds import derived_seed

# Numbers of crystals that no training reaches.
UNSEEN = 1_000_000_000


def stage(folder: Path, name: str, *flags: str, limit: float | None = None) -> bool:
    """Run a command of the package; False where it was ended after `limit` seconds."""
    line = [
        sys.executable,
        "-m",
        "cathodeflow",
        "--log",
        str(folder / f"{name}.log"),
        "bcdi",
        name,
        "--sample",
        "model",
    ]
    try:
        subprocess.run([*line, "--record", str(folder / f"{name}.json"), *flags], check=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return False
    return True


def trained(folder: Path, arguments: argparse.Namespace) -> Path | None:
    """Simulate and train what is not there yet; nothing where the time was over first."""
    model = folder / "model.pt"
    stores = [str(folder / f"{name}.zarr") for name in ("amplitudes", "objects", "good")]
    if not (folder / "simulate.json").exists():
        stage(folder, "simulate", "--out", stores[0], "--objects", stores[1], "--good", stores[2], "--table",
              str(folder / "crystals.parquet"), "--crystals", str(arguments.crystals), "--size", str(arguments.size),
              "--seed", str(arguments.seed))  # fmt: skip
    if model.exists():
        return model
    flags = {"--out": model, "--checkpoint": folder / "train.ckpt",
             "--epochs": arguments.epochs, "--threads": arguments.threads, "--seed": arguments.seed}  # fmt: skip
    line = [str(part) for flag in flags.items() for part in flag]
    done = stage(folder, "train", *stores[:2], *line, *arguments.options, limit=60 * arguments.minutes)
    return model if done else None


def unseen(
    count: int, options: Simulate, *, regimes: tuple[str, ...] = tuple(REGIMES)
) -> Iterator[tuple[dict[str, Any], int, torch.Tensor, torch.Tensor]]:
    """Simulate crystals, one of each regime in turn: their metadata, a seed, the measured amplitude, the object."""
    for turn in range(count):
        for index, regime in enumerate(REGIMES):
            if regime not in regimes:
                continue
            number = UNSEEN * (index + 1) + turn
            simulated = block([number], options.model_copy(update={"regimes": (regime,)}))
            metadata = {"crystal": number, "regime": regime, "photons": float(simulated.photons[0])}
            amplitude = torch.from_numpy(np.sqrt(simulated.counts[0], dtype=np.float32))
            truth = torch.polar(torch.from_numpy(simulated.amplitude[0]), torch.from_numpy(simulated.phase[0]))
            yield metadata, derived_seed(options.seed or 0, number), amplitude, truth


def trials(network: PhaseNetwork, arguments: argparse.Namespace) -> pd.DataFrame:
    """Try all starts on unseen crystals; what was tried is kept after each."""
    rows: list[dict[str, Any]] = []
    names = ("iterations", "starts", "beta", "shrink_every", "sigma", "threshold", "side")
    options = Evaluate(device="cpu", **{name: getattr(arguments, name) for name in names})
    crystals = Simulate(photons=arguments.photons, seed=arguments.seed, size=arguments.size)
    for metadata, seed, amplitude, truth in unseen(arguments.test, crystals):
        found = try_starts(network, amplitude, truth, options.model_copy(update={"seed": seed}))
        rows += [{**metadata, **trial} for trial in found]
        pd.DataFrame(rows).to_parquet(arguments.folder / "trials.parquet")
    return pd.DataFrame(rows)


def table(tried: pd.DataFrame, starts: int) -> str:
    """Write shares of successes in %, with Wilson's intervals."""
    # Candidates are sorted by their residual, so the first is the network's one image.
    kinds = {"1": tried[tried["candidate"] == 0]} | ({f"best of {starts}": best_trials(tried)} if starts > 1 else {})
    rates = pd.concat([success_rates(one, Evaluate()).assign(of=name) for name, one in kinds.items()])
    rates["text"] = [f"{100 * share:.0f} ({100 * low:.0f}-{100 * high:.0f})"
                     for share, low, high in zip(rates["share"], rates["low"], rates["high"], strict=True)]  # fmt: skip
    wide = rates.pivot(index=["regime", "of", "start"], columns="iterations", values="text").fillna("")
    return wide.reindex(list(REGIMES), level=0).to_string()


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, help="trained model; without it one is trained")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--side", type=int, help="side of the central crop for the network, as in training")
    parser.add_argument("--crystals", type=int, default=4000, help="number of training crystals")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=60.0, help="time limit of the training, which can be resumed")
    parser.add_argument("--test", type=int, default=32, help="unseen crystals of each regime")
    parser.add_argument(
        "--photons", type=float, nargs=2, default=Simulate().photons, help="photons of the unseen crystals"
    )
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--iterations", type=int, nargs="+", default=[10, 20, 50, 100, 200])
    parser.add_argument("--beta", type=float, help="relaxation of RAAR; default: set by the noise")
    parser.add_argument("--shrink-every", type=int, default=Evaluate().shrink_every)
    parser.add_argument("--sigma", type=float, nargs=2, default=Evaluate().sigma)
    parser.add_argument("--threshold", type=float, default=Evaluate().threshold)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=20)
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments = parser.parse_args(words[:end])
    arguments.options = words[end + 1 :]
    torch.set_num_threads(arguments.threads)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    model = arguments.model or trained(arguments.folder, arguments)
    if model is None:
        print("The time limit is reached; the same command continues after the last complete epoch.")
        return
    weights, metadata = load_model(model)
    began, cpu = time.perf_counter(), time.process_time()
    tried = trials(restored(weights, metadata, where=str(model)), arguments)
    tried.to_parquet(arguments.folder / "trials.parquet")
    print(
        f"{model}: successes [%] by iterations, {arguments.test} unseen crystals of each regime at {arguments.size}^3"
    )
    print(table(tried, arguments.starts))
    print(f"{time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} s of processor time")


if __name__ == "__main__":
    main()
