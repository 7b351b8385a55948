"""Slices without labels, opened once, with the method that segments them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cathodeflow.errors import InputError
from cathodeflow.fibsem.bundle import load_bundle
from cathodeflow.fibsem.grey_matching import Matching
from cathodeflow.fibsem.methods import Method
from cathodeflow.fibsem.predict_options import AUTO, Predict
from cathodeflow.fibsem.preprocessing import blank_slices, normalize_slices
from cathodeflow.fibsem.training_appearance import Comparison, compare_slices, compared_slices, matching_of
from cathodeflow.fibsem.voxels import UsedVoxel, used_voxel
from cathodeflow.io.slices import open_slices

log = logging.getLogger("cathodeflow.fibsem")


class NewSlices(NamedTuple):
    """Slices without labels, and what segments them.

    volume : (slice, row, col) array that is read when it is needed, without the blank slices that are left out.
    voxel : UsedVoxel
    left_out : list of int, numbers of these blank slices.
    method : Method
    networks, metadata : mapping, of the model.
    matching : Matching, gain and offset of the intensities.
    compared : Comparison, with the training slices.
    """

    volume: Any
    voxel: UsedVoxel
    left_out: list[int]
    method: Method
    networks: Mapping[str, Any]
    metadata: Mapping[str, Any]
    matching: Matching
    compared: Comparison


def open_new_slices(slices: str, options: Predict) -> NewSlices:
    """Open slices and the model, match the intensities, and compare the slices with those of the training.

    What differs is named in the log.

    Parameters
    ----------
    slices : str
        Folder, pattern, stack file, dataset or Zarr store.
    options : Predict

    Raises
    ------
    InputError
        The model is missing or has no methods, or the slices cannot be used.
    """
    method, networks, metadata = _model(options)
    volume, stated = open_slices(slices, options.choice(), refuse_blank=options.blank_slices == "fail")
    voxel = used_voxel(stated, options, slices)
    left: list[int] = []
    if options.blank_slices == "leave_out":
        left = blank_slices(np.asarray(volume[number]) for number in range(len(volume)))
        volume = volume[[number for number in range(len(volume)) if number not in set(left)]]
    if not len(volume):
        raise InputError(slices, "only blank slices", "images")
    for text in [*voxel.warnings, *([f"blank slices, left out: {', '.join(map(str, left))}"] if left else [])]:
        log.warning("%s", text)
    levelled = metadata["levelled"]
    images = compared_slices(lambda number: volume[number], range(len(volume)))
    matching = matching_of(
        images, networks[method.network], metadata, how=options.match_intensity, dtype=volume.dtype
    )  # fmt: skip
    compared = Comparison({}, [])
    if metadata.get("appearance"):
        if levelled:
            images = [normalize_slices(image[None])[0] for image in images]
        same = levelled or str(volume.dtype) == metadata["grey"]
        compared = compare_slices(images, matching, metadata["appearance"], same_scale=same)
    for text in compared.warnings:
        log.warning("%s", text)
    return NewSlices(volume, voxel, left, method, networks, metadata, matching, compared)


def _model(options: Predict) -> tuple[Method, dict[str, Any], dict[str, Any]]:
    """Read the networks, and find the method of the options."""
    if options.model is None:
        raise InputError("--model", "nothing", "the model file of trained networks")
    path = options.model
    networks, metadata = load_bundle(path if Path(path).is_file() or path.endswith(".pt") else f"{path}.pt")
    methods = {entry["name"]: Method(**entry) for entry in metadata.get("methods", [])}
    if not methods:
        raise InputError(path, "networks without methods", "the file model.pt of a run")
    name = metadata["best"] if options.method == AUTO else options.method
    if name not in methods:
        raise InputError("--method", name, "one of " + ", ".join([*methods, AUTO]))
    return methods[name], networks, metadata
