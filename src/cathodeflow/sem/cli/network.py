"""Commands that train a network and test it."""

import logging
from pathlib import Path

import click

from cathodeflow.old_commands import stage_command
from cathodeflow.old_flags import compute_device, live_flags, record_flag
from cathodeflow.sem.cli.shared import group, sample_flag
from cathodeflow.sem.options import VERSION, Test, Train

log = logging.getLogger("cathodeflow.sem")


@stage_command(group, Train)
@click.argument("crops")
@sample_flag(VERSION)
@click.option("--out", required=True, metavar="FILE", help="Model file to write.")
@record_flag()
@click.option("--figure", required=True, metavar="FILE", help="Image of the training curves.")
@click.option("--checkpoint", metavar="FILE", help="State to resume from; removed at the end.")
@live_flags
def train(
    crops: str,
    sample: str,
    out: str,
    record: str,
    figure: str,
    checkpoint: str | None,
    live: str | None,
    experiment: str,
    options: Train,
) -> None:
    """Train a network on CROPS, a Zarr store with its table beside it."""
    from cathodeflow.io.crops import crops_geometry, read_crops
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.models import discard_checkpoint
    from cathodeflow.learning import keep_memory
    from cathodeflow.plotting import training_curves
    from cathodeflow.record import write_record
    from cathodeflow.sem.model import save_network
    from cathodeflow.sem.train import train_network
    from cathodeflow.tracking import live_run

    keep_memory()
    array, table = read_crops(crops)
    keywords = options.model_dump(exclude={"seed", "device"})
    keywords |= {"seed": options.seed or 0, "device": options.device or "auto"}
    with live_run(f"sem.train {sample}") as log_epoch:
        trained = train_network(
            array, table, classes=sorted(set(table["label"])), checkpoint=checkpoint, on_epoch=log_epoch, **keywords
        )
    save_figure(figure, training_curves(trained.training.history, unit="nat", kept=trained.training.best_epoch))
    metadata = {**trained.metadata, **crops_geometry(crops), "options": options.model_dump(mode="json")}
    save_network(out, trained.model, metadata)
    write_record(
        record,
        stage="sem.train",
        sample=sample,
        options=options,
        metrics={**trained.metrics, "best_epoch": trained.training.best_epoch},
        history=trained.training.history,
        figures=[figure],
    )
    if checkpoint:
        discard_checkpoint(checkpoint)
    log.info("%.1f %% of the time was spent waiting for crops", 100 * trained.waiting)


@stage_command(group, Test)
@click.argument("model")
@click.argument("crops")
@sample_flag(VERSION)
@click.option("--out", required=True, metavar="FILE", help="CSV of the images' predictions to write.")
@click.option("--crops-table", required=True, metavar="FILE", help="CSV of the crops' predictions to write.")
@record_flag()
@click.option("--figures", required=True, metavar="FOLDER", help="Folder of the figures.")
def test(
    model: str, crops: str, sample: str, out: str, crops_table: str, record: str, figures: str, options: Test
) -> None:
    """Test the network MODEL on the test crops of CROPS."""
    import numpy as np
    import torch

    from cathodeflow.io.crops import read_crops
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.tables import write_csv
    from cathodeflow.record import write_record
    from cathodeflow.sem.evaluate import bootstrap, crop_predictions, network_outputs, original_predictions
    from cathodeflow.sem.model import load_network
    from cathodeflow.sem.plots import calibration_figure, class_figure, confusion_figure

    torch.set_num_threads(options.threads)
    network, metadata = load_network(model)
    array, table = read_crops(crops)
    rows = np.flatnonzero(table["split"] == "test")
    device = compute_device(options.device)
    outputs = network_outputs(network, array, rows, batch_size=options.batch_size, device=device)
    classes, tested = network.classes, table.iloc[rows]
    raw = crop_predictions(outputs.logits, tested, classes)
    by_crop = crop_predictions(outputs.logits, tested, classes, temperature=metadata["temperature"])
    by_image = original_predictions(by_crop, classes, temperature=metadata["original_temperature"])
    write_csv(out, by_image)
    write_csv(crops_table, by_crop)
    figure_of = {}
    settings = options.model_dump(include={"bins", "bootstrap_samples", "confidence"})
    metrics: dict[str, float | None] = {"images": len(by_image), "crops": len(by_crop)}
    for kind, predicted in (("image", by_image), ("crop", by_crop)):
        figure_of[kind] = bootstrap(predicted, classes, rng=np.random.default_rng(options.seed or 0), **settings)
        for row in figure_of[kind].to_dict("records"):
            name = f"{kind}_{row['figure']}" + (f"_{row['class']}" if isinstance(row["class"], str) else "")
            metrics |= {name: row["value"], f"{name}_low": row["low"], f"{name}_high": row["high"]}
    metrics |= {"temperature": metadata["temperature"], "original_temperature": metadata["original_temperature"]}
    before_after = {"crops": (raw, by_crop), "images": (original_predictions(raw, classes), by_image)}
    drawn = {
        "confusion": confusion_figure(by_image, classes),
        "calibration": calibration_figure(before_after, classes, bins=options.bins),
        "classes": class_figure(figure_of["image"], figure_of["crop"]),
    }
    files = {name: (Path(figures) / f"{name}.png").as_posix() for name in drawn}
    for name, figure in drawn.items():
        save_figure(files[name], figure)
    write_record(
        record, stage="sem.test", sample=sample, options=options, metrics=metrics, figures=list(files.values())
    )
    log.info(
        "right: %.1f %% of %d images, %.1f %% of %d crops",
        100 * by_image["correct"].mean(), len(by_image), 100 * by_crop["correct"].mean(), len(by_crop),
    )  # fmt: skip
