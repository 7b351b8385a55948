"""Stage: cut crops from the images of all data sets."""

import logging
import os

import numpy as np
from numpy.typing import NDArray

from cathodeflow.io.crops import GEOMETRY, MIN_USABLE, write_crops
from cathodeflow.scheduling import scheduled
from cathodeflow.sem.cropping import cut_crops, plan_crops
from cathodeflow.sem.image_options import Crops
from cathodeflow.sem.listed_images import listed_reader
from cathodeflow.sem.moved_images import read_split
from cathodeflow.sem.resample import to_uint8
from cathodeflow.sem.usable_area import UsableArea
from cathodeflow.stage import InputFile, Metrics, OutputStore, stage

log = logging.getLogger("cathodeflow.sem")


@stage("sem.crops")
def crops(split_table: InputFile, *, out: OutputStore, sheet: str | None = None, options: Crops) -> Metrics:
    """Cut crops from the images of SPLIT_TABLE.

    Parameters
    ----------
    split_table : path
        Table of images that `split` wrote.
    out : path
        Zarr store to write; the table of the crops is written beside it, with the suffix `.parquet`.
    sheet : str
        Sample sheet: images are read from where it says, if they have been moved since they were listed.

    Raises
    ------
    InputError
        Images that are smaller than a crop or of unknown pixel size, or too few or too many crops for the images.
    """
    geometry_columns = ["rows", "cols", *UsableArea._fields, "pixel_nm", "page", "mask", "blocks", "field"]
    columns = ["name", "image", "label", "split", "session", *geometry_columns]
    images = read_split(split_table, columns, sheet=sheet)
    planned = plan_crops(images, options)
    listed = images[["name", "image", *UsableArea._fields]].itertuples(index=False, name=None)
    # Absolute paths, as a worker on a cluster may have another working folder.
    table = images.assign(image=images["image"].map(os.path.abspath), mask=images["mask"].map(_absolute))
    read = listed_reader(table)
    files = {name: (os.path.abspath(path), UsableArea(*edges)) for name, path, *edges in listed}

    def read_image(name: str) -> NDArray[np.uint8]:
        path, area = files[name]
        return to_uint8(read(path), area=area)

    geometry = options.model_dump(include={*GEOMETRY, MIN_USABLE})
    with scheduled():
        write_crops(out, cut_crops(planned, read_image, side=options.side), planned, attributes=geometry)
    log.info("%d crops of %d x %d pixels", len(planned), options.side, options.side)
    counts = planned["split"].value_counts()
    return Metrics({name: int(counts.get(name, 0)) for name in ("train", "validation", "test")})


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if isinstance(path, str) else None
