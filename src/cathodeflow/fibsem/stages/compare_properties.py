"""Stage: compare the properties of the test slices, by method, with those of their labels."""

import logging
from typing import Any

import numpy as np
import torch

from cathodeflow.errors import InputError
from cathodeflow.fibsem.error_options import CompareProperties
from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.microstructure.property_table import Voxel
from cathodeflow.fibsem.property_errors import combined
from cathodeflow.fibsem.sampling_error import values_of
from cathodeflow.fibsem.segmentation_error import correct, from_json, runs
from cathodeflow.fibsem.validation_errors import compared_properties
from cathodeflow.io.tables import read_json, read_table, write_csv
from cathodeflow.io.volumes import read_volume, read_volume_info
from cathodeflow.stage import InputFile, InputFolder, InputStore, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.fibsem")
_COLUMNS = ("property", "phase", "value", "unit", "standard_error", "low_68", "high_68", "low_95", "high_95")


@stage("fibsem.compare_properties")
def compare_properties(
    folder: InputFolder,
    labels: InputStore,
    calibration: InputFile,
    *,
    out: OutputFile,
    options: CompareProperties,
) -> Metrics:
    """Compare the properties of the test slices in FOLDER, with error bars, with those of their LABELS.

    The truth is that of the same slices, so the error bars have the segmentation error only.

    Parameters
    ----------
    folder : path
        Folder of a run, in which `test` wrote its segmentations.
    labels : path
        Zarr store of the labels of all images.
    calibration : path
        JSON file of `calibrate-errors`.
    out : path
        CSV table to write: one row per method, property, phase and direction.

    Raises
    ------
    InputError
        No test slice has labels everywhere.
    """
    torch.set_num_threads(options.threads)
    tested = read_table(f"{folder}/test.parquet", ["slice", "copy", "image", "seed", "split"])
    store, calibrated = read_volume(f"{folder}/test_labels.zarr"), read_json(calibration)
    attributes = read_volume_info(f"{folder}/test_labels.zarr").attributes
    truth = read_volume(labels)[tested["image"].to_numpy()].compute()
    rows = np.flatnonzero((tested["copy"] == 0) & (truth != UNLABELLED).all(axis=(1, 2)))
    if not len(rows):
        raise InputError(f"{folder}/test.parquet", "no fully labelled test slice", "at least one")
    rows = rows[runs(tested["slice"].to_numpy()[rows])[0]]
    own = options.model_copy(update={"groups": tuple(calibrated["settings"]["groups"])})
    classes = attributes["classes"]
    right = values_of(compared_properties(truth[rows], classes, Voxel(), own))
    columns: dict[str, list[Any]] = {name: [] for name in ("model", "direction", "truth", "as_segmented", *_COLUMNS)}
    inside: dict[str, list[bool]] = {"68": [], "95": []}
    for name, entry in calibrated["methods"].items():
        answer = store[attributes["methods"].index(name)][rows].compute()
        found = compared_properties(answer, classes, Voxel(), own)
        better = correct(found, from_json(entry["properties"]), voxels=answer.size, ratio=1.0)
        for one in combined(found, {}, better):
            row, true = one.row, right[one.row.property, one.row.phase, one.row.direction]
            columns["model"].append(name)
            columns["direction"].append("" if row.direction is None else str(row.direction))
            columns["truth"].append(true)
            columns["as_segmented"].append(one.as_segmented)
            for column in _COLUMNS:
                columns[column].append(getattr(row, column))
            if np.isfinite(row.standard_error) and np.isfinite(true):
                inside["68"].append(row.low_68 <= true <= row.high_68)
                inside["95"].append(row.low_95 <= true <= row.high_95)
    count = len(columns["model"])
    seed, split = int(tested["seed"].iloc[0]), str(tested["split"].iloc[0])
    write_csv(out, {"split": [split] * count, "seed": [seed] * count, **columns})
    metrics: dict[str, Any] = {"slices": len(rows), "compared": len(inside["68"])}
    metrics |= {f"inside_{level}": float(np.mean(held)) for level, held in inside.items() if held}
    log.info("%d properties of %d test slices compared", len(inside["68"]), len(rows))
    return Metrics(metrics)
