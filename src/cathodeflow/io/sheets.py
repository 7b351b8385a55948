"""Tables that people write: text with tabs, commas or semicolons, and Excel workbooks. Light to import."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded, one_line
from cathodeflow.io.sources import without_value
from cathodeflow.io.text import decoded

#: Delimiters that a table may have; of those that fit a header equally well, the first one counts.
DELIMITERS = {"\t": "tabs", ",": "commas", ";": "semicolons"}
# Line by which Excel keeps the delimiter, before the header.
_EXCEL_DELIMITER = re.compile(r'"?sep=(.)"?[,;\t]*', re.IGNORECASE)
# Of a workbook more than this is no sheet of samples [cells].
_MAX_CELLS = 10_000_000
# Beginnings of files that are no text, with what they are.
_OTHER_FORMATS = {b"\xd0\xcf\x11\xe0": "a workbook of Excel 97 to 2003 (.xls)", b"%PDF": "a PDF document"}
_OPEN_DOCUMENT = b"mimetypeapplication/vnd.oasis.opendocument"


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

    Text is UTF-8, UTF-16 or UTF-32, otherwise it is taken for Windows-1252, as Excel writes it. Lines that begin with
    `#` are comments. Columns that differ from a known one by capitals or blanks alone get its name; those without a
    cell and without a name are left out.

    Parameters
    ----------
    path : str
        Text, or an Excel workbook (.xlsx), of which the first sheet with a known column in its first row is read.
    expected : str
        Description of the file in errors.
    columns : iterable of str
        Names of the known columns, those that are always needed first: errors name the first ones.

    Raises
    ------
    InputError
        The file is missing, no text or workbook, or not well-formed; no column is known; or a line has another
        delimiter than the header.
    """
    known = {name.casefold(): name for name in columns}
    usual = ", ".join(list(known.values())[:4])

    def named(cell: str) -> str:
        return known.get("_".join(cell.casefold().split()), cell)

    content = _content(path, expected)
    if content.startswith(b"PK\x03\x04"):
        sheets = _workbook(path, expected)
        fitting = (lines for lines in sheets if lines and any(named(cell) in known.values() for cell in lines[0][1]))
        lines, delimiter = next(fitting, sheets[0]), "cells"
    else:
        lines, delimiter = _text_lines(path, content, expected, named, set(known.values()))
    if not lines:
        raise InputError(path, "an empty file", f"{expected} with columns such as {usual}")
    number, head = lines[0]
    header = [named(cell) for cell in head]
    if not set(header) & set(known.values()):
        line = "\t".join(head).strip()
        found = f"'{line[:80]}'" + "..." * (len(line) > 80) + ", none of the known columns"
        apart = "" if delimiter == "cells" else ", separated by tabs, commas or semicolons"
        raise InputError(f"{path} line {number}", found, f"names of columns such as {usual}{apart}")
    return _without_empty_columns(Sheet(header, lines[1:], delimiter))


def _content(path: str, expected: str) -> bytes:
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(path, without_value(path) or "no such file", expected) from None
    except IsADirectoryError:
        raise InputError(path, "a folder", expected) from None
    except OSError as error:
        raise InputError(path, f"an error ({one_line(error)})", expected) from None
    other = next((name for start, name in _OTHER_FORMATS.items() if content.startswith(start)), None)
    other = "an OpenDocument spreadsheet (.ods)" if _OPEN_DOCUMENT in content[:200] else other
    if other:
        raise InputError(path, other, f"{expected} as an Excel workbook (.xlsx) or text")
    return content


