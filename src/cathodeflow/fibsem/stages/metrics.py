"""Stage: compare the segmentations of all methods with the reference."""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cathodeflow.fibsem.evaluation import compare, evaluate
from cathodeflow.fibsem.options import Metrics as MetricsOptions
from cathodeflow.fibsem.rare_classes import missing_in_table
from cathodeflow.io.tables import read_table, write_csv
from cathodeflow.io.volumes import read_volume, read_volume_info
from cathodeflow.seeds import derived_seed
from cathodeflow.stage import InputFolder, InputStore, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.fibsem")


_DIFFERENCES = ["figure", "difference", "low", "high", "model", "reference", "seed", "split"]


@stage("fibsem.metrics")
def metrics(
    folders: Sequence[InputFolder],
    *,
    truth: InputStore,
    out: OutputFile,
    per_slice: OutputFile,
    differences: OutputFile,
    options: MetricsOptions,
) -> Metrics:
    """Compare the test segmentations in FOLDERS with the reference labels.

    Parameters
    ----------
    folders : sequence of path
        Folders of runs, in which `test` wrote its segmentations.
    truth : path
        Zarr store of the reference labels of all images.
    out : path
        CSV table to write: one row per method, seed and split.
    per_slice : path
        CSV table to write: one row per method, seed, split and test image.
    differences : path
        CSV table to write: differences between each method and the global networks.
    """
    labels = read_volume(truth)
    rows, slices, gains = [], [], []
    for folder in folders:
        tested = read_table(f"{folder}/test.parquet", ["image", "slice", "seed", "split"])
        found, likely = read_volume(f"{folder}/test_labels.zarr"), read_volume(f"{folder}/test_probabilities.zarr")
        attributes = read_volume_info(f"{folder}/test_labels.zarr").attributes
        classes = attributes["classes"]
        right = labels[tested["image"].to_numpy()].compute()
        originals = tested["slice"].to_numpy()
        seed, split = int(tested["seed"].iloc[0]), str(tested["split"].iloc[0])
        # Every comparison of a run draws the same bootstrap samples.
        bootstrap = derived_seed(options.seed or 0, seed)
        counts = {}
        for index, model in enumerate(attributes["methods"]):
            # Probabilities in half precision do not add up to 1.
            p = likely[index].compute().astype(np.float32)
            evaluation = evaluate(
                right, found[index], p / p.sum(axis=1, keepdims=True), model=model, seed=seed, split=split,
                classes=classes, rng=np.random.default_rng(bootstrap), options=options, originals=originals,
            )  # fmt: skip
            rows.append(evaluation.overall)
            slices.append(evaluation.slices.assign(slice=originals))
            counts[model] = evaluation.counts
        for model, own in counts.items():
            for base in attributes["networks"]:
                if base != model:
                    gain = compare(
                        own, counts[base], classes=classes, rng=np.random.default_rng(bootstrap), options=options,
                        originals=originals,
                    )  # fmt: skip
                    gains.append(
                        gain[gain["figure"].isin(["miu", "fiu"])].assign(
                            model=model, reference=base, seed=seed, split=split
                        )
                    )
    table = pd.concat(rows, ignore_index=True)
    write_csv(out, table)
    write_csv(per_slice, pd.concat(slices, ignore_index=True))
    # One network alone has nothing to be compared with.
    write_csv(differences, pd.concat(gains, ignore_index=True) if gains else pd.DataFrame(columns=_DIFFERENCES))
    means = table.groupby(["split", "model"], sort=False)[["miu", "fiu"]].mean().reset_index().to_dict("records")
    for row in means:
        log.info("%s, %s: mIoU %.4f, frequency-weighted IoU %.4f", row["split"], row["model"], row["miu"], row["fiu"])
    missing = missing_in_table(table, classes)
    for text in missing:
        log.warning("%s", text)
    named = {"missing_classes": "; ".join(missing)} if missing else {}
    return Metrics(
        named
        | {f"{figure}_{row['model']}_{row['split']}": float(row[figure]) for row in means for figure in ("miu", "fiu")}
    )
