"""Stage: compare a network with classifiers that do not use the particles."""

import logging
import re

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cathodeflow.io.crops import read_crops
from cathodeflow.io.tables import read_csv, write_csv
from cathodeflow.learning import resolve_device
from cathodeflow.parallel import ordered_map
from cathodeflow.progress import progress
from cathodeflow.sem.baselines import accuracy_table, image_features, trivial_scores
from cathodeflow.sem.intensity import intensity_histogram, match_histogram, reference_quantiles
from cathodeflow.sem.listed_images import listed_reader
from cathodeflow.sem.model import load_network
from cathodeflow.sem.moved_images import read_split
from cathodeflow.sem.options import Audit
from cathodeflow.sem.overlap import shared_area, shrink_factor
from cathodeflow.sem.predictions import BATCH, crop_predictions, network_outputs, original_predictions
from cathodeflow.sem.usable_area import UsableArea
from cathodeflow.stage import InputFile, InputStore, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.sem")


@stage("sem.audit")
def audit(
    split_table: InputFile,
    model: InputFile,
    crops: InputStore,
    predictions: InputFile,
    *,
    out: OutputFile,
    sheet: str | None = None,
    options: Audit,
) -> Metrics:
    """Compare MODEL with trivial features (intensities, instrument settings, information bar) on the same split.

    An accuracy that trivial features reach too may come from the microscope instead of the particles.

    Parameters
    ----------
    split_table : path
        Table of images that `split` wrote.
    model : path
        Model file that `train` wrote.
    crops : path
        Store that `crops` wrote.
    predictions : path
        Predictions of the test images that `test` wrote.
    out : path
        CSV table of the accuracies to write.
    sheet : str
        Sample sheet: images are read from where it says, if they have been moved since they were listed.

    Raises
    ------
    InputError
        An image cannot be read, or the predictions lack a test image or a class.
    """
    torch.set_num_threads(options.threads)
    table = read_split(split_table, sheet=sheet)
    table = table[table["split"] != "left out"].reset_index(drop=True)
    factor = max(shrink_factor(rows, cols) for rows, cols in zip(table["rows"], table["cols"], strict=True))
    read = listed_reader(table)
    images = ordered_map(
        lambda row: image_features(read(row[0]), UsableArea(*row[1:]), options, factor=factor),
        list(table[["image", *UsableArea._fields]].itertuples(index=False, name=None)),
        workers=options.threads,
    )
    features = list(progress(images, "reading the images", total=len(table)))
    quantiles = reference_quantiles(
        np.array([image.fine for image in features])[(table["split"] == "train").to_numpy()]
    )
    small = [image.small for image in features]
    scores = {
        "network": read_csv(predictions),
        "network, histograms matched": _predict_matched(model, crops, quantiles, options),
        **trivial_scores(
            table,
            np.array([image.histogram for image in features]),
            bars=np.array([image.bar for image in features]),
            matched=[intensity_histogram(match_histogram(image, quantiles), options.bins) for image in small],
        ),
    }
    seen = shared_area(small, table) if options.overlap else None
    result = accuracy_table(scores, table, seen=seen, confidence=options.confidence)
    write_csv(out, result)
    overall = result[result["scope"] == "all"].set_index("method")["accuracy"]
    for method, accuracy in overall.items():
        log.info("%s: accuracy %.1f %% on the test images", method, 100 * accuracy)
    metrics = {"accuracy_" + re.sub(r"\W+", "_", str(method)): float(value) for method, value in overall.items()}
    if seen is not None:
        metrics["test_area_seen_in_training"] = float(seen["seen"].mean())
    return Metrics(metrics)


def _predict_matched(model: str, crops: str, quantiles: NDArray[np.float64], options: Audit) -> pd.DataFrame:
    """Predict the test images from crops that were all given the same distribution of intensities."""
    network, metadata = load_network(model)
    array, table = read_crops(crops)
    numbers = np.flatnonzero(table["split"] == "test")
    matched = np.stack([match_histogram(crop, quantiles) for crop in np.asarray(array[numbers])])
    device = resolve_device(options.device or "auto").type
    logits = network_outputs(network, matched, batch_size=BATCH, device=device).logits
    by_crop = crop_predictions(logits, table.iloc[numbers], network.classes, temperature=metadata["temperature"])
    return original_predictions(by_crop, network.classes, temperature=metadata["original_temperature"])
