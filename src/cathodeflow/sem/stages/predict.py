"""Stage: classify images without labels."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import pandas as pd

from cathodeflow.errors import InputError
from cathodeflow.io.digests import content_digest, file_digest
from cathodeflow.io.image_lists import images_below
from cathodeflow.io.large_images import LargeImage, exceeds_memory
from cathodeflow.io.micrographs import (
    embedded_settings,
    instrument_settings,
    list_micrographs,
    parsed_sidecar,
)
from cathodeflow.io.onnx_graphs import read_graph
from cathodeflow.io.partial_rows import PartialRows
from cathodeflow.io.tables import write_csv
from cathodeflow.parallel import graphics_card
from cathodeflow.progress import progress
from cathodeflow.sem.image_predictions import TILE_COLUMNS, Micrograph, PredictedImage, predict_images
from cathodeflow.sem.listed_images import read_listed
from cathodeflow.sem.onnx_network import OnnxNetwork
from cathodeflow.sem.options import Predict
from cathodeflow.stage import Metrics, OutputFile, Source, stage

if TYPE_CHECKING:
    from cathodeflow.sem.model import SemNetwork

log = logging.getLogger("cathodeflow.sem")


@stage("sem.predict")
def predict(images: Source, *, out: OutputFile, tiles: OutputFile | None = None, options: Predict) -> Metrics:
    """Classify IMAGES (file, folder, glob pattern or table) with a trained network, given as --model.

    An interrupted prediction of many images continues where it was: finished rows are kept in the file OUT with the
    suffix .partial until the end.

    Parameters
    ----------
    images : path
        Images to classify.
    out : path
        CSV table to write: one row per image, the highest out-of-distribution score first.
    tiles : path
        CSV table of the predictions of the tiles of every image to write, such as those of a stitched map.

    Raises
    ------
    InputError
        No model or no usable image is given; or, unless `on_bad_file` is `skip`, a line for every unusable image.
    """
    if options.model is None:
        raise InputError("--model", "nothing", "the model file of a network")
    # Before the network is loaded, which takes longer.
    refused: list[InputError] = []
    paths = list_micrographs(images, refused)
    names = {error.where: error for error in refused}
    if os.path.isdir(images) and (deeper := images_below(images) - len(paths) - len(names)) > 0:
        log.warning("%d images in subfolders of %s are not classified", deeper, images)
    network, metadata, device = _load(options)

    def read(path: str) -> Micrograph:
        if path in names:
            raise names[path]
        number, mask = options.page, options.mask
        if exceeds_memory(path, number):
            if mask:
                raise InputError(path, "a map that is read in parts, with a mask", "no --mask, or a smaller image")
            image = LargeImage(path, number)
            return image, embedded_settings(path, number) | parsed_sidecar(path, image.shape)
        return read_listed(path, number, mask), instrument_settings(path, number)

    wanted = [*paths, *names]
    partial = PartialRows(f"{out}.partial", _key(options))
    known = {name: PredictedImage(*partial.rows[name]) for name in wanted if name in partial.rows}
    of_tiles = [row for result in known.values() for row in result.tiles]
    if known:
        log.info("%d of %d images were classified before the interruption", len(known), len(wanted))

    def keep(name: str, result: PredictedImage) -> None:
        partial.add(name, [result.row, result.tiles])
        of_tiles.extend(result.tiles)

    keep_partial = True
    try:
        table = predict_images(
            network, metadata, progress(wanted, "classifying", total=len(wanted)), read, options,
            processor=device, known=known, on_image=keep,
        )  # fmt: skip
        keep_partial = False
    except InputError:
        keep_partial = False
        raise
    finally:
        partial.close(keep=keep_partial)
    used = table[table["problem"].isna()]
    for problem in table["problem"].dropna():
        log.warning("left out: %s", problem)
    if used.empty:
        found = f"{len(table)} images, none of which can be used, such as {table['problem'][0]}"
        raise InputError(images, found, "at least one image that can be classified")
    write_csv(out, table)
    if tiles:
        write_csv(tiles, pd.DataFrame(of_tiles, columns=list(TILE_COLUMNS)).sort_values(["image", "row", "col"]))
    outside = int(used["foreign"].astype(bool).sum())
    withheld = int(used["withheld"].notna().sum())
    log.info(
        "%d images classified, %d predictions withheld, %d out of distribution, %d unusable (column `problem`)",
        len(used), withheld, outside, len(table) - len(used),
    )  # fmt: skip
    return Metrics(
        {
            "images": len(used),
            "images_left_out": len(table) - len(used),
            "foreign": outside,
            "withheld": withheld,
            "mean_confidence": float(used["confidence"].mean()),
            "mean_entropy": float(used["entropy"].mean()),
        }
    )


def _load(options: Predict) -> tuple[SemNetwork | OnnxNetwork, dict[str, Any], str]:
    """Load the network for onnxruntime on CPUs, where it is faster and starts sooner, else for torch."""
    assert options.model is not None
    on_gpu = options.device == "cuda" or (options.device != "cpu" and graphics_card())
    graph = read_graph(options.model)
    if graph is not None and (not on_gpu or options.model.endswith(".onnx")):
        network = OnnxNetwork(graph, options.model)
        return network, network.metadata, "cpu"
    # Slow to import.
    import torch

    from cathodeflow.learning import resolve_device
    from cathodeflow.sem.model import load_network
    from cathodeflow.sem.onnx_export import onnx_graph

    device = resolve_device(options.device or "auto").type
    model, metadata = load_network(options.model)
    if device == "cpu":
        # Images are predicted side by side: threads inside a layer wait for each other.
        torch.set_num_threads(1)
        try:
            own = OnnxNetwork(onnx_graph(model, metadata), options.model)
            return own, own.metadata, device
        except InputError as error:
            log.warning("the network is run by torch: %s", error)
    return model, metadata, device


def _key(options: Predict) -> str:
    """Compute a digest of what the prediction of an image depends on beside the image."""
    given = options.model_dump(mode="json", exclude={"threads", "on_bad_file", "model"})
    assert options.model is not None
    return content_digest({"options": given, "model": file_digest(options.model)})
