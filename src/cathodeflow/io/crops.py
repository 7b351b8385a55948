"""Crops: a Zarr store (crop, y, x), and the table of their positions, `STORE` with the suffix .parquet."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd

from cathodeflow.errors import InputError
from cathodeflow.io.manifests import manifest_path
from cathodeflow.io.tables import read_table, write_table
from cathodeflow.io.volumes import read_volume, read_volume_info, write_volume

#: Columns of the table; there may be others, such as `session`.
CROPS = ("crop", "name", "label", "split", "row", "col", "rows", "cols")
#: Options of `crops` that define how images are cut; a network needs its inputs cut in the same way.
GEOMETRY = ("pixels", "side", "pixel_nm", "margin")
#: Option of `crops` that says which crops are left out, absent in stores and networks made before it existed.
MIN_USABLE = "min_usable"
#: Its name as a parameter of `cathodeflow.sem.tiles.cut_tiles`.
LEAST = "least"
# Crops per chunk: 32 random crops are read as fast as with one crop per chunk, and all crops in order nearly as fast as
# with 64.
_CHUNK = 16
_KEY = "crops"


def crops_table_path(store: str | os.PathLike[str]) -> str:
    """Return the path of the table of a store of crops, which is given by its path or that of its manifest.

    Examples
    --------
    >>> crops_table_path("results/crops.zarr"), crops_table_path("crops.zarr.manifest.json")
    ('results/crops.parquet', 'crops.parquet')
    """
    name = os.fspath(store).rstrip("/").removesuffix(manifest_path(""))
    return os.fspath(Path(name).with_suffix(".parquet"))


def write_crops(
    store: str | os.PathLike[str], crops: da.Array, table: pd.DataFrame, *, attributes: Mapping[str, Any]
) -> None:
    """Write crops, a file at a time, their manifest, and their table.

    Parameters
    ----------
    store : path
        Such as crops.zarr; the manifest is in the same folder, and the table at `crops_table_path`.
    crops : dask array (n, side, side) uint8
        `cathodeflow.sem.cropping.cut_crops`.
    table : DataFrame
        `cathodeflow.sem.cropping.plan_crops`; n rows.
    attributes : mapping
        How the crops were cut (`GEOMETRY`); a network trained on them needs its inputs cut in the same way.
    """
    _require(store, crops, table)
    write_volume(
        store, crops, axes=("crop", "y", "x"), chunks=(_CHUNK, *crops.shape[1:]), attributes={_KEY: dict(attributes)}
    )
    write_table(crops_table_path(store), table)


def read_crops(store: str | os.PathLike[str]) -> tuple[da.Array, pd.DataFrame]:
    """Open crops and read their table.

    Parameters
    ----------
    store : path
        The store or its manifest.

    Returns
    -------
    crops : dask array (n, side, side) uint8
        A block per file.
    table : DataFrame
        n rows with at least the columns `CROPS`.

    Raises
    ------
    InputError
        Store or table are missing or damaged, or do not match.
    """
    crops = read_volume(store)
    path = crops_table_path(store)
    table = read_table(path, required=CROPS)
    _require(path, crops, table)
    return crops, table


def crops_geometry(store: str | os.PathLike[str]) -> dict[str, Any]:
    """Read how crops were cut: `pixels`, `side`, `margin`, `pixel_nm`, `min_usable`, as of `options.Crops`.

    Raises
    ------
    InputError
        The store is missing or has no such attributes.
    """
    found = read_volume_info(store).attributes.get(_KEY)
    if not isinstance(found, dict) or set(found) - {MIN_USABLE} != set(GEOMETRY):
        raise InputError(store, "no attributes that describe how the crops were cut", "crops written by sem_crops")
    return {MIN_USABLE: 0.0, **found}


def geometry_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return how crops are cut, of the metadata of a network or a store; without `min_usable` all are used."""
    return {name: metadata[name] for name in GEOMETRY} | {LEAST: metadata.get(MIN_USABLE, 0.0)}


def _require(where: str | os.PathLike[str], crops: da.Array, table: pd.DataFrame) -> None:
    if crops.ndim != 3 or crops.dtype != np.uint8 or crops.shape[1] != crops.shape[2]:
        raise InputError(where, f"{crops.dtype} {crops.shape}", "crops (n, side, side) of uint8")
    if len(table) != len(crops) or (table["crop"].to_numpy() != np.arange(len(table))).any():
        raise InputError(
            where, f"{len(crops)} crops, a table of {len(table)}", "a table with one row per crop, in the same order"
        )
