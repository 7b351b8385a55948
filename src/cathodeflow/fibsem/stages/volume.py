"""Stage: write slices and labels to chunked stores."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.fibsem.align import common, offsets, shift
from cathodeflow.fibsem.options import Volume
from cathodeflow.fibsem.preprocessing import UNLABELLED, match_labels, to_classes
from cathodeflow.io.slices import Stack, open_stack, read_stack
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
        Slices: folder, pattern, stack file or dataset.
    out : path
        Zarr store of the slices to write.
    labels : path
        Label images: folder, pattern, stack file or dataset.
    labels_out : path
        Zarr store of the labels to write.

    Raises
    ------
    InputError
        A line for every slice or label image that cannot be used.
    """
    values = options.label_values or tuple(range(len(options.classes)))
    if len(values) != len(options.classes):
        raise InputError("--label-values", f"{len(values)} values", f"one for each of {len(options.classes)} classes")
    stack = open_stack(images)
    label_stack, own = _open_labels(labels, stack)
    window, drift = (slice(None), slice(None)), np.zeros((stack.n_slices, 2))
    if options.align:
        drift = offsets(read_stack(stack), max_drift=options.max_drift).drift
        window = common(drift, stack.shape)
    counts, bad = np.zeros(256, np.int64), []

    def moved(index: int, image: NDArray[Any], order: int = 1) -> NDArray[Any]:
        return (shift(image, drift[index], order=order) if options.align else image)[window][None]

    def blocks() -> Iterator[list[NDArray[Any]]]:
        for index, image in enumerate(read_stack(stack)):
            if image.min() == image.max():
                where = f"{images}, slice {stack.names[index] or index}"
                bad.append(InputError(where, f"the intensity {image.flat[0]:g} in every pixel", "an image"))
            classes, label_index = np.full(image.shape, UNLABELLED, np.uint8), int(own[index])
            if label_stack is not None and label_index >= 0:
                where = f"{labels}, image {label_stack.names[label_index] or label_index}"
                try:
                    classes = to_classes(next(read_stack(label_stack, label_index, label_index + 1)), values, where)
                except InputError as error:
                    bad.extend(error.errors)
                counts[:] += np.bincount(classes.ravel(), minlength=256)
            yield [moved(index, image), moved(index, classes, order=0)][: len(stores)]
        # All problems are reported together, and nothing is written.
        if bad:
            raise InputErrors.of(bad)

    shape = (stack.n_slices, *moved(0, np.zeros(stack.shape, np.uint8)).shape[1:])
    metadata: dict[str, Any] = {"attributes": {"classes": list(options.classes)}}
    if options.pixel_nm:
        scale = (options.slice_nm or options.pixel_nm, options.pixel_nm, options.pixel_nm)
        metadata |= {"scale": scale, "unit": "nm"}
    stores = [NewStore(out, shape, next(read_stack(stack, 0, 1)).dtype, metadata)]
    if labels_out:
        stores.append(NewStore(labels_out, shape, np.uint8, metadata))
    write_together(stores, blocks())
    metrics: dict[str, Any] = {"slices": shape[0], "rows": shape[1], "cols": shape[2]}
    metrics |= {"labelled_slices": int((own >= 0).sum())}
    metrics |= {f"largest_drift_{axis}": float(np.abs(drift[:, k]).max()) for k, axis in enumerate(("row", "col"))}
    known = counts[: len(options.classes)]
    if known.any():
        fractions = zip(options.classes, known / known.sum(), strict=True)
        metrics |= {f"fraction_{name}": float(fraction) for name, fraction in fractions}
    log.info("%s", ", ".join(f"{name} {value:g}" for name, value in metrics.items()))
    return Metrics(metrics)


def _open_labels(labels: str | None, stack: Stack) -> tuple[Stack | None, NDArray[np.int64]]:
    """Open the label images, and find that of each slice; -1 for a slice without labels."""
    if labels is None:
        return None, np.full(stack.n_slices, -1)
    label_stack = open_stack(labels)
    if label_stack.shape != stack.shape:
        expected = "{} x {} pixels, as the slices".format(*stack.shape)
        raise InputError(labels, "{} x {} pixels".format(*label_stack.shape), expected)
    return label_stack, match_labels(stack.names, label_stack.names, labels)
