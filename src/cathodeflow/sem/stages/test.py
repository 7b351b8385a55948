"""Stage: test a network."""

import logging
import os

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cathodeflow.io.crops import read_crops
from cathodeflow.io.tables import write_csv
from cathodeflow.learning import resolve_device
from cathodeflow.sem.calibration import reliability
from cathodeflow.sem.image_outputs import labelled_outputs
from cathodeflow.sem.listed_images import listed_reader
from cathodeflow.sem.model import load_network
from cathodeflow.sem.moved_images import read_split
from cathodeflow.sem.nickel import COLUMNS, NickelRegression, nickel_fraction
from cathodeflow.sem.ood import group_means
from cathodeflow.sem.options import Test
from cathodeflow.sem.predictions import (
    bootstrap,
    class_numbers,
    crop_predictions,
    network_outputs,
    original_predictions,
    probabilities,
)
from cathodeflow.stage import InputFile, InputStore, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.sem")


@stage("sem.test")
def test(
    model: InputFile,
    crops: InputStore,
    *,
    out: OutputFile,
    crops_table: OutputFile,
    metrics_table: OutputFile,
    calibration: OutputFile,
    sheet: str | None = None,
    options: Test,
) -> Metrics:
    """Test the network MODEL on the test crops of CROPS, or on all images of a labelled data set.

    Parameters
    ----------
    model : path
        Model file that `train` wrote.
    crops : path
        Store that `crops` wrote; or the table of other labelled images that `index` wrote, which tiles cover.
    out : path
        CSV table of the predictions of the images to write.
    crops_table : path
        CSV table of the predictions of the crops to write.
    metrics_table : path
        CSV table of the performance metrics with their intervals to write.
    calibration : path
        CSV table of the reliability diagrams to write: accuracy in bins of confidence, before and after temperature
        scaling.
    sheet : str
        Sample sheet: images of a table are read from where it says, if they have been moved since they were listed.

    Raises
    ------
    InputError
        Images of a table are smaller than a crop, or of classes that the network does not know: a line each.
    """
    torch.set_num_threads(options.threads)
    network, metadata = load_network(model)
    device = resolve_device(options.device or "auto").type
    classes = network.classes
    if os.path.isdir(crops):
        array, table = read_crops(crops)
        numbers = np.flatnonzero(table["split"] == "test")
        outputs = network_outputs(network, array, numbers, batch_size=options.batch_size, device=device)
        tested = images = table.iloc[numbers]
    else:
        images = read_split(crops, sheet=sheet)
        outputs, tested = labelled_outputs(network, metadata, images, listed_reader(images), options, device=device)
    # Crops of earlier versions have no fields: each image is one.
    first = images.drop_duplicates("name").set_index("name", drop=False)
    fields = first["field" if "field" in first else "name"]
    temperatures = {"temperature": metadata["temperature"], "original_temperature": metadata["original_temperature"]}
    raw = crop_predictions(outputs.logits, tested, classes, temperature=1.0)
    by_crop = crop_predictions(outputs.logits, tested, classes, temperature=temperatures["temperature"])
    raw_images = original_predictions(raw, classes, temperature=1.0)
    by_image = original_predictions(by_crop, classes, temperature=temperatures["original_temperature"])
    nickel = _nickel(by_image, group_means(outputs.features, tested["name"]), metadata["nickel"])
    write_csv(out, by_image.join(nickel))
    write_csv(crops_table, by_crop)
    kinds = {"image": by_image, "crop": by_crop}
    merit = {
        kind: bootstrap(rows.assign(field=rows["name"].map(fields)), classes, options) for kind, rows in kinds.items()
    }
    write_csv(metrics_table, pd.concat([rows.assign(kind=kind) for kind, rows in merit.items()]))
    cases = {("crops", "before"): raw, ("crops", "after"): by_crop}
    cases |= {("images", "before"): raw_images, ("images", "after"): by_image}
    diagrams = [
        reliability(
            probabilities(predicted, classes), class_numbers(predicted["label"], classes), bins=options.bins
        ).assign(kind=kind, temperature=when)
        for (kind, when), predicted in cases.items()
    ]
    write_csv(calibration, pd.concat(diagrams))
    log.info(
        "accuracy: %.1f %% of %d images, %.1f %% of %d crops",
        100 * by_image["correct"].mean(), len(by_image), 100 * by_crop["correct"].mean(), len(by_crop),
    )  # fmt: skip
    metrics: dict[str, float | None] = {"images": len(by_image), "crops": len(by_crop)}
    if len(nickel.columns):
        truth = by_image["label"].map(nickel_fraction).astype(float)
        metrics["nickel_error"] = float((nickel["nickel"] - truth).abs().mean())
    for kind, rows in merit.items():
        for row in rows.to_dict("records"):
            name = f"{kind}_{row['figure']}" + (f"_{row['label']}" if isinstance(row["label"], str) else "")
            metrics |= {name: row["value"], f"{name}_low": row["low"], f"{name}_high": row["high"]}
    return Metrics({**metrics, **temperatures})


def _nickel(images: pd.DataFrame, features: NDArray[np.float64], regression: NickelRegression | None) -> pd.DataFrame:
    """Predict the nickel fraction of the images, in the order of their names; no column without a regression."""
    if regression is None:
        return pd.DataFrame(index=images.index)
    return pd.DataFrame(regression.intervals(features), columns=list(COLUMNS), index=images.index)
