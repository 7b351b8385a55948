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
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cathodeflow.bcdi.ambiguities import align, centred
from cathodeflow.bcdi.comparison import against_truth
from cathodeflow.bcdi.evidence import alike, evidence
from cathodeflow.bcdi.fields import KINDS
from cathodeflow.bcdi.figures_of_merit import support_of
from cathodeflow.bcdi.modes import best_of
from cathodeflow.bcdi.phase_options import SUPPORT_THRESHOLD, Phase
from cathodeflow.bcdi.retrieval import retrieve
from cathodeflow.bcdi.simulation_options import Simulate
from cathodeflow.bcdi.strain_fields import strain
from cathodeflow.bcdi.trust import OF_SEVERAL, RIGHT, SINGLE, applied, inputs, probability_right
from cathodeflow.bcdi.uncertainty import redrawn, strain_errors
from cathodeflow.statistics import wilson

# Inverse strength of the regularisation.
STRENGTH = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    collecting = commands.add_parser("collect")
    collecting.add_argument("file")
    for name, default in {"size": 32, "crystals": 20, "seed": 1, "starts": 5}.items():
        collecting.add_argument(f"--{name}", type=int, default=default)
    collecting.set_defaults(action=collect)
    covering = commands.add_parser("cover")
    covering.add_argument("file")
    for name, default in {"size": 32, "crystals": 10, "seed": 41, "starts": 5, "redrawn": 4}.items():
        covering.add_argument(f"--{name}", type=int, default=default)
    covering.set_defaults(action=cover)
    for name, action in (("fit", fit), ("check", check)):
        reading = commands.add_parser(name)
        reading.add_argument("files", nargs="+")
        reading.add_argument("--figure")
        reading.set_defaults(action=action)
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


def fit(arguments: argparse.Namespace) -> None:
    """Print the regressions of `trust.py`, fitted to all starts of the tables."""
    table = read(arguments.files)
    for name, left_out in (("SEVERAL", ()), ("SINGLE", OF_SEVERAL)):
        given = inputs(table).drop(columns=list(left_out))
        scaled = StandardScaler().fit(given)
        model = LogisticRegression(C=STRENGTH, max_iter=5000).fit(scaled.transform(given), table["right"])
        print(f"{name} = Model(\n    {model.intercept_[0]:.4g},\n    {{")
        for column, *values in zip(given, scaled.mean_, scaled.scale_, model.coef_[0], strict=True):
            print(f'        "{column}": ({", ".join(f"{value:.4g}" for value in values)}),')
        print("    },\n)")


def check(arguments: argparse.Namespace) -> None:
    """Print Brier scores of all starts, of the best ranked one and of single starts; draw the calibration."""
    table = read(arguments.files)
    keys = ["size", "seed", "crystal"]
    groups = [group for _, group in table.groupby(keys, sort=False)]
    table["several"] = np.concatenate([probability_right(group) for group in groups])
    table["single"] = applied(SINGLE, table)
    ranked = table.loc[table.groupby(keys)["several"].idxmax()]
    first = table[table["start"] == 0]
    print(f"{len(groups)} crystals, {table.groupby(keys)['start'].size().iloc[0]} starts each")
    for name, column, some in (
        ("all starts", "several", table),
        ("highest free log-likelihood", "several", first),
        ("highest P(right)", "several", ranked),
        ("each start by itself", "single", table),
    ):
        brier = float(np.mean((some[column] - some["right"]) ** 2))
        chance = float(some["right"].mean() * (1 - some["right"].mean()))
        right, count = int(some["right"].sum()), len(some)
        low, high = wilson(right, count, confidence=0.95)
        print(
            f"RESULT {name}: Brier score {brier:.3f} (a constant: {chance:.3f}), right {100 * right / count:.0f} %"
            f" ({100 * low:.0f}-{100 * high:.0f}) of {count}"
        )
        for regime, group in some.groupby("regime", sort=False):
            right, count = int(group["right"].sum()), len(group)
            low, high = wilson(right, count, confidence=0.95)
            text = f"{100 * right / count:.0f} % ({100 * low:.0f}-{100 * high:.0f}) of {count}"
            print(f"  {regime:8} right {text}, Brier score {np.mean((group[column] - group['right']) ** 2):.3f}")
    if arguments.figure:
        draw(table, arguments.figure)


