"""MLflow: import of the records of finished jobs as runs, and live logging of trainings.

Jobs never import mlflow. A separate job imports their records, so that no two processes migrate a database at the same
time, an unreachable server costs no computation, and importing twice adds nothing.
"""

import hashlib
import json
import logging
import math
import os
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from cathodeflow.cluster import Tracking, chosen
from cathodeflow.config import techniques
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.atomic import atomic_path, is_first_process
from cathodeflow.io.databases import check_database
from cathodeflow.io.digests import content_digest
from cathodeflow.io.guard import one_line
from cathodeflow.io.tables import read_json, write_json
from cathodeflow.record import JOB, user
from cathodeflow.record_files import figures_of, find_records, is_ours, read_records
from cathodeflow.samples import read_samples
from cathodeflow.saved_views import keep_views, view_address, view_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("cathodeflow.tracking")

KEY, PARENT, UNFINISHED, CURRENT, FOLDER, RECORD = (
    f"cathodeflow.{name}" for name in ("key", "parent", "unfinished", "current", "folder", "record")
)
SQLITE, SERVERS = "sqlite:///", ("http://", "https://")
BATCH = 900  # MLflow takes at most 1000 metrics in one request
# Letters that MLflow takes in no name, such as those of a class in the name of a metric: `a<b` is shown as `a:3Cb`.
_FORBIDDEN = re.compile(r"[^\w. -]")


def list_records(results: str, sheets: Mapping[str, str], folders: Mapping[str, Iterable[str]]) -> list[str]:
    """List the records of all samples of the sheets, and of the results of several samples.

    Parameters
    ----------
    results : str
        Folder of results.
    sheets : mapping
        Sample sheet by technique.
    folders : mapping
        By technique, the names of the folders with results of several samples.

    Raises
    ------
    InputError
        A sample sheet is wrong.
    """
    found: list[str] = []
    for technique, sheet in sheets.items():
        section = techniques()[technique]
        for folder in (*read_samples(sheet, section.sample_class), *folders.get(technique, ())):
            found += find_records(Path(results, technique, folder))
    return found


def import_records(records: Collection[str], *, results: str = "results", uri: str, experiment: str) -> dict[str, str]:
    """Import the records that are not in MLflow yet.

    There is one parent run for the experiment and one child run for each record, identified by a tag with the
    digest of the record and its figures. Unfinished runs of an interrupted import of the same folder are deleted
    first. Runs of other folders in the same experiment are not changed.

    Parameters
    ----------
    records : collection of str
        Record files.
    results : str
        Folder of results.
    uri, experiment : str
        MLflow tracking address and name of the experiment.

    Returns
    -------
    dict
        Run id by record file.

    Raises
    ------
    InputError
        A line for every record that cannot be used, after all others were imported; or the database is damaged.
    """
    with _database_lock(uri), _database_named(uri):
        client = _client(uri)
        experiment_id = _experiment(client, uri, experiment)
        keep_views(client, experiment_id)
        runs = list(_search(client, experiment_id))
        folder = os.path.abspath(results)
        for run in runs:
            if UNFINISHED in run.data.tags and run.data.tags.get(FOLDER) == folder:
                client.delete_run(run.info.run_id)
        runs = [run for run in runs if UNFINISHED not in run.data.tags]
        known = {run.data.tags[KEY]: run for run in runs if KEY in run.data.tags}
        parents = [run.info.run_id for run in runs if PARENT in run.data.tags]
        found, errors = read_records(records)
        times = [time for _, record in found for time in _times(record) if time]
        parent = parents[0] if parents else _parent(client, experiment_id, experiment, min(times, default=None))
        imported: dict[str, str] = {}
        added = 0
        names = _run_names(found)
        earlier = Counter(run.data.tags.get(RECORD) for run in runs if run.data.tags.get(FOLDER) == folder)
        for path, record in found:
            key = _key(path, record)
            if key not in known:
                number = earlier[path.as_posix()] + 1
                name = names[path] + (f" #{number}" if number > 1 else "")
                tags = {"mlflow.parentRunId": parent, FOLDER: folder, RECORD: path.as_posix()}
                imported[path.as_posix()] = _import(client, experiment_id, (path, record), key, name, tags)
                added += 1
            else:
                imported[path.as_posix()] = known[key].info.run_id
        if added:
            client.set_terminated(parent, end_time=max(times, default=None))
        current, unread = set(imported.values()), {Path(path).as_posix() for path in records} - imported.keys()
        for run in runs:
            old = run.info.run_id not in current and run.data.tags.get(FOLDER) == folder
            if old and run.data.tags.get(RECORD) not in unread and run.data.tags.get(CURRENT) == "yes":
                client.set_tag(run.info.run_id, CURRENT, "no")
        for run in known.values():
            if run.info.run_id in current and run.data.tags.get(CURRENT) == "no":
                client.set_tag(run.info.run_id, CURRENT, "yes")
    log.info("%d runs in MLflow at %s, %d of them new", len(imported), uri, added)
    if errors:
        raise InputErrors.of(errors)
    return imported


