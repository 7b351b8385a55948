"""Commands that train the network and locate peaks with it."""

import logging

import click

from cathodeflow.bragg.cli.shared import by_frame, group, median, outputs, read_candidates, require_inside
from cathodeflow.bragg.options import Locate, Train
from cathodeflow.commands import progress, stage_command, thread_count
from cathodeflow.flags import live_flags

log = logging.getLogger("cathodeflow.bragg")
LOSS_UNITS = {"mse": "squared patch sizes", "huber": "patch sizes"}


@stage_command(group, Train)
@click.argument("patches_files", nargs=-1, required=True)
@click.option("--sample", default="model", show_default=True, help="Name of the network.")
@click.option("--out", required=True, metavar="FILE", help="Model file to write.")
@click.option("--record", required=True, metavar="FILE", help="JSON file for options, figures and the training curves.")
@click.option("--figure", required=True, metavar="FILE", help="Image of the training curves.")
@click.option("--checkpoint", metavar="FILE", help="State to resume from; removed at the end.")
@live_flags
def train(
    patches_files: tuple[str, ...],
    sample: str,
    out: str,
    record: str,
    figure: str,
    checkpoint: str | None,
    live: str | None,
    experiment: str,
    options: Train,
) -> None:
    """Train BraggNN on the patches of all PATCHES_FILES."""
    import torch

    from cathodeflow.bragg.train import join_patches, split_blocks, train_braggnn
    from cathodeflow.errors import InputError
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.models import discard_checkpoint, load_model, save_model
    from cathodeflow.io.patches import read_patches
    from cathodeflow.plotting import training_curves
    from cathodeflow.record import write_record
    from cathodeflow.tracking import live_run

    torch.set_num_threads(options.threads)
    tables, settings = zip(*(read_patches(path) for path in patches_files), strict=True)
    for path, cut_with in zip(patches_files, settings, strict=True):
        if cut_with != settings[0]:
            raise InputError(path, f"patches cut with {cut_with}", f"{settings[0]}, as {patches_files[0]}")
    joined, scan = join_patches(tables)
    log.info("%d patches of %d scans", len(scan), len(tables))
    validation = split_blocks(joined.fidx, scan, validation=options.validation, block=options.block)
    if len(scan) == 0 or validation.all() or not validation.any():
        found = f"{len(scan)} patches, {int(validation.sum())} of them to validate on"
        raise InputError(", ".join(patches_files), found, "isolated peaks on at least two frames of a scan")
    with live_run(live, experiment=experiment, name=f"bragg.train {sample}") as log_epoch:
        trained = train_braggnn(
            joined,
            validation,
            patch_size=int(settings[0]["patch_size"]),
            dense=options.dense,
            max_shift=options.max_shift,
            symmetries=options.symmetries,
            overlap=options.overlap,
            loss=options.loss,
            epochs=options.epochs,
            patience=options.patience,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            warm_up=options.warm_up,
            final_rate=options.final_rate,
            seed=options.seed or 0,
            initial=load_model(options.initial)[0] if options.initial else None,
            checkpoint=checkpoint,
            precision=options.precision,
            accelerator=options.device or "auto",
            on_epoch=log_epoch,
        )
    curves = training_curves(trained.training.history, unit=LOSS_UNITS[options.loss], kept=trained.training.best_epoch)
    save_figure(figure, curves)
    metadata = {
        "network": "BraggNN",
        "dense": trained.model.dense,
        **settings[0],
        "options": options.model_dump(mode="json"),
    }
    save_model(out, trained.model.state_dict(), metadata)
    metrics = {**trained.metrics, "best_epoch": trained.training.best_epoch, "patches": len(scan)}
    write_record(
        record,
        stage="bragg.train",
        sample=sample,
        options=options,
        metrics=metrics,
        history=trained.training.history,
        figures=[figure],
    )
    if checkpoint:
        discard_checkpoint(checkpoint)
    log.info("best epoch %d, median %.3f px from the fit", metrics["best_epoch"], trained.metrics["distance_p50"])


@stage_command(group, Locate)
@click.argument("frames_file")
@click.argument("candidates_file")
@click.argument("model")
@click.option("--table", required=True, metavar="FILE", help="Parquet table to write.")
@outputs
def locate(
    frames_file: str, candidates_file: str, model: str, table: str, sample: str, out: str, record: str, options: Locate
) -> None:
    """Locate the central peaks of CANDIDATES_FILE on the frames of FRAMES_FILE with the network MODEL."""
    import numpy as np
    import torch

    from cathodeflow.bragg.locate import build_locator, locate_frames
    from cathodeflow.bragg.model import from_weights
    from cathodeflow.bragg.pixels import to_detector
    from cathodeflow.io.frames_file import read_frames_file
    from cathodeflow.io.models import load_model
    from cathodeflow.io.peaks import write_peaks
    from cathodeflow.io.tables import write_table
    from cathodeflow.record import write_record

    # Sums over several threads differ in their last bits: results must not depend on the cores that are free.
    torch.set_num_threads(1)
    weights, metadata = load_model(model)
    network = from_weights(weights, patch_size=options.patch_size, where=model)
    min_value = float(metadata.get("min_value", 0.0) if options.min_value is None else options.min_value)
    locator = build_locator(
        network,
        engine=options.engine,
        device=options.device or "auto",
        batch_size=options.batch_size,
        threads=thread_count(),
        tta=options.tta,
        uncertainty=options.uncertainty,
        gain=options.gain,
    )
    found = read_candidates(candidates_file)
    found = found[found["central"].to_numpy(bool)]
    rows, cols = found["row"].to_numpy(), found["col"].to_numpy()
    with read_frames_file(frames_file) as file:
        require_inside(rows, cols, file.frames.shape[1:], candidates_file)
        binning = file.binning
        wanted = by_frame(found, len(file.frames), candidates_file)
        frames = ((file.frames[number], rows[part], cols[part]) for number, part in progress(wanted, "locating"))
        located = locate_frames(frames, locator, patch_size=options.patch_size, min_value=min_value)
    columns = {"candidate": found.index.to_numpy(np.uint32), "persistence": found["persistence"].to_numpy()}
    columns |= {"detector_row": to_detector(located.row, binning), "detector_col": to_detector(located.col, binning)}
    if located.row_std is not None and located.col_std is not None:
        columns |= {"row_std": located.row_std, "col_std": located.col_std}
    write_table(table, {"frame": found["frame"].to_numpy(), "row": located.row, "col": located.col, **columns})
    away = np.where(found["npeaks"] > 1, -1.0, np.hypot(located.row - rows, located.col - cols))
    attributes = {"model": model, "binning": binning}
    write_peaks(
        out, found["frame"], located.row, located.col, away, found["npeaks"], columns=columns, attributes=attributes
    )
    distance = np.hypot(located.row - rows, located.col - cols)
    metrics = {"peaks": len(found), "median_from_pixel": median(distance), "min_value": min_value}
    write_record(record, stage="bragg.locate", sample=sample, options=options, metrics=metrics)
    log.info("%d peaks located", len(found))
