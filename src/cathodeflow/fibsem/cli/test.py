"""Commands that answer for the test images by every method, and compare the answers with the truth."""

import logging
from typing import Any

import click

from cathodeflow.fibsem.cli.shared import group, sample_flag
from cathodeflow.fibsem.options import Metrics, Test
from cathodeflow.old_commands import stage_command
from cathodeflow.old_flags import compute_device, record_flag

log = logging.getLogger("cathodeflow.fibsem")
# Images whose answers are in memory at a time.
_TOGETHER = 8


@stage_command(group, Test)
@click.argument("folder")
@click.argument("images")
@click.argument("truth")
@sample_flag
@click.option("--networks", required=True, help="Global networks in FOLDER, with commas between.")
@click.option("--methods", default="", help="Methods with a local model as NAME=NETWORK, with commas between.")
@click.option("--split", required=True, help="Split of the images.")
@click.option("--repeat", type=int, default=0, help="Number of the repetition.")
@record_flag()
def test(
    folder: str, images: str, truth: str, sample: str, networks: str, methods: str, split: str, repeat: int,
    record: str, options: Test,
) -> None:  # fmt: skip
    """Answer for the test images by every method trained in FOLDER; choose the best one on validation."""
    import numpy as np
    import torch

    from cathodeflow.fibsem.bundle import save_bundle
    from cathodeflow.fibsem.counts import confusion, mean_iu
    from cathodeflow.fibsem.idk import evaluate_threshold
    from cathodeflow.fibsem.methods import all_methods
    from cathodeflow.fibsem.slice_plots import choose_slices, segmentation_figure
    from cathodeflow.fibsem.split import TEST, VALIDATION
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.tables import read_table, write_table
    from cathodeflow.io.volumes import read_volume, read_volume_info, write_volume
    from cathodeflow.record import write_record

    torch.set_num_threads(options.threads)
    local = dict(part.split("=") for part in methods.split(",") if part)
    trained, about = _collect(folder, networks.split(","), local)
    offered = all_methods(about["class_weights"], local)
    device = compute_device(options.device)
    grey, labels = read_volume(images), read_volume(truth)
    found: dict[str, dict[str, Any]] = {}
    scores: dict[str, float] = {}
    for method in offered:
        listed = read_table(f"{folder}/{method.network}_images.parquet", ["slice", "copy", "image", "role"])
        logits = read_volume(f"{folder}/{method.network}_logits.zarr")
        rows = {role: np.flatnonzero(listed["role"] == role) for role in (VALIDATION, TEST)}
        answered = {
            role: _joined(_answers(method, trained, about, listed, own, logits, grey, device))
            for role, own in rows.items()
        }
        right = labels[listed["image"].to_numpy()[rows[VALIDATION]]].compute()
        scores[method.name] = float(mean_iu(confusion(right, answered[VALIDATION]["labels"], len(about["classes"]))))
        found[method.name], tested = answered[TEST], listed.iloc[rows[TEST]]
    best = max(scores, key=lambda name: scores[name])
    about |= {"best": best, "grey": str(grey.dtype), "methods": [one._asdict() for one in offered]}
    about["levelled"] = read_volume_info(images).attributes["levelled"]
    save_bundle(f"{folder}/model.pt", trained, about)
    attributes = {"methods": list(found), "networks": networks.split(","), "classes": about["classes"]}
    axes = ("method", "image", "y", "x")
    stacked = {
        name: np.stack([one[name] for one in found.values()]) for name in ("labels", "probabilities", "uncertainty")
    }
    write_volume(f"{folder}/test_labels.zarr", stacked["labels"], axes=axes, attributes=attributes)
    write_volume(f"{folder}/test_uncertainty.zarr", stacked["uncertainty"], axes=axes, attributes=attributes)
    write_volume(
        f"{folder}/test_probabilities.zarr", stacked["probabilities"].astype(np.float16),
        axes=("method", "image", "class", "y", "x"), attributes=attributes,
    )  # fmt: skip
    write_table(f"{folder}/test.parquet", tested.assign(split=split, seed=repeat))
    number = tested["image"].to_numpy()
    right = labels[number].compute()
    shown = next((one for one in offered if one.kind == "local"), offered[0])
    accuracy = (found[shown.name]["labels"] == right).mean(axis=(1, 2))
    chosen = list(choose_slices(accuracy).items())
    places = [place for _, place in chosen]
    names = list(dict.fromkeys((shown.network, shown.name, best)))
    save_figure(
        f"{folder}/slices.png",
        segmentation_figure(
            grey[number[places]].compute(), {name: found[name]["labels"][places] for name in names},
            classes=about["classes"], truth=right[places], entropy=found[shown.network]["uncertainty"][places],
            idk=found[shown.name]["idk"][places] if shown.kind == "local" else None,
            names=[f"{what}: slice {tested['slice'].to_numpy()[place]}" for what, place in chosen],
        ),
    )  # fmt: skip
    metrics: dict[str, float] = {f"validation_miu_{name}": value for name, value in scores.items()}
    metrics |= {"test_images": len(tested)}
    for name, base in local.items():
        value = evaluate_threshold(found[name]["idk"], found[base]["labels"] != right, 0.5)
        metrics |= {f"idk_{figure}_{name}": getattr(value, figure) for figure in ("precision", "recall", "share")}
    write_record(
        record, stage="fibsem.test", sample=sample, options=options, metrics=metrics, figures=[f"{folder}/slices.png"]
    )
    log.info("best on validation: %s, mIU %.4f", best, scores[best])


