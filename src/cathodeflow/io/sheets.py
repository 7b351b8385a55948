"""Tables that people write: text with tabs, commas or semicolons, and Excel workbooks. Light to import."""

import csv
import logging
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded, one_line

log = logging.getLogger("cathodeflow")

#: Delimiters that a table may have; of those that fit a header equally well, the first one counts.
DELIMITERS = {"\t": "tabs", ",": "commas", ";": "semicolons"}
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
# Of a workbook more than this is no sheet of samples [cells].
_MAX_CELLS = 10_000_000


class Sheet(NamedTuple):
    """Cells of a table as text, without blanks around them.

    Attributes
    ----------
    header : list of str
        Names of the columns.
    rows : list of (int, list of str)
        Line number, from 1, and cells; without empty lines and comments.
    delimiter : str
        What stands between the cells, in words.
    """

    header: list[str]
    rows: list[tuple[int, list[str]]]
    delimiter: str


def read_sheet(path: str, expected: str, columns: Iterable[str]) -> Sheet:
    """Read a table; its delimiter is the one that gives most of the known columns.

    Text is UTF-8 or UTF-16, otherwise it is taken for Windows-1252, as Excel writes it. Lines that begin with `#` are
    comments. Columns that differ from a known one by capitals or blanks alone get its name.

    Parameters
    ----------
    path : str
        Text, or an Excel workbook (.xlsx), of which the first sheet is read.
    expected : str
        Description of the file in errors.
    columns : iterable of str
        Names of the known columns.

    Raises
    ------
    InputError
        The file is missing, no text or workbook, or not well-formed.
    """
    known = {name.casefold(): name for name in columns}

    def named(cell: str) -> str:
        return known.get("_".join(cell.casefold().split()), cell)

    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(path, "no such file", expected) from None
    except OSError as error:
        raise InputError(path, f"an error ({one_line(error)})", expected) from None
    if content.startswith(b"PK\x03\x04"):
        lines = list(_workbook(path, expected))
        delimiter = "cells"
    else:
        text = enumerate(re.split("\r\n|\r|\n", _decoded(path, content, expected)), start=1)
        kept = [(number, line) for number, line in text if line.strip() and not line.startswith("#")]
        heads = {mark: kept and _cells(path, kept[:1], mark, expected)[0][1] for mark in DELIMITERS}
        mark = max(DELIMITERS, key=lambda mark: sum(named(cell) in known.values() for cell in heads[mark] or ()))
        lines, delimiter = _cells(path, kept, mark, expected), DELIMITERS[mark]
        if lines and not any(named(cell) in known.values() for cell in lines[0][1]):
            # A path may hold spaces, so they separate no columns; an editor may have put them in the place of tabs.
            number, head = kept[0]
            if sum(word.casefold() in known for word in head.split()) > 1:
                found = "columns separated by spaces"
                raise InputError(f"{path} line {number}", found, "tabs, commas or semicolons between the columns")
    header = [named(cell) for cell in lines[0][1]] if lines else []
    while header and not header[-1]:
        header.pop()  # Excel ends lines with delimiters of empty columns
    return Sheet(header, [(number, _without_empty_end(row, len(header))) for number, row in lines[1:]], delimiter)


def _without_empty_end(row: list[str], width: int) -> list[str]:
    return row[:width] if not any(row[width:]) else row


def _decoded(path: str, content: bytes, expected: str) -> str:
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8" or b"\0" in content:
            raise InputError(path, f"an error ({one_line(error)})", f"{expected} in UTF-8") from None
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        raise InputError(path, f"an error ({one_line(error)})", f"{expected} in UTF-8") from None
    log.warning("%s is not in UTF-8: it was read as Windows-1252", path)
    return text


def _cells(path: str, lines: list[tuple[int, str]], mark: str, expected: str) -> list[tuple[int, list[str]]]:
    try:
        rows = list(csv.reader([line for _, line in lines], delimiter=mark))
    except csv.Error as error:
        raise InputError(path, str(error), expected) from None
    found = [(number, [cell.strip() for cell in row]) for (number, _), row in zip(lines, rows, strict=False)]
    return [(number, row) for number, row in found if any(row)]


def _workbook(path: str, expected: str) -> Iterator[tuple[int, list[str]]]:
    # Takes longer to import than all text of a sheet to read.
    import openpyxl

    with guarded(path, f"{expected} as an Excel workbook (.xlsx) or text"):
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheet = book.worksheets[0]
        if (sheet.max_row or 0) * (sheet.max_column or 0) > _MAX_CELLS:
            raise InputError(path, f"{sheet.max_row} x {sheet.max_column} cells", f"{expected} of a few columns")
        for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
            cells = [_as_text(value) for value in row]
            if any(cells) and not cells[0].startswith("#"):
                yield number, cells
        book.close()


def _as_text(value: Any) -> str:
    """Write a value of a workbook as a person would: whole numbers without a point."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return value.isoformat() if isinstance(value, date | datetime) else str(value).strip()
