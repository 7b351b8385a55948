"""SEM across sessions: sessions held out, simulated sessions, and the nickel fraction of compositions held out.

    python benchmarks/sem_session.py FOLDER                      everything, about ten minutes of one core
    python benchmarks/sem_session.py FOLDER features crop        the features of one recipe, kept in FOLDER
    python benchmarks/sem_session.py FOLDER session stress nickel

The network is EfficientNet-Lite0 as pretrained on ImageNet, of which the last layer alone is trained (`train.frozen`),
so that the features of each crop are computed once. Data: the folder sem_ncm of CATHODEFLOW_DATA. No class was imaged
in two sessions, but compositions were: 333, 622 and 811 in 2019-09 (pristine) and 2019-12 (formation, cycled), 523 in
2019-09 and 2022-06. So the protocol asks for the composition of electrodes in another state, in another session.
"""

import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from cathodeflow import sem
from cathodeflow.sem.augment import augment
from cathodeflow.sem.backbones import create_backbone
from cathodeflow.sem.baselines import nearest_scores, settings_features
from cathodeflow.sem.cropping import cut_crops
from cathodeflow.sem.image_options import Split
from cathodeflow.sem.instrument_changes import change_instrument, charging_field, magnified
from cathodeflow.sem.intensity import intensity_histogram
from cathodeflow.sem.listed_images import read_listed
from cathodeflow.sem.network_options import Augment
from cathodeflow.sem.nickel import fit_nickel, nickel_fraction
from cathodeflow.sem.octaves import equal_histogram, equal_octaves, scaled_octaves, standardized
from cathodeflow.sem.ood import group_means
from cathodeflow.sem.resample import to_uint8
from cathodeflow.sem.robust_options import Robust
from cathodeflow.sem.seeds import generator
from cathodeflow.sem.splits import split_originals
from cathodeflow.sem.usable_area import UsableArea

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")) / "sem_ncm"
SESSIONS = {"2019-09": "2019-09-02", "2019-12": "2019-12-03", "2022-06": "2022-06-16"}
PIXELS, SIDE, EACH = 640, 224, 3
SEEDS, SAMPLES, BLOCK = 3, 2000, 5
CHANGES = Robust(magnification=1.25, octaves=2.0, curve=0.5, charging=0.1)
AUGMENT = Augment(flip=True, rotate90=False, gamma=1.6, blur=1.0, noise=0.05)
NORMALIZATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "crop": standardized, "histogram": equal_histogram, "octaves": equal_octaves,
}  # fmt: skip
#: Recipes: normalization, and whether changed crops are trained on too.
RECIPES = {
    "crop": ("crop", False),
    "crop, changes": ("crop", True),
    "histogram": ("histogram", False),
    "histogram, changes": ("histogram", True),
    "octaves": ("octaves", False),
}
PENALTIES = (1e-3, 1e-1)


def main() -> None:
    torch.set_num_threads(1)
    folder, *parts = sys.argv[1:]
    bench = Bench(Path(folder))
    if parts[:1] == ["features"]:
        for recipe in parts[1:]:
            began = time.process_time()
            bench.features(recipe)
            print(f"features of {recipe}: {time.process_time() - began:.0f} s of the processor", flush=True)
        return
    for part in parts or ["session", "stress", "nickel"]:
        for line in getattr(bench, part)():
            print("RESULTS " + line, flush=True)


