"""Sample sheets: tables with one row per sample."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import ValidationError, field_validator

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.file_arguments import InputFile
from cathodeflow.io.sheets import read_sheet
from cathodeflow.io.sources import expanded, is_remote, list_files
from cathodeflow.options import Options, as_input_error, option

# A column that is so much like a known one is taken for a slip of the pen, as `frame` for `frames`.
_CLOSE = 0.8
# Regular expression of the name of a sample.
SAMPLE_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"


class Sample(Options):
    """A row of a sample sheet; techniques add further columns."""

    sample: str = option(
        ...,
        "Name of the sample and of its folder of results: letters, digits, `_`, `.` and `-`.",
    )

    @field_validator("sample")
    @classmethod
    def _is_name(cls, name: str) -> str:
        if not re.fullmatch(SAMPLE_NAME, name):
            raise ValueError("letters, digits, '_', '.' and '-', beginning with a letter or digit, at most 100")
        return name


class TechniqueSection(Options):
    """Base of a technique's section of the configuration; techniques add the options of their stages."""

    samples: InputFile = option(
        ..., "Path of the sample sheet: text with tabs, commas or semicolons, or an Excel workbook (.xlsx)."
    )

    sample_class: ClassVar[type[Sample]] = Sample

    def folders(self) -> list[str]:
        """Names of the results folders of several samples, which no sample may have."""
        return []

    def read_headers(self, samples: dict[str, Any]) -> None:
        """Read the headers of the raw files, which `check` does not open.

        Raises
        ------
        InputError
            One line for each problem.
        """

    def check(self, samples: dict[str, Any]) -> None:
        """Require that files exist, and that options are consistent with each other and with the samples.

        Raises
        ------
        InputError
            One line for each problem.
        """


def source_errors(where: str, sources: Mapping[str, str | None]) -> list[InputError]:
    """Find the problems of the raw data in a row of a sample sheet.

    Parameters
    ----------
    where : str
        Name of the row in errors.
    sources : mapping of str to str or None
        Files, folders, glob patterns or addresses by column; None where the cell is empty.
    """
    errors = []
    for column, source in sources.items():
        if source is None:
            continue
        if set("{}") & set(source):
            # Snakemake reads braces as wildcards.
            errors.append(InputError(f"{where}, {column}", source, "a path without { and }"))
            continue
        try:
            files = list_files(source)
            errors += dangling(f"{where}, {column}", [] if is_remote(source) else files)
        except InputError as error:
            errors.append(InputError(f"{where}, {column}: {error.where}", error.found, error.expected))
    return errors


def dangling(where: str, files: Iterable[str]) -> list[InputError]:
    """Find the links among raw files that lead nowhere, and files that a table names but that are not there."""
    return [
        InputError(f"{where}: {file}", "no such file, or a link to none", "a file")
        for file in files
        if not os.path.exists(file)
    ]


def missing_files(files: Mapping[str, str | None], expected: str) -> list[InputError]:
    """Find the files, by configuration key, that do not exist; None means no file."""
    return [
        InputError(f"{key}: {path}", "no such file", expected)
        for key, path in files.items()
        if path is not None and not Path(path).is_file()
    ]


SampleT = TypeVar("SampleT", bound=Sample)


def read_samples(path: str, cls: type[SampleT]) -> dict[str, SampleT]:
    """Read a sample sheet.

    Empty cells have the default; lines that begin with `#` are comments; further columns are for `read_metadata`.

    Parameters
    ----------
    path : str
        Table with a header line: text with tabs, commas or semicolons, or an Excel workbook.
    cls : type
        Class of a row; its fields are the columns.

    Returns
    -------
    dict
        Samples by name, in the order of the sheet.

    Raises
    ------
    InputError
        The file is missing or has no samples, a column is missing or has almost the name of another, a value is wrong,
        or a name occurs twice: one line each.
    """
    sheet = read_sheet(path, "a sample sheet", _columns(cls))
    known, header = list(cls.model_fields), sheet.header
    errors = _column_errors(path, header, cls)
    errors += [InputError(path, "no samples", "one row per sample")] if not sheet.rows and not errors else []
    if errors:
        raise InputErrors.of(errors)
    samples: dict[str, SampleT] = {}
    for number, row in sheet.rows:
        where = f"{path} line {number}"
        try:
            if len(row) > len(header):
                expected = f"{len(header)} cells separated by {sheet.delimiter}"
                raise InputError(where, f"{len(row)} cells", expected)
            cells = dict(zip(header, row, strict=False))
            given = {name: cells[name] for name in known if cells.get(name)}
            if sheet.delimiter == "semicolons":
                given = _with_points(given, cls)
            sample = _parse(given, cls, where)
            if sample.sample in samples:
                raise InputError(where, f"sample '{sample.sample}' a second time", "every sample name once")
            samples[sample.sample] = sample
        except InputError as error:
            errors += error.errors
    if errors:
        raise InputErrors.of(errors)
    return samples


def read_metadata(path: str, cls: type[Sample]) -> dict[str, dict[str, str]]:
    """Read what else a sample sheet says of each sample: the columns that no stage uses, as text by sample and name.

    Raises
    ------
    InputError
        The file is missing, or no sheet.
    """
    sheet = read_sheet(path, "a sample sheet", _columns(cls))
    found = {}
    for _, row in sheet.rows:
        cells = dict(zip(sheet.header, row, strict=False))
        further = {name: cell for name, cell in cells.items() if cell and name not in cls.model_fields}
        found[cells.get("sample", "")] = further
    return found


def _columns(cls: type[Sample]) -> list[str]:
    """Return the names of the columns, those that a sheet must have first."""
    return sorted(cls.model_fields, key=lambda name: not cls.model_fields[name].is_required())


def _column_errors(path: str, header: list[str], cls: type[Sample]) -> list[InputError]:
    known = list(cls.model_fields)
    errors = []
    for name in header:
        close = difflib.get_close_matches(name.casefold(), known, 1, cutoff=_CLOSE)
        if not name:
            errors.append(InputError(path, "a column without a name", "a name in every cell of the first line"))
        elif name not in known and close and close[0] not in header:
            errors.append(InputError(path, f"column '{name}'", f"'{close[0]}', or a name that is less like it"))
    errors += [
        InputError(path, "no such column", f"a column '{name}'")
        for name, field in cls.model_fields.items()
        if field.is_required() and name not in header
    ]
    return errors + [
        InputError(path, f"column '{name}' a second time", "every column once")
        for name in sorted({name for name in header if header.count(name) > 1})
    ]


def _with_points(cells: dict[str, str], cls: type[Sample]) -> dict[str, str]:
    """Replace decimal commas: spreadsheets write semicolons between columns where the comma is in numbers."""
    number = {
        name for name, field in cls.model_fields.items() if float in (field.annotation, *get_args(field.annotation))
    }
    return {name: text.replace(",", ".") if name in number else text for name, text in cells.items()}


def _parse(cells: dict[str, Any], cls: type[SampleT], where: str) -> SampleT:
    try:
        return cls.model_validate({name: expanded(text) for name, text in cells.items()})
    except ValidationError as error:
        raise as_input_error(error, cls, lambda location: f"{where}: {location[0]}") from None
