"""Command that audits what a network can have learnt."""

import logging
from typing import Any, NamedTuple

import click

from cathodeflow.old_commands import progress, stage_command
from cathodeflow.old_flags import compute_device, record_flag
from cathodeflow.sem.cli.shared import group, sample_flag
from cathodeflow.sem.options import VERSION, Audit

log = logging.getLogger("cathodeflow.sem")


class Looked(NamedTuple):
    """What is taken of an image: grey histograms, the thumbnail of its bar, and itself, shrunk."""

    histogram: Any
    fine: Any
    bar: Any
    small: Any


@stage_command(group, Audit)
@click.argument("split_table")
@click.argument("model")
@click.argument("crops")
@click.argument("predictions")
@sample_flag(VERSION)
@click.option("--out", required=True, metavar="FILE", help="CSV to write.")
@record_flag()
@click.option("--figure", required=True, metavar="FILE", help="Image of the table.")
def audit(
    split_table: str, model: str, crops: str, predictions: str, sample: str, out: str, record: str, figure: str,
    options: Audit,
) -> None:  # fmt: skip
    """Set the network MODEL with its PREDICTIONS beside features that are not of the particles."""
    import numpy as np
    import torch

    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.tables import read_csv, read_table, write_csv
    from cathodeflow.record import write_record
    from cathodeflow.sem.audit import accuracy_table, trivial_scores
    from cathodeflow.sem.grey import grey_histogram, match_histogram, reference_quantiles
    from cathodeflow.sem.overlap import shared_area
    from cathodeflow.sem.plots import audit_figure

    torch.set_num_threads(options.threads)
    table = read_table(split_table)
    table = table[table["split"] != "left out"].reset_index(drop=True)
    looked = list(progress(_look(table, options), "looking at the images", total=len(table)))
    quantiles = reference_quantiles(np.array([one.fine for one in looked])[(table["split"] == "train").to_numpy()])
    matched = [grey_histogram(match_histogram(one.small, quantiles), options.bins) for one in looked]
    bars = np.array([one.bar for one in looked])
    scores = {
        "network": read_csv(predictions),
        "network, histograms matched": _on_matched(model, crops, quantiles, options),
        **trivial_scores(
            table, np.array([one.histogram for one in looked]), bars=bars if bars.any() else None, matched=matched
        ),
    }
    seen = shared_area([one.small for one in looked], table) if options.overlap else None
    result = accuracy_table(scores, table, seen=seen, confidence=options.confidence)
    write_csv(out, result)
    save_figure(figure, audit_figure(result))
    overall = result[result["scope"] == "all"]
    metrics = {
        f"accuracy_{_key(method)}": float(value)
        for method, value in zip(overall["method"], overall["accuracy"], strict=True)
    }
    if seen is not None:
        metrics["test_area_seen_in_training"] = float(seen["seen"].mean())
    write_record(record, stage="sem.audit", sample=sample, options=options, metrics=metrics, figures=[figure])
    for method, value in zip(overall["method"], overall["accuracy"], strict=True):
        log.info("%s: %.1f %% of the test images right", method, 100 * value)


def _key(method: str) -> str:
    return "_".join("".join(letter if letter.isalnum() else " " for letter in method).split())


def _look(table: Any, options: Audit) -> Any:
    """Yield what is taken of each image, in the order of the table."""
    from cathodeflow.io.micrographs import read_micrograph
    from cathodeflow.parallel import ordered_map
    from cathodeflow.sem.grey import bar_thumbnail, grey_histogram
    from cathodeflow.sem.info_bar import crop_bar
    from cathodeflow.sem.overlap import shrink, shrink_factor
    from cathodeflow.sem.resample import to_uint8

    factor = max(shrink_factor(rows, cols) for rows, cols in zip(table["rows"], table["cols"], strict=True))

    def look(place: tuple[str, int]) -> Looked:
        path, bar_rows = place
        image = to_uint8(read_micrograph(path), bar_rows=bar_rows)
        particles = crop_bar(image, bar_rows)
        return Looked(
            grey_histogram(particles, options.bins),
            grey_histogram(particles, 256),
            bar_thumbnail(image, bar_rows, options.bar_side),
            shrink(particles, factor),
        )

    places = [(path, int(rows)) for path, rows in zip(table["image"], table["bar_rows"], strict=True)]
    yield from ordered_map(look, places, workers=options.threads)


def _on_matched(model: str, crops: str, quantiles: Any, options: Audit) -> Any:
    """Predict the test images from crops that all have been given one grey distribution."""
    import numpy as np

    from cathodeflow.io.crops import read_crops
    from cathodeflow.sem.evaluate import crop_predictions, network_outputs, original_predictions
    from cathodeflow.sem.grey import match_histogram
    from cathodeflow.sem.model import load_network

    network, metadata = load_network(model)
    array, planned = read_crops(crops)
    rows = np.flatnonzero(planned["split"] == "test")
    matched = np.stack([match_histogram(crop, quantiles) for crop in np.asarray(array[rows])])
    outputs = network_outputs(network, matched, device=compute_device(options.device))
    by_crop = crop_predictions(outputs.logits, planned.iloc[rows], network.classes, temperature=metadata["temperature"])
    return original_predictions(by_crop, network.classes, temperature=metadata["original_temperature"])
