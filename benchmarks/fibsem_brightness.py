"""Slices of another brightness than those of the training: mIoU of the same test slices, changed.

    python benchmarks/fibsem_brightness.py                      the electrode of config/fibsem.yaml, the network `unet`
    python benchmarks/fibsem_brightness.py --network context    another network of the default

A network is trained with and without the augmentation of the intensity. The test slices are predicted as they are, with
other brightness, contrast, noise and blur, and slices of a denser electrode, with and without matched intensity.
Lines that begin with RESULTS are the table of docs/fibsem.md.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import yaml
from scipy.ndimage import gaussian_filter

from cathodeflow import fibsem
from cathodeflow.fibsem.network_options import NETWORKS
from cathodeflow.io.tables import read_table
from cathodeflow.io.volumes import read_volume

ROOT = Path(__file__).parents[1]
PLAIN = {"brightness": 0.0, "contrast": 0.0, "noise": 0.0, "blur": 0.0}
GAINS, OFFSETS = (0.8, 0.9, 1.12, 1.25), (-30, -16, -8, 8, 16, 30)
DENSE = (0.24, 0.58, 0.18)
DEVICE = {"device": "cpu", "threads": 1}
Image = np.ndarray


def changes() -> dict[str, Callable[[Image], Image]]:
    rng = np.random.default_rng(0)
    found: dict[str, Callable[[Image], Image]] = {"as they are": lambda x: x}
    found |= {f"{offset:+d} grey levels": lambda x, offset=offset: x + offset for offset in OFFSETS}
    found |= {f"gain {gain:g}": lambda x, gain=gain: gain * x for gain in GAINS}
    found["gain 1.2, -30 grey levels"] = lambda x: 1.2 * x - 30
    found["noise of 8 grey levels"] = lambda x: x + rng.normal(0, 8, x.shape)
    found["blur of 1 px"] = lambda x: gaussian_filter(x, (0, 1, 1))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="unet")
    parser.add_argument("--brightness", type=float, default=fibsem.TrainGlobal().augment.brightness)
    parser.add_argument("--contrast", type=float, default=fibsem.TrainGlobal().augment.contrast)
    parser.add_argument("--folder", type=Path, help="Folder that is kept: finished trainings are read from it.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        measure(folder, arguments.network, {"brightness": arguments.brightness, "contrast": arguments.contrast})


def measure(folder: Path, network: str, varied: dict[str, float]) -> None:
    section = yaml.safe_load((ROOT / "config/fibsem.yaml").read_text())["fibsem"]
    simulated = fibsem.Simulate(**section["simulate"], seed=20)
    stores = {name: folder / f"{name}.zarr" for name in ("slices", "labels", "images", "image_labels")}
    if not stores["image_labels"].exists():
        fibsem.simulate(folder / "raw", options=simulated)
        source = folder / "raw/slices"
        fibsem.volume(source, out=stores["slices"], labels=folder / "raw/labels", labels_out=stores["labels"])
        fibsem.augment(
            stores["slices"], stores["labels"], out=stores["images"], labels_out=stores["image_labels"],
            pairs=folder / "pairs.parquet", options=fibsem.Augment(copies=1),
        )  # fmt: skip
        dense = simulated.model_copy(update={"fractions": DENSE, "n_slices": 24, "seed": 21})
        fibsem.simulate(folder / "dense", options=dense)
    for name, changed in (("before", PLAIN), ("now", varied)):
        train(folder / name, stores, network, section["train_global"] | {"augment": changed})
    pairs = read_table(folder / "pairs.parquet", ["slice", "role_grouped"])
    tested = pairs["slice"][pairs["role_grouped"] == "test"].to_numpy()
    grey, truth = (read_volume(stores[name])[tested].compute() for name in ("slices", "labels"))
    other = [
        np.stack([tifffile.imread(path) for path in sorted((folder / "dense" / part).glob("*.tif"))])
        for part in ("slices", "labels")
    ]
    cases = {name: (change(grey.astype(float)), truth) for name, change in changes().items()}
    cases["denser electrode"] = (other[0], other[1])
    cases["denser electrode, +30 grey levels"] = (other[0].astype(float) + 30, other[1])
    print(f"RESULTS {network}: test slices | before | augmented | augmented and matched | warning")
    for name, (images, right) in cases.items():
        values = np.clip(np.rint(images), 0, 255).astype(np.uint8)
        tifffile.imwrite(folder / "changed.tif", values, photometric="minisblack")
        scores = []
        for model, match in (("before", "never"), ("now", "never"), ("now", "auto")):
            options = fibsem.Predict(
                model=str(folder / model / "model.pt"), method=network, match_intensity=match, **DEVICE
            )
            found = fibsem.predict(folder / "changed.tif", out=folder / "phases.zarr", options=options)
            scores.append(miou(right, read_volume(folder / "phases.zarr").compute()))
        warned = "yes" if found.get("unlike_training") else "no"
        shown = " | ".join(f"{score:.3f}" for score in scores)
        print(f"RESULTS {network}: {name} | {shown} | {warned} ({found['feature_distance']:.2f})", flush=True)


def train(folder: Path, stores: dict[str, Path], network: str, options: dict[str, object]) -> None:
    """Train the network, and write the model file of this network alone."""
    folder.mkdir(exist_ok=True)
    if (folder / "model.pt").exists():
        return
    chosen = fibsem.TrainGlobal(**{**options, **NETWORKS[network], **DEVICE, "seed": 20})
    images, pairs = (stores["images"], stores["image_labels"]), folder.parent / "pairs.parquet"
    fibsem.train_global(*images, pairs, split="grouped", out=folder / f"{network}.pt", options=chosen)
    fibsem.predict_global(
        folder / f"{network}.pt", images[0], pairs, split="grouped", out=folder / f"{network}_logits.zarr",
        entropy=folder / f"{network}_entropy.zarr", labels=folder / f"{network}_labels.zarr",
        table=folder / f"{network}_images.parquet", options=fibsem.PredictGlobal(**DEVICE),
    )  # fmt: skip
    fibsem.test(folder, *images, networks=network, split="grouped", options=fibsem.Test(**DEVICE))


def miou(truth: Image, found: Image) -> float:
    pairs = np.bincount(3 * truth.ravel().astype(int) + found.ravel(), minlength=9).reshape(3, 3)
    both = np.diag(pairs)
    return float((both / (pairs.sum(0) + pairs.sum(1) - both)).mean())


if __name__ == "__main__":
    main()
