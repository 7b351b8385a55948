"""Stage: divide the labelled images into training, validation and test set."""

import logging
from collections.abc import Sequence

from cathodeflow.io.tables import read_table, write_csv, write_table
from cathodeflow.sem.image_options import Split
from cathodeflow.sem.image_table import COLUMNS, pool
from cathodeflow.sem.splits import split_originals
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.sem")


@stage("sem.split")
def split(
    tables: Sequence[InputFile], *, out: OutputFile, readable: OutputFile | None = None, options: Split
) -> Metrics:
    """Divide the images of all TABLES into training, validation and test set.

    Parameters
    ----------
    tables : sequence of path
        Tables of images that `index` wrote, one per data set.
    out : path
        Table to write (Parquet): all images with their set.
    readable : path
        The same table as CSV.

    Raises
    ------
    InputError
        A class has too few images or sessions, or an image has different classes in two tables: a line each.
    """
    table = split_originals(pool([read_table(path, required=COLUMNS) for path in tables]), options)
    write_table(out, table)
    if readable:
        write_csv(readable, table)
    counts = table["split"].value_counts()
    log.info("%s", ", ".join(f"{count} {name}" for name, count in counts.items()))
    names = ("train", "validation", "test", "left out")
    return Metrics({name.replace(" ", "_"): int(counts.get(name, 0)) for name in names})
