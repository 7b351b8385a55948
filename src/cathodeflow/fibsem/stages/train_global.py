"""Stage: train a global network."""

import logging

import numpy as np
import torch

from cathodeflow.fibsem.bundle import save_bundle
from cathodeflow.fibsem.global_training import LabelledSlices, balanced_weights, count_labels, train_network
from cathodeflow.fibsem.neighbours import neighbours_of
from cathodeflow.fibsem.network_options import TrainGlobal
from cathodeflow.fibsem.split import TRAIN, VALIDATION, folds
from cathodeflow.fibsem.stored_slices import StoredSlices
from cathodeflow.fibsem.training_appearance import training_appearance
from cathodeflow.io.models import discard_checkpoint
from cathodeflow.io.tables import read_table
from cathodeflow.io.volumes import read_volume, read_volume_info
from cathodeflow.stage import InputFile, InputStore, Metrics, OutputFile, stage
from cathodeflow.tracking import live_run

log = logging.getLogger("cathodeflow.fibsem")


@stage("fibsem.train_global")
def train_global(
    images: InputStore,
    labels: InputStore,
    pairs: InputFile,
    *,
    split: str,
    out: OutputFile,
    repeat: int = 0,
    cross_fit: bool = False,
    sample: str = "network",
    checkpoint: OutputFile | None = None,
    options: TrainGlobal,
) -> Metrics:
    """Train a global network on IMAGES and LABELS, split as in PAIRS.

    Parameters
    ----------
    images : path
        Zarr store of the images.
    labels : path
        Zarr store of their labels.
    pairs : path
        Table of the images and their roles that `augment` wrote.
    split : str
        Split to train on: `grouped` or `paper`.
    out : path
        Model file to write.
    repeat : int
        Number of the run, which is added to the seed.
    cross_fit : bool
        Also train a network without each fold of the training slices, for out-of-fold predictions; in any case where
        labels are few (`few_labels`).
    sample : str
        Name of the network in the log.
    checkpoint : path
        File for resuming an interrupted training; removed at the end.

    Raises
    ------
    InputError
        There is nothing to train or validate on, or a class is absent from the training images.
    """
    torch.set_num_threads(options.threads)
    table = read_table(pairs, ["slice", "copy", "volume", f"role_{split}"])
    slices, role = table["slice"].to_numpy(), table[f"role_{split}"].to_numpy()
    near = torch.from_numpy(neighbours_of(slices, table["copy"].to_numpy(), options.context))
    volume, label_volume = read_volume(images), read_volume(labels)
    in_memory = volume.nbytes + label_volume.nbytes <= options.memory_gb * 1e9
    log.info("%.2f GB of images are %s", volume.nbytes / 1e9, "in memory" if in_memory else "read from disk")
    stored = [torch.from_numpy(v.compute()) if in_memory else StoredSlices(path)
              for v, path in ((volume, images), (label_volume, labels))]  # fmt: skip
    classes = read_volume_info(labels).attributes["classes"]
    # Copies of a slice add little to validation.
    rows, validation = np.flatnonzero(role == TRAIN), np.flatnonzero((role == VALIDATION) & (table["copy"] == 0))
    # Computed in any case: every class must be present.
    balanced = balanced_weights(count_labels(stored[1], near[rows]), classes)
    weights = balanced if options.class_weights == "balanced" else [1.0] * len(classes)
    seed = (options.seed or 0) + repeat

    def part(chosen: np.ndarray) -> LabelledSlices:
        return LabelledSlices(stored[0], stored[1], near[chosen])

    with live_run(f"fibsem.train_global {sample}") as log_epoch:
        trained = train_network(
            part(rows), part(validation), options.model_copy(update={"seed": seed}), n_classes=len(classes),
            weight=weights, checkpoint=checkpoint, on_epoch=log_epoch, label=sample,
        )  # fmt: skip
    networks = {"network": trained.model}
    fold_of: dict[str, int] = {}
    numbers, inverse = np.unique(slices[rows], return_inverse=True)
    few = options.folds is not None and options.folds <= len(numbers) <= options.few_labels - len(validation)
    if (cross_fit or few) and options.folds is not None:
        fold = folds(numbers, options.folds)[inverse]
        for number in range(options.folds):
            kept = rows[fold != number]
            # The same number of steps as for the network itself: the confidence of a network depends on it.
            longer = len(rows) / len(kept)
            changed = {"epochs": round(options.epochs * longer), "seed": seed + 1000 * (number + 1)}
            if options.patience is not None:
                changed["patience"] = round(options.patience * longer)
            networks[f"fold{number}"] = train_network(
                part(kept), part(validation), options.model_copy(update=changed), n_classes=len(classes),
                weight=weights, checkpoint=f"{checkpoint}.{number}" if checkpoint else None,
                label=f"{sample}, without fold {number + 1} of {options.folds}",
            ).model  # fmt: skip
        fold_of = dict(zip(map(str, rows.tolist()), fold.tolist(), strict=True))
    shown = np.flatnonzero(np.isin(role, (TRAIN, VALIDATION)) & (table["copy"] == 0))
    volumes = [shown[own].tolist() for _, own in table.iloc[shown].reset_index().groupby("volume").indices.items()]
    appearance = training_appearance(
        lambda number: stored[0][torch.tensor(number)].numpy(), lambda number: stored[1][torch.tensor(number)].numpy(),
        volumes, len(classes),
    )  # fmt: skip
    metadata = {
        "appearance": appearance,
        "grey": str(volume.dtype),
        "levelled": read_volume_info(images).attributes["levelled"],
        "classes": classes,
        "class_weights": weights,
        "fractions": [1 / (len(classes) * weight) for weight in balanced],
        "passes": options.passes,
        "flips": options.tta,
        "seed": seed,
        "fold_of": fold_of,
        "predict_training": cross_fit or few,
        "cross_validated": few,
        "options": options.model_dump(mode="json"),
    }
    save_bundle(out, networks, metadata)
    for suffix in ("", *(f".{number}" for number in range(len(networks) - 1))):
        if checkpoint:
            discard_checkpoint(f"{checkpoint}{suffix}")
    best = trained.training
    metrics: dict[str, float] = {"best_epoch": best.best_epoch, "images": len(rows)}
    metrics |= {name: best.best[name] for name in ("validation_loss", "validation_accuracy")}
    return Metrics(metrics, history=best.history)