def record_runs(
    records: Collection[str], *, results: str = "results", uri: str, experiment: str, out: str, attempt: int = 0
) -> str | None:
    """Import records; if their server cannot be reached, leave them for the next run.

    Parameters
    ----------
    records, results, uri, experiment, out
        Of `import_records`.
    attempt : int
        `next_attempt` of the file `out`, which stores it.

    Returns
    -------
    str, optional
        The reason if the server could not be reached.
    """
    # Some seconds, instead of the minutes that MLflow would wait for an unreachable server.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    waiting: str | None = None
    runs: dict[str, str] = {}
    try:
        runs = import_records(records, results=results, uri=uri, experiment=experiment)
    except InputError:
        raise
    except Exception as error:  # errors of server or network must not affect the results
        if not uri.startswith(SERVERS):
            raise
        waiting = one_line(error)
        log.warning("%s: %s; the runs will be imported next time", uri, waiting)
    # JSON files of others may lie among records; what is listed is missed when it is gone.
    known = {"results": results, "records": sorted(filter(is_ours, records)), "runs": runs, "waiting": waiting}
    write_json(out, {"attempt": attempt, "experiment": experiment, **known})
    return waiting


def view_addresses(uri: str, address: str) -> list[str]:
    """Return the addresses of the view of the current runs of all experiments in MLflow, the newest one first.

    Parameters
    ----------
    uri : str
        MLflow tracking address.
    address : str
        Where MLflow's pages are served, such as `http://127.0.0.1:5000`.

    Raises
    ------
    InputError
        There is no such database, or it is damaged.
    """
    if uri.startswith(SQLITE) and not _database(uri).is_file():
        raise InputError(_database(uri), "no such file", "the database of a run; give another with --uri")
    with _database_named(uri):
        experiments = _client(uri).search_experiments(order_by=["last_update_time DESC"])
    found = [experiment for experiment in experiments if view_tag() in experiment.tags]
    return [f"{address}/{view_address(experiment.experiment_id)}" for experiment in found] or [address]


def next_attempt(out: str, uri: str) -> int:
    """Return the number that the next import has: another one where records wait, or where the database is gone.

    It is a parameter of the job, so that Snakemake starts the job again as long as records of the last one wait for a
    server, or the database file was deleted or moved away, and not after.
    """
    if not Path(out).is_file():
        return 0
    try:
        content = read_json(out)
        gone = uri.startswith(SQLITE) and not _database(uri).exists()
        return int(content.get("attempt", 0)) + (gone or content.get("waiting") is not None)
    except (InputError, AttributeError, TypeError, ValueError):
        return 0


