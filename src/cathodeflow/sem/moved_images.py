"""Where the images of a table are now, if their folder has been moved or is named otherwise since they were listed."""

import os
from collections.abc import Sequence

import pandas as pd

from cathodeflow.errors import InputError
from cathodeflow.io.image_lists import image_files, root
from cathodeflow.io.tables import read_table
from cathodeflow.samples import read_samples
from cathodeflow.sem.image_table import COLUMNS
from cathodeflow.sem.options import DataSet


def read_split(path: str, columns: Sequence[str] | None = None, *, sheet: str | None = None) -> pd.DataFrame:
    """Read the table of images that `split` wrote.

    Parameters
    ----------
    path : str
        The table.
    columns : sequence of str, optional
        Columns to read, with `name` and `image`; default: all, those of a table of images being required.
    sheet : str, optional
        Sample sheet: the images of its data sets are taken from where it says.

    Raises
    ------
    InputError
        The table or the sheet cannot be read, or an image is not where the sheet says.
    """
    table = read_table(path, columns, required=() if columns else COLUMNS)
    for name, data_set in (read_samples(sheet, DataSet) if sheet else {}).items():
        rows = table["name"].str.startswith(f"{name}/")
        if rows.any() and not data_set.simulated:
            table.loc[rows, "image"] = present_paths(list(table.loc[rows, "image"]), data_set.images)
    return table


def present_paths(paths: Sequence[str], source: str) -> list[str]:
    """Find images in a folder or table again by the end of their paths.

    Parameters
    ----------
    paths : sequence of str
        Where they were.
    source : str
        Folder of class folders, or a table of images, as it is named now.

    Raises
    ------
    InputError
        An image is not there.
    """
    now = image_files(source, [])
    folder, same = root(source), set(now)
    # A table may list images beside its folder.
    ends = {os.path.relpath(path, folder).replace(os.pardir + os.sep, ""): path for path in now}
    found = []
    for path in paths:
        parts = path.split(os.sep)
        # The longest end that fits is the one: a/b/c.tif rather than b/c.tif of another folder.
        tails = (os.sep.join(parts[start:]) for start in range(len(parts)))
        new = path if path in same else next((ends[tail] for tail in tails if tail in ends), None)
        if new is None:
            raise InputError(source, f"no image {os.path.basename(path)}", f"the images that were in it as {path}")
        found.append(new)
    return found
