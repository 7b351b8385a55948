"""Stage: make augmented images of labelled slices and split them."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.fibsem import split
from cathodeflow.fibsem.augmentation import grey_copies, label_copies
from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.network_options import CONTEXTS
from cathodeflow.fibsem.preprocessing import normalize_slices
from cathodeflow.fibsem.slice_options import Augment
from cathodeflow.io.tables import write_table
from cathodeflow.io.volumes import read_volume, read_volume_info, write_volume
from cathodeflow.scheduling import scheduled
from cathodeflow.stage import InputStore, Metrics, OutputFile, OutputStore, stage

log = logging.getLogger("cathodeflow.fibsem")
# Slices between volumes, more than any network has as neighbours, and labelled slices that a split needs at least.
_APART, _ENOUGH = 8, 4
# Neighbouring slices on each side that networks of the largest context get.
_REACH = CONTEXTS[-1] // 2
_SPLITS = {"paper": split.paper, "grouped": split.grouped}


@stage("fibsem.augment")
def augment(
    slices: InputStore,
    labels: InputStore,
    *,
    more_slices: Sequence[InputStore] = (),
    more_labels: Sequence[InputStore] = (),
    out: OutputStore,
    labels_out: OutputStore,
    pairs: OutputFile,
    options: Augment,
) -> Metrics:
    """Make augmented images of the labelled SLICES, and split them into training, validation and test set.

    Slices without labels that are up to two slices from a labelled one become images with the role `neighbour`:
    networks get them as neighbouring slices, as in the prediction of a whole stack. Several volumes are pooled. Smaller
    slices are continued by reflection, without labels there.

    Parameters
    ----------
    slices : path
        Zarr store of the slices.
    labels : path
        Zarr store of their labels.
    more_slices : sequence of path
        Zarr stores of further volumes.
    more_labels : sequence of path
        Zarr stores of their labels, in the same order.
    out : path
        Zarr store of the images to write.
    labels_out : path
        Zarr store of the labels of the images to write.
    pairs : path
        Table of the images and their roles to write (Parquet).

    Raises
    ------
    InputError
        No slice has labels, there are too few slices for a split, a class is absent from the training slices, or
        volumes differ in classes or type.
    """
    volumes = _open([slices, *more_slices], [labels, *more_labels], options)
    shape = tuple(max(volume.slices.shape[axis] for volume in volumes) for axis in (1, 2))
    copies, classes = options.copies, volumes[0].classes
    table = pd.concat([volume.table(copies, number) for number, volume in enumerate(volumes)], ignore_index=True)
    keys = pd.MultiIndex.from_frame(table[["slice", "copy"]])
    for name in options.splits:
        divided = _divided(name, volumes, options)
        for column, unlabelled in (("role", split.NEIGHBOUR), ("seen", False)):
            placed = divided.set_index(["slice", "copy"])[column].reindex(keys, fill_value=unlabelled)
            table[f"{column}_{name}"] = placed.to_numpy()
        trained = set(divided["slice"][divided["role"] == split.TRAIN])
        counts = np.sum([volume.pixels(trained) for volume in volumes], axis=0)[: len(classes)]
        if not counts.all():
            absent = ", ".join(name for name, count in zip(classes, counts, strict=True) if not count)
            where = f"{', '.join([labels, *more_labels])}, training slices of the split '{name}'"
            raise InputError(where, f"no pixel of {absent}", "pixels of every class")

    axes = ("image", "y", "x")
    attributes = {"classes": classes, "levelled": options.normalize_slices}
    # Pores, the first class, are not smoothed: their size is real. Only solids are mistaken for each other.
    solids = tuple(range(1, len(classes)))
    grey = [_padded(_stretched(v.slices[v.shown], grey_copies, options), shape, "symmetric") for v in volumes]
    marked = [
        _padded(_stretched(v.labels[v.shown], label_copies, options, among=solids), shape, "constant") for v in volumes
    ]
    with scheduled():
        write_volume(out, da.concatenate(grey), axes=axes, attributes=attributes)
        write_volume(labels_out, da.concatenate(marked), axes=axes, attributes={"classes": classes})
    write_table(pairs, table)
    labelled = sum(len(volume.known) for volume in volumes)
    log.info("%d images of %d slices, %d of them labelled", len(table), len(table) // copies, labelled)
    return Metrics(
        {
            f"{name}_{role.replace(' ', '_')}": int((table[f"role_{name}"] == role).sum())
            for name in options.splits
            for role in (split.TRAIN, split.VALIDATION, split.TEST, split.LEFT_OUT, split.NEIGHBOUR)
        }
    )


class _Labelled(NamedTuple):
    """A volume: arrays (slice, row, col), numbers of its labelled slices, first number in the pool, and classes.

    `shown` are the labelled slices with their neighbours.
    """

    slices: da.Array
    labels: da.Array
    known: NDArray[np.int64]
    shown: NDArray[np.int64]
    first: int
    classes: list[str]

    def table(self, copies: int, volume: int) -> pd.DataFrame:
        """Return a row for each image."""
        number = np.repeat(self.shown, copies)
        columns = {"slice": self.first + number, "copy": np.tile(np.arange(copies), len(self.shown))}
        return pd.DataFrame({**columns, "volume": volume, "volume_slice": number})

    def pixels(self, chosen: set[int]) -> NDArray[np.int64]:
        """Count the pixels of each label in some slices, by their numbers in the pool."""
        own = [number for number in self.known.tolist() if self.first + number in chosen]
        if not own:
            return np.zeros(256, np.int64)
        return np.asarray(da.bincount(self.labels[own].ravel(), minlength=256).compute())


def _open(slices: Sequence[str], labels: Sequence[str], options: Augment) -> list[_Labelled]:
    if len(slices) != len(labels):
        raise InputError("--more-labels", f"{len(labels) - 1} stores", f"one for each of {len(slices) - 1} volumes")
    volumes: list[_Labelled] = []
    first = 0
    for store, label_store in zip(slices, labels, strict=True):
        volume, label_volume = read_volume(store), read_volume(label_store)
        classes = read_volume_info(label_store).attributes["classes"]
        known = np.flatnonzero((label_volume != UNLABELLED).any(axis=(1, 2)).compute())
        if not len(known):
            raise InputError(label_store, "no labelled slice", "labels of at least some slices")
        if options.normalize_slices:
            volume = volume.rechunk((1, *volume.shape[1:])).map_blocks(normalize_slices, dtype=np.float32)
        if volumes and classes != volumes[0].classes:
            raise InputError(label_store, f"the classes {', '.join(classes)}", ", ".join(volumes[0].classes))
        if volumes and volume.dtype != volumes[0].slices.dtype:
            expected = f"{volumes[0].slices.dtype}, as in {slices[0]}, or `normalize_slices: true`"
            raise InputError(store, f"values of type {volume.dtype}", expected)
        reach = known[:, None] + np.arange(-_REACH, _REACH + 1)
        shown = np.unique(reach[(reach >= 0) & (reach < len(volume))])
        volumes.append(_Labelled(volume, label_volume, known, shown, first, classes))
        # Slices of two volumes are no neighbours: neither for a network with context nor for the gap of a split.
        first += len(volume) + options.gap + _APART
    return volumes


def _divided(name: str, volumes: Sequence[_Labelled], options: Augment) -> pd.DataFrame:
    """Split each volume for itself, where it has slices enough for all sets; otherwise all of them as one."""
    numbers = [volume.first + volume.known for volume in volumes]
    if name == "grouped" and min(map(len, numbers)) >= _ENOUGH * options.blocks:
        return pd.concat([_SPLITS[name](own, options) for own in numbers], ignore_index=True)
    return _SPLITS[name](np.concatenate(numbers), options)


def _stretched(stack: da.Array, function: Callable[..., Any], options: Augment, **keywords: Any) -> da.Array:
    shape = stack.shape[1:]
    blocks = stack.rechunk((16, *shape))
    made = blocks.map_blocks(
        function, options=options, **keywords, dtype=stack.dtype, new_axis=1,
        chunks=(blocks.chunks[0], options.copies, *shape),
    )  # fmt: skip
    return made.reshape((-1, *shape))


def _padded(images: da.Array, shape: tuple[int, ...], mode: str) -> da.Array:
    """Continue images at their lower and right edges by reflection, or without labels."""
    more = [(0, 0), *((0, whole - own) for own, whole in zip(images.shape[1:], shape, strict=True))]
    if not any(after for _, after in more):
        return images
    fill = {"constant_values": UNLABELLED} if mode == "constant" else {}
    return images.map_blocks(np.pad, more, mode=mode, **fill, chunks=(images.chunks[0], *shape), dtype=images.dtype)
