"""Stage: draw the figures of a volume, of a run or of a segmentation."""

import dask.array as da
import numpy as np
from matplotlib.figure import Figure

from cathodeflow.fibsem import plots
from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.network_options import TrainLocal
from cathodeflow.fibsem.options import Figures
from cathodeflow.fibsem.rare_classes import missing_classes, missing_in_table
from cathodeflow.fibsem.slice_plots import choose_slices, segmentation_figure
from cathodeflow.io.figures import save_figure
from cathodeflow.io.slices import open_slices
from cathodeflow.io.tables import read_csv, read_json, read_table
from cathodeflow.io.volume_axes import Choice, RawLayout
from cathodeflow.io.volumes import read_volume, read_volume_info
from cathodeflow.io.voxel_sizes import NANOMETRES
from cathodeflow.plotting import training_curves
from cathodeflow.stage import InputFile, InputFolder, InputStore, Metrics, OutputFolder, Source, stage


@stage("fibsem.figures")
def figures(
    *,
    out: OutputFolder,
    comparison: InputFile | None = None,
    run: InputFolder | None = None,
    images: InputStore | None = None,
    labels: InputStore | None = None,
    slices: Source | None = None,
    phases: InputStore | None = None,
    uncertainty: InputStore | None = None,
    options: Figures,
) -> Metrics:
    """Draw the figures that the given files allow.

    With `comparison`: methods.png and fractions.png. With `run`: the training curves of its networks, and the
    curriculum of its local networks; with `images` and `labels` too: slices.png. With `slices`, `phases` and
    `uncertainty`: predict.png.

    Parameters
    ----------
    out : path
        Folder for the figures.
    comparison : path
        CSV table of all methods that `metrics` wrote.
    run : path
        Folder of a run, after `test`.
    images : path
        Zarr store of the images.
    labels : path
        Zarr store of their labels.
    slices : path
        Slices that `predict` segmented.
    phases : path
        Zarr store of their phases.
    uncertainty : path
        Zarr store of their uncertainty.
    """
    drawn: dict[str, Figure] = {}
    if comparison:
        table = read_csv(comparison)
        classes = [
            name.removeprefix("true_fraction_") for name in map(str, table.columns) if name.startswith("true_fraction_")
        ]
        drawn |= {"methods": plots.methods_figure(table), "fractions": plots.fractions_figure(table, classes)}
        plots.add_warnings(drawn["fractions"], missing_in_table(table, classes))
    if run:
        drawn |= _training_figures(run)
        if images and labels:
            drawn["slices"] = _test_figure(run, images, labels, options)
    if slices and phases and uncertainty:
        drawn["predict"] = _segmentation_figure(slices, phases, uncertainty, options)
    files = [f"{out}/{name}.png" for name in drawn]
    for path, figure in zip(files, drawn.values(), strict=True):
        save_figure(path, figure)
    return Metrics({}, figures=files)


def _training_figures(run: str) -> dict[str, Figure]:
    attributes = read_volume_info(f"{run}/test_labels.zarr").attributes
    drawn: dict[str, Figure] = {}
    for name in (*attributes["networks"], *(f"{method}_local" for method in attributes["local"])):
        record = read_json(f"{run}/{name}.json")
        drawn[name] = training_curves(record["history"], unit="nat", kept=record["metrics"]["best_epoch"])
    for method in attributes["local"]:
        record = read_json(f"{run}/{method}_local.json")
        entropy = read_table(f"{run}/{method}_entropy.parquet", ["entropy"])["entropy"].to_numpy()
        trained = TrainLocal.model_validate(record["options"])
        drawn[f"{method}_pacing"] = plots.pacing_figure(
            entropy, trained.curriculum, n_epochs=trained.epochs, n_pixels=record["metrics"]["pixels"]
        )
    return drawn


def _test_figure(run: str, images: str, labels: str, options: Figures) -> Figure:
    """Draw the slices of lowest, median and highest accuracy of the first method with a local model."""
    attributes = read_volume_info(f"{run}/test_labels.zarr").attributes
    row = {name: index for index, name in enumerate(attributes["methods"])}
    tested = read_table(f"{run}/test.parquet", ["image", "slice"])
    truth = read_volume(labels)[tested["image"].to_numpy()].compute()
    # In the order of the methods, where a global network precedes the methods that are built on it.
    shown = next((name for name in row if name in attributes["local"]), next(iter(row)))
    network = attributes["local"].get(shown, shown)
    found = {part: read_volume(f"{run}/test_{part}.zarr") for part in ("labels", "uncertainty", "idk")}
    predicted = {name: found["labels"][row[name]] for name in dict.fromkeys((network, shown, attributes["best"]))}
    known = truth != UNLABELLED
    right = (predicted[shown].compute() == truth) & known
    chosen = choose_slices(right.sum(axis=(1, 2)) / np.maximum(known.sum(axis=(1, 2)), 1))
    indices = list(chosen.values())
    return segmentation_figure(
        read_volume(images)[tested["image"].to_numpy()[indices]].compute(),
        {name: array[indices].compute() for name, array in predicted.items()},
        classes=attributes["classes"],
        truth=truth[indices],
        entropy=found["uncertainty"][row[network]][indices].compute(),
        idk=found["idk"][row[shown]][indices].compute() > 0 if shown in attributes["local"] else None,
        names=[f"{which}: slice {tested['slice'].to_numpy()[index]}" for which, index in chosen.items()],
        zoom_px=options.zoom_px,
    )


def _segmentation_figure(slices: str, phases: str, uncertainty: str, options: Figures) -> Figure:
    """Draw the first, the middle and the last slice."""
    info, found = read_volume_info(phases), read_volume(phases)
    read = dict(info.attributes["read"])
    left, raw = set(read.pop("left_out")), read.pop("raw")
    choice = Choice(**read, raw=None if raw is None else RawLayout(*raw))
    volume = open_slices(slices, choice, refuse_blank=False)[0]
    kept = [number for number in range(volume.shape[0]) if number not in left]
    n = len(kept)
    shown = np.unique([0, n // 2, n - 1]).tolist()
    classes, unit = info.attributes["classes"], info.unit
    figure = segmentation_figure(
        volume[[kept[index] for index in shown]].compute(),
        {info.attributes["method"]: found[shown].compute()},
        classes=classes,
        entropy=read_volume(uncertainty)[shown].compute(),
        names=[f"slice {kept[index]}" for index in shown],
        pixel_nm=info.scale[-1] * NANOMETRES[unit] if unit in NANOMETRES else None,
        zoom_px=options.zoom_px,
    )
    counts = da.bincount(found.ravel(), minlength=len(classes)).compute()
    fractions = dict(zip(classes, (counts / counts.sum()).tolist(), strict=True))
    missing = missing_classes(fractions, info.attributes["trained_fractions"])
    plots.add_warnings(figure, [*info.attributes["warnings"], *missing])
    return figure
