"""How far a reconstruction can be trusted: calibration of P(right), coverage of strain errors, success by regime.

    python benchmarks/bcdi_trust.py collect FILE --size 32 --crystals 20 --seed 1 [--starts 5]
    python benchmarks/bcdi_trust.py fit FILE ...
    python benchmarks/bcdi_trust.py check FILE ... [--figure FILE.png]

`collect` phases crystals of every regime and kind, 1e5 to 1e8 photons, with the default recipe, and keeps what is known
of each start with its correlation with the truth. `fit` prints the coefficients of `cathodeflow/bcdi/trust.py`; `check`
compares P(right) with what is right on crystals of another seed.
"""

import argparse
from typing import Any

import numpy as np
import pandas as pd
import torch
from bcdi_network import unseen

from cathodeflow.bcdi.comparison import against_truth
from cathodeflow.bcdi.evidence import FEATURES, evidence
from cathodeflow.bcdi.fields import KINDS
from cathodeflow.bcdi.modes import best_of
from cathodeflow.bcdi.options import SUPPORT_THRESHOLD, Phase, Simulate
from cathodeflow.bcdi.retrieval import retrieve

#: Correlation with the truth above which a reconstruction is right.
RIGHT = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    collecting = commands.add_parser("collect")
    collecting.add_argument("file")
    for name, default in {"size": 32, "crystals": 20, "seed": 1, "starts": 5}.items():
        collecting.add_argument(f"--{name}", type=int, default=default)
    collecting.set_defaults(action=collect)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.action(arguments)


def collect(arguments: argparse.Namespace) -> None:
    """Phase crystals and describe every start; the table is written after each crystal."""
    rows: list[pd.DataFrame] = []
    crystals = Simulate(seed=arguments.seed, size=arguments.size, kinds=KINDS)
    for metadata, seed, amplitude, truth in unseen(arguments.crystals, crystals):
        options = Phase(starts=arguments.starts, seed=seed, device="cpu")
        mask = torch.ones(amplitude.shape, dtype=torch.bool)
        found = retrieve(amplitude, options, mask=mask)
        order = best_of(found, arguments.starts)
        found = type(found)(*(tensor[order] for tensor in found))
        table = evidence(
            found.objects, found.errors[:, -1], found.free_log_likelihood, found.coherence, amplitude, mask=mask
        )
        table["correlation"] = against_truth(found.objects, truth, threshold=SUPPORT_THRESHOLD).correlation.numpy()
        extra: dict[str, Any] = {**metadata, "size": arguments.size, "seed": arguments.seed}
        rows.append(table.assign(start=range(len(table)), **extra))
        pd.concat(rows, ignore_index=True).to_parquet(arguments.file)


if __name__ == "__main__":
    main()
