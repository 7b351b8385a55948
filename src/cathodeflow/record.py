"""The record of a job: what was done, with which options and code, and what came out."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cathodeflow.io.digests import content_digest, written_digests
from cathodeflow.io.tables import plain, write_json
from cathodeflow.options import Options
from cathodeflow.provenance import code_digest, git_commit, stage_target

FORMAT = "cathodeflow-record-1"


def write_record(
    path: str,
    *,
    stage: str,
    sample: str,
    options: Options,
    metrics: Mapping[str, Any],
    history: Iterable[Mapping[str, Any]] = (),
    figures: Iterable[str] = (),
) -> None:
    """Write the metrics JSON of a job, which the `mlflow` rule imports.

    Nothing in it depends on time or machine, so that equal jobs write equal files. It is the last file of its job, and
    has the digests of all that the job wrote beside it.

    Parameters
    ----------
    path : str
        JSON file to write.
    stage : str
        Such as `bragg.find_peaks`.
    sample : str
        Name of the scan, data set or model that the job was for.
    options : Options
    metrics : mapping
        Final figures by name; None where one could not be computed.
    history : iterable of mapping
        A row per epoch or iteration; the key `epoch` is the step.
    figures : iterable of str
        Image files that belong to the job.
    """
    content = plain(
        {
            "format": FORMAT,
            "stage": stage,
            "sample": sample,
            "options": options.model_dump(mode="json"),
            "metrics": dict(metrics),
            "history": [dict(row) for row in history],
            "figures": [Path(figure).as_posix() for figure in figures],
            "code": code_digest(stage_target(stage)),
            "commit": git_commit(),
            "outputs": written_digests(Path(path).parent),
        }
    )
    write_json(path, {**content, "digest": content_digest(content)})
