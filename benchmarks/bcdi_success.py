"""Success of phasing beyond 2 pi: one start, the best of some by the free log-likelihood, and the search.

    python benchmarks/bcdi_success.py FILE [--size 64] [--crystals 20] [--seed 81] [--regime extreme] [--starts 4] ...

Simulated crystals of all kinds, phase range 2 pi to 3 pi, 1e5 to 1e8 photons. Right is a correlation with the truth
above .95 after shift, global phase and twin are resolved. `truth`: whether the true object remains right in 220
iterations that start from it; where it does not, the counts do not suffice. Times are processor times of one thread
divided by two, for two cores, on which starts run beside each other. The table is written after each crystal.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from bcdi_network import unseen

from cathodeflow.bcdi.comparison import against_truth
from cathodeflow.bcdi.displacement import REGIMES
from cathodeflow.bcdi.fields import KINDS
from cathodeflow.bcdi.phase_options import SUPPORT_THRESHOLD, Phase
from cathodeflow.bcdi.retrieval import retrieve
from cathodeflow.bcdi.search import search
from cathodeflow.bcdi.simulation_options import Simulate
from cathodeflow.bcdi.trust import RIGHT, probability_of_each
from cathodeflow.statistics import wilson

# From the truth: enough to leave it, if the counts do not hold it.
FROM_TRUTH = "200*RAAR(beta=0.8)+20*ER"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    for name, default in {"size": 64, "crystals": 20, "seed": 81, "starts": 4, "most": 40}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--regime", choices=list(REGIMES), default="extreme")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    crystals = Simulate(seed=arguments.seed, size=arguments.size, kinds=KINDS)
    for metadata, seed, amplitude, truth in unseen(arguments.crystals, crystals, regimes=(arguments.regime,)):
        rows.append(metadata | trial(amplitude, truth, seed, arguments.starts, arguments.most))
        print(" ".join(f"{name} {value:.4g}" for name, value in rows[-1].items() if name != "regime"), flush=True)
        pd.DataFrame(rows).to_parquet(arguments.file)
    show(pd.DataFrame(rows), arguments.size)


def trial(amplitude: torch.Tensor, truth: torch.Tensor, seed: int, starts: int, most: int) -> dict[str, Any]:
    """Phase one crystal; correlations with the truth, and the time of the search."""
    options = Phase(seed=seed, device="cpu", threads=1, starts=starts, max_starts=most)
    mask = torch.ones(amplitude.shape, dtype=torch.bool)
    begun = time.process_time()
    found, order = search(amplitude, options, mask=mask)
    seconds = time.process_time() - begun
    right = against_truth(found.objects, truth, threshold=SUPPORT_THRESHOLD).correlation
    first = found._replace(**{name: getattr(found, name)[: options.starts] for name in found._fields})
    lowest = int((-first.free_log_likelihood).argmin())
    held = retrieve(amplitude, options.model_copy(update={"recipe": FROM_TRUTH}), mask=mask, initial=truth)
    best = order[0]
    return {
        "one": float(right[0]),
        "first": float(right[lowest]),
        "search": float(right[best]),
        "highest": float(right.max()),
        "truth": float(against_truth(held.objects, truth, threshold=SUPPORT_THRESHOLD).correlation[0]),
        "probability": float(probability_of_each(found, amplitude, mask)[best]),
        "starts": len(order),
        "seconds": seconds,
    }


def show(table: pd.DataFrame, size: int) -> None:
    """Print success rates with their intervals."""
    held = table[table["truth"] > RIGHT]
    for title, some in (("all", table), ("where the truth remains right", held)):
        for name in ("one", "first", "search", "highest", "truth"):
            right, count = int((some[name] > RIGHT).sum()), len(some)
            low, high = wilson(right, count, confidence=0.95)
            print(f"RESULT {size}^3, {title}: {name} right in {right} of {count} ({100 * low:.0f}-{100 * high:.0f} %)")
    brier = float(((table["probability"] - (table["search"] > RIGHT)) ** 2).mean())
    seconds = table["seconds"] / 2
    within = int(((table["search"] > RIGHT) & (seconds <= 60)).sum())
    print(
        f"RESULT {size}^3: Brier score of the best {brier:.3f}; {table['starts'].median():.0f} starts in the median, at"
        f" most {table['starts'].max()}; on two cores {seconds.median():.1f} s, at most {seconds.max():.1f} s;"
        f" right within 60 s: {within} of {len(table)}"
    )


if __name__ == "__main__":
    main()
