"""Command that predicts images without labels."""

import logging
import os
from typing import Any

import click

from cathodeflow.old_commands import progress, stage_command
from cathodeflow.old_flags import compute_device, record_flag
from cathodeflow.sem.cli.shared import group, sample_flag
from cathodeflow.sem.options import Predict

log = logging.getLogger("cathodeflow.sem")


@stage_command(group, Predict)
@click.argument("images")
@sample_flag("images")
@click.option("--out", required=True, metavar="FILE", help="CSV to write, the strangest image first.")
@record_flag(required=False)
@click.option("--figure", metavar="FILE", help="Image of the predictions.")
def predict(images: str, sample: str, out: str, record: str | None, figure: str | None, options: Predict) -> None:
    """Predict IMAGES: a folder, a pattern, a table or a file."""
    import torch

    from cathodeflow.errors import InputError
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.image_lists import images_below
    from cathodeflow.io.micrographs import list_micrographs, pixel_size, read_micrograph
    from cathodeflow.io.tables import write_csv
    from cathodeflow.record import write_record
    from cathodeflow.sem.model import load_network
    from cathodeflow.sem.plots import prediction_figure
    from cathodeflow.sem.predict import predict_images

    if options.model is None:
        raise InputError("--model", "nothing", "the model file of a network")
    torch.set_num_threads(options.threads)
    network, metadata = load_network(options.model)

    def read(path: str) -> tuple[Any, float | None]:
        return read_micrograph(path), pixel_size(path) if metadata["pixel_nm"] else None

    paths = list_micrographs(images)
    if os.path.isdir(images) and (deeper := images_below(images) - len(paths)) > 0:
        log.warning("%d images in subfolders of %s are not predicted", deeper, images)
    table = predict_images(
        network,
        metadata,
        progress(paths, "predicting", total=len(paths)),
        read,
        device=compute_device(options.device),
        **options.model_dump(include={"overlap", "foreign", "bar_rows", "on_bad_file"}),
    )
    used = table[table["problem"].isna()]
    for problem in table["problem"].dropna():
        log.warning("left out: %s", problem)
    write_csv(out, table)
    if figure:
        save_figure(figure, prediction_figure(table, network.classes))
    foreign = int(used["foreign"].astype(bool).sum())
    if record:
        metrics = {
            "images": len(used),
            "images_left_out": len(table) - len(used),
            "foreign": foreign,
            "mean_confidence": float(used["confidence"].mean()),
            "mean_entropy": float(used["entropy"].mean()),
        }
        figures = [figure] if figure else []
        write_record(record, stage="sem.predict", sample=sample, options=options, metrics=metrics, figures=figures)
    log.info("%d images, %d of them foreign, %d left out", len(used), foreign, len(table) - len(used))
