"""Stage: classify images without labels."""

import logging
import os

import torch

from cathodeflow.errors import InputError
from cathodeflow.io.image_lists import images_below
from cathodeflow.io.micrographs import instrument_settings, list_micrographs, read_micrograph
from cathodeflow.io.tables import write_csv
from cathodeflow.progress import progress
from cathodeflow.sem.image_predictions import Micrograph, predict_images
from cathodeflow.sem.model import load_network
from cathodeflow.sem.options import Predict
from cathodeflow.stage import Metrics, OutputFile, Source, stage

log = logging.getLogger("cathodeflow.sem")


@stage("sem.predict")
def predict(images: Source, *, out: OutputFile, options: Predict) -> Metrics:
    """Classify IMAGES (file, folder, glob pattern or table) with a trained network, given as --model.

    Parameters
    ----------
    images : path
        Images to classify.
    out : path
        CSV table to write: one row per image, the highest out-of-distribution score first.

    Raises
    ------
    InputError
        No model or no usable image is given; or, unless `on_bad_file` is `skip`, a line for every unusable image.
    """
    if options.model is None:
        raise InputError("--model", "nothing", "the model file of a network")
    torch.set_num_threads(options.threads)
    network, metadata = load_network(options.model)

    refused: list[InputError] = []
    paths = list_micrographs(images, refused)
    names = {error.where: error for error in refused}

    def read(path: str) -> Micrograph:
        if path in names:
            raise names[path]
        return read_micrograph(path), instrument_settings(path)

    if os.path.isdir(images) and (deeper := images_below(images) - len(paths) - len(names)) > 0:
        log.warning("%d images in subfolders of %s are not classified", deeper, images)
    table = predict_images(
        network, metadata, progress([*paths, *names], "classifying", total=len(paths) + len(names)), read, options
    )
    used = table[table["problem"].isna()]
    for problem in table["problem"].dropna():
        log.warning("left out: %s", problem)
    if used.empty:
        found = f"{len(table)} images, none of which can be used, such as {table['problem'][0]}"
        raise InputError(images, found, "at least one image that can be classified")
    write_csv(out, table)
    outside = int(used["foreign"].astype(bool).sum())
    log.info(
        "%d images classified, %d out of distribution, %d unusable (column `problem`)",
        len(used), outside, len(table) - len(used),
    )  # fmt: skip
    return Metrics(
        {
            "images": len(used),
            "images_left_out": len(table) - len(used),
            "foreign": outside,
            "mean_confidence": float(used["confidence"].mean()),
            "mean_entropy": float(used["entropy"].mean()),
        }
    )
