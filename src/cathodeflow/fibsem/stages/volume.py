"""Stage: write slices and labels to chunked stores."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.fibsem.align import common, offsets, shift
from cathodeflow.fibsem.labelled_stack import LabelImages, open_labels
from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.preprocessing import blank_slices
from cathodeflow.fibsem.slice_options import Volume
from cathodeflow.fibsem.voxels import used_voxel
from cathodeflow.io.slices import Stack, is_blank, open_stack, read_stack, some
from cathodeflow.io.streams import NewStore, write_together
from cathodeflow.stage import Metrics, OutputStore, Source, stage

log = logging.getLogger("cathodeflow.fibsem")


@stage("fibsem.volume")
def volume(
    images: Source,
    *,
    out: OutputStore,
    labels: Source | None = None,
    labels_out: OutputStore | None = None,
    options: Volume,
) -> Metrics:
    """Write the slices IMAGES and their labels to chunked stores with axes and scale.

    Parameters
    ----------
    images : path
        Slices: folder, pattern, stack file, dataset or Zarr store.
    out : path
        Zarr store of the slices to write.
    labels : path
        Label images: folder, pattern, stack file, dataset or Zarr store.
    labels_out : path
        Zarr store of the labels to write.

    Raises
    ------
    InputError
        A line for every kind of mistake in the slices and label images, with the images that have it.
    """
    stack = open_stack(images, options.choice())
    found = open_labels(labels, stack, options)
    voxel = used_voxel(stack.voxel, options, images)
    left = blank_slices(read_stack(stack, require_finite=False)) if options.blank_slices == "leave_out" else []
    kept = [index for index in range(stack.n_slices) if index not in set(left)]
    if not kept:
        raise InputError(images, "only blank slices", "images")
    window, drift = (slice(None), slice(None)), np.zeros((len(kept), 2))
    if options.align:
        drift = offsets(_kept_slices(stack, kept), max_drift=options.max_drift).drift
        window = common(drift, stack.shape)
    counts, blank = np.zeros(256, np.int64), []

    def moved(index: int, image: NDArray[Any], order: int = 1) -> NDArray[Any]:
        return (shift(image, drift[index], order=order) if options.align else image)[window][None]

    def blocks() -> Iterator[list[NDArray[Any]]]:
        for index, (number, image) in enumerate(zip(kept, _kept_slices(stack, kept), strict=True)):
            if is_blank(image):
                blank.append(number)
            classes = found.read(number) if found else np.full(image.shape, UNLABELLED, np.uint8)
            counts[:] += np.bincount(classes.ravel(), minlength=256)
            yield [moved(index, image), moved(index, classes, order=0)][: len(stores)]
        # All problems are reported together, and nothing is written.
        bad = [_blank_error(images, stack, blank)] if blank else []
        bad += found.errors() if found else []
        if bad:
            raise InputErrors.of(bad)

    shape = (len(kept), *moved(0, np.zeros(stack.shape, np.uint8)).shape[1:])
    metadata: dict[str, Any] = {"attributes": {"classes": list(options.classes)}, **voxel.metadata}
    stores = [NewStore(out, shape, next(read_stack(stack, 0, 1, require_finite=False)).dtype, metadata)]
    if labels_out:
        stores.append(NewStore(labels_out, shape, np.uint8, metadata))
    write_together(stores, blocks())
    metrics: dict[str, Any] = {"slices": shape[0], "rows": shape[1], "cols": shape[2], **voxel.record}
    metrics |= {"labelled_slices": len(set(kept) & set(found.labelled)) if found else 0}
    metrics |= {f"largest_drift_{axis}": float(np.abs(drift[:, k]).max()) for k, axis in enumerate(("row", "col"))}
    known = counts[: len(options.classes)]
    if known.any():
        fractions = zip(options.classes, known / known.sum(), strict=True)
        metrics |= {f"fraction_{name}": float(fraction) for name, fraction in fractions}
    metrics |= _named(stack, found, left)
    for text in [*voxel.warnings, *_warnings(labels, metrics)]:
        log.warning("%s", text)
    log.info("%s", _summary(metrics))
    return Metrics(metrics)


def _summary(metrics: Mapping[str, Any]) -> str:
    """Say in a line what was written.

    Examples
    --------
    >>> sizes = {"slices": 14, "rows": 512, "cols": 512, "labelled_slices": 12, "voxel_size_from": "unknown"}
    >>> _summary({**sizes, "fraction_pore": 0.379997, "fraction_active": 0.62})
    '14 slices of 512 x 512 pixels, 12 of them labelled; voxel size: unknown; pore 38.0 %, active 62.0 %'
    """
    fractions = {name: value for name, value in metrics.items() if name.startswith("fraction_")}
    parts = [
        f"{metrics['slices']} slices of {metrics['rows']} x {metrics['cols']} pixels, "
        f"{metrics['labelled_slices']} of them labelled",
        f"voxel size: {metrics['voxel_size_from']}",
        ", ".join(f"{name.removeprefix('fraction_')} {100 * value:.1f} %" for name, value in fractions.items()),
    ]
    return "; ".join(part for part in parts if part)


def _kept_slices(stack: Stack, kept: Sequence[int]) -> Iterator[NDArray[Any]]:
    wanted = set(kept)
    images = read_stack(stack, require_finite=False)
    return (image for number, image in enumerate(images) if number in wanted)


def _blank_error(images: str, stack: Stack, blank: Sequence[int]) -> InputError:
    where = f"{images}, slices {some([stack.names[number] or str(number) for number in blank])}"
    found = "the same value in every pixel, or values that are not finite"
    return InputError(where, found, "images, or `blank_slices: leave_out`")


def _named(stack: Stack, found: LabelImages | None, left: Sequence[int]) -> dict[str, str]:
    """Names of slices that are left out, and of what has no partner, by the key of the record."""
    names = [name or str(number) for number, name in enumerate(stack.names)]
    lists = {"slices_left_out": [names[number] for number in left]}
    if found is not None:
        own = set(found.labelled)
        lists["slices_without_labels"] = [names[number] for number in range(stack.n_slices) if number not in own]
        lists["labels_without_slices"] = list(found.unused)
    return {key: ", ".join(listed) for key, listed in lists.items() if listed}


def _warnings(labels: str | None, metrics: dict[str, Any]) -> Iterator[str]:
    if "slices_left_out" in metrics:
        yield f"blank slices, left out: {metrics['slices_left_out']}"
    if "slices_without_labels" in metrics:
        yield f"{labels}: slices without labels: {metrics['slices_without_labels']}"
    if "labels_without_slices" in metrics:
        yield f"{labels}: label images without a slice, not used: {metrics['labels_without_slices']}"
