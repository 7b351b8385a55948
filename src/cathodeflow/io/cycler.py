"""Tables of battery cyclers."""

import os

import numpy as np
import pandas as pd

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded
from cathodeflow.io.sheets import read_sheet
from cathodeflow.io.tables import read_table

_EXPECTED = "a table of the cycler (CSV, TSV, Excel or Parquet) with a line of names"


def read_cycler(path: str, columns: list[str]) -> pd.DataFrame:
    """Read columns of a table of a cycler as numbers; rows without a number in one of them are left out.

    Separators may be commas, semicolons or tabs; with semicolons or tabs, the decimal separator may be a comma. Lines
    before the line of names are skipped.

    Parameters
    ----------
    path : str
    columns : list of str
        Names of the columns.

    Raises
    ------
    InputError
        The file cannot be read, lacks a column, or has no row of numbers.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".parquet":
        table = read_table(path)
    elif suffix == ".xlsx":
        sheet = read_sheet(path, _EXPECTED, columns)
        table = pd.DataFrame([row for _, row in sheet.rows]).iloc[:, : len(sheet.header)]
        table.columns = sheet.header[: table.shape[1]]
    else:
        table = _read_text(path, columns)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        names = ", ".join(map(str, table.columns))[:300]
        raise InputError(path, f"columns {names}", f"column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    numbers = pd.DataFrame({name: _as_numbers(table[name]) for name in columns})
    numbers = numbers.loc[np.isfinite(numbers.to_numpy()).all(axis=1)]
    if not len(numbers):
        raise InputError(path, f"no row with numbers in {', '.join(columns)}", _EXPECTED)
    return numbers.reset_index(drop=True)


def _as_numbers(column: "pd.Series[str]") -> "pd.Series[float]":
    if column.dtype.kind in "iuf":
        return column.astype(np.float64)
    return pd.to_numeric(column.astype(str).str.strip().str.replace(",", ".", regex=False), errors="coerce")


def _read_text(path: str, columns: list[str]) -> pd.DataFrame:
    if not os.path.isfile(path):
        raise InputError(path, "a folder" if os.path.isdir(path) else "no such file", _EXPECTED)
    with guarded(path, _EXPECTED):
        with open(path, "rb") as raw:
            encoding = "utf-16" if raw.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        with open(path, encoding=encoding, errors="replace") as file:
            head = [line.rstrip("\r\n") for _, line in zip(range(200), file, strict=False)]
        # Cyclers write settings before the table.
        best = (0, ",", 0)
        for number, line in enumerate(head):
            for separator in ("\t", ";", ","):
                names = {name.strip().strip('"') for name in line.split(separator)}
                best = max(best, (len(names & set(columns)), separator, -number))
        count, separator, start = best
        if not count:
            raise InputError(path, f"a first line {head[0][:100] if head else ''!r}", f"columns {', '.join(columns)}")
        table = pd.read_csv(
            path, sep=separator, skiprows=-start, skip_blank_lines=False, encoding=encoding,
            encoding_errors="replace", skipinitialspace=True, dtype=str,
        )  # fmt: skip
        return table.rename(columns=lambda name: str(name).strip())
