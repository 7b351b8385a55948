"""Tables between stages (Parquet), tables that people read (CSV), and metrics (JSON)."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.atomic import atomic_path
from cathodeflow.io.guard import guarded, require_memory

# Columns that hold names, even those that look like numbers, such as the composition 333.
_NAMES = ("name", "label", "prediction")
Table = pd.DataFrame | Mapping[str, Any] | NDArray[np.void]


def write_table(path: str | os.PathLike[str], table: Table) -> None:
    """Write a table as Parquet; the file appears whole or not at all, and equal tables give equal bytes.

    Parameters
    ----------
    path : path
    table : DataFrame, mapping of str to (n,) array, or (n,) structured array
        The index of a DataFrame is not written.
    """
    columns = pa.Table.from_pandas(as_frame(table), preserve_index=False)
    with atomic_path(path) as temporary:
        pq.write_table(columns, temporary, compression="zstd", write_page_checksum=True)


def read_table(path: str | os.PathLike[str], columns: Iterable[str] | None = None) -> pd.DataFrame:
    """Read a Parquet table.

    Parameters
    ----------
    path : path
    columns : iterable of str, optional
        The columns to read, which must be there; all by default.

    Raises
    ------
    InputError
        The file is missing, truncated, no Parquet, or lacks a column.
    """
    wanted = None if columns is None else list(columns)
    where = _existing(path, "a Parquet table")
    with guarded(where, "a Parquet table"), pq.ParquetFile(where, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        missing = [name for name in wanted or [] if name not in names]
        if missing:
            expected = f"column{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
            raise InputError(where, f"columns {', '.join(names) or 'none'}", expected)
        sizes = (file.metadata.row_group(number).total_byte_size for number in range(file.metadata.num_row_groups))
        require_memory(where, sum(sizes))
        frame: pd.DataFrame = file.read(columns=wanted, use_threads=False).to_pandas()
        return frame


def write_csv(path: str | os.PathLike[str], table: Table, *, float_format: str = "%.6g") -> None:
    """Write a table as CSV with a header line; the file appears whole or not at all."""
    with atomic_path(path) as temporary:
        as_frame(table).to_csv(temporary, index=False, float_format=float_format, lineterminator="\n")


def read_csv(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table that `write_csv` wrote; empty cells are NaN, but names that are numbers stay texts.

    Raises
    ------
    InputError
        No such file, or no table.
    """
    expected = "a CSV table"
    where = _existing(path, expected)
    with guarded(where, expected):
        return pd.read_csv(where, dtype=dict.fromkeys(_NAMES, str))


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write JSON with sorted keys; NaN and infinity, which JSON does not have, become null.

    Parameters
    ----------
    path : path
    data : Any
        Nested mappings, sequences, numbers, text, numpy arrays and scalars.
    """
    text = json.dumps(plain(data), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON.

    Raises
    ------
    InputError
        The file is missing or no JSON.
    """
    where = _existing(path, "a JSON file")
    with guarded(where, "a JSON file"), open(where, encoding="utf-8") as file:
        return json.load(file)


def plain(data: Any) -> Any:
    """Return data as plain lists, numbers and texts that JSON reads back unchanged; null for NaN and infinity."""
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, np.ndarray | np.generic):
        return plain(data.tolist())
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    return os.fspath(data) if isinstance(data, os.PathLike) else data


def as_frame(table: Table) -> pd.DataFrame:
    """Return a table of any kind as a DataFrame with the columns in their given order.

    Examples
    --------
    >>> as_frame(np.array([(1, 2.5)], dtype=[("n", int), ("x", float)])).to_dict("list")
    {'n': [1], 'x': [2.5]}
    """
    if isinstance(table, pd.DataFrame):
        return table
    if isinstance(table, Mapping):
        return pd.DataFrame(dict(table))
    return pd.DataFrame({name: table[name] for name in table.dtype.names or ()})


def _existing(path: str | os.PathLike[str], expected: str) -> str:
    where = os.fspath(path)
    if not os.path.isfile(where):
        raise InputError(where, "a folder" if os.path.isdir(where) else "no such file", expected)
    return where
