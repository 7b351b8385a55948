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
from bcdi_network import UNSEEN, table, unseen

from cathodeflow.bcdi.displacement import REGIMES
from cathodeflow.bcdi.metrics import against_truth
from cathodeflow.bcdi.phase import retrieve
from cathodeflow.bcdi.simulate import Measurement
from cathodeflow.checkpoints import derived_seed

SETTINGS: dict[str, dict[str, Any]] = {
    "usual": USUAL,
    "usual, our support": {"recipe": USUAL["recipe"]},
    "ours, usual support": USUAL | {"recipe": None},
    "ours": {},
}


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"test": 40, "starts": 5, "size": 32, "seed": 30, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: list[dict[str, Any]] = []
    for place, regime in enumerate(REGIMES):
        for turn in range(arguments.test):
            number = UNSEEN * (place + 1) + turn
            amplitude, truth, _ = unseen(number, regime, arguments.seed, arguments.size, Measurement())
            for name, options in SETTINGS.items():
                given = {key: value for key, value in options.items() if value is not None}
                found = retrieve(amplitude, starts=arguments.starts, seed=derived_seed(arguments.seed, number),
                                 device="cpu", **given)  # fmt: skip
                agreement = against_truth(found.objects, truth).correlation.tolist()
                about = {"crystal": number, "regime": regime, "start": name, "iterations": found.errors.shape[1]}
                rows += [{**about, "candidate": candidate, "correlation": correlation, "error": error}
                         for candidate, (correlation, error) in
                         enumerate(zip(agreement, found.errors[:, -1].tolist(), strict=True))]  # fmt: skip
    print(f"successes [%], {arguments.test} crystals of each regime at {arguments.size}^3")
    print(table(pd.DataFrame(rows), arguments.starts))


if __name__ == "__main__":
    main()
