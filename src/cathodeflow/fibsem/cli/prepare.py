"""Commands from raw slices to the images that networks are trained on."""

import logging
from collections.abc import Iterator
from typing import Any

import click

from cathodeflow.fibsem.cli.shared import group, sample_flag
from cathodeflow.fibsem.options import Augment, Simulate, Volume
from cathodeflow.old_commands import stage_command
from cathodeflow.old_flags import record_flag

log = logging.getLogger("cathodeflow.fibsem")


@stage_command(group, Simulate)
@click.argument("folder")
@click.option("--number", type=int, default=0, help="Number of the volume: each is another electrode.")
def simulate(folder: str, number: int, options: Simulate) -> None:
    """Write simulated slices and their labels into FOLDER, in `slices` and `labels`."""
    import numpy as np

    from cathodeflow.fibsem.appearance import Look, render_slice
    from cathodeflow.fibsem.data_sets import simulated_files
    from cathodeflow.fibsem.structure import generate
    from cathodeflow.io.simulated import write_tiff
    from cathodeflow.io.slices import open_stack, read_stack

    shape, seed = (options.n_slices, options.rows, options.cols), (options.seed or 0) + 1000 * number
    if options.labels is None:
        low, high = options.diameter
        labels = generate(shape, fractions=options.fractions, diameter=(low, high), seed=seed)
    else:
        read = read_stack(open_stack(options.labels))
        labels = np.stack([one[: shape[1], : shape[2]] for _, one in zip(range(shape[0]), read, strict=False)])
        if labels.shape != shape:
            from cathodeflow.errors import InputError

            raise InputError(options.labels, f"labels of {labels.shape}", f"at least {shape} (slice, row, col)")
    look = Look(**options.model_dump(include=set(Look._fields)))
    slices, truth = simulated_files(folder, options)
    for place in range(shape[0]):
        write_tiff(slices[place], render_slice(labels, place, look, bits=options.bits, seed=seed))
        write_tiff(truth[place], labels[place].astype(np.uint8))


@stage_command(group, Volume)
@click.argument("images")
@click.option("--labels", metavar="SOURCE", help="Labels: folder, pattern or stack.")
@sample_flag
@click.option("--out", required=True, metavar="STORE", help="Zarr store of the slices to write.")
@click.option("--labels-out", metavar="STORE", help="Zarr store of the labels to write.")
@record_flag()
def volume(
    images: str, labels: str | None, sample: str, out: str, labels_out: str | None, record: str, options: Volume
) -> None:
    """Bring the slices IMAGES and their labels into chunked stores with axes and scale."""
    import numpy as np

    from cathodeflow.errors import InputError, InputErrors
    from cathodeflow.fibsem.align import common, offsets, shift
    from cathodeflow.fibsem.volume import UNLABELLED, match_labels, to_classes
    from cathodeflow.io.slices import open_stack, read_stack
    from cathodeflow.io.streams import NewStore, write_together
    from cathodeflow.record import write_record

    stack = open_stack(images)
    truth = open_stack(labels) if labels else None
    own = np.full(stack.n_slices, -1)
    values = options.label_values or tuple(range(len(options.classes)))
    if len(values) != len(options.classes):
        raise InputError("--label-values", f"{len(values)} values", f"one for each of {len(options.classes)} classes")
    if truth is not None:
        if truth.shape != stack.shape:
            expected = "{} x {} pixels, as the slices".format(*stack.shape)
            raise InputError(str(labels), "{} x {} pixels".format(*truth.shape), expected)
        own = match_labels(stack.names, truth.names, str(labels))
    window, drift = (slice(None), slice(None)), np.zeros((stack.n_slices, 2))
    if options.align:
        drift = offsets(read_stack(stack), largest=options.largest_drift).drift
        window = common(drift, stack.shape)
    counts, bad = np.zeros(256, np.int64), []

    def moved(number: int, image: Any, order: int = 1) -> Any:
        return (shift(image, drift[number], order=order) if options.align else image)[window][None]

    def blocks() -> Iterator[list[Any]]:
        for number, image in enumerate(read_stack(stack)):
            name = stack.names[number] or str(number)
            if image.min() == image.max():
                bad.append(InputError(f"{images}, slice {name}", f"the grey {image.flat[0]:g} everywhere", "an image"))
            one, place = np.full(image.shape, UNLABELLED, np.uint8), int(own[number])
            if truth is not None and place >= 0:
                where = f"{labels}, image {truth.names[place] or place}"
                try:
                    one = to_classes(next(read_stack(truth, place, place + 1)), values, where)
                except InputError as error:
                    bad.extend(error.errors)
                counts[:] += np.bincount(one.ravel(), minlength=256)
            yield [moved(number, image), moved(number, one, order=0)][: len(stores)]
        # Everything that is wrong is said at once, and nothing is written.
        if bad:
            raise InputErrors.of(bad)

    shape = (stack.n_slices, *moved(0, np.zeros(stack.shape, np.uint8)).shape[1:])
    about: dict[str, Any] = {"attributes": {"classes": list(options.classes)}}
    if options.pixel_nm:
        scale = (options.slice_nm or options.pixel_nm, options.pixel_nm, options.pixel_nm)
        about |= {"scale": scale, "unit": "nm"}
    stores = [NewStore(out, shape, next(read_stack(stack, 0, 1)).dtype, about)]
    if labels_out:
        stores.append(NewStore(labels_out, shape, np.uint8, about))
    write_together(stores, blocks())
    metrics: dict[str, Any] = {"slices": shape[0], "rows": shape[1], "cols": shape[2]}
    metrics |= {"labelled_slices": int((own >= 0).sum())}
    metrics |= {f"largest_drift_{axis}": float(np.abs(drift[:, k]).max()) for k, axis in enumerate(("row", "col"))}
    known = counts[: len(options.classes)]
    if known.any():
        shares = zip(options.classes, known / known.sum(), strict=True)
        metrics |= {f"fraction_{name}": float(share) for name, share in shares}
    write_record(record, stage="fibsem.volume", sample=sample, options=options, metrics=metrics)
    log.info("%s", ", ".join(f"{name} {value:g}" for name, value in metrics.items()))


