"""Stage: train the IDK classifier."""

import logging

import numpy as np
import torch

from cathodeflow.fibsem.bundle import save_bundle
from cathodeflow.fibsem.calibration import calibrate_output
from cathodeflow.fibsem.idk import Pixels, choose_threshold, features, idk_probability, train_pixels
from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.network_options import TrainIdk
from cathodeflow.fibsem.phases import entropy
from cathodeflow.fibsem.split import TRAIN, VALIDATION
from cathodeflow.io.models import discard_checkpoint
from cathodeflow.io.tables import read_table
from cathodeflow.io.volumes import read_volume, read_volume_info
from cathodeflow.stage import InputFile, InputStore, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.fibsem")


@stage("fibsem.train_idk")
def train_idk(
    logits: InputStore,
    table: InputFile,
    labels: InputStore,
    *,
    out: OutputFile,
    repeat: int = 0,
    sample: str = "pixels",
    checkpoint: OutputFile | None = None,
    options: TrainIdk,
) -> Metrics:
    """Train the IDK classifier, which predicts from the mean LOGITS where the global model is wrong.

    Parameters
    ----------
    logits : path
        Zarr store of the mean logits that `predict-global` wrote.
    table : path
        Table of their images that `predict-global` wrote.
    labels : path
        Zarr store of the labels of all images.
    out : path
        Model file to write.
    repeat : int
        Number of the run, which is added to the seed.
    sample : str
        Name of the classifier in the log.
    checkpoint : path
        File for resuming an interrupted training; removed at the end.

    Raises
    ------
    InputError
        The global model is right, or wrong, at all training pixels.
    """
    torch.set_num_threads(options.threads)
    listed = read_table(table, ["image", "role"])
    store, label_volume = read_volume(logits), read_volume(labels)
    inputs, wrong, classes, known = {}, {}, {}, {}
    for role in (TRAIN, VALIDATION):
        rows = np.flatnonzero(listed["role"] == role)
        found = torch.from_numpy(store[rows].compute().astype(np.float32))
        images = listed["image"].to_numpy()[rows]
        right = torch.from_numpy(label_volume[images].compute().astype(np.int64))
        inputs[role] = (found, entropy(found))
        known[role] = (right != UNLABELLED).flatten()
        wrong[role] = (found.argmax(1) != right).flatten()[known[role]]
        classes[role] = right.flatten()[known[role]]
    rows_of = {role: features(*values)[known[role]] for role, values in inputs.items()}
    seeded = options.model_copy(update={"seed": (options.seed or 0) + repeat})
    names = read_volume_info(logits).attributes["classes"]

    def sets(target: dict[str, torch.Tensor]) -> tuple[Pixels, Pixels]:
        return Pixels(rows_of[TRAIN], target[TRAIN]), Pixels(rows_of[VALIDATION], target[VALIDATION])

    train, validation = sets(wrong)
    idk = train_pixels(train, validation, seeded, checkpoint=checkpoint, label=f"{sample}, IDK classifier")
    train, validation = sets(classes)
    control = train_pixels(
        train, validation, seeded, n_outputs=len(names), label=f"{sample}, control on the output of single pixels",
        checkpoint=f"{checkpoint}.control" if checkpoint else None,
    )  # fmt: skip
    # Calibrated like the network of `train_local`, which it is compared with.
    mlp = control.model.eval().requires_grad_(False)
    calibrate_output(mlp.layers[-1], mlp(rows_of[VALIDATION]), classes[VALIDATION])
    probability = idk_probability(idk.model, *inputs[VALIDATION]).flatten()[known[VALIDATION]].numpy()
    threshold = choose_threshold(probability, wrong[VALIDATION].numpy(), options)
    save_bundle(out, {"idk": idk.model, "mlp": mlp}, {"threshold": threshold.value, "classes": names})
    for suffix in ("", ".control"):
        if checkpoint:
            discard_checkpoint(f"{checkpoint}{suffix}")
    metrics = {f"validation_{name}": value for name, value in threshold._asdict().items() if name != "value"}
    metrics |= {"threshold": threshold.value, "best_epoch": idk.training.best_epoch}
    log.info("IDK classifier: %s", ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    return Metrics(metrics, history=idk.training.history)
