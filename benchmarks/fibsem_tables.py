"""Tables of the MatPhase paper in one process, which at this size saves most of the time: the start of 50 programs.

    python benchmarks/fibsem_tables.py FOLDER --part 0/1 --minutes 20

The stages, options and seeds are those of config/fibsem-tables.yaml; with `--small`, on a
stack of the size of the demo (`SMALLER`).
What exists is not trained again. After `--minutes` no further training begins; `--finish` tests what is there and
writes the tables. With `--part 1/3`, every third network or method is trained, so that several processes share the
work.
"""

import argparse
import time
from pathlib import Path

from cathodeflow import fibsem
from cathodeflow.config import validate
from cathodeflow.io.text import read_yaml

SMALLER = {
    "simulate": {"n_slices": 32, "rows": 64, "cols": 64},
    "train_idk": {"pixels_per_epoch": 20000},
    "train_local": {"pixels_per_epoch": 8000},
}


def main() -> None:
    """Train, test and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--finish", action="store_true")
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    part, parts = map(int, given.part.split("/"))
    values = read_yaml("config/fibsem-tables.yaml")
    for stage, changed in SMALLER.items() if given.small else ():
        values["fibsem"][stage] = {**values["fibsem"][stage], **changed}
    config = validate(values).fibsem
    folder = given.folder
    stores = (folder / "images.zarr", folder / "image_labels.zarr")
    if not (folder / "pairs.parquet").exists():
        prepare(folder, config, values["seed"])
    end = time.monotonic() + 60 * given.minutes
    for seed in config.seeds:
        run = folder / f"seed{seed}"
        run.mkdir(exist_ok=True)
        for number, (name, options) in enumerate(config.networks.items()):
            if number % parts == part and time.monotonic() < end and not given.finish:
                network(run, name, options, config, stores, seed, values["seed"])
        for number, (name, method) in enumerate(config.methods.items()):
            if number % parts == part and not given.finish:
                while not (run / f"{method.network}_images.parquet").exists() and time.monotonic() < end:
                    time.sleep(2)
                if time.monotonic() < end:
                    local(run, name, method, stores, seed, values["seed"])
    if given.finish:
        finish(folder, config, stores)


def seeded(options, seed):
    """Options with the workflow's seed and the CPU."""
    changed = {"seed": seed, "device": "cpu"}
    return options.model_copy(
        update={key: value for key, value in changed.items() if key in type(options).model_fields}
    )


def prepare(folder, config, seed):
    """Simulate the slices, and split them."""
    fibsem.simulate(folder / "raw", options=seeded(config.simulate, seed))
    slices, labels = folder / "slices.zarr", folder / "labels.zarr"
    fibsem.volume(
        folder / "raw/slices", out=slices, labels=folder / "raw/labels", labels_out=labels, options=config.volume
    )
    images, image_labels = folder / "images.zarr", folder / "image_labels.zarr"
    fibsem.augment(
        slices, labels, out=images, labels_out=image_labels, pairs=folder / "pairs.parquet",
        options=seeded(config.augment, seed),
    )  # fmt: skip


def network(run, name, options, config, stores, repeat, seed):
    """Train a global network, and predict."""
    pairs, crossed = run.parent / "pairs.parquet", name in {method.network for method in config.methods.values()}
    if not (run / f"{name}.json").exists():
        fibsem.train_global(
            *stores, pairs, split="grouped", out=run / f"{name}.pt", repeat=repeat, cross_fit=crossed, sample=name,
            record=run / f"{name}.json", options=seeded(options, seed),
        )  # fmt: skip
    if not (run / f"{name}_global.json").exists():
        fibsem.predict_global(
            run / f"{name}.pt", stores[0], pairs, split="grouped", out=run / f"{name}_logits.zarr",
            entropy=run / f"{name}_entropy.zarr", labels=run / f"{name}_labels.zarr",
            table=run / f"{name}_images.parquet", record=run / f"{name}_global.json",
            options=seeded(config.predict_global, seed),
        )  # fmt: skip


def local(run, name, method, stores, repeat, seed):
    """Train the IDK classifier and the local network of a method."""
    predicted = (run / f"{method.network}_logits.zarr", run / f"{method.network}_images.parquet")
    if not (run / f"{name}_idk.json").exists():
        fibsem.train_idk(
            *predicted, stores[1], out=run / f"{name}_idk.pt", repeat=repeat, sample=name,
            record=run / f"{name}_idk.json", options=seeded(method.train_idk, seed),
        )  # fmt: skip
    if not (run / f"{name}_local.json").exists():
        fibsem.train_local(
            run / f"{method.network}.pt", run / f"{name}_idk.pt", *predicted, *stores, out=run / f"{name}_local.pt",
            entropies=run / f"{name}_entropy.parquet", repeat=repeat, sample=name, record=run / f"{name}_local.json",
            options=seeded(method.train_local, seed),
        )  # fmt: skip


def finish(folder, config, stores):
    """Test all that was trained, and write the tables."""
    done = []
    for run in (folder / f"seed{seed}" for seed in config.seeds):
        networks = [name for name in config.networks if (run / f"{name}_global.json").exists()]
        methods = {name: method for name, method in config.methods.items() if (run / f"{name}_local.json").exists()}
        if not networks:
            continue
        flags = ",".join(method.flag(name) for name, method in methods.items())
        fibsem.test(
            run, *stores, networks=",".join(networks), methods=flags, split="grouped", repeat=int(run.name[4:]),
            options=seeded(config.test, 0),
        )  # fmt: skip
        done.append(run)
    tables = {"out": "metrics.csv", "per_slice": "metrics_slices.csv", "differences": "differences.csv"}
    fibsem.metrics(
        done, truth=stores[1], options=config.metrics, **{key: folder / name for key, name in tables.items()}
    )
    fibsem.tables(
        done, comparison=folder / "metrics.csv", images=stores[0], out=folder, options=seeded(config.tables, 0)
    )


if __name__ == "__main__":
    main()
