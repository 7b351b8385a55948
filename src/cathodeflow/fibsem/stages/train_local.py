"""Stage: train the local network."""

import logging

import numpy as np
import torch
from torch import Tensor

from cathodeflow.fibsem.bundle import load_bundle, save_bundle
from cathodeflow.fibsem.calibration import calibrate_output
from cathodeflow.fibsem.curriculum import sampled_entropy
from cathodeflow.fibsem.global_training import class_weights
from cathodeflow.fibsem.idk import idk_probability
from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.local_prediction import predict_pixels
from cathodeflow.fibsem.local_training import LocalPixels, fit_local, window_side_of
from cathodeflow.fibsem.neighbours import read_matched
from cathodeflow.fibsem.network_options import TrainLocal
from cathodeflow.fibsem.phases import entropy
from cathodeflow.fibsem.split import TRAIN, VALIDATION
from cathodeflow.fibsem.windows import pad_slices
from cathodeflow.io.models import discard_checkpoint
from cathodeflow.io.tables import read_table, write_table
from cathodeflow.io.volumes import read_volume
from cathodeflow.learning import resolve_device
from cathodeflow.stage import InputFile, InputStore, Metrics, OutputFile, stage
from cathodeflow.tracking import live_run

log = logging.getLogger("cathodeflow.fibsem")


@stage("fibsem.train_local")
def train_local(
    network: InputFile,
    idk: InputFile,
    logits: InputStore,
    table: InputFile,
    images: InputStore,
    labels: InputStore,
    *,
    out: OutputFile,
    entropies: OutputFile,
    repeat: int = 0,
    sample: str = "LCGAR",
    checkpoint: OutputFile | None = None,
    options: TrainLocal,
) -> Metrics:
    """Train LCGAR, or another local network, at the IDK pixels of the global model NETWORK.

    Parameters
    ----------
    network : path
        Model file of the global network.
    idk : path
        Model file of the IDK classifier.
    logits : path
        Zarr store of the mean logits that `predict-global` wrote.
    table : path
        Table of their images that `predict-global` wrote.
    images : path
        Zarr store of all images.
    labels : path
        Zarr store of their labels.
    out : path
        Model file to write.
    entropies : path
        Table to write (Parquet): quantiles of the entropy of the training pixels, for the figure of the curriculum.
    repeat : int
        Number of the run, which is added to the seed.
    sample : str
        Name of the network in the log.
    checkpoint : path
        File for resuming an interrupted training; removed at the end.

    Raises
    ------
    InputError
        There are no IDK pixels to train or validate on.
    """
    torch.set_num_threads(options.threads)
    _, metadata = load_bundle(network)
    classifiers, idk_metadata = load_bundle(idk)
    listed = read_table(table, ["image", "role", "neighbours", "gain", "offset"])
    rows = np.flatnonzero(listed["role"].isin([TRAIN, VALIDATION]))
    used = listed.iloc[rows]
    volume, position = read_matched(read_volume(images), used)
    classes = read_volume(labels)[used["image"].to_numpy()].compute()
    found = torch.from_numpy(read_volume(logits)[rows].compute().astype(np.float32))
    uncertainty = entropy(found)
    unknown = idk_probability(classifiers["idk"], found, uncertainty) >= idk_metadata["threshold"]
    training = (used["role"] == TRAIN).to_numpy(copy=True)
    low, high = (float(value) for value in np.quantile(volume[: len(used)][training], (0.001, 0.999)))
    padded = pad_slices(
        torch.from_numpy(volume), found, unknown, side=window_side_of(options), low=low, high=high,
        device=resolve_device(options.device or "auto"), near=position,
    )  # fmt: skip

    def pixels(chosen: Tensor) -> LocalPixels:
        among = unknown if options.pixels == "idk" else torch.ones_like(unknown)
        indices = (among & labelled & chosen[:, None, None]).flatten().nonzero()[:, 0]
        own = torch.from_numpy(classes.reshape(-1).astype(np.int64))[indices]
        return LocalPixels(padded, indices, own, uncertainty.flatten()[indices])

    labelled = torch.from_numpy(classes != UNLABELLED)
    chosen = torch.from_numpy(training)
    train, validation = pixels(chosen), pixels(~chosen)
    weight = class_weights(train.labels, metadata["classes"]) if options.class_weights == "balanced" else None
    seeded = options.model_copy(update={"seed": (options.seed or 0) + repeat})
    with live_run(f"fibsem.train_local {sample}") as log_epoch:
        trained = fit_local(
            train, validation, seeded, low=low, high=high, weight=weight, checkpoint=checkpoint, on_epoch=log_epoch,
            label=sample,
        )  # fmt: skip
    if options.calibrate:
        predicted = predict_pixels(trained.model, validation.padded, validation.pixels, precision="auto")
        calibrate_output(trained.model.output, predicted, validation.labels)
    save_bundle(out, {"local": trained.model.cpu()}, {"classes": metadata["classes"]})
    write_table(entropies, {"entropy": sampled_entropy(train.entropy.numpy())})
    if checkpoint:
        discard_checkpoint(checkpoint)
    result = trained.training
    metrics: dict[str, float] = {"pixels": len(train.pixels), "best_epoch": result.best_epoch}
    metrics |= {name: result.best[name] for name in ("validation_loss", "validation_accuracy")}
    return Metrics(metrics, history=result.history)
