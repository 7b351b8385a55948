"""Stage: train BraggNN."""

import logging
from collections.abc import Sequence

import torch

from cathodeflow.bragg.network_options import Train
from cathodeflow.bragg.training import join_patches, split_blocks, train_braggnn
from cathodeflow.errors import InputError
from cathodeflow.io.models import discard_checkpoint, load_model, save_model
from cathodeflow.io.patches import read_patches
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage
from cathodeflow.tracking import live_run

log = logging.getLogger("cathodeflow.bragg")


@stage("bragg.train")
def train(
    patches: Sequence[InputFile],
    *,
    out: OutputFile,
    sample: str = "model",
    checkpoint: OutputFile | None = None,
    options: Train,
) -> Metrics:
    """Train BraggNN on PATCHES.

    Parameters
    ----------
    patches : sequence of path
        Files of training patches, one per scan.
    out : path
        Model file to write.
    sample : str
        Name of the model in the record.
    checkpoint : path
        Checkpoint file, from which an interrupted training is resumed; removed at the end.

    Raises
    ------
    InputError
        The patches were cut with different options, or there are no patches for training or for validation.
    """
    torch.set_num_threads(options.threads)
    tables, settings = zip(*(read_patches(path) for path in patches), strict=True)
    for path, cut_with in zip(patches, settings, strict=True):
        if cut_with != settings[0]:
            raise InputError(path, f"patches cut with {cut_with}", f"{settings[0]}, as {patches[0]}")
    joined, scan = join_patches(tables)
    log.info("%d patches from %d scans", len(scan), len(tables))
    validation = split_blocks(joined.fidx, scan, validation=options.validation, block=options.block)
    if len(scan) == 0 or validation.all() or not validation.any():
        found = f"{len(scan)} patches, {int(validation.sum())} of them for validation"
        raise InputError(", ".join(patches), found, "isolated peaks on at least two frames of a scan")
    with live_run(f"bragg.train {sample}") as log_epoch:
        trained = train_braggnn(
            joined,
            validation,
            options,
            patch_size=int(settings[0]["patch_size"]),
            pretrained=load_model(options.initial)[0] if options.initial else None,
            checkpoint=checkpoint,
            on_epoch=log_epoch,
        )
    metadata = {
        "network": "BraggNN",
        "dense": trained.model.hidden_units,
        **settings[0],
        "errors": trained.errors,
        "options": options.model_dump(mode="json"),
    }
    save_model(out, trained.model.state_dict(), metadata)
    if checkpoint:
        discard_checkpoint(checkpoint)
    best = trained.training.best_epoch
    log.info(
        "best epoch: %d, with a median distance of %.3f px to the fit on the validation set",
        best,
        trained.metrics["distance_p50"],
    )
    if trained.errors is None:
        log.warning("standard errors are not calibrated: too few validation patches with fitted errors")
    metrics = {**trained.metrics, "best_epoch": best, "patches": len(scan), "calibrated": trained.errors is not None}
    return Metrics(metrics, history=trained.training.history)