class Bench:
    """The images, their crops, and the features of these, which are kept in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        if not (folder / "index.parquet").exists():
            sem.index(str(DATA), out=folder / "index.parquet", sample="ncm")
        table = pd.read_parquet(folder / "index.parquet")
        table = split_originals(table, Split(by="time-block", seed=0))
        self.table = table[(table["split"] != "left out") & table["time"].notna()].reset_index(drop=True)
        self.names = np.repeat(self.table["name"].to_numpy(), EACH)
        self._network: Callable[[torch.Tensor], NDArray[np.float32]] | None = None

    def crops(self) -> NDArray[np.uint8]:
        """Crops of all images, `EACH` of each."""
        path = self.folder / "crops.npy"
        if not path.exists():
            rows = []
            for image in self.table.itertuples():
                rng = generator(0, "crops", image.name)
                for _ in range(EACH):
                    row = rng.integers(image.row0, image.row1 - PIXELS)
                    col = rng.integers(image.col0, image.col1 - PIXELS)
                    rows.append((image.name, row, col, PIXELS, PIXELS))
            planned = pd.DataFrame(rows, columns=["name", "row", "col", "rows", "cols"])
            listed = self.table.set_index("name")

            def read(name: str) -> NDArray[np.uint8]:
                area = UsableArea(*listed.loc[name, [*UsableArea._fields]])
                return to_uint8(read_listed(listed.loc[name, "image"]), area=area)

            np.save(path, cut_crops(planned, read, side=SIDE).compute(scheduler="synchronous"))
        found: NDArray[np.uint8] = np.load(path)
        return found

    def network(self, x: torch.Tensor) -> NDArray[np.float32]:
        """Features of normalized crops, by onnxruntime in one thread."""
        if self._network is None:
            model = create_backbone("tf_efficientnet_lite0", weights="imagenet").network.eval()
            buffer = io.BytesIO()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(model, (torch.zeros(2, 1, SIDE, SIDE),), buffer, dynamo=False, opset_version=17,
                                  input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}})  # fmt: skip
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = 1
            session = onnxruntime.InferenceSession(buffer.getvalue(), settings, providers=["CPUExecutionProvider"])
            self._network = lambda x: session.run(["y"], {"x": x.numpy()})[0].mean((2, 3))
        return self._network(x)

    def run(self, crops: NDArray[np.uint8], normalization: str, change: Any = None) -> NDArray[np.float32]:
        """Compute the features of crops after a change and a normalization."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(crops), 15):
                x = torch.from_numpy(crops[start : start + 15]).float()[:, None] / 255
                x = x if change is None else change(x)
                parts.append(self.network(NORMALIZATIONS[normalization](x)))
        return np.concatenate(parts)

    def features(self, recipe: str) -> list[NDArray[np.float32]]:
        """Features of the crops, and of changed ones if the recipe has them."""
        normalization, changed = RECIPES[recipe]
        random = torch.Generator().manual_seed(1)

        def change(x: torch.Tensor) -> torch.Tensor:
            return augment(change_instrument(x, random, CHANGES), random, AUGMENT)

        found = []
        for kind, function in (("plain", None), ("changed", change))[: 1 + changed]:
            path = self.folder / f"{normalization}_{kind}.npy"
            if not path.exists():
                np.save(path, self.run(self.crops(), normalization, function))
            found.append(np.load(path))
        return found

    def known(self) -> list[str]:
        """Recipes whose features have been computed."""
        kinds = {name: ("plain", "changed")[: 1 + changed] for name, (_, changed) in RECIPES.items()}
        return [
            name for name, (normalization, _) in RECIPES.items()
            if all((self.folder / f"{normalization}_{kind}.npy").exists() for kind in kinds[name])
        ]  # fmt: skip

    def predict(
        self, views: list[NDArray[np.float32]], labels: NDArray[Any], train: NDArray[np.bool_],
        tests: list[NDArray[np.float32]], *, penalty: float, seed: int,
    ) -> tuple[list[NDArray[np.float64]], NDArray[Any]]:  # fmt: skip
        """Train the last layer on two crops of each image, chosen by the seed; probabilities of the tests' crops."""
        number = np.random.default_rng(seed).permuted(np.tile(np.arange(EACH), (len(self.table), 1)), axis=1)
        chosen = train & (number < 2).ravel()
        x = np.concatenate([view[chosen] for view in views])
        scaler = StandardScaler().fit(x)
        layer = LogisticRegression(C=penalty, max_iter=100, class_weight="balanced")
        layer.fit(scaler.transform(x), np.tile(labels[chosen], len(views)))
        return [layer.predict_proba(scaler.transform(test)) for test in tests], layer.classes_

    def session(self) -> list[str]:
        """Leave one session out; composition alone, as with `index.classes: composition`."""
        truth = self.table["composition"].to_numpy()
        month = self.table["time"].dt.strftime("%Y-%m").to_numpy()
        labels, of_crop = np.repeat(truth, EACH), np.repeat(month, EACH)
        right: dict[tuple[str, float], NDArray[np.float64]] = {}
        for recipe in self.known():
            views = self.features(recipe)
            for penalty in PENALTIES:
                hits = np.zeros((SEEDS, len(truth)))
                for session in SESSIONS:
                    out = of_crop == session
                    for seed in range(SEEDS):
                        (p,), classes = self.predict(views, labels, ~out, [views[0][out]], penalty=penalty, seed=seed)
                        mean = p.reshape(-1, EACH, len(classes)).mean(1)
                        hits[seed, month == session] = classes[mean.argmax(1)] == truth[month == session]
                right[recipe, penalty] = hits
        lines = []
        for (recipe, penalty), hits in right.items():
            lines.append(self.line(f"{recipe}, C {penalty:g}", hits, month))
        chosen = np.zeros((SEEDS, len(truth)))
        picks = []
        for session in SESSIONS:
            others = [name for name in SESSIONS if name != session]
            score = {key: np.mean([hits[:, month == name].mean() for name in others]) for key, hits in right.items()}
            best = max(score, key=lambda key: score[key])
            picks.append(f"{session}: {best[0]}, C {best[1]:g}")
            chosen[:, month == session] = right[best][:, month == session]
        lines.append(self.line("chosen on the other sessions", chosen, month) + f"  ({'; '.join(picks)})")
        for name, features in self.trivial().items():
            hits = np.zeros((1, len(truth)))
            for session in SESSIONS:
                table = self.table.assign(
                    label=truth, split=np.where(month == session, "test", "train")
                )  # fmt: skip
                scores = nearest_scores(features(table), table).drop(columns="name")
                best_class = scores.columns.str.removeprefix("p_").to_numpy()[scores.to_numpy().argmax(1)]
                hits[0, month == session] = best_class == truth[month == session]
            lines.append(self.line(name, hits, month))
        return lines

    def trivial(self) -> dict[str, Callable[[pd.DataFrame], NDArray[np.float64]]]:
        """Features unrelated to the particles, by name."""
        crops = self.crops()
        histograms = np.array([np.sqrt(intensity_histogram(crop, 32)) for crop in crops])
        histograms = histograms.reshape(-1, EACH, 32).mean(1)

        def settings(table: pd.DataFrame) -> NDArray[np.float64]:
            found = settings_features(table)
            assert found is not None
            return found

        return {
            "grey histogram": lambda table: histograms,
            "mean and deviation": lambda table: table[["mean", "deviation"]].to_numpy(np.float64),
            "instrument settings (focus)": settings,
        }

    def line(self, name: str, hits: NDArray[np.float64], month: NDArray[Any]) -> str:
        """Accuracy of each session held out and of all, with an interval over blocks of images in time."""
        each = " ".join(f"{100 * hits[:, month == session].mean():5.1f}" for session in SESSIONS)
        order = self.table.sort_values(["label", "time"]).index.to_numpy()
        within = self.table.loc[order].groupby("label").cumcount().to_numpy() // BLOCK
        block = np.unique(self.table.loc[order, "label"] + "/" + within.astype(str), return_inverse=True)[1]
        total, size = np.bincount(block, hits.mean(0)[order]), np.bincount(block)
        drawn = np.random.default_rng(0).integers(len(size), size=(SAMPLES, len(size)))
        low, high = np.quantile(total[drawn].sum(1) / size[drawn].sum(1), [0.025, 0.975])
        seeds = f"{100 * hits.mean(1).min():.1f}-{100 * hits.mean(1).max():.1f}"
        return f"{name:32} {each}  all {100 * hits.mean():5.1f} ({100 * low:.1f}-{100 * high:.1f}; seeds {seeds})"

    def stress(self) -> Iterator[str]:
        """Time blocks, 12 classes: test images as another session would have imaged them."""
        train = np.repeat((self.table["split"] == "train").to_numpy(), EACH)
        tested = np.repeat((self.table["split"] == "test").to_numpy(), EACH)
        labels = np.repeat(self.table["label"].to_numpy(), EACH)
        truth = self.table.loc[self.table["split"] == "test", "label"].to_numpy()
        for recipe in self.known():
            views = self.features(recipe)
            tests = [views[0][tested]]
            for name, change in simulated_sessions().items():
                path = self.folder / f"stress_{RECIPES[recipe][0]}_{name.replace(' ', '_').replace('/', '_')}.npy"
                if not path.exists():
                    np.save(path, self.run(self.crops()[tested], RECIPES[recipe][0], change))
                tests.append(np.load(path))
            figures = []
            for seed in range(SEEDS):
                found, classes = self.predict(views, labels, train, tests, penalty=1e-2, seed=seed)
                means = [p.reshape(-1, EACH, len(classes)).mean(1) for p in found]
                figures.append([(classes[mean.argmax(1)] == truth).mean() for mean in means])
            accuracy = 100 * np.mean(figures, axis=0)
            parts = zip(("as imaged", *simulated_sessions()), accuracy, strict=True)
            yield f"{recipe:20} " + ", ".join(f"{name} {value:.1f}" for name, value in parts)

    def nickel(self) -> list[str]:
        """Leave one composition out: error of its nickel fraction."""
        values = group_means(self.features("crop")[0], self.names)
        images = self.table.sort_values("name")
        labels, composition = images["label"].to_numpy(), images["composition"].to_numpy()
        lines = []
        for out in sorted(set(composition)):
            left = composition == out
            truth = nickel_fraction(out)
            regression = fit_nickel(values[~left], list(labels[~left]))
            assert regression is not None and truth is not None
            error = np.abs(regression.predict(values[left]) - truth)
            scaler = StandardScaler().fit(values[~left])
            layer = LogisticRegression(C=1e-2, max_iter=200).fit(scaler.transform(values[~left]), labels[~left])
            of_class = np.array([nickel_fraction(name) for name in layer.predict(scaler.transform(values[left]))])
            constant = np.mean([nickel_fraction(name) for name in set(composition) - {out}])
            inside = (error <= regression.half_width(0.9)).mean()
            errors = (error.mean(), np.abs(of_class - truth).mean(), abs(constant - truth))
            lines.append(
                f"nickel of {out}: mean error {errors[0]:.3f} by the regression, {errors[1]:.3f} by the class, "
                f"{errors[2]:.3f} by the mean of the others; {100 * inside:.0f} % of {left.sum()} images within the "
                f"interval of +-{regression.half_width(0.9):.3f}"
            )
        return lines


def simulated_sessions() -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Return changes of fixed strength, by name."""

    def noise(x: torch.Tensor) -> torch.Tensor:
        return (x + 0.08 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)

    def blur(x: torch.Tensor) -> torch.Tensor:
        return scaled_octaves(x, torch.tensor([[0.3, 0.7]]).expand(len(x), 2)).clamp(0, 1)

    def charging(x: torch.Tensor) -> torch.Tensor:
        return (x + charging_field(SIDE, SIDE, 0.2, len(x), torch.Generator().manual_seed(0))).clamp(0, 1)

    def coarse(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear", align_corners=False)

    return {
        "contrast x0.6": lambda x: 0.4 * x.mean((1, 2, 3), keepdim=True) + 0.6 * x,
        "gain x1.4": lambda x: (1.4 * x).clamp(0, 1),
        "gamma 1.6": lambda x: x**1.6,
        "focus": blur,
        "noise 0.08": noise,
        "scale x1.25": lambda x: magnified(x, torch.full((len(x),), 1.25)),
        "scale x0.8": lambda x: magnified(x, torch.full((len(x),), 0.8)),
        "charging 0.2": charging,
        "pixels x2": coarse,
    }


if __name__ == "__main__":
    main()
