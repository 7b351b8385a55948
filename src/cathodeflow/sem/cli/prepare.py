"""Commands from raw images to crops."""

import logging
import os
from typing import Any

import click

from cathodeflow.old_commands import stage_command
from cathodeflow.old_flags import record_flag
from cathodeflow.sem.cli.shared import group, sample_flag
from cathodeflow.sem.options import POOLED, Crops, Index, Simulate, Split

log = logging.getLogger("cathodeflow.sem")


@stage_command(group, Simulate)
@click.argument("folder")
@click.option(
    "--labelled/--no-labelled", default=True, help="Class folders; or one folder, some of whose images are of no class."
)
def simulate(folder: str, labelled: bool, options: Simulate) -> None:
    """Write simulated micrographs with sidecars into FOLDER."""
    from cathodeflow.io.simulated import write_micrograph
    from cathodeflow.sem.data_sets import foreign_files, simulated_files
    from cathodeflow.sem.simulate import simulate_foreign, simulate_micrographs

    keywords = options.model_dump(exclude={"format", "seed"}) | {"seed": options.seed or 0}
    made = (simulate_micrographs if labelled else simulate_foreign)(**keywords)
    files = (simulated_files if labelled else foreign_files)(folder, options)[::2]
    for path, image in zip(files, made, strict=True):
        write_micrograph(path, image.image, sidecar=image.sidecar)


@stage_command(group, Index)
@click.argument("images")
@sample_flag()
@click.option("--out", required=True, metavar="FILE", help="Table to write.")
@click.option("--readable", metavar="FILE", help="The same table as CSV.")
@record_flag()
def index(images: str, sample: str, out: str, readable: str | None, record: str, options: Index) -> None:
    """List IMAGES, a folder of class folders or a table, with what is known of each."""
    import pandas as pd

    from cathodeflow.errors import InputError
    from cathodeflow.io.tables import write_csv, write_table
    from cathodeflow.record import write_record
    from cathodeflow.sem.index import build_index, list_images, odd_images

    rows = list_images(images, compositions=options.compositions, states=options.states, data_set=sample)
    bad: list[InputError] | None = [] if options.on_bad_file == "skip" else None
    table = build_index(rows, bar_rows=options.bar_rows, min_images=options.min_images, bad=bad)
    for problem in bad or ():
        log.warning("left out: %s", problem)
    odd = odd_images(table)
    for path, text in zip(table["image"][odd.index], odd, strict=True):
        log.warning("odd: %s: %s", path, text)
    write_table(out, table)
    if readable:
        # For the eye: what is odd, and what could not be used, stands there too.
        unusable = [{"image": one.where, "problem": f"found {one.found}, expected {one.expected}"} for one in bad or ()]
        write_csv(
            readable,
            pd.concat([table.assign(problem=odd.reindex(table.index)), pd.DataFrame(unusable)], ignore_index=True),
        )
    metrics = {
        "images": len(table),
        "images_left_out": len(bad or ()),
        "images_odd": len(odd),
        "classes": int(table["label"].nunique()),
        "duplicates": int(table["duplicate_of"].notna().sum()),
        "without_time": int(table["time"].isna().sum()),
    }
    write_record(record, stage="sem.index", sample=sample, options=options, metrics=metrics)
    log.info("%d images of %d classes", metrics["images"], metrics["classes"])


@stage_command(group, Split)
@click.argument("tables", nargs=-1, required=True)
@sample_flag(POOLED)
@click.option("--out", required=True, metavar="FILE", help="Table to write.")
@click.option("--readable", metavar="FILE", help="The same table as CSV.")
@record_flag()
def split(tables: tuple[str, ...], sample: str, out: str, readable: str | None, record: str, options: Split) -> None:
    """Divide the images of all TABLES into training, validation and test."""
    from cathodeflow.io.tables import read_table, write_csv, write_table
    from cathodeflow.record import write_record
    from cathodeflow.sem.index import pool
    from cathodeflow.sem.split import split_originals

    index = pool([read_table(path) for path in tables])
    keywords = options.model_dump(exclude={"seed"}) | {"seed": options.seed or 0}
    table = split_originals(index, **keywords)
    write_table(out, table)
    if readable:
        write_csv(readable, table)
    counts = table["split"].value_counts()
    metrics = {name.replace(" ", "_"): int(counts.get(name, 0)) for name in ("train", "validation", "test", "left out")}
    write_record(record, stage="sem.split", sample=sample, options=options, metrics=metrics)
    log.info("%s", ", ".join(f"{count} {name}" for name, count in counts.items()))


@stage_command(group, Crops)
@click.argument("table")
@sample_flag(POOLED)
@click.option("--out", required=True, metavar="STORE", help="Zarr store to write; its table is beside it.")
@record_flag()
def crops(table: str, sample: str, out: str, record: str, options: Crops) -> None:
    """Cut crops from the images of a split TABLE."""
    from cathodeflow.io.crops import GEOMETRY, write_crops
    from cathodeflow.io.micrographs import read_micrograph
    from cathodeflow.io.tables import read_table
    from cathodeflow.record import write_record
    from cathodeflow.scheduling import scheduled
    from cathodeflow.sem.crops import cut_crops, plan_crops
    from cathodeflow.sem.resample import to_uint8

    images = read_table(table, ["name", "image", "label", "split", "rows", "cols", "bar_rows", "pixel_nm"])
    planned = plan_crops(images, **options.model_dump(exclude={"seed"}), seed=options.seed or 0)
    listed = images[["name", "image", "bar_rows"]].itertuples(index=False)
    found = {name: (os.path.abspath(path), bar) for name, path, bar in listed}

    def read_image(name: str) -> Any:
        path, bar = found[name]
        return to_uint8(read_micrograph(path), bar_rows=int(bar))

    geometry = options.model_dump(include=set(GEOMETRY))
    with scheduled():
        write_crops(out, cut_crops(planned, read_image, side=options.side), planned, attributes=geometry)
    counts = planned["split"].value_counts()
    metrics = {name: int(counts.get(name, 0)) for name in ("train", "validation", "test")}
    write_record(record, stage="sem.crops", sample=sample, options=options, metrics=metrics)
    log.info("%d crops of %d x %d pixels", len(planned), options.side, options.side)