@contextmanager
def live_run(name: str) -> Iterator[Any]:
    """Return a function `log_epoch(row)` that sends a row of metrics to an MLflow server during training.

    Only if the command line or the environment names a server (http or https); with a database file the rows are
    discarded, since the `mlflow` rule fills it later. Errors of a server never stop the training.
    """
    tracking = chosen(Tracking)
    uri, experiment = tracking.uri, tracking.experiment
    if not (uri or "").startswith(SERVERS) or not is_first_process():
        yield lambda row: None
        return
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    try:
        client = _client(str(uri))
        tags = _origin(f"cathodeflow {name}", user())
        run = client.create_run(_experiment(client, str(uri), experiment), run_name=f"{name} (live)", tags=tags)
    except Exception as error:  # errors of server or network must not stop the training
        log.warning("no live tracking: %s", str(error).splitlines()[0])
        yield lambda row: None
        return

    def log_epoch(row: dict[str, Any]) -> None:
        try:
            client.log_batch(run.info.run_id, metrics=_metrics(row, int(row.get("epoch", 0))))
        except Exception as error:  # as above
            log.warning("live tracking failed: %s", str(error).splitlines()[0])

    status = "FAILED"
    try:
        yield log_epoch
        status = "FINISHED"
    finally:
        try:
            client.set_terminated(run.info.run_id, status)
        except Exception as error:  # as above
            log.warning("live tracking failed: %s", str(error).splitlines()[0])


def absolute(uri: str) -> str:
    """Convert the address of a database file to an absolute path, as MLflow caches connections by address."""
    return SQLITE + str(_database(uri).absolute()) if uri.startswith(SQLITE) else uri


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE))


def _client(uri: str) -> "MlflowClient":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if uri.startswith(SQLITE) and not _database(uri).exists():
        # A process that is killed while MLflow creates its tables would leave a database that MLflow cannot open.
        with atomic_path(_database(uri)) as temporary:
            MlflowClient(tracking_uri=f"{SQLITE}{temporary.absolute()}").search_experiments(max_results=1)
    return MlflowClient(tracking_uri=absolute(uri))


