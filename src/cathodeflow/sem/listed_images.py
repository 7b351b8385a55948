"""Micrographs as the options of reading want them: one page of several, and without text that is burnt into them."""

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from cathodeflow.errors import InputError
from cathodeflow.io.micrographs import read_micrograph
from cathodeflow.sem.tiles import Grey


def read_listed(path: str, page: int | None = None, mask: str | None = None) -> Grey:
    """Read an image.

    Parameters
    ----------
    path : str
    page : int, optional
        Of `cathodeflow.io.micrographs.read_micrograph`.
    mask : str, optional
        Image of the same size: pixels that are not 0 in it are replaced (`without_masked`).

    Raises
    ------
    InputError
        The image or the mask cannot be read, or they differ in size.
    """
    image = read_micrograph(path, page)
    if mask is None:
        return image
    masked = _mask(mask, os.stat(mask).st_mtime_ns if os.path.isfile(mask) else 0)
    if masked.shape != image.shape:
        found = f"{image.shape[0]} x {image.shape[1]} px"
        raise InputError(path, found, f"{masked.shape[0]} x {masked.shape[1]} px, as the mask {mask}")
    return without_masked(image, masked)


def listed_reader(table: pd.DataFrame) -> Callable[[str], Grey]:
    """Return a function that reads an image of a table of images (`image_table.build_index`) by its path."""
    ways = {row["image"]: (page_of(row.get("page")), mask_of(row.get("mask"))) for row in table.to_dict("records")}
    return lambda path: read_listed(path, *ways.get(path, (None, None)))


def without_masked(image: Grey, masked: NDArray[np.bool_]) -> Grey:
    """Replace pixels by those that lie as far beyond the nearest edge of the mask, as in a mirror.

    So text and scale bars go, while the texture stays that of the specimen around them.

    Parameters
    ----------
    image : (row, col) uint8 or uint16
    masked : (row, col) bool

    Raises
    ------
    InputError
        All pixels are masked.

    Examples
    --------
    >>> without_masked(np.array([[1, 2, 3, 99, 99]], np.uint8), np.array([[0, 0, 0, 1, 1]], bool))
    array([[1, 2, 3, 3, 2]], dtype=uint8)
    """
    if masked.all():
        raise InputError("mask", "every pixel masked", "some that show the specimen")
    if not masked.any():
        return image
    places = np.argwhere(masked)
    nearest = distance_transform_edt(masked, return_distances=False, return_indices=True)[:, masked].T
    # The mirror lies between the last masked pixel and the nearest that is not.
    beyond = 2 * nearest - places - np.sign(nearest - places)
    inside = ((beyond >= 0) & (beyond < masked.shape)).all(axis=1)
    beyond[~inside] = nearest[~inside]
    hidden = masked[tuple(beyond.T)]
    beyond[hidden] = nearest[hidden]
    result = image.copy()
    result[masked] = image[tuple(beyond.T)]
    return result


@cache
def _mask(path: str, changed: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = read_micrograph(path) != 0
    return found


def page_of(value: Any) -> int | None:
    """Return the page in a cell of a table; None if the cell is empty."""
    return None if value is None or pd.isna(value) else int(value)


def mask_of(value: Any) -> str | None:
    """Return the path of a mask in a cell of a table; None if the cell is empty."""
    return value if isinstance(value, str) and value else None
