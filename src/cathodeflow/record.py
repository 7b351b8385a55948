"""The record of a job: options, code, inputs, versions, figures of merit and outputs."""

import getpass
import importlib
import json
import os
import platform
import resource
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from cathodeflow.errors import InputError
from cathodeflow.io.atomic import WRITTEN
from cathodeflow.io.digests import content_digest, input_digests, written_digests
from cathodeflow.io.tables import plain, read_json, write_json
from cathodeflow.options import Options
from cathodeflow.provenance import git_commit, stage_reach, versions
from cathodeflow.samples import read_metadata

FORMAT = "cathodeflow-record-1"
#: Environment variable with the name of the run, which the workflow sets from `run_name`.
RUN = "CATHODEFLOW_RUN"
#: Environment variable with the sample sheets, which the workflow sets: JSON, file by technique.
SHEETS = "CATHODEFLOW_SHEETS"
#: The part that differs between equal jobs, and the digest of the whole file.
JOB, CHECKSUM = "job", "checksum"


class Begun(NamedTuple):
    """Start of a job.

    Attributes
    ----------
    time : float
        Seconds since 1970.
    cpu : float
        Processor time of the process and its children until then [s].
    """

    time: float
    cpu: float


def begin() -> Begun:
    """Return the start of a job that begins now, for `write_record` at its end."""
    return Begun(time.time(), sum(os.times()[:4]))


def write_record(
    path: str,
    *,
    stage: str,
    sample: str,
    options: Options,
    metrics: Mapping[str, Any],
    history: Iterable[Mapping[str, Any]] = (),
    figures: Iterable[str] = (),
    inputs: Iterable[str | os.PathLike[str]] = (),
    run_name: str | None = None,
    begun: Begun | None = None,
    warnings: Iterable[str] = (),
) -> None:
    """Write the metrics JSON of a job, which the `mlflow` rule imports.

    It is the last file of its job, and has the digests of the other outputs. Equal jobs write equal files except for
    the part `job`, which has times, user and machine; `digest` covers all the rest.

    Parameters
    ----------
    path : str
        JSON file to write.
    stage : str
        Such as `bragg.find_peaks`.
    sample : str
        Name of the scan, data set or model of the job.
    options : Options
    metrics : mapping
        Final figures of merit by name; None if one could not be computed.
    history : iterable of mapping
        One row per epoch or iteration; the key `epoch` is the step.
    figures : iterable of str
        Image files of the job.
    inputs : iterable of path
        Files, stores and folders that the job read, including raw data.
    run_name : str, optional
        Name of the run. Default: the environment variable `CATHODEFLOW_RUN`.
    begun : Begun, optional
        Start of the job. Default: that of the process.
    warnings : iterable of str
        Warnings of the log, kept with times and machine: a warning may name what differs between equal jobs.
    """
    WRITTEN.pop(os.path.abspath(path), None)  # a record of before in its place
    content = plain(
        {
            "format": FORMAT,
            "stage": stage,
            "sample": sample,
            "options": options.model_dump(mode="json"),
            "metrics": dict(metrics),
            "history": [dict(row) for row in history],
            "figures": [Path(figure).as_posix() for figure in figures],
            "code": (reached := stage_reach(stage)).digest,
            "versions": versions(reached.libraries),
            "commit": git_commit(),
            "inputs": {name: _of_record(name) or found for name, found in input_digests(inputs).items()},
            "outputs": written_digests(Path(path).parent),
        }
    )
    content |= {"digest": content_digest(content), JOB: _job(begun, run_name, metadata(stage.split(".")[0], sample))}
    content[JOB]["warnings"] = list(warnings)
    write_json(path, {**content, CHECKSUM: content_digest(content)})


def identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a record that is the same for equal jobs, which its `digest` covers."""
    return {key: value for key, value in record.items() if key not in ("digest", JOB, CHECKSUM)}


def _of_record(path: str) -> str | None:
    """Return the digest of the record of another job, in which times do not count; None for other files."""
    if not path.endswith(".json") or not os.path.isfile(path):
        return None
    try:
        content = read_json(path)
    except InputError:
        return None
    return content["digest"] if isinstance(content, dict) and {"digest", JOB} <= content.keys() else None


def _job(begun: Begun | None, run_name: str | None, further: dict[str, str]) -> dict[str, Any]:
    begun, end = begun or Begun(psutil.Process().create_time(), 0.0), begin()
    return {
        "run_name": run_name or os.environ.get(RUN) or None,
        "start": datetime.fromtimestamp(begun.time, UTC).isoformat(timespec="milliseconds"),
        "end": datetime.fromtimestamp(end.time, UTC).isoformat(timespec="milliseconds"),
        "cpu_time_s": round(end.cpu - begun.cpu, 2),
        "max_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "user": user(),
        "sample_sheet": further,
        "platform": platform.platform(),
    }


def metadata(technique: str, sample: str) -> dict[str, str]:
    """Return what else the sample sheet says of a sample, in columns that no stage uses; nothing for a model."""
    sheet = json.loads(os.environ.get(SHEETS) or "{}").get(technique)
    if not sheet:
        return {}
    cls = importlib.import_module(f"cathodeflow.{technique}.options").Section.sample_class
    try:
        return read_metadata(sheet, cls).get(sample, {})
    except InputError:
        return {}  # removed or changed since the run began


def user() -> str | None:
    """Return the name of the user, None if the system has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return None  # a container may run under a number without a name