@stage_command(group, Metrics)
@click.argument("folders", nargs=-1, required=True)
@click.option("--truth", required=True, metavar="STORE", help="Labels of the images.")
@sample_flag
@click.option("--out", required=True, metavar="FILE", help="CSV to write: a row for each model, seed and split.")
@click.option("--per-slice", required=True, metavar="FILE", help="CSV to write: a row for each test image too.")
@click.option("--differences", required=True, metavar="FILE", help="CSV to write: what each model gains on others.")
@record_flag()
@click.option("--figures", required=True, metavar="FOLDER", help="Folder of the figures.")
def metrics(
    folders: tuple[str, ...], truth: str, sample: str, out: str, per_slice: str, differences: str, record: str,
    figures: str, options: Metrics,
) -> None:  # fmt: skip
    """Compare the answers in FOLDERS with the truth."""
    import numpy as np
    import pandas as pd

    from cathodeflow.checkpoints import derived_seed
    from cathodeflow.fibsem.metrics import compare, evaluate
    from cathodeflow.fibsem.plots import fractions_figure, methods_figure
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.tables import read_table, write_csv
    from cathodeflow.io.volumes import read_volume, read_volume_info
    from cathodeflow.record import write_record

    labels = read_volume(truth)
    keywords = options.model_dump(exclude={"seed", "confidence", "bootstrap_samples"})
    drawn: dict[str, Any] = {"confidence": options.confidence, "bootstrap_samples": options.bootstrap_samples}
    rows, slices, gains = [], [], []
    for folder in folders:
        tested = read_table(f"{folder}/test.parquet")
        found, likely = read_volume(f"{folder}/test_labels.zarr"), read_volume(f"{folder}/test_probabilities.zarr")
        about = read_volume_info(f"{folder}/test_labels.zarr").attributes
        right = labels[tested["image"].to_numpy()].compute()
        originals = tested["slice"].to_numpy()
        seed, split = int(tested["seed"].iloc[0]), str(tested["split"].iloc[0])
        counts = {}
        for place, model in enumerate(about["methods"]):
            # Values of half precision do not add up to one.
            p = likely[place].compute().astype(np.float32)
            one = evaluate(
                right, found[place], p / p.sum(axis=1, keepdims=True), model=model, seed=seed, split=split,
                classes=about["classes"], originals=originals,
                rng=np.random.default_rng(derived_seed(options.seed or 0, seed)), **keywords, **drawn,
            )  # fmt: skip
            rows.append(one.overall)
            slices.append(one.slices.assign(slice=originals))
            counts[model] = one.counts
        for model, own in counts.items():
            for base in about["networks"]:
                if base != model:
                    gain = compare(
                        own, counts[base], classes=about["classes"], originals=originals,
                        rng=np.random.default_rng(derived_seed(options.seed or 0, seed)), **drawn,
                    )  # fmt: skip
                    gains.append(gain[gain["figure"].isin(["miu", "fiu"])].assign(
                        model=model, reference=base, seed=seed, split=split))  # fmt: skip
    table = pd.concat(rows, ignore_index=True)
    write_csv(out, table)
    write_csv(per_slice, pd.concat(slices, ignore_index=True))
    write_csv(differences, pd.concat(gains, ignore_index=True))
    paths = [f"{figures}/{name}.png" for name in ("methods", "fractions")]
    save_figure(paths[0], methods_figure(table))
    save_figure(paths[1], fractions_figure(table, about["classes"]))
    means = table.groupby(["split", "model"], sort=False)[["miu", "fiu"]].mean().reset_index()
    values = {
        f"{figure}_{row['model']}_{row['split']}": float(row[figure])
        for row in means.to_dict("records")
        for figure in ("miu", "fiu")
    }
    write_record(record, stage="fibsem.metrics", sample=sample, options=options, metrics=values, figures=paths)
    for row in means.to_dict("records"):
        log.info("%s, %s: mIU %.4f, fIU %.4f", row["split"], row["model"], row["miu"], row["fiu"])