def _text_lines(
    path: str, content: bytes, expected: str, named: Callable[[str], str], known: set[str]
) -> tuple[list[tuple[int, list[str]]], str]:
    """Return line numbers and cells of a text, the header first, and its delimiter in words."""
    text = enumerate(re.split("\r\n|\r|\n", decoded(path, content, expected)), start=1)
    kept = [(number, line) for number, line in text if line.strip() and not line.startswith("#")]
    marks = sorted(DELIMITERS, key=lambda mark: mark == "\t" and path.lower().endswith(".csv"))
    if kept and (stated := _EXCEL_DELIMITER.fullmatch(kept[0][1])) and stated[1] in DELIMITERS:
        kept, marks = kept[1:], [stated[1]]
    heads = {mark: _cells(path, kept[:1], mark, expected)[0][1] if kept else [] for mark in marks}
    mark = max(marks, key=lambda mark: sum(named(cell) in known for cell in heads[mark]))
    if kept and not any(named(cell) in known for cell in heads[mark]):
        # A path may hold spaces, so they separate no columns; an editor may have put them in the place of tabs.
        number, head = kept[0]
        if sum(named(word) in known for word in head.split()) > 1:
            found = "columns separated by spaces"
            raise InputError(f"{path} line {number}", found, "tabs, commas or semicolons between the columns")
    lines = _cells(path, kept, mark, expected)
    for number, row in lines[1:]:
        if len(row) == 1 < len(lines[0][1]) and (other := _other_delimiter(row[0], mark)):
            expected = f"{DELIMITERS[mark]}, as in the header"
            raise InputError(f"{path} line {number}", f"cells separated by {other}", expected)
    return lines, DELIMITERS[mark]


def _other_delimiter(line: str, mark: str) -> str | None:
    """Return in words what separates the cells of a line without its delimiter; None if it may be one cell."""
    others = {**{other: words for other, words in DELIMITERS.items() if other != mark}, " ": "spaces"}
    return next((words for other, words in others.items() if other in line), None)


def _without_empty_columns(sheet: Sheet) -> Sheet:
    """Leave out the columns without a name and a cell, as Excel leaves them between others and at the end of lines."""
    width = len(sheet.header)
    used = {i for _, row in sheet.rows for i, cell in enumerate(row[:width]) if cell}
    empty = {i for i, name in enumerate(sheet.header) if not name and i not in used}
    rows = [(number, _without_empty_end(row, width)) for number, row in sheet.rows]
    kept = [(number, [cell for i, cell in enumerate(row) if i not in empty]) for number, row in rows]
    return Sheet([name for i, name in enumerate(sheet.header) if i not in empty], kept, sheet.delimiter)


def _without_empty_end(row: list[str], width: int) -> list[str]:
    return row[:width] if not any(row[width:]) else row


def _cells(path: str, lines: list[tuple[int, str]], mark: str, expected: str) -> list[tuple[int, list[str]]]:
    # The empty line at the end becomes part of the last cell if that has a quote that is not closed.
    texts = [*(line for _, line in lines), ""]
    try:
        rows = list(csv.reader(texts, delimiter=mark, skipinitialspace=True))
    except csv.Error as error:
        raise InputError(path, str(error), expected) from None
    if len(rows) < len(texts):
        found = "a quote that is not closed, or a line break inside of quotes"
        raise InputError(path, found, f"{expected} with every row in one line")
    found_cells = [(number, [cell.strip() for cell in row]) for (number, _), row in zip(lines, rows, strict=False)]
    return [(number, row) for number, row in found_cells if any(row)]


def _workbook(path: str, expected: str) -> list[list[tuple[int, list[str]]]]:
    # Takes longer to import than all text of a sheet to read.
    import openpyxl

    # The file and not its name, of which openpyxl would require a suffix.
    with guarded(path, f"{expected} as an Excel workbook (.xlsx) or text"), open(path, "rb") as file:
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        return [list(_rows(path, sheet, expected)) for sheet in book.worksheets] or [[]]


def _rows(path: str, sheet: Any, expected: str) -> Iterator[tuple[int, list[str]]]:
    if (sheet.max_row or 0) * (sheet.max_column or 0) > _MAX_CELLS:
        raise InputError(path, f"{sheet.max_row} x {sheet.max_column} cells", f"{expected} of a few columns")
    for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells = [_as_text(value) for value in row]
        if any(cells) and not cells[0].startswith("#"):
            yield number, cells


def _as_text(value: Any) -> str:
    """Write a value of a workbook as a person would: whole numbers without a point."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return value.isoformat() if isinstance(value, date | datetime) else str(value).strip()
