"""Rejection of SEM predictions: held-out compositions and sessions, other materials, simulated sessions.

    python benchmarks/sem_rejection.py FOLDER      some three minutes of one core; FOLDER keeps the features

The network is EfficientNet-Lite0 as pretrained on ImageNet, of which the last layer alone is trained. Training,
validation and test images are those of the split `time-block`. The rule is fitted on validation images alone
(`cathodeflow.sem.rejection`). Data: the folders sem_ncm and fibsem of CATHODEFLOW_DATA.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from sem_session import DATA, EACH, SIDE, Bench
from sem_session import simulated_sessions as tested_sessions
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cathodeflow.io.micrographs import read_micrograph
from cathodeflow.sem.calibration import (
    apply_mean_temperature,
    apply_temperature,
    fit_mean_temperature,
    fit_temperature,
)
from cathodeflow.sem.ood import feature_statistics, ood_score, with_reference
from cathodeflow.sem.rejection import QUANTILE, as_unknown, fit_rejection, withheld_curve
from cathodeflow.sem.rejection_training import simulated_sessions
from cathodeflow.sem.resample import shrink, to_uint8

Array = NDArray[Any]
ROOT = Path(__file__).parents[1]
PENALTY = 1e-2


class Case:
    """A trained last layer, its calibration and its rule of rejection."""

    def __init__(self, plain: Array, changed: list[Array], labels: Array, train: Array, validation: Array) -> None:
        self.scaler = StandardScaler().fit(plain[train].reshape(-1, plain.shape[-1]))
        self.layer = LogisticRegression(C=PENALTY, max_iter=200, class_weight="balanced")
        self.layer.fit(self._flat(plain[train]), np.repeat(labels[train], EACH))
        self.classes = self.layer.classes_
        truth = np.searchsorted(self.classes, labels)
        x, true = self._flat(plain[validation]), truth[validation]
        logits, names = self.layer.decision_function(x), np.repeat(np.arange(len(true)), EACH)
        self.temperature = fit_temperature(logits, np.repeat(true, EACH))
        means = apply_temperature(logits, self.temperature).reshape(-1, EACH, len(self.classes)).mean(1)
        self.image_temperature = fit_mean_temperature(means, true)
        features = plain[train].reshape(-1, plain.shape[-1])
        known = feature_statistics(features, np.repeat(truth[train], EACH), np.repeat(np.arange(train.sum()), EACH))
        self.statistics = with_reference(known, plain[validation].reshape(len(names), -1), names)
        self.limit = self.statistics.threshold(QUANTILE)
        rows = []
        for values in [plain[validation], *(change[validation] for change in changed)]:
            p, score = self.outputs(values)
            rows.append((p.max(1), score, p.argmax(1) == true))
        p, _ = self.outputs(plain[validation])
        confidence, score = as_unknown(p, true, plain[validation].mean(1), self.statistics)
        rows.append((confidence, score / self.limit, np.zeros(len(true), bool)))
        kinds = np.repeat(np.arange(len(rows)), len(true))
        self.rule = fit_rejection(*(np.concatenate(part) for part in zip(*rows, strict=True)), kinds=kinds)

    def _flat(self, values: Array) -> Array:
        return self.scaler.transform(values.reshape(-1, values.shape[-1]))

    def outputs(self, values: Array) -> tuple[Array, Array]:
        """Probabilities of images (n, EACH, c), and their OOD score relative to the threshold."""
        logits = self.layer.decision_function(self._flat(values))
        means = apply_temperature(logits, self.temperature).reshape(-1, EACH, len(self.classes)).mean(1)
        score = ood_score(values.mean(1), self.statistics) / self.limit
        return apply_mean_temperature(means, self.image_temperature), score

    def judged(self, values: Array, labels: Array) -> tuple[Array, Array, Array, Array]:
        """P(right), whether accepted, whether right, and confidence of images."""
        p, score = self.outputs(values)
        confidence = p.max(1)
        probability = self.rule.probability(confidence, score)
        return probability, self.rule.accepted(confidence, score), self.classes[p.argmax(1)] == labels, confidence


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    bench = Bench(folder)
    table = bench.table
    labels, split = table["label"].to_numpy(str), table["split"].to_numpy(str)
    crops = bench.crops()

    def features(name: str, which: Array, change: Callable[[torch.Tensor], torch.Tensor] | None) -> Array:
        path = folder / f"rejection_{name.replace(' ', '_')}.npy"
        if not path.exists():
            np.save(path, bench.run(crops[np.repeat(which, EACH)], "crop", change))
            print(f"# features of {name}", flush=True)
        found = np.load(path)
        full = np.full((len(table), EACH, found.shape[1]), np.nan, np.float32)
        full[which] = found.reshape(-1, EACH, found.shape[1])
        return full

    plain = features("plain", np.ones(len(table), bool), None)
    validation, test, train = (split == name for name in ("validation", "test", "train"))
    changed = [features(f"fit {name}", validation, change) for name, change in simulated_sessions().items()]
    stress = {name: features(f"test {name}", test, change) for name, change in tested_sessions().items()
              if "/" not in name}  # fmt: skip
    others = other_materials(bench, folder)

    whole = Case(plain, changed, labels, train, validation)
    rows: dict[str, list[tuple[Array, Array, Array]]] = {}

    def add(name: str, case: Case, values: Array, truth: Array) -> None:
        probability, accepted, right, _ = case.judged(values, truth)
        rows.setdefault(name, []).append((probability, accepted, right))

    add("time-block test images", whole, plain[test], labels[test])
    for values in stress.values():
        add("simulated sessions", whole, values[test], labels[test])
    add("other materials", whole, others, np.full(len(others), "none"))
    compositions = table["composition"].to_numpy(str)
    for left_out in np.unique(compositions):
        known = compositions != left_out
        case = Case(plain, changed, labels, train & known, validation & known)
        add("held-out composition", case, plain[test & known], labels[test & known])
        add("held-out composition", case, plain[~known], np.full((~known).sum(), "none"))
    month = table["time"].dt.strftime("%Y-%m").to_numpy(str)
    for session in np.unique(month):
        known = month != session
        case = Case(plain, changed, compositions, (train | test) & known, validation & known)
        add("held-out session, compositions", case, plain[~known], compositions[~known])
    with np.printoptions(precision=2):
        print(f"# weights {whole.rule.weights}, threshold {whole.rule.threshold}")
    curves = {}
    for name, parts in rows.items():
        probability, accepted, right = (np.concatenate(part) for part in zip(*parts, strict=True))
        lost, withheld = withheld_curve(probability, right)
        at = 100 * withheld[np.flatnonzero(lost <= 0.1)[-1]] if (~right).any() else np.nan
        wrong = 100 * (~accepted[~right]).mean() if (~right).any() else np.nan
        of_right = 100 * (~accepted[right]).mean() if right.any() else np.nan
        print(
            f"RESULTS {name:32} {len(right):5} images, {100 * right.mean():5.1f} % right; "
            f"wrong ones withheld {wrong:5.1f} %, "
            f"right ones lost {of_right:5.1f} %; with 10 % lost {at:5.1f} % withheld",
            flush=True,
        )  # fmt: skip
        curves[name] = (lost, withheld, of_right, wrong)
    draw(curves, folder / "sem_rejection.png")


def other_materials(bench: Bench, folder: Path) -> Array:
    """Features of micrographs of a superalloy, a coating and a battery electrode in X-rays."""
    path = folder / "rejection_other.npy"
    if not path.exists():
        files = [*sorted((DATA.parent / "fibsem").glob("*/images/*")), DATA.parent / "fibsem/battery_xct/im_1.tif"]
        crops = []
        for file in files:
            grey = to_uint8(read_micrograph(str(file)))
            side = min(*grey.shape, 400)
            rng = np.random.default_rng(0)
            for _ in range(EACH):
                row, col = (rng.integers(size - side + 1) for size in grey.shape)
                crops.append(shrink(grey[row : row + side, col : col + side], side=SIDE))
        np.save(path, bench.run(np.stack(crops), "crop"))
    found = np.load(path)
    return found.reshape(-1, EACH, found.shape[1])


def draw(curves: dict[str, tuple[Array, Array, float, float]], path: Path) -> None:
    """Draw fractions of wrong predictions withheld and of right ones lost, at every threshold."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    colors = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"]
    for color, (name, (lost, withheld, right, wrong)) in zip(colors, curves.items(), strict=False):
        if np.isnan(wrong):
            continue
        if np.isnan(right):
            axes.plot(0, wrong, "s", color=color, label=f"{name} (all wrong)", clip_on=False)
            continue
        axes.plot(100 * lost, 100 * withheld, color=color, label=name)
        axes.plot(right, wrong, "o", color=color)
    axes.axvline(10, color="0.7", lw=0.8)
    axes.axhline(80, color="0.7", lw=0.8)
    axes.set(xlabel="right predictions lost [%]", ylabel="wrong predictions withheld [%]", xlim=(0, 60), ylim=(0, 101))
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
