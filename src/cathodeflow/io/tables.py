"""Tables between stages (Parquet), tables for people (CSV), and metrics (JSON)."""

import hashlib
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

# Columns of names, which may look like numbers, such as the composition 333.
_NAMES = ("name", "label", "prediction", "sample")
# Keys in the metadata of a file: our digests, and what pandas is told about types.
_DIGESTS, _PANDAS = b"cathodeflow.digests", b"pandas"
Table = pd.DataFrame | Mapping[str, Any] | NDArray[np.void]


def write_table(path: str | os.PathLike[str], table: Table) -> None:
    """Write a table as Parquet, atomically; equal tables give equal bytes.

    Parquet has checksums of its pages, but none of the part that has the names of columns and where each begins. The
    file therefore has, in its metadata, a digest of every column by name (`cathodeflow.digests`, see `read_table`).

    Parameters
    ----------
    path : path
    table : DataFrame, mapping of str to (n,) array, or (n,) structured array
        The index of a DataFrame is not written.
    """
    columns = pa.Table.from_pandas(as_frame(table), preserve_index=False)
    metadata = columns.schema.metadata or {}
    digests = {_DIGESTS: json.dumps(_table_digests(columns)).encode()}
    columns = columns.replace_schema_metadata({**metadata, **digests})
    with atomic_path(path) as temporary:
        pq.write_table(columns, temporary, compression="zstd", write_page_checksum=True)


def read_table(
    path: str | os.PathLike[str], columns: Iterable[str] | None = None, *, required: Iterable[str] = ()
) -> pd.DataFrame:
    """Read a Parquet table, and compare it with the digests that `write_table` put into it; those of others have none.

    Parameters
    ----------
    path : path
    columns : iterable of str, optional
        Columns to read, which must exist. Default: all columns.
    required : iterable of str
        Columns that must be there, where all are read.

    Raises
    ------
    InputError
        The file is missing, truncated, no Parquet, lacks a column, or was changed after it was written.
    """
    wanted = None if columns is None else list(columns)
    needed = [*(wanted or ()), *required]
    where = _existing(path, "a Parquet table")
    with guarded(where, "a Parquet table"), pq.ParquetFile(where, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        missing = [name for name in needed if name not in names]
        if missing:
            expected = f"column{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
            raise InputError(where, f"columns {', '.join(names) or 'none'}", expected)
        sizes = (file.metadata.row_group(number).total_byte_size for number in range(file.metadata.num_row_groups))
        require_memory(where, sum(sizes))
        read = file.read(columns=wanted, use_threads=False)
        _compare_digests(where, read, names)
        frame: pd.DataFrame = read.to_pandas()
        return frame


def _compare_digests(where: str, read: pa.Table, names: list[str]) -> None:
    metadata = read.schema.metadata or {}
    if _DIGESTS not in metadata:
        # One bit makes Parquet skip all metadata, with the digests among them.
        if _DIGESTS in _footer(where):
            raise InputError(where, "damaged metadata", "the metadata that were written")
        return
    written, found = json.loads(metadata[_DIGESTS]), _table_digests(read)
    if names != list(written["columns"]):
        raise InputError(where, f"columns {', '.join(names)}", f"{', '.join(written['columns'])}, as they were written")
    for name, digest in found["columns"].items():
        if digest != written["columns"][name]:
            raise InputError(where, f"column {name} of sha256 {digest}", f"{written['columns'][name]}, as written")
    if found["types"] != written["types"]:
        raise InputError(where, f"types of sha256 {found['types']}", f"{written['types']}, as written")


def _footer(where: str) -> bytes:
    """Last part of a Parquet file, which has the names of columns and the metadata."""
    with open(where, "rb") as file:
        file.seek(-8, os.SEEK_END)
        size = int.from_bytes(file.read(4), "little") + 8
        file.seek(max(0, os.path.getsize(where) - size))
        return file.read(size)


def _table_digests(table: pa.Table) -> dict[str, Any]:
    """Digests of the columns by name, of type and values of each, and of the types that pandas is told."""
    columns = {name: _column_digest(name, table[name]) for name in table.column_names}
    types = (table.schema.metadata or {}).get(_PANDAS, b"")
    return {"columns": columns, "types": hashlib.sha256(types).hexdigest()}


def _column_digest(name: str, column: pa.ChunkedArray) -> str:
    numbers = pa.types.is_integer(column.type) or column.type in (pa.float32(), pa.float64())
    digest = hashlib.sha256(f"{name}\0{_kind(column.type)}\0{len(column)}\0".encode())
    digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
    if numbers:
        # What stands in the place of a missing value depends on who wrote it.
        digest.update(np.ascontiguousarray(column.fill_null(0).to_numpy()).tobytes())
    else:
        digest.update(repr(column.to_pylist()).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _kind(data: pa.DataType) -> str:
    """Type of a column without what is another after reading: names of the items of a list, and sizes of codes."""
    if pa.types.is_dictionary(data):
        return f"{'ordered ' * data.ordered}codes of {_kind(data.value_type)}"
    if pa.types.is_list(data) or pa.types.is_large_list(data):
        return f"lists of {_kind(data.value_type)}"
    return str(data).removeprefix("large_")


def write_csv(path: str | os.PathLike[str], table: Table, *, float_format: str = "%.6g") -> None:
    """Write a table as CSV with a header line, atomically."""
    with atomic_path(path) as temporary:
        as_frame(table).to_csv(temporary, index=False, float_format=float_format, lineterminator="\n")


def read_csv(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table that `write_csv` wrote; empty cells are NaN, and names that are numbers stay text.

    Raises
    ------
    InputError
        The file does not exist, or is not a table.
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
        The file is missing or not JSON.
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
