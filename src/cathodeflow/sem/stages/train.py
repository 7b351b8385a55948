"""Stage: train a network."""

import logging
from typing import Any

from cathodeflow.errors import InputError
from cathodeflow.io.crops import crops_geometry, read_crops
from cathodeflow.io.models import discard_checkpoint
from cathodeflow.learning import keep_memory
from cathodeflow.sem.model import SemNetwork, save_network
from cathodeflow.sem.network_options import Train
from cathodeflow.sem.onnx_export import onnx_graph
from cathodeflow.sem.options import VERSION
from cathodeflow.sem.training import train_network
from cathodeflow.stage import InputStore, Metrics, OutputFile, stage
from cathodeflow.tracking import live_run

log = logging.getLogger("cathodeflow.sem")


@stage("sem.train")
def train(
    crops: InputStore,
    *,
    out: OutputFile,
    sample: str = VERSION,
    checkpoint: OutputFile | None = None,
    options: Train,
) -> Metrics:
    """Train a network on CROPS, a Zarr store with its table beside it.

    Parameters
    ----------
    crops : path
        Store that `crops` wrote.
    out : path
        Model file to write.
    sample : str
        Name of the network.
    checkpoint : path
        File for resuming an interrupted training; removed at the end.

    Raises
    ------
    InputError
        A class has no crops for training or validation, or there is no such backbone, weights file or device.
    """
    keep_memory()
    array, table = read_crops(crops)
    with live_run(f"sem.train {sample}") as log_epoch:
        trained = train_network(
            array, table, options, classes=sorted(set(table["label"])), checkpoint=checkpoint, on_epoch=log_epoch
        )
    metadata = {**trained.metadata, **crops_geometry(crops), "options": options.model_dump(mode="json")}
    save_network(out, trained.model, metadata, graph=_graph(trained.model, metadata))
    if checkpoint:
        discard_checkpoint(checkpoint)
    training = trained.training
    log.info(
        "best epoch %d, validation macro-F1 %.3f; data loading took %.1f %% of the training time",
        training.best_epoch, trained.metrics["macro_f1"], 100 * trained.waiting,
    )  # fmt: skip
    return Metrics({**trained.metrics, "best_epoch": training.best_epoch}, history=training.history)


def _graph(model: SemNetwork, metadata: dict[str, Any]) -> bytes | None:
    """Make the graph by which the network is used on CPUs; without one, torch runs the network there too."""
    try:
        return onnx_graph(model, {"classes": model.classes, **metadata})
    except InputError as error:
        log.warning("the network cannot be run by onnxruntime: %s", error)
        return None
