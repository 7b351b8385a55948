"""Stage: list the labelled images of a data set with their metadata."""

import logging

import pandas as pd

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.image_lists import is_image
from cathodeflow.io.tables import write_csv, write_table
from cathodeflow.sem.classes import list_images, similar_labels, with_classes
from cathodeflow.sem.image_options import Index
from cathodeflow.sem.image_table import build_index, odd_images
from cathodeflow.sem.printed_pixel import DIFFERS, NOT_INSTALLED
from cathodeflow.stage import Metrics, OutputFile, Source, stage

log = logging.getLogger("cathodeflow.sem")


@stage("sem.index")
def index(
    images: Source, *, out: OutputFile, readable: OutputFile | None = None, sample: str, options: Index
) -> Metrics:
    """List IMAGES, a folder of class folders or a table, with their metadata.

    Parameters
    ----------
    images : path
        Folder of class folders, or a table (CSV, TSV) of images.
    out : path
        Table to write (Parquet): one row per image.
    readable : path
        The same table as CSV, with a column for what is unusual about an image.
    sample : str
        Name of the data set; the names of the images begin with it.

    Raises
    ------
    InputError
        A line for every image, class folder or row that cannot be used.
    """
    bad: list[InputError] | None = [] if options.on_bad_file == "skip" else None
    try:
        rows = list_images(images, options.compositions, options.states, data_set=sample, refused=bad)
        table = build_index(with_classes(rows, options.classes), options, bad=bad)
    except InputError as error:
        if bad is None and any(is_image(problem.where) for problem in error.errors):
            *others, last = error.errors
            hint = "or sem.index.on_bad_file: skip, which leaves out what cannot be used"
            last = InputError(last.where, last.found, f"{last.expected}; {hint}")
            raise InputErrors.of([*others, last]) from error
        raise
    for problem in bad or ():
        log.warning("left out: %s", problem)
    odd = odd_images(table)
    for path, text in zip(table["image"][odd.index], odd, strict=True):
        log.warning("unusual image: %s: %s", path, text)
    if (table["printed_check"] == NOT_INSTALLED).any():
        log.info("printed scale bars were not read: this needs the extra `ocr` (pip install 'cathodeflow[ocr]')")
    for a, b in similar_labels(list(table["label"].unique())):
        log.warning("classes '%s' and '%s' have almost the same name: are they one?", a, b)
    write_table(out, table)
    if readable:
        unusable = [
            {"image": error.where, "problem": f"found {error.found}, expected {error.expected}"} for error in bad or ()
        ]
        rows_to_read = [table.assign(problem=odd.reindex(table.index)), pd.DataFrame(unusable)]
        write_csv(readable, pd.concat(rows_to_read, ignore_index=True))
    classes = int(table["label"].nunique())
    log.info("%d images of %d classes", len(table), classes)
    return Metrics(
        {
            "images": len(table),
            "images_left_out": len(bad or ()),
            "images_odd": len(odd),
            "classes": classes,
            "duplicates": int(table["duplicate_of"].notna().sum()),
            "without_time": int(table["time"].isna().sum()),
            "without_pixel_size": int(table["pixel_nm"].isna().sum()),
            "scale_bars_read": int(table["printed_nm"].notna().sum()),
            "scale_bars_that_differ": int((table["printed_check"] == DIFFERS).sum()),
        }
    )
