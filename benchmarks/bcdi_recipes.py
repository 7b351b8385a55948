"""Success of phasing from random starts: the usual recipe of the field beside ours, on simulated crystals, by regime.

    python benchmarks/bcdi_recipes.py [--test 40] [--starts 5] [--size 32] [--seed 30] [--threads 1]

Both have 620 iterations. Success is a correlation with the truth above .95 after shift, global phase and twin are
resolved: of one start, and of that of several whose error is lowest. 1e5 to 1e8 photons.
"""

import argparse
from typing import Any

import pandas as pd
import torch
from bcdi import USUAL
from bcdi_network import table, unseen

from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.retrieval import retrieve
from cathodeflow.bcdi.simulation_options import Simulate
from cathodeflow.bcdi.trials import trial_rows

# All pixels are phased, from `starts` starts.
OURS = Phase(free_fraction=0, device="cpu")
SETTINGS = {
    "usual": USUAL,
    "usual, our support": OURS.model_copy(update={"recipe": USUAL.recipe}),
    "ours, usual support": USUAL.model_copy(update={"recipe": OURS.recipe}),
    "ours": OURS,
}


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"test": 40, "starts": 5, "size": 32, "seed": 30, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: list[dict[str, Any]] = []
    crystals = Simulate(seed=arguments.seed, size=arguments.size)
    for metadata, seed, amplitude, truth in unseen(arguments.test, crystals):
        for name, options in SETTINGS.items():
            found = retrieve(amplitude, options.model_copy(update={"starts": arguments.starts, "seed": seed}))
            tried = trial_rows(name, found.errors.shape[1], found.objects, found.errors[:, -1], truth)
            rows += [{**metadata, **trial} for trial in tried]
    print(f"successes [%], {arguments.test} crystals of each regime at {arguments.size}^3")
    print(table(pd.DataFrame(rows), arguments.starts))


if __name__ == "__main__":
    main()