def _collect(folder: str, networks: list[str], local: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gather the networks of all methods, and what using them needs."""
    from cathodeflow.fibsem.bundle import load_bundle

    found: dict[str, Any] = {}
    about: dict[str, Any] = {
        "class_weights": {}, "passes": {}, "flips": {}, "threshold": {}, "seed": {}
    }  # fmt: skip
    for name in networks:
        own, told = load_bundle(f"{folder}/{name}.pt")
        found[name] = own["network"]
        about["classes"] = told["classes"]
        for key in ("class_weights", "passes", "flips", "seed"):
            about[key][name] = told[key]
    for name in local:
        helpers, told = load_bundle(f"{folder}/{name}_idk.pt")
        settled, _ = load_bundle(f"{folder}/{name}_local.pt")
        found |= {f"{name}-idk": helpers["idk"], f"{name}-mlp": helpers["mlp"], f"{name}-local": settled["local"]}
        about["threshold"][name] = told["threshold"]
    return found, about


def _answers(method: Any, trained: Any, about: Any, listed: Any, rows: Any, logits: Any, grey: Any, device: str) -> Any:
    """Yield the answers of a method for some images, a few at a time."""
    import numpy as np
    import torch

    from cathodeflow.fibsem.around import neighbours_of
    from cathodeflow.fibsem.methods import answer

    context = trained[method.network].architecture["context"]
    around = neighbours_of(listed["slice"].to_numpy(), listed["copy"].to_numpy(), context)
    numbers = listed["image"].to_numpy()
    for start in range(0, len(rows), _TOGETHER):
        own = rows[start : start + _TOGETHER]
        beside = np.setdiff1d(around[own], own)
        wanted = np.concatenate([own, beside])
        place = {row: k for k, row in enumerate(wanted.tolist())}
        near = torch.tensor([[place[row] for row in line] for line in around[own].tolist()])
        mean = torch.from_numpy(logits[own].compute().astype(np.float32))
        shown = torch.from_numpy(grey[numbers[wanted]].compute().astype(np.float32)) if method.kind == "local" else None
        yield answer(method, mean, trained, about, grey=shown, neighbours=near, device=device)


def _joined(answers: Any) -> dict[str, Any]:
    """Bring the answers for some images into arrays."""
    import numpy as np

    kept: dict[str, list[Any]] = {"labels": [], "probabilities": [], "uncertainty": [], "idk": []}
    for phases, idk in answers:
        for name, one in zip(kept, phases, strict=False):
            kept[name].append(one.numpy())
        kept["idk"].append(np.zeros(phases.labels.shape, bool) if idk is None else idk.numpy())
    return {name: np.concatenate(parts) for name, parts in kept.items()}
