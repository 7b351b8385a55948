"""Stage: make augmented images of labelled slices and split them."""

import logging
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd

from cathodeflow.errors import InputError
from cathodeflow.fibsem import split
from cathodeflow.fibsem.augmentation import grey_copies, label_copies
from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.options import Augment
from cathodeflow.fibsem.preprocessing import normalize_slices
from cathodeflow.io.tables import write_table
from cathodeflow.io.volumes import read_volume, read_volume_info, write_volume
from cathodeflow.scheduling import scheduled
from cathodeflow.stage import InputStore, Metrics, OutputFile, OutputStore, stage

log = logging.getLogger("cathodeflow.fibsem")
_SPLITS = {"paper": split.paper, "grouped": split.grouped}


@stage("fibsem.augment")
def augment(
    slices: InputStore,
    labels: InputStore,
    *,
    out: OutputStore,
    labels_out: OutputStore,
    pairs: OutputFile,
    options: Augment,
) -> Metrics:
    """Make augmented images of the labelled SLICES, and split them into training, validation and test set.

    Parameters
    ----------
    slices : path
        Zarr store of the slices.
    labels : path
        Zarr store of their labels.
    out : path
        Zarr store of the images to write.
    labels_out : path
        Zarr store of the labels of the images to write.
    pairs : path
        Table of the images and their roles to write (Parquet).

    Raises
    ------
    InputError
        No slice has labels, there are too few slices for a split, or a class is absent from the training slices.
    """
    volume, label_volume, info = read_volume(slices), read_volume(labels), read_volume_info(labels)
    known = np.flatnonzero((label_volume != UNLABELLED).any(axis=(1, 2)).compute())
    if not len(known):
        raise InputError(labels, "no labelled slice", "labels of at least some slices")
    copies, shape, classes = options.copies, volume.shape[1:], info.attributes["classes"]
    table = pd.DataFrame({"slice": np.repeat(known, copies), "copy": np.tile(np.arange(copies), len(known))})
    for name in options.splits:
        divided = _SPLITS[name](known, options)
        trained = np.unique(divided["slice"][divided["role"] == split.TRAIN])
        present = da.bincount(label_volume[trained].ravel(), minlength=256).compute()[: len(classes)] > 0
        if not present.all():
            absent = ", ".join(name for name, found in zip(classes, present, strict=True) if not found)
            where = f"{labels}, training slices of the split '{name}'"
            raise InputError(where, f"no pixel of {absent}", "pixels of every class")
        table[f"role_{name}"], table[f"seen_{name}"] = divided["role"], divided["seen"]

    def stretched(stack: da.Array, function: Callable[..., Any], **keywords: Any) -> da.Array:
        blocks = stack[known].rechunk((16, *shape))
        made = blocks.map_blocks(
            function, options=options, **keywords, dtype=stack.dtype, new_axis=1,
            chunks=(blocks.chunks[0], copies, *shape),
        )  # fmt: skip
        return made.reshape((-1, *shape))

    axes = ("image", "y", "x")
    if options.normalize_slices:
        volume = volume.rechunk((1, *shape)).map_blocks(normalize_slices, dtype=np.float32)
    attributes = info.attributes | {"levelled": options.normalize_slices}
    # Pores, the first class, are not smoothed: their size is real. Only solids are mistaken for each other.
    solids = tuple(range(1, len(classes)))
    with scheduled():
        write_volume(out, stretched(volume, grey_copies), axes=axes, attributes=attributes)
        images = stretched(label_volume, label_copies, among=solids)
        write_volume(labels_out, images, axes=axes, attributes=info.attributes)
    write_table(pairs, table)
    log.info("%d images of %d slices", len(known) * copies, len(known))
    return Metrics(
        {
            f"{name}_{role.replace(' ', '_')}": int((table[f"role_{name}"] == role).sum())
            for name in options.splits
            for role in (split.TRAIN, split.VALIDATION, split.TEST, split.LEFT_OUT)
        }
    )
