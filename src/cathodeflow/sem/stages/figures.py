"""Stage: draw the figures of a network, or of the predictions of a data set."""

from pathlib import Path

from matplotlib.figure import Figure

from cathodeflow.io.activation_maps import read_activation_maps
from cathodeflow.io.figures import save_figure
from cathodeflow.io.tables import read_csv, read_json
from cathodeflow.plotting import training_curves
from cathodeflow.sem import plots
from cathodeflow.sem.gradcam_plots import contact_sheet, no_image_figure, whole_figure
from cathodeflow.sem.options import Figures
from cathodeflow.sem.predictions import classes_of
from cathodeflow.stage import InputFile, Metrics, OutputFolder, stage


@stage("sem.figures")
def figures(
    *,
    out: OutputFolder,
    training: InputFile | None = None,
    images: InputFile | None = None,
    metrics_table: InputFile | None = None,
    calibration: InputFile | None = None,
    audited: InputFile | None = None,
    maps: InputFile | None = None,
    mapped_crops: InputFile | None = None,
    mapped_images: InputFile | None = None,
    predictions: InputFile | None = None,
    options: Figures,
) -> Metrics:
    """Draw the figures that the given files allow.

    With `training`: train.png. With `images`: confusion.png. With `metrics_table`: classes.png. With `calibration`:
    calibration.png. With `audited`: audit.png. With `maps` and the two tables of what they show: explain.png and
    map_1.png and so on. With `predictions`: a figure named like that table.

    Parameters
    ----------
    out : path
        Folder for the figures.
    training : path
        Record of the training (train.json).
    images : path
        Predictions of the test images that `test` wrote.
    metrics_table : path
        Performance metrics that `test` wrote.
    calibration : path
        Reliability diagrams that `test` wrote.
    audited : path
        Accuracies that `audit` wrote.
    maps : path
        Class activation maps that `explain` wrote.
    mapped_crops : path
        Table of the crops of the maps that `explain` wrote.
    mapped_images : path
        Table of the images of the maps that `explain` wrote.
    predictions : path
        Predictions of images without labels that `predict` wrote.
    """
    drawn: dict[str, Figure] = {}
    if training:
        record = read_json(training)
        drawn["train"] = training_curves(record["history"], unit="nat", kept=record["metrics"]["best_epoch"])
    if images:
        table = read_csv(images)
        drawn["confusion"] = plots.confusion_figure(table, classes_of(table))
    if calibration:
        drawn["calibration"] = plots.calibration_figure(read_csv(calibration))
    if metrics_table:
        merit = read_csv(metrics_table)
        drawn["classes"] = plots.class_figure(merit[merit["kind"] == "image"], merit[merit["kind"] == "crop"])
    if audited:
        drawn["audit"] = plots.audit_figure(read_csv(audited))
    if maps and mapped_crops and mapped_images:
        drawn |= _of_maps(maps, mapped_crops, mapped_images)
    if predictions:
        table = read_csv(predictions)
        drawn[Path(predictions).stem] = plots.prediction_figure(table, classes_of(table))
    files = [f"{out}/{name}.png" for name in drawn]
    for path, figure in zip(files, drawn.values(), strict=True):
        save_figure(path, figure)
    return Metrics({}, figures=files)


def _of_maps(path: str, crops: str, images: str) -> dict[str, Figure]:
    maps, requested = read_activation_maps(path)
    drawn = {"explain": contact_sheet(maps.crops, maps.crop_maps, read_csv(crops))}
    rows = read_csv(images).to_dict("records")
    for number, (image, values, row) in enumerate(zip(maps.images, maps.image_maps, rows, strict=True), start=1):
        pixel_nm = float(row["pixel_nm"]) if row["pixel_nm"] > 0 else None
        drawn[f"map_{number}"] = whole_figure(image, values, row, pixel_nm=pixel_nm)
    # The workflow expects as many files as there are to be maps.
    for number in range(len(rows) + 1, requested + 1):
        drawn[f"map_{number}"] = no_image_figure(f"only {len(rows)} test images")
    return drawn
