"""Runs get into MLflow once each, whatever happens to the import, the server or beside it."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cathodeflow.bragg.peak_options import FindPeaks
from cathodeflow.io.tables import read_json
from cathodeflow.record import write_record
from cathodeflow.tracking import KEY, PARENT, UNFINISHED, absolute

from ..conftest import Project
from .conftest import environment, kill_often, only_full, tally

STAGE = "bragg.find_peaks"


def records(folder: Path, n: int, first: int = 0) -> None:
    """Write records of scans, as their jobs do."""
    (folder / "scans.tsv").parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"scan{k}\ttrain\tsimulated\n" for k in range(n))
    (folder / "scans.tsv").write_text("sample\trole\tframes\n" + rows)
    history = [{"epoch": k, "loss": 1 / (k + 1)} for k in range(30)]
    for k in range(n):
        path = str(folder / f"results/bragg/scan{k}/candidates.json")
        options, metrics = FindPeaks(min_value=k + first + 1), {"peaks": k}
        write_record(path, stage=STAGE, sample=f"scan{k}", options=options, metrics=metrics, history=history)


def track(folder: Path, uri: str) -> subprocess.Popen[str]:
    """Start the import as the workflow does."""
    line = f"track results --sheet bragg=scans.tsv --uri {uri} --experiment all --out results/mlflow.json"
    return subprocess.Popen(
        [sys.executable, "-m", "cathodeflow", "--log", "log.txt", *line.split()], cwd=folder, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def stored(uri: str) -> list[Any]:
    """Return all runs of the experiment, without that of the experiment itself."""
    from mlflow import MlflowClient

    client = MlflowClient(absolute(uri))
    found = client.search_runs([client.get_experiment_by_name("all").experiment_id], max_results=1000)
    return [run for run in found if PARENT not in run.data.tags]


def whole_runs(uri: str, n: int) -> None:
    runs = stored(uri)
    assert len(runs) == n and len({run.data.tags[KEY] for run in runs}) == n
    assert all(run.info.status == "FINISHED" and UNFINISHED not in run.data.tags for run in runs)
    assert all("loss" in run.data.metrics and "peaks" in run.data.metrics for run in runs)


@only_full
def test_killed_import_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    n, wanted, rng = 12, 5, random.Random(4)
    records(tmp_path, n)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    clock = time.monotonic()
    assert track(tmp_path, f"sqlite:///{tmp_path}/other.db").wait(timeout=600) == 0
    lasts = time.monotonic() - clock

    def begin() -> subprocess.Popen[str]:
        # What one that was quicker than its killer has stored would leave the next nothing to do.
        if (tmp_path / "results/mlflow.json").exists():
            (tmp_path / "results/mlflow.json").unlink()
            (tmp_path / "mlflow.db").unlink(missing_ok=True)
        return track(tmp_path, uri)

    with tally("SIGKILL of the import into MLflow") as tried:
        killed = kill_often(begin, wanted, lasts, rng)
        tried(killed)
        assert killed == wanted
        assert track(tmp_path, uri).wait(timeout=600) == 0
        whole_runs(uri, n)


@only_full
def test_runs_in_several_folders_share_a_database(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with tally("three runs in three folders, one MLflow database", 3):
        for k in range(3):
            records(tmp_path / f"folder{k}", 6, first=100 * k)
        processes = [track(tmp_path / f"folder{k}", uri) for k in range(3)]
        assert [process.wait(timeout=600) for process in processes] == [0, 0, 0]
        whole_runs(uri, 18)
        assert all(run.data.tags["cathodeflow.current"] == "yes" for run in stored(uri))


@contextmanager
def serve(folder: Path, port: int) -> Iterator[None]:
    """Run a real MLflow server."""
    line = f"server --host 127.0.0.1 --port {port} --workers 1 --backend-store-uri sqlite:///{folder}/server.db"
    with (folder / "server.log").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *line.split()], cwd=folder, env=environment(), stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                assert process.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.5)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@only_full
def test_runs_wait_for_a_server_that_is_away(finished: Project, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri, out = f"http://127.0.0.1:{port}", finished.folder / "results/mlflow.json"
    config = finished.folder / "config.yaml"
    config.write_text(config.read_text() + f"tracking: {{uri: '{uri}', experiment: all}}\n")
    with tally("the MLflow server away"):
        done = finished.snakemake()
        assert "the runs will be sent at the next start of snakemake" in done.stdout + done.stderr
        assert read_json(out)["waiting"]
        assert finished.planned() == {"mlflow": 1}
        with serve(tmp_path, port):
            finished.snakemake()
            n = len(read_json(out)["runs"])
            assert n >= 6 and read_json(out)["waiting"] is None
            assert len(stored(uri)) == n
            assert finished.planned() == {}