@stage_command(group, Augment)
@click.argument("slices")
@click.argument("labels")
@sample_flag
@click.option("--out", required=True, metavar="STORE", help="Zarr store of the images to write.")
@click.option("--labels-out", required=True, metavar="STORE", help="Zarr store of their labels to write.")
@click.option("--pairs", required=True, metavar="FILE", help="Table of the images and their roles to write.")
@record_flag()
def augment(
    slices: str, labels: str, sample: str, out: str, labels_out: str, pairs: str, record: str, options: Augment
) -> None:
    """Make images of the labelled SLICES without their first rows, and divide them."""
    import dask.array as da
    import numpy as np
    import pandas as pd

    from cathodeflow.errors import InputError
    from cathodeflow.fibsem import split
    from cathodeflow.fibsem.augment import grey_copies, label_copies
    from cathodeflow.fibsem.volume import UNLABELLED, levelled
    from cathodeflow.io.tables import write_table
    from cathodeflow.io.volumes import read_volume, read_volume_info, write_volume
    from cathodeflow.record import write_record
    from cathodeflow.scheduling import scheduled

    grey, truth, info = read_volume(slices), read_volume(labels), read_volume_info(labels)
    known = np.flatnonzero((truth[:, 0, 0] != UNLABELLED).compute())
    if not len(known):
        raise InputError(labels, "no labelled slice", "labels of at least some slices")
    copies, shape, classes = options.copies, grey.shape[1:], info.attributes["classes"]
    table = pd.DataFrame({"slice": np.repeat(known, copies), "copy": np.tile(np.arange(copies), len(known))})
    for name in options.splits:
        divided = _divided(name, known, options)
        trained = np.unique(divided["slice"][divided["role"] == split.TRAIN])
        there = da.bincount(truth[trained].ravel(), minlength=256).compute()[: len(classes)] > 0
        if not there.all():
            absent = ", ".join(one for one, found in zip(classes, there, strict=True) if not found)
            where = f"{labels}, training slices of the split '{name}'"
            raise InputError(where, f"no pixel of {absent}", "some of every class")
        table[f"role_{name}"], table[f"seen_{name}"] = divided["role"], divided["seen"]

    def stretched(stack: da.Array, function: Any, **keywords: Any) -> da.Array:
        blocks = stack[known].rechunk((16, *shape))
        made = blocks.map_blocks(
            function, copies=copies, step=options.step, **keywords, dtype=stack.dtype, new_axis=1,
            chunks=(blocks.chunks[0], copies, *shape),
        )  # fmt: skip
        return made.reshape((-1, *shape))

    # Pores, the first class, are as small as they look; solids are mistaken for each other.
    smoothing = {"neighbours": options.neighbours, "among": tuple(range(1, len(classes)))}
    axes = ("image", "y", "x")
    if options.level:
        grey = grey.rechunk((1, *shape)).map_blocks(levelled, dtype=np.float32)
    with scheduled():
        write_volume(
            out, stretched(grey, grey_copies, interpolation=options.interpolation), axes=axes,
            attributes=info.attributes | {"levelled": options.level},
        )  # fmt: skip
        write_volume(labels_out, stretched(truth, label_copies, **smoothing), axes=axes, attributes=info.attributes)
    write_table(pairs, table)
    metrics = {
        f"{name}_{role.replace(' ', '_')}": int((table[f"role_{name}"] == role).sum())
        for name in options.splits
        for role in (split.TRAIN, split.VALIDATION, split.TEST, split.LEFT_OUT)
    }
    write_record(record, stage="fibsem.augment", sample=sample, options=options, metrics=metrics)
    log.info("%d images of %d slices", len(known) * copies, len(known))


def _divided(name: str, known: Any, options: Augment) -> Any:
    """Divide the labelled slices in one way."""
    from cathodeflow.fibsem import split

    if name == "paper":
        return split.paper(
            known, copies=options.copies, test=options.paper_test, unseen=options.paper_unseen,
            validation=options.validation, seed=options.seed or 0,
        )  # fmt: skip
    keywords = options.model_dump(include={"copies", "test", "validation", "blocks", "gap"})
    return split.grouped(known, **keywords)
