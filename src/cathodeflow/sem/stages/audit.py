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
from cathodeflow.sem.baselines import accuracy_table, image_features, nearest_scores, trivial_scores
from cathodeflow.sem.gradcam import activation_maps, enlarged
from cathodeflow.sem.intensity import intensity_histogram, match_histogram, reference_quantiles
from cathodeflow.sem.listed_images import listed_reader
from cathodeflow.sem.model import load_network
from cathodeflow.sem.moved_images import read_split
from cathodeflow.sem.off_particles import KINDS, alone, image_blocks, off_crop, off_features
from cathodeflow.sem.options import Audit
from cathodeflow.sem.overlap import shared_area, shrink_factor
from cathodeflow.sem.predictions import BATCH, crop_predictions, network_outputs, original_predictions
from cathodeflow.sem.usable_area import UsableArea
from cathodeflow.stage import InputFile, InputStore, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.sem")
# Test crops of an image whose evidence is measured.
_EXPLAINED = 4


@stage("sem.audit")
def audit(
    split_table: InputFile,
    model: InputFile,
    crops: InputStore,
    predictions: InputFile,
    *,
    out: OutputFile,
    classes_table: OutputFile | None = None,
    listed: InputFile | None = None,
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
    classes_table : path
        CSV table to write: what is not particle in the images of each class, and how much of the network's evidence
        (Grad-CAM) for it lies there.
    listed : path
        Table of other labelled images that `index` wrote, to audit in place of the test images; PREDICTIONS are those
        that `test` made of them.
    sheet : str
        Sample sheet: images are read from where it says, if they have been moved since they were listed.

    Raises
    ------
    InputError
        An image cannot be read, or the predictions lack a test image or a class.
    """
    torch.set_num_threads(options.threads)
    table = read_split(split_table, sheet=sheet)
    if listed is not None:
        other = read_split(listed, sheet=sheet)
        other = other[other["split"] != "left out"].assign(split="test")
        table = pd.concat([table[table["split"] != "test"], other], ignore_index=True)
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
        **({} if listed else {"network, histograms matched": _predict_matched(model, crops, quantiles, options)}),
        "bare areas and edges": nearest_scores(_scaled(off_features(table), table), table),
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
    of_class = _by_class(table, None if listed else _evidence(model, crops, table, options))
    if classes_table:
        write_csv(classes_table, of_class)
    for label, text in zip(of_class["label"], of_class["alone"], strict=True):
        if isinstance(text, str):
            log.warning("class %s alone has %s: the network may tell it by that", label, text)
    overall = result[result["scope"] == "all"].set_index("method")["accuracy"]
    for method, accuracy in overall.items():
        log.info("%s: accuracy %.1f %% on the test images", method, 100 * accuracy)
    metrics = {"accuracy_" + re.sub(r"\W+", "_", str(method)): float(value) for method, value in overall.items()}
    if seen is not None:
        metrics["test_area_seen_in_training"] = float(seen["seen"].mean())
    metrics["classes_alone"] = int(of_class["alone"].notna().sum())
    return Metrics(metrics)


def _scaled(features: NDArray[np.float64], table: pd.DataFrame) -> NDArray[np.float64]:
    """Features divided by their standard deviation over the training images."""
    deviation = features[(table["split"] == "train").to_numpy()].std(axis=0)
    return features / np.where(deviation > 0, deviation, 1)


def _by_class(table: pd.DataFrame, evidence: pd.DataFrame | None) -> pd.DataFrame:
    """Mean fractions of what is not particle for each class, evidence that lies there, and what a class has alone."""
    kinds = ["usable", *KINDS]
    means = table.groupby("label")[kinds].mean()
    counts = table.groupby("label").size().rename("images")
    found = pd.concat([counts, means], axis=1)
    columns = ["evidence_off", "area_off"]
    found = found.join(evidence) if evidence is not None else found.assign(**dict.fromkeys(columns, np.nan))
    found["alone"] = pd.Series(alone(means), dtype=object)
    return found.rename_axis("label").reset_index()


def _evidence(model: str, crops: str, table: pd.DataFrame, options: Audit) -> pd.DataFrame:
    """Fractions of the activation maps, and of the area, of test crops that are not on particles, by class."""
    network, _ = load_network(model)
    array, planned = read_crops(crops)
    some = planned[planned["split"] == "test"].groupby("name").head(_EXPLAINED)
    images = table.set_index("name")
    blocks = dict(zip(table["name"], image_blocks(table), strict=True))
    shown = np.asarray(array[some["crop"].to_numpy()])
    targets = [network.classes.index(label) for label in some["label"]]
    device = resolve_device(options.device or "auto").type
    maps = enlarged(activation_maps(network, shown, targets, method="gradcam", device=device), shown.shape[1:])
    rows = []
    for crop, heat, row in zip(shown, maps, some.to_dict("records"), strict=True):
        origin = images.loc[row["name"], ["row0", "col0"]].to_numpy(np.int64)
        place = [row["row"] - origin[0], row["col"] - origin[1]]
        off = off_crop(crop, blocks[row["name"]], place, (row["rows"], row["cols"]))
        total = float(heat.sum())
        rows.append((row["label"], float(heat[off].sum()) / total if total > 0 else np.nan, float(off.mean())))
    return pd.DataFrame(rows, columns=["label", "evidence_off", "area_off"]).groupby("label").mean()


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
