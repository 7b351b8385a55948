"""Rejection of SEM predictions: held-out classes, compositions and sessions, other materials, simulated sessions.

    python benchmarks/sem_rejection.py FOLDER              last layer alone; some ten minutes of one core
    python benchmarks/sem_rejection.py FOLDER MODEL CROPS  a network that was trained as a whole, and its crops.zarr

FOLDER keeps what was computed. Without MODEL the network is EfficientNet-Lite0 as pretrained on ImageNet, of which the
last layer alone is trained. Training, validation and test images are those of the split `time-block`. The rule is
fitted on training and validation images alone (`cathodeflow.sem.rejection`, `texture_classifier`). What it knows was
chosen on half of the cases (`CHOSEN`) and the late block; the rows "fresh" are of the others. Data: the folders
sem_ncm and fibsem of CATHODEFLOW_DATA.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from sem_session import DATA, EACH, SIDE, Bench
from sem_session import simulated_sessions as tested_sessions
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from cathodeflow.io.crops import read_crops
from cathodeflow.io.micrographs import read_micrograph
from cathodeflow.io.onnx_graphs import read_graph
from cathodeflow.sem.calibration import (
    apply_mean_temperature,
    apply_temperature,
    fit_mean_temperature,
    fit_temperature,
)
from cathodeflow.sem.image_predictions import predict_tiles
from cathodeflow.sem.onnx_network import OnnxNetwork
from cathodeflow.sem.ood import feature_statistics, ood_score, with_reference
from cathodeflow.sem.rejection import (
    fit_rejection,
    relative_scores,
    unknown_scores,
    withheld_curve,
    without_class,
)
from cathodeflow.sem.rejection_training import changed_crops, random_session, simulated_sessions
from cathodeflow.sem.resample import shrink, to_uint8
from cathodeflow.sem.texture import texture_statistics
from cathodeflow.sem.texture_classifier import fit_texture

Array = NDArray[Any]
ROOT = Path(__file__).parents[1]
PENALTY = 1e-2
BLOCK, SAMPLES = 5, 300
#: Cases on which inputs and penalties of the rule were chosen.
CHOSEN = {
    "compositions": ("333", "622"),
    "sessions": ("2019-12",),
    "materials": ("superalloy_sem",),
    "changes": ("contrast x0.6", "gamma 1.6", "focus", "scale x1.25"),
}


class Seen(NamedTuple):
    """What is known of the crops of images: features (n, EACH, c) of the network, and their texture (n, EACH, f)."""

    features: Array
    texture: Array

    def of(self, which: Array) -> "Seen":
        """Those of some images."""
        return Seen(self.features[which], self.texture[which])


class Judged(NamedTuple):
    """Images: P(right) and whether accepted, with and without the texture; whether right; the block of each."""

    probability: Array
    accepted: Array
    before: Array
    accepted_before: Array
    right: Array
    block: Array


class Case:
    """A trained last layer, its calibration, its texture classifier and its rules, with and without the texture."""

    def __init__(self, plain: Seen, random: Array, changed: list[Seen], labels: Array, train: Array, validation: Array):
        self.scaler = StandardScaler().fit(flat(plain.features[train]))
        self.layer = LogisticRegression(C=PENALTY, max_iter=200, class_weight="balanced")
        self.layer.fit(self.scaler.transform(flat(plain.features[train])), np.repeat(labels[train], EACH))
        self.classes = self.layer.classes_
        truth = np.searchsorted(self.classes, labels)
        true = truth[validation]
        logits, names = self._logits(plain.features[validation]), np.repeat(np.arange(len(true)), EACH)
        self.temperature = fit_temperature(logits, np.repeat(true, EACH))
        means = apply_temperature(logits, self.temperature).reshape(-1, EACH, len(self.classes)).mean(1)
        self.image_temperature = fit_mean_temperature(means, true)
        numbers = np.repeat(np.arange(train.sum()), EACH)
        known = feature_statistics(flat(plain.features[train]), np.repeat(truth[train], EACH), numbers)
        self.statistics = with_reference(known, flat(plain.features[validation]), names)
        parts = []
        for which in (train, validation):
            both = np.concatenate([flat(plain.texture[which]), flat(random[which])])
            parts += [both, np.tile(np.repeat(truth[which], EACH), 2)]
        self.texture = fit_texture(*parts)
        rows = []

        def add(p: Array, score: Array, texture: Array) -> None:
            best = p.argmax(1)
            rows.append((p.max(1), score, best == true, texture[np.arange(len(best)), best]))

        for seen in [plain.of(validation), *(change.of(validation) for change in changed)]:
            add(*self.outputs(seen))
        p, _, texture = self.outputs(plain.of(validation))
        others = unknown_scores(plain.features[validation].mean(1).astype(np.float64), true, self.statistics)
        add(without_class(p, true), relative_scores(others, self.statistics), without_class(texture, true))
        kinds = np.repeat(np.arange(len(rows)), len(true))
        confidence, score, right, agreement = (np.concatenate(part) for part in zip(*rows, strict=True))
        self.rule = fit_rejection(confidence, score, right, kinds, agreement=agreement)
        self.before = fit_rejection(confidence, score, right, kinds)

    def _logits(self, features: Array) -> Array:
        found: Array = self.layer.decision_function(self.scaler.transform(flat(features)))
        return found

    def outputs(self, seen: Seen) -> tuple[Array, Array, Array]:
        """Probabilities of images, their relative OOD score, and the probabilities according to the texture."""
        logits = self._logits(seen.features)
        means = apply_temperature(logits, self.temperature).reshape(-1, EACH, len(self.classes)).mean(1)
        score = relative_scores(ood_score(seen.features.mean(1), self.statistics), self.statistics)
        texture = self.texture.probabilities(flat(seen.texture)).reshape(-1, EACH, len(self.classes)).mean(1)
        return apply_mean_temperature(means, self.image_temperature), score, texture

    def judged(self, seen: Seen, labels: Array, block: Array) -> Judged:
        """Judge the predictions of images."""
        p, score, texture = self.outputs(seen)
        best = p.argmax(1)
        with_texture = (p.max(1), score, texture[np.arange(len(best)), best])
        return Judged(
            self.rule.probability(*with_texture), self.rule.accepted(*with_texture),
            self.before.probability(p.max(1), score), self.before.accepted(p.max(1), score),
            self.classes[best] == labels, block,
        )  # fmt: skip


def flat(values: Array) -> Array:
    """Rows of crops from those of images."""
    return values.reshape(-1, values.shape[-1])


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        trained(folder, *sys.argv[2:])
        return
    bench = Bench(folder)
    table = bench.table
    labels, split = table["label"].to_numpy(str), table["split"].to_numpy(str)
    crops = bench.crops()

    def seen(name: str, which: Array, change: Callable[[torch.Tensor], torch.Tensor] | None) -> Seen:
        own = crops[np.repeat(which, EACH)]
        features = kept(folder, name, lambda: bench.run(own, "crop", change))
        view = own if change is None else changed_crops(own, change)
        texture = kept(folder, f"texture {name}", lambda: texture_statistics(view))
        found = []
        for values in (features, texture):
            full = np.full((len(table), EACH, values.shape[1]), np.nan, np.float32)
            full[which] = values.reshape(-1, EACH, values.shape[1])
            found.append(full)
        return Seen(*found)

    plain = seen("plain", np.ones(len(table), bool), None)
    random = kept(folder, "texture random", lambda: texture_statistics(changed_crops(crops, random_session(0))))
    random = random.reshape(len(table), EACH, -1)
    validation, test, train = (split == name for name in ("validation", "test", "train"))
    changed = [seen(f"fit {name}", validation, change) for name, change in simulated_sessions().items()]
    stress = {name: seen(f"test {name}", test, change) for name, change in tested_sessions().items() if "/" not in name}
    materials, others = other_materials(bench, folder)
    order = table.sort_values(["label", "time"]).index.to_numpy()
    within = table.loc[order].groupby("label").cumcount().to_numpy() // BLOCK
    block = np.empty(len(table), object)
    block[order] = table.loc[order, "label"].to_numpy() + "/" + within.astype(str)

    whole = Case(plain, random, changed, labels, train, validation)
    rows: dict[tuple[str, bool], list[Judged]] = {}

    def add(name: str, fresh: bool, found: Judged) -> None:
        rows.setdefault((name, fresh), []).append(found)

    late = whole.judged(plain.of(test), labels[test], block[test])
    add("late block of the sessions", False, late)
    for name, values in stress.items():
        add(
            "simulated sessions",
            name not in CHOSEN["changes"],
            whole.judged(values.of(test), labels[test], block[test]),
        )
    for name in np.unique(materials):
        which = materials == name
        fresh = name not in CHOSEN["materials"]
        add(
            "other materials",
            fresh,
            whole.judged(others.of(which), np.full(which.sum(), "none"), np.flatnonzero(which)),
        )
    for kind, column in (("class", "label"), ("composition", "composition")):
        values = table[column].to_numpy(str)
        for left_out in np.unique(values):
            known = values != left_out
            case = Case(plain, random, changed, labels, train & known, validation & known)
            which = (test & known) | ~known
            fresh = left_out[:3] not in CHOSEN["compositions"]
            add(f"held-out {kind}", fresh, case.judged(plain.of(which), labels[which], block[which]))
            print(f"# {kind} {left_out}", flush=True)
    month, composition = table["time"].dt.strftime("%Y-%m").to_numpy(str), table["composition"].to_numpy(str)
    for session in np.unique(month):
        known = month != session
        case = Case(plain, random, changed, composition, (train | test) & known, validation & known)
        found = case.judged(plain.of(~known), composition[~known], block[~known])
        add("held-out session", session not in CHOSEN["sessions"], found)
    with np.printoptions(precision=2, suppress=True):
        print(f"# weights {whole.rule.weights}, threshold {whole.rule.threshold}, limit {whole.rule.limit}")
    for (name, fresh), parts in sorted(rows.items()):
        report(f"{name}, {'fresh' if fresh else 'chosen on'}", merged(parts))
    curves = {}
    for name in dict.fromkeys(name for name, _ in rows):
        curves[name] = merged(rows.get((name, True), rows.get((name, False), [])))
    draw(curves, folder / "sem_rejection.png")


def kept(folder: Path, name: str, compute: Callable[[], Array]) -> Array:
    """Read what was computed before, or compute it."""
    path = folder / f"rejection_{name.replace(' ', '_')}.npy"
    if not path.exists():
        np.save(path, compute())
        print(f"# {name}", flush=True)
    found: Array = np.load(path)
    return found


def merged(parts: list[Judged]) -> Judged:
    """Images of several trainings or changes together; their blocks are the same if they show the same places."""
    return Judged(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def report(name: str, found: Judged) -> None:
    """Print a row: fractions withheld and lost, and the area under the curve, with intervals over blocks."""
    print(f"RESULTS {name:36} {len(found.right):5} images, {100 * found.right.mean():5.1f} % right;", end=" ")
    numbers = np.unique(found.block.astype(str), return_inverse=True)[1]
    drawn = np.random.default_rng(0).multinomial(
        numbers.max() + 1, np.full(numbers.max() + 1, 1 / (numbers.max() + 1)), SAMPLES
    )
    for title, probability, accepted in (
        ("with texture", found.probability, found.accepted), ("without", found.before, found.accepted_before),
    ):  # fmt: skip
        texts = []
        for label, rate in (("withheld", ~found.right), ("lost", found.right)):
            if not rate.any():
                texts.append(f"{label} -")
                continue
            samples = [weighted(~accepted, rate * weight[numbers]) for weight in drawn]
            low, high = np.nanquantile(samples, [0.025, 0.975])
            texts.append(f"{label} {100 * (~accepted[rate]).mean():.0f} ({100 * low:.0f}-{100 * high:.0f})")
        if 0 < found.right.sum() < len(found.right):
            samples = [
                roc_auc_score(found.right, probability, sample_weight=weight[numbers])
                for weight in drawn
                if len(np.unique(found.right[weight[numbers] > 0])) == 2
            ]
            low, high = np.quantile(samples, [0.025, 0.975])
            lost, withheld = withheld_curve(probability, found.right)
            at = 100 * withheld[np.flatnonzero(lost <= 0.1)[-1]]
            texts.append(f"AUC {roc_auc_score(found.right, probability):.2f} ({low:.2f}-{high:.2f})")
            texts.append(f"{at:.0f} withheld if 10 are lost")
        print(f"{title}: {', '.join(texts)};", end=" ")
    print(flush=True)


def weighted(values: Array, weight: Array) -> float:
    """Weighted mean; NaN without weight."""
    total = weight.sum()
    return float((values * weight).sum() / total) if total else np.nan


def other_materials(bench: Bench, folder: Path) -> tuple[Array, Seen]:
    """Names and crops of micrographs of a superalloy, a coating and a battery electrode in X-rays."""
    files = [*sorted((DATA.parent / "fibsem").glob("*/images/*")), DATA.parent / "fibsem/battery_xct/im_1.tif"]
    names = np.array([file.parts[file.parts.index("fibsem") + 1] for file in files])

    def crops() -> Array:
        found = []
        for file in files:
            grey = to_uint8(read_micrograph(str(file)))
            side = min(*grey.shape, 400)
            rng = np.random.default_rng(0)
            for _ in range(EACH):
                row, col = (rng.integers(size - side + 1) for size in grey.shape)
                found.append(shrink(grey[row : row + side, col : col + side], side=SIDE))
        return np.stack(found)

    features = kept(folder, "other", lambda: bench.run(crops(), "crop"))
    texture = kept(folder, "texture other", lambda: texture_statistics(crops()))
    return names, Seen(*(values.reshape(-1, EACH, values.shape[1]) for values in (features, texture)))


def trained(folder: Path, model_file: str, crops_file: str) -> None:
    """Judge the crops of a network that was trained as a whole, as `sem predict` does."""
    graph = read_graph(model_file)
    assert graph is not None, "a network that onnxruntime can run"
    model = OnnxNetwork(graph, model_file)
    metadata = model.metadata
    array, table = read_crops(crops_file)
    table = table[table["split"] == "test"]
    rows: dict[str, list[tuple[Any, ...]]] = {}
    changes: dict[str, Any] = {"late block of the sessions": None}
    changes |= {f"simulated: {name}": change for name, change in tested_sessions().items() if "/" not in name}
    for title, change in changes.items():
        for _, of_image in table.groupby("name"):
            chosen = np.sort(of_image["crop"].to_numpy())[:: max(1, len(of_image) // EACH)][:EACH]
            own = np.asarray(array[chosen])
            seen = own if change is None else changed_crops(own, change)
            found = predict_tiles(model, metadata, iter([seen]), device="cpu")
            right = model.classes[int(found.probabilities.argmax())] == of_image["label"].iloc[0]
            rows.setdefault(title, []).append((right, not found.withheld, of_image["field"].iloc[0]))
        show(title, rows[title])
    show("simulated: all", [row for title, part in rows.items() if title.startswith("simulated") for row in part])
    files = [*sorted((DATA.parent / "fibsem").glob("*/images/*")), DATA.parent / "fibsem/battery_xct/im_1.tif"]
    others = []
    for file in files:
        grey = to_uint8(read_micrograph(str(file)))
        side = min(*grey.shape, metadata["pixels"])
        crop = shrink(grey[:side, :side], side=metadata["side"])
        others.append((False, not predict_tiles(model, metadata, iter([crop[None]]), device="cpu").withheld, file.stem))
    show("other materials", others)


def show(title: str, rows: list[tuple[Any, ...]]) -> None:
    """Print fractions of wrong predictions withheld and of right ones lost."""
    right, accepted = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    withheld = f"{100 * (~accepted[~right]).mean():.0f} % of {(~right).sum()}" if (~right).any() else "none"
    lost = f"{100 * (~accepted[right]).mean():.0f} % of {right.sum()}" if right.any() else "none"
    print(
        f"RESULTS {title:36} {len(right):4} images; wrong ones withheld: {withheld}; right ones lost: {lost}",
        flush=True,
    )


def draw(curves: dict[str, Judged], path: Path) -> None:
    """Draw fractions of wrong predictions withheld and of right ones lost, at every threshold."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    colors = ["#0072b2", "#d55e00", "#000000", "#009e73", "#cc79a7", "#e69f00"]
    for color, (name, found) in zip(colors, curves.items(), strict=True):
        wrong = 100 * (~found.accepted[~found.right]).mean()
        if not found.right.any():
            axes.plot(0, wrong, "s", color=color, label=f"{name} (all wrong)", clip_on=False)
            continue
        for probability, style, label in ((found.probability, "-", name), (found.before, ":", None)):
            lost, withheld = withheld_curve(probability, found.right)
            axes.plot(100 * lost, 100 * withheld, style, color=color, label=label)
        axes.plot(100 * (~found.accepted[found.right]).mean(), wrong, "o", color=color)
    axes.axvline(10, color="0.7", lw=0.8)
    axes.axhline(80, color="0.7", lw=0.8)
    axes.set(xlabel="right predictions lost [%]", ylabel="wrong predictions withheld [%]", xlim=(0, 60), ylim=(0, 101))
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