def _database_lock(uri: str) -> Any:
    if not uri.startswith(SQLITE):
        return nullcontext()
    path = _database(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")


@contextmanager
def _database_named(uri: str) -> Iterator[None]:
    """Turn what MLflow says about a damaged database, or one of another version, into one line that names the file."""
    if not uri.startswith(SQLITE):
        yield
        return
    if errors := check_database(_database(uri)):
        raise errors[0]
    try:
        yield
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("mlflow", "sqlalchemy", "alembic", "sqlite3"):
            raise
        expected = "a database of this version of MLflow; if it is moved away, all runs are recorded in a new one"
        raise InputError(_database(uri), f"an error ({one_line(error)})", expected) from error


def _experiment(client: "MlflowClient", uri: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    folder = None
    if uri.startswith(SQLITE):
        folder = _database(uri).absolute().with_name("mlflow-artifacts").as_uri()
    # The tag makes the pages of MLflow show model training instead of language models.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=folder, tags=tags))


def _search(client: "MlflowClient", experiment_id: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _parent(client: "MlflowClient", experiment_id: str, experiment: str, start: int | None) -> str:
    tags = {PARENT: "yes", **_origin("cathodeflow track", user())}
    return str(client.create_run(experiment_id, start_time=start, run_name=experiment, tags=tags).info.run_id)


def _origin(source: str, name: str | None) -> dict[str, str]:
    """Return tags that MLflow shows as the source and the user of a run."""
    return {"mlflow.source.name": source, "mlflow.source.type": "LOCAL", **({"mlflow.user": name} if name else {})}


def _key(path: Path, record: dict[str, Any]) -> str:
    same = {key: value for key, value in record.items() if key != JOB}
    digest = hashlib.sha256(json.dumps(same, sort_keys=True).encode())
    for figure in figures_of(path, record):
        digest.update(Path(figure).read_bytes())
    return f"{record['stage']}:{path.as_posix()}:{digest.hexdigest()}"


def _run_names(found: list[tuple[Path, dict[str, Any]]]) -> dict[Path, str]:
    """Return the names of runs by record: stage and sample, and the name of the record if several have the same."""
    names = {path: f"{record['stage']} {record['sample']}" for path, record in found}
    counts = Counter(names.values())
    return {path: name if counts[name] == 1 else f"{name} {path.stem}" for path, name in names.items()}


def _import(
    client: "MlflowClient",
    experiment_id: str,
    found: tuple[Path, dict[str, Any]],
    key: str,
    name: str,
    tags: dict[str, str],
) -> str:
    path, record = found
    technique, stage = record["stage"].split(".")
    job = record.get(JOB) or {}
    start, end = _times(record)
    metadata = {
        "technique": technique,
        "stage": record["stage"],
        "sample": record["sample"],
        "code": record["code"],
        "run_name": job.get("run_name"),
        "platform": job.get("platform"),
        **{f"sheet.{name}": text for name, text in (job.get("sample_sheet") or {}).items()},
        **{f"version.{name}": version for name, version in (record.get("versions") or {}).items()},
        **_origin(f"cathodeflow {technique} {stage.replace('_', '-')}", job.get("user")),
        "mlflow.source.git.commit": record["commit"],
        UNFINISHED: "yes",
    }
    tags = {**tags, **{name: str(value) for name, value in metadata.items() if value}}
    run_id: str = client.create_run(experiment_id, start_time=start, run_name=name, tags=tags).info.run_id
    for option, value in record["options"].items():
        client.log_param(run_id, option, str(value)[:5000])
    if data_sets := _data_sets(record.get("inputs") or {}):
        client.log_inputs(run_id, data_sets)
    used = {figure: job.get(figure) for figure in ("cpu_time_s", "max_rss_mb")}
    if start and end:
        used["run_time_s"] = (end - start) / 1000
    metrics = _metrics({**record["metrics"], **used}, 0, end)
    for index, row in enumerate(record["history"]):
        metrics += _metrics(row, int(row.get("epoch", index)), end)
    for first in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[first : first + BATCH])
    for figure in figures_of(path, record):
        client.log_artifact(run_id, figure, "figures")
    client.set_tag(run_id, KEY, key)
    client.set_tag(run_id, CURRENT, "yes")
    client.set_terminated(run_id, end_time=end)
    # The last step, so that a run of an interrupted import is known to be unfinished.
    client.delete_tag(run_id, UNFINISHED)
    return run_id


def _times(record: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return start and end of a job in milliseconds since 1970; None in records without them."""
    job = record.get(JOB)
    if not job:
        return None, None
    start, end = (round(datetime.fromisoformat(job[name]).timestamp() * 1000) for name in ("start", "end"))
    return start, end


def _data_sets(inputs: dict[str, str | None]) -> list[Any]:
    """Return MLflow data sets of the inputs of a job: one per file, but files of the same kind in a folder together."""
    from mlflow.entities import Dataset, DatasetInput

    alike: dict[tuple[str, str], dict[str, str]] = {}
    for path, digest in inputs.items():
        if digest:
            alike.setdefault((os.path.dirname(path), Path(path).suffix), {})[path] = digest
    found: dict[str, str] = {}
    for (folder, suffix), files in alike.items():
        found |= {f"{folder}/*{suffix}": content_digest(files)} if len(files) > 1 else files
    return [
        # MLflow accepts digests of up to 36 characters.
        DatasetInput(Dataset(name[-500:], digest[:36], "local", json.dumps({"uri": name})))
        for name, digest in found.items()
    ]


def _metrics(values: dict[str, Any], step: int, milliseconds: int | None = None) -> list[Any]:
    from mlflow.entities import Metric

    when = milliseconds or int(time.time() * 1000)
    return [
        Metric(_FORBIDDEN.sub(lambda found: f":{ord(found[0]):02X}", name), float(value), when, step)
        for name, value in values.items()
        if isinstance(value, int | float) and name != "epoch" and math.isfinite(value)
    ]
