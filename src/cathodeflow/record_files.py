"""Read records back: whether a JSON file is one of ours, whole, and as it was written."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cathodeflow.errors import InputError
from cathodeflow.io.digests import content_digest
from cathodeflow.io.guard import guarded
from cathodeflow.io.manifests import SUFFIX
from cathodeflow.io.tables import read_json
from cathodeflow.io.text import read_start
from cathodeflow.options import as_input_error
from cathodeflow.record import CHECKSUM, FORMAT, JOB, identity

log = logging.getLogger("cathodeflow.record_files")

# What a record of ours still has of these when a part of it is damaged; other JSON files have few of them.
_SIGNS = tuple(
    f'\n  "{key}": '.encode()
    for key in ("code", "digest", "figures", "format", "history", "inputs", "metrics", "options", "outputs", "stage")
)
_ENOUGH = 5
_BEGINNING = re.compile(rb'\{\n  "checksum": "[0-9a-f]{64}",\n  "code": "[0-9a-f]{16}"')
_LARGEST = 2**26
_OPTION = re.compile(r"\w[\w.]{0,249}")


class _Job(BaseModel):
    start: datetime
    end: datetime


class _Content(BaseModel):
    """Parts of a record that other programs rely on."""

    model_config = ConfigDict(extra="allow")

    stage: str = Field(pattern=r"^\w+\.\w+$")
    sample: str
    code: str
    commit: str | None = None
    options: dict[str, Any]
    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    figures: list[str]
    outputs: dict[str, str]
    inputs: dict[str, str | None] = {}
    versions: dict[str, str] = {}
    job: _Job | None = None


def find_records(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the JSON files in a folder and those below it that may be records: no manifests, nothing in stores."""
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.endswith(".zarr") and not name.startswith("."))
        yield from (Path(place, name).as_posix() for name in sorted(names) if _may_be_record(name))


def _may_be_record(name: str) -> bool:
    return name.endswith(".json") and not name.endswith(SUFFIX) and not name.startswith(".")


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Whether a JSON file is a record that we wrote, whole or damaged, and not a file of somebody else."""
    content = read_start(path, _LARGEST)
    return bool(_BEGINNING.match(content)) or sum(sign in content for sign in _SIGNS) >= _ENOUGH


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a record and compare it with the digests that it holds of itself.

    Returns
    -------
    dict
        Its content without the checksum.

    Raises
    ------
    InputError
        It is no record, lacks something, or was changed after it was written: a line.
    """
    content: Any = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(path, "other JSON", f"a record ({FORMAT})")
    checksum = content.pop(CHECKSUM, None)
    compared = [(content.get("digest"), identity(content))]
    if checksum or JOB in content:  # records of before have one digest
        compared.append((checksum, content))
    for said, part in compared:
        with guarded(path, "a record without NaN"):
            found = content_digest(part)
        if found != said:
            raise InputError(path, f"content of sha256 {found}", f"{said}, as the record itself says")
    try:
        _Content.model_validate(content)
    except ValidationError as error:
        where = os.fspath(path)
        first = as_input_error(error, _Content, lambda place: f"{where}: {'.'.join(map(str, place))}").errors[0]
        raise InputError(first.where, " ".join(first.found.split())[:200], first.expected) from None
    return content


def read_records(paths: Iterable[str]) -> tuple[list[tuple[Path, dict[str, Any]]], list[InputError]]:
    """Read records for MLflow; those that cannot be used are named, and hold up no other.

    Returns
    -------
    records : list of (Path, dict)
        Those that can be used. JSON files of others are left out.
    errors : list of InputError
        A line for each of the others.
    """
    found: list[tuple[Path, dict[str, Any]]] = []
    errors: list[InputError] = []
    for path in paths:
        try:
            record = read_record(path)
            _check_names(path, record)
            figures_of(path, record)
            found.append((Path(path), record))
        except InputError as error:
            if is_ours(path) or not os.path.isfile(path):
                errors += error.errors
            else:
                log.info("%s is no record, and is left out", path)
    return found, errors


def _check_names(path: str, record: dict[str, Any]) -> None:
    """Require names of options that MLflow takes; those of metrics may hold classes of any name."""
    for name in record["options"]:
        if not _OPTION.fullmatch(name):
            raise InputError(f"{path}: options", repr(name[:100]), "names of letters, digits and _")


def figures_of(path: str | os.PathLike[str], record: dict[str, Any]) -> list[str]:
    """List the figures of a record that are there.

    Raises
    ------
    InputError
        One lies outside the folder of the record, which must not choose what other files are sent to a server.
    """
    folder = Path(path).resolve().parent
    figures = [figure for figure in record["figures"] if Path(figure).is_file()]
    for figure in figures:
        if not Path(figure).resolve().is_relative_to(folder):
            raise InputError(path, f"a figure at {figure}", f"figures in the folder of the record, {folder}")
    return figures