def draw(table: pd.DataFrame, path: str) -> None:
    """Draw the fraction that is right against P(right), with intervals, and how many starts have which P."""
    figure = Figure(figsize=(3.4, 4.2), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    edges = np.array([0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    axes.plot([0, 1], [0, 1], color="0.6", lw=0.8)
    which = np.clip(np.digitize(table["several"], edges) - 1, 0, len(edges) - 2)
    for index in range(len(edges) - 1):
        some = table[which == index]
        if len(some):
            right, count = int(some["right"].sum()), len(some)
            low, high = wilson(right, count, confidence=0.95)
            centre, share = some["several"].mean(), right / count
            axes.errorbar(centre, share, [[max(share - low, 0)], [max(high - share, 0)]], fmt="o", color="C0", ms=4)
            axes.annotate(str(count), (centre, share), textcoords="offset points", xytext=(6, -9), fontsize=7)
    axes.set(ylabel="Fraction right (correlation > 0.95)", xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
    below.hist([table["several"][table["right"]], table["several"][~table["right"]]], bins=20, stacked=True,
               label=["right", "wrong"])  # fmt: skip
    below.set(xlabel="P(right)", ylabel="Starts", yscale="log")
    below.legend(fontsize=7)
    figure.savefig(path, dpi=150)


def read(files: list[str]) -> pd.DataFrame:
    table = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    return table.assign(right=table["correlation"] > RIGHT)


def cover(arguments: argparse.Namespace) -> None:
    """Compare standard errors of the strain with the errors, inside crystals whose reconstruction is right."""
    rows: list[dict[str, Any]] = []
    crystals = Simulate(seed=arguments.seed, size=arguments.size, kinds=KINDS)
    rng = np.random.default_rng(arguments.seed)
    for metadata, seed, amplitude, truth in unseen(arguments.crystals, crystals):
        options = Phase(starts=arguments.starts, seed=seed, device="cpu")
        mask = torch.ones(amplitude.shape, dtype=torch.bool)
        found = retrieve(amplitude, options, mask=mask)
        order = best_of(found, arguments.starts)
        objects = found.objects[order]
        best = centred(objects[0])
        aligned, correlation = align(centred(truth)[None], best)
        if correlation[0] < RIGHT:
            continue
        same = objects[alike(objects, found.errors[order, -1])[1:]]
        drawn = redrawn(objects[0], amplitude, found.coherence[0], options, mask=mask, count=arguments.redrawn, seed=1)
        support = support_of(best, threshold=0.2).numpy()
        q = rng.normal(size=3)
        basis, q = np.eye(3), 2 * np.pi * q / np.linalg.norm(q)
        errors = strain_errors(best, same, drawn, support, basis, q, erosion=1)
        own, true = (
            strain(volume.numpy(), inside, basis, q, erosion=1).values
            for volume, inside in ((best, support), (aligned[0], support_of(aligned[0], threshold=0.2).numpy()))
        )
        known = np.isfinite(errors) & np.isfinite(true)
        difference = (own - true)[known] - np.median((own - true)[known])
        ratio = np.abs(difference) / errors[known]
        rows += [
            {
                **metadata,
                "same": len(same),
                "within": float((ratio < 1).mean()),
                "voxels": int(known.sum()),
                "scale": float(np.quantile(ratio, 0.68)),
                "error": float(np.sqrt(np.mean(difference**2))),
                "strain": float(true[known].std()),
                "standard_error": float(np.median(errors[known])),
            }
        ]
        table = pd.DataFrame(rows)
        table.to_parquet(arguments.file)
    for name, group in (("all", table), *table.groupby("regime", sort=False)):
        share = np.average(group["within"], weights=group["voxels"])
        print(f"RESULT strain within one standard error, {name}: {100 * share:.0f} % of {group['voxels'].sum()} voxels")


if __name__ == "__main__":
    main()
