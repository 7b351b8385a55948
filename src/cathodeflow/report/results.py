"""What a run left under its results folder: records, and the tables and figures that they list."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cathodeflow.errors import InputError
from cathodeflow.io.attachments import file_size
from cathodeflow.io.tables import read_csv
from cathodeflow.record_files import find_records, is_ours, read_record

#: How the object of a scan was found, by the part of the name of its jobs that says it.
_ROUTES = {"phase": "random starts", "refine": "network"}


class Job(NamedTuple):
    """A job with its record.

    Attributes
    ----------
    path : Path
        File of the record.
    stage, sample : str
        Such as `fit` and `charge_010`.
    record : dict
    """

    path: Path
    stage: str
    sample: str
    record: dict[str, Any]

    @property
    def label(self) -> str:
        """Name of the sample as readers know it, such as `scan54 (random starts)` for `scan54/phase`."""
        name, _, route = self.sample.partition("/")
        return f"{name} ({_ROUTES[route]})" if route in _ROUTES else self.sample

    @property
    def metrics(self) -> dict[str, Any]:
        """Figures of merit."""
        return self.record["metrics"]

    def files(self, *suffixes: str) -> Iterator[Path]:
        """Yield the outputs with these suffixes that are there, in the folder of the record or below."""
        folder = self.path.parent
        for name in self.record["outputs"]:
            path = folder / name
            inside = path.resolve().is_relative_to(folder.resolve())
            if name.lower().endswith(suffixes) and inside and file_size(path) is not None:
                yield path

    def table(self, name: str) -> pd.DataFrame | None:
        """Read an output as a CSV table; None if there is none of this name."""
        found = next((path for path in self.files(".csv") if path.name == name), None)
        return read_csv(found) if found else None


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table by the names of its columns."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


class Results(NamedTuple):
    """Jobs of a technique by stage, in the order of their samples."""

    technique: str
    jobs: dict[str, list[Job]]

    def all(self, *stages: str) -> list[Job]:
        """Return the jobs of some stages."""
        return [job for stage in stages for job in self.jobs.get(stage, [])]

    def first(self, stage: str) -> Job | None:
        """Return the first job of a stage."""
        return next(iter(self.jobs.get(stage, [])), None)


def read_results(folder: str | os.PathLike[str]) -> tuple[dict[str, Results], list[InputError]]:
    """Read all records under a results folder.

    Returns
    -------
    results : dict of str to Results
        By technique.
    errors : list of InputError
        One for each record that is damaged; it is left out.

    Raises
    ------
    InputError
        There is no record.
    """
    jobs: dict[str, dict[str, list[Job]]] = {}
    errors: list[InputError] = []
    for path in find_records(folder):
        try:
            record = read_record(path)
        except InputError as error:
            errors += error.errors if is_ours(path) else []
            continue
        technique, stage = record["stage"].split(".")
        jobs.setdefault(technique, {}).setdefault(stage, []).append(Job(Path(path), stage, record["sample"], record))
    if not jobs:
        raise InputError(folder, "no record of a job", "the results folder of a run")
    return {name: Results(name, stages) for name, stages in sorted(jobs.items())}, errors
