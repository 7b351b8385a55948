"""Stage: measure the segmentation error of properties on the validation slices."""

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.fibsem.bundle import load_bundle
from cathodeflow.fibsem.error_options import CalibrateErrors
from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.methods import Method
from cathodeflow.fibsem.microstructure.property_table import Voxel
from cathodeflow.fibsem.predict_options import Predict
from cathodeflow.fibsem.sampling_error import blocks
from cathodeflow.fibsem.segmentation_error import Calibration, Group, as_json, calibrate, pass_spread, runs
from cathodeflow.fibsem.split import VALIDATION
from cathodeflow.fibsem.validation_errors import Model, compared_properties, segmented, single_passes
from cathodeflow.io.digests import file_digest
from cathodeflow.io.tables import read_table, write_json
from cathodeflow.io.volumes import read_volume
from cathodeflow.stage import InputFile, InputStore, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.fibsem")
# Neighbouring slices on each side that enter a network, and slices from which on a run counts as a volume.
_REACH, _VOLUME = 2, 4
# Methods that the report compares.
_METHODS = ("unet", "ugsm", "matphase")


@stage("fibsem.calibrate_errors")
def calibrate_errors(
    model: InputFile,
    images: InputStore,
    labels: InputStore,
    pairs: InputFile,
    *,
    split: str,
    out: OutputFile,
    options: CalibrateErrors,
) -> Metrics:
    """Compare the properties of the validation slices as segmented with MODEL with those of their labels.

    The longest run of neighbouring validation slices is compared as a volume, in whole and in blocks. Where there is no
    such run, as in the split `paper`, only volume fractions are compared.

    Parameters
    ----------
    model : path
        File `model.pt` of a run.
    images : path
        Zarr store of the images that the model was trained and tested on.
    labels : path
        Zarr store of their labels.
    pairs : path
        Table of the images and their roles.
    split : str
        Split of the run: `grouped` or `paper`.
    out : path
        JSON file to write: bias and spread of the properties, by method. `measure` finds it by its name,
        `model_errors.json` beside `model.pt`.

    Raises
    ------
    InputError
        No validation slice has labels everywhere, or a method of the options was not trained.
    """
    torch.set_num_threads(options.threads)
    networks, metadata = load_bundle(model)
    offered = {entry["name"]: Method(**entry) for entry in metadata.get("methods", [])}
    classes, table = metadata["classes"], read_table(pairs, ["slice", "copy", f"role_{split}"])
    volume, truth = read_volume(images), read_volume(labels)
    chosen = np.flatnonzero((table["role_" + split] == VALIDATION) & (table["copy"] == 0))
    whole = [row for row in chosen.tolist() if not bool((truth[row] == UNLABELLED).any().compute())]
    if not whole:
        raise InputError(pairs, "no fully labelled validation slice", "at least one")
    rows = np.array(whole)
    run = runs(table["slice"].to_numpy()[rows])[0]
    if len(run) >= _VOLUME:
        rows, own = rows[run], options
    else:
        own = options.model_copy(update={"groups": ("fractions",)})
        log.warning("no run of %d validation slices: only volume fractions are calibrated", _VOLUME)
    wide, inner = _around(rows, table["slice"].to_numpy(), table["copy"].to_numpy())
    grey, right = volume[wide].compute(), truth[rows].compute()
    predict, voxel = Predict(tile=options.tile, device=options.device, match_intensity="never"), Voxel()
    parts = blocks(right.shape, options.sampling)
    reference = [compared_properties(part, classes, voxel, own) for part in (right, *(right[p] for p in parts))]
    found: dict[str, Any] = {}
    metrics: dict[str, float] = {"slices": len(rows), "blocks": len(parts)}
    for name in _chosen(options, offered, metadata["best"]):
        one = Model(offered[name], networks, metadata)
        answer = segmented(grey, one, predict)[inner]
        measured = [compared_properties(part, classes, voxel, own) for part in (answer, *(answer[p] for p in parts))]
        calibration = calibrate(
            reference[0], measured[0], list(zip(reference[1:], measured[1:], strict=True)),
            shape=right.shape, block_voxels=right[parts[0]].size,
        )  # fmt: skip
        passes = [
            compared_properties(each[inner], classes, voxel, own, transport_too=False)
            for each in single_passes(grey, one, predict, options.passes)
        ]
        spread = pass_spread(passes, voxels=right.size) if passes else {}
        found[name] = {
            "properties": as_json(calibration),
            "passes": [{"property": key[0], "phase": key[1], "spread": value} for key, value in sorted(spread.items())],
        }
        metrics |= _figures(name, calibration)
    settings = {"groups": list(own.groups), "slices": len(rows), "passes": options.passes, "split": split}
    write_json(out, {"model": file_digest(model), "classes": classes, "settings": settings, "methods": found})
    log.info("segmentation errors of %s, on %d validation slices", ", ".join(found), len(rows))
    return Metrics(metrics)


def _chosen(options: CalibrateErrors, offered: dict[str, Method], best: str) -> list[str]:
    if options.compared_methods is None:
        return [name for name in offered if name in (*_METHODS, best)]
    for name in options.compared_methods:
        if name not in offered:
            raise InputError("--compared-methods", name, "among " + ", ".join(offered))
    return list(options.compared_methods)


def _around(
    rows: NDArray[np.intp], slices: NDArray[np.integer], copies: NDArray[np.integer]
) -> tuple[list[int], slice]:
    """Rows with the slices before and after them, as far as there are any, and the place of the rows among these."""
    place = {int(number): row for row, (number, copy) in enumerate(zip(slices, copies, strict=True)) if copy == 0}
    first, last = int(slices[rows[0]]), int(slices[rows[-1]])
    before = [place[number] for number in range(first - _REACH, first) if number in place]
    after = [place[number] for number in range(last + 1, last + 1 + _REACH) if number in place]
    return [*before, *rows.tolist(), *after], slice(len(before), len(before) + len(rows))


def _figures(name: str, calibration: dict[Group, Calibration]) -> dict[str, float]:
    return {f"bias_{key}_{phase}_{name}": own.bias for (key, phase), own in calibration.items()}
