"""Records become MLflow runs once, with curves and figures; a server gets the curves of a training as it goes on."""

import base64
import getpass
import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cathodeflow.bragg.network_options import Train
from cathodeflow.bragg.peak_options import FindPeaks
from cathodeflow.cli import cli
from cathodeflow.errors import InputError
from cathodeflow.io.atomic import WRITTEN
from cathodeflow.io.figures import save_figure
from cathodeflow.io.patch_table import TrainingPatches
from cathodeflow.io.patches import write_patches
from cathodeflow.plotting import training_curves
from cathodeflow.record import Begun, write_record
from cathodeflow.tracking import (
    CURRENT,
    KEY,
    PARENT,
    UNFINISHED,
    absolute,
    import_records,
    live_run,
    record_runs,
    view_addresses,
)
from cathodeflow.verify import verify
from tests import headless_browser

RECORDS = ["results/bragg/a/candidates.json", "results/bragg/model/train.json"]
HISTORY = [{"epoch": k, "train_loss": 1 / (k + 1), "validation_loss": 1.2 / (k + 1)} for k in range(5)]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_figure("results/bragg/model/train.png", training_curves(HISTORY, unit="a"))
    write_record(
        "results/bragg/model/train.json",
        stage="bragg.train",
        sample="model",
        options=Train(epochs=5),
        metrics={"distance_p50": 0.25, "nothing": None},
        history=HISTORY,
        figures=["results/bragg/model/train.png"],
        begun=Begun(time.time() - 12.5, 0.0),
        run_name="beamtime 7",
    )
    find_peaks(7)
    return Path("results")


def find_peaks(
    peaks: int,
    path: str = "results/bragg/a/candidates.json",
    inputs: Iterable[str] = (),
    metrics: Mapping[str, float] | None = None,
) -> None:
    options = FindPeaks(min_value=peaks)
    WRITTEN.clear()  # as every stage does when it begins
    metrics = metrics or {"peaks": peaks}
    write_record(path, stage="bragg.find_peaks", sample="a", options=options, metrics=metrics, inputs=inputs)


def stored(uri: str):
    from mlflow import MlflowClient

    client = MlflowClient(absolute(uri))
    experiment = client.get_experiment_by_name("demo")
    return client, client.search_runs([experiment.experiment_id])


def test_each_record_is_one_run_however_often_it_is_imported(results: Path) -> None:
    uri = "sqlite:///results/mlflow.db"
    first = import_records(RECORDS, uri=uri, experiment="demo")
    second = import_records(RECORDS, uri=uri, experiment="demo")
    assert first == second
    assert sorted(first) == ["results/bragg/a/candidates.json", "results/bragg/model/train.json"]

    find_peaks(9)
    third = import_records(RECORDS, uri=uri, experiment="demo")
    assert third["results/bragg/model/train.json"] == first["results/bragg/model/train.json"]
    client, runs = stored(uri)
    assert len(runs) == 4
    parent = next(run for run in runs if PARENT in run.data.tags)
    children = [run for run in runs if KEY in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert sorted(run.data.tags[CURRENT] for run in children) == ["no", "yes", "yes"]

    train = client.get_run(third["results/bragg/model/train.json"])
    assert train.data.params["epochs"] == "5" and train.data.params["learning_rate"] == "0.003"
    assert train.data.metrics["distance_p50"] == 0.25
    assert 12.5 <= train.data.metrics["run_time_s"] < 30 and train.data.metrics["max_rss_mb"] > 20
    curve = client.get_metric_history(train.info.run_id, "validation_loss")
    assert [(point.step, point.value) for point in curve] == [(row["epoch"], row["validation_loss"]) for row in HISTORY]
    assert [file.path for file in client.list_artifacts(train.info.run_id, "figures")] == ["figures/train.png"]
    assert len(train.data.tags["code"]) == 16 and train.info.status == "FINISHED"


def test_runs_say_when_by_whom_and_with_what_they_were_made(results: Path) -> None:
    uri = "sqlite:///results/mlflow.db"
    Path("raw").mkdir()
    for name in ("raw/a.tif", "raw/b.tif", "dark.tif"):
        Path(name).write_bytes(name.encode())
    find_peaks(7, inputs=["raw/a.tif", "raw/b.tif", "dark.tif"])
    imported = import_records(RECORDS, uri=uri, experiment="demo")
    client, _ = stored(uri)

    train = client.get_run(imported["results/bragg/model/train.json"])
    job = json.loads(Path("results/bragg/model/train.json").read_text())["job"]
    start, end = (round(datetime.fromisoformat(job[name]).timestamp() * 1000) for name in ("start", "end"))
    assert (train.info.start_time, train.info.end_time) == (start, end) and end - start >= 12500
    assert train.data.metrics["run_time_s"] == (end - start) / 1000
    tags = train.data.tags
    assert tags["mlflow.user"] == getpass.getuser() and tags["mlflow.source.name"] == "cathodeflow bragg train"
    assert tags["run_name"] == "beamtime 7" and tags["platform"] == platform.platform()
    assert (
        tags["version.torch"] == importlib.metadata.version("torch")
        and tags["version.python"] == platform.python_version()
    )

    parent = client.get_run(tags["mlflow.parentRunId"])
    assert parent.info.status == "FINISHED" and parent.info.start_time <= start < end <= parent.info.end_time
    assert parent.data.tags["mlflow.user"] == getpass.getuser()

    peaks = client.get_run(imported["results/bragg/a/candidates.json"])
    assert peaks.data.tags["mlflow.source.name"] == "cathodeflow bragg find-peaks" and "run_name" not in peaks.data.tags
    sets = {item.dataset.name: item.dataset.digest for item in peaks.inputs.dataset_inputs}
    assert sets.keys() == {"raw/*.tif", "dark.tif"}
    assert sets["dark.tif"] == hashlib.sha256(b"dark.tif").hexdigest()[:36]


def test_runs_of_several_versions_have_names_of_their_own(results: Path) -> None:
    uri = "sqlite:///results/mlflow.db"
    find_peaks(1, "results/bragg/a/first.json")
    find_peaks(2, "results/bragg/a/second.json")
    records = [f"results/bragg/a/{name}.json" for name in ("first", "second")]
    import_records([*records, "results/bragg/model/train.json"], uri=uri, experiment="demo")
    find_peaks(3, "results/bragg/a/second.json")
    imported = import_records(records, uri=uri, experiment="demo")
    client, runs = stored(uri)
    names = sorted(run.info.run_name for run in runs if KEY in run.data.tags)
    assert names == [
        "bragg.find_peaks a first",
        "bragg.find_peaks a second",
        "bragg.find_peaks a second #2",
        "bragg.train model",
    ]
    assert client.get_run(imported[records[1]]).info.run_name == "bragg.find_peaks a second #2"


def test_the_same_job_at_another_time_is_no_new_run(results: Path) -> None:
    uri = "sqlite:///results/mlflow.db"
    first = import_records(RECORDS, uri=uri, experiment="demo")
    before = Path(RECORDS[0]).read_bytes()
    find_peaks(7)
    assert Path(RECORDS[0]).read_bytes() != before
    assert import_records(RECORDS, uri=uri, experiment="demo") == first


def test_what_an_interrupted_import_left_is_replaced(results: Path) -> None:
    uri = "sqlite:///results/mlflow.db"
    import_records(RECORDS, uri=uri, experiment="demo")
    client, runs = stored(uri)
    half = next(run for run in runs if run.data.tags.get("stage") == "bragg.train")
    client.set_tag(half.info.run_id, UNFINISHED, "yes")
    client.delete_tag(half.info.run_id, KEY)
    imported = import_records(RECORDS, uri=uri, experiment="demo")
    assert half.info.run_id not in imported.values()
    _, runs = stored(uri)
    assert sorted(run.data.tags.get("stage", "") for run in runs) == ["", "bragg.find_peaks", "bragg.train"]


def test_what_is_damaged_is_one_line_and_the_rest_is_imported(results: Path) -> None:
    path = Path("results/mlflow.db")
    uri = f"sqlite:///{path}"
    find_peaks(9, metrics={"accuracy_a<b> 80 %": 0.5, "accuracy_a:b": 0.25})
    Path("results/bragg/a/bad.json").write_text(Path(RECORDS[0]).read_text().replace('"sample"', '"simple"'))
    with pytest.raises(InputError, match=r"^results/bragg/a/bad\.json: found .*as the record itself says$"):
        import_records(["results/bragg/a/bad.json", *RECORDS], uri=uri, experiment="demo")
    _, runs = stored(uri)
    assert sorted(run.data.tags.get("stage", "") for run in runs) == ["", "bragg.find_peaks", "bragg.train"]
    metrics = next(run.data.metrics for run in runs if run.data.tags.get("stage") == "bragg.find_peaks")
    # Names that MLflow does not take, such as of classes with any letters, stay apart.
    assert metrics["accuracy_a:3Cb:3E 80 :25"] == 0.5 and metrics["accuracy_a:3Ab"] == 0.25

    # The list of records, which `verify` compares with what is there, has no file of the user.
    Path("results/bragg/a/bad.json").unlink()
    notes = Path("results/bragg/a/notes.json")
    notes.write_text("{ no JSON")
    records = [*RECORDS, notes.as_posix()]
    assert record_runs(records, uri=uri, experiment="demo", out="results/mlflow.json") is None
    assert json.loads(Path("results/mlflow.json").read_text())["records"] == sorted(RECORDS)
    found = verify("results")
    assert (found.records, found.errors, found.unknown) == (2, [], ["results/bragg/a/notes.json"])

    content = path.read_bytes()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of another MLflow'")
    with pytest.raises(InputError, match=r"mlflow\.db: found an error .*, expected a database of this version"):
        # MLflow keeps the first answer for an address.
        import_records(RECORDS, uri=f"sqlite:///{Path('results').absolute()}/../{path}", experiment="demo")
    for damaged in (b"no database", content[: len(content) // 2], content[:100] + bytes(8192) + content[8292:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"^results/mlflow\.db: found an error .*move it away"):
            import_records(RECORDS, uri=uri, experiment="demo")
        assert path.read_bytes() == damaged


def test_user_and_password_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.append(self.headers["Authorization"])
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(Exception, match="404"):
            import_records([], uri=f"http://127.0.0.1:{server.server_port}", experiment="demo")
        server.shutdown()
    assert set(told) == {"Basic " + base64.b64encode(b"ada:hunter2").decode()}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (tmp_path / "server.log").open("w") as output:
        process = subprocess.Popen(
            [*command, "--backend-store-uri", f"sqlite:///{tmp_path}/server.db"],
            cwd=tmp_path,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=2)
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.5)
        yield uri
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def test_server_gets_the_curves_while_training_goes_on(
    results: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATHODEFLOW_TRACKING_URI", server)
    monkeypatch.setenv("CATHODEFLOW_TRACKING_EXPERIMENT", "demo")
    with live_run("bragg.train model") as log_epoch:
        for row in HISTORY[:3]:
            log_epoch(row)
        client, runs = stored(server)
        assert [run.info.status for run in runs] == ["RUNNING"]
        points = client.get_metric_history(runs[0].info.run_id, "train_loss")
        assert sorted(point.step for point in points) == [0, 1, 2]
    _, runs = stored(server)
    assert [run.info.status for run in runs] == ["FINISHED"]
    # The records go to the server as well as into a database.
    assert len(import_records(RECORDS, uri=server, experiment="demo")) == 2
    # The page opens with the columns and runs of the saved view, which a person may change.
    (address,) = view_addresses(server, server)
    assert address == f"{server}/#/experiments/{runs[0].info.experiment_id}/runs?viewStateShareKey=cathodeflow"
    if headless_browser.find():
        words = {"Current runs", "Duration", "User", "Dataset", "Source", "tags.`cathodeflow.current` = 'yes'"}
        assert not missing_on(address, words, results)
    client.set_experiment_tag(runs[0].info.experiment_id, "mlflow.sharedViewState.cathodeflow", "changed")
    import_records(RECORDS, uri=server, experiment="demo")
    assert client.get_experiment(runs[0].info.experiment_id).tags["mlflow.sharedViewState.cathodeflow"] == "changed"


def missing_on(address: str, words: set[str], folder: Path) -> set[str]:
    """Open a page in a browser, and return the words that neither its text nor its fields have after a minute."""
    fields = "[...document.querySelectorAll('input,textarea')].map(field => field.value).join(' ')"
    missing = words
    with headless_browser.started(str(headless_browser.find()), folder) as browser:
        browser.call("Emulation.setDeviceMetricsOverride", width=1900, height=900, deviceScaleFactor=1, mobile=False)
        browser.call("Page.navigate", url=address)
        end = time.monotonic() + 60
        while missing and time.monotonic() < end:
            text = f"{browser.evaluate('document.body.innerText')} {browser.evaluate(fields)}"
            missing = {word for word in words if word not in text}
            time.sleep(0.5)
    return missing


def test_the_command_that_shows_the_runs_names_a_missing_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"mlflow\.db: found no such file, expected the database of a run; give another"
    ):
        CliRunner().invoke(cli, ["ui"], catch_exceptions=False, standalone_mode=False)
    assert not (tmp_path / "results").exists()


def test_a_training_command_sends_its_curves_to_the_server_that_its_flags_name(tmp_path: Path, server: str) -> None:
    random = np.random.default_rng(0)
    frames = np.repeat(np.arange(20), 4)
    patches = random.poisson(50.0, (80, 9, 9)).astype(np.float32)
    table = TrainingPatches(
        patches, np.full(80, 4.2, "f4"), np.full(80, 3.9, "f4"), frames, np.arange(80), np.full((80, 2), 0.05, "f4")
    )
    write_patches(tmp_path / "patches.h5", [table], patch_size=7, max_shift=1, min_value=0.0)
    where = ["--tracking-uri", server, "--tracking-experiment", "demo"]
    line = ["bragg", "train", "patches.h5", "--out", "model.pt", "--epochs", "2", "--hidden-units", "4"]
    command = [sys.executable, "-m", "cathodeflow", *where, *line]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    client, runs = stored(server)
    assert [(run.info.run_name, run.info.status) for run in runs] == [("bragg.train model (live)", "FINISHED")]
    points = client.get_metric_history(runs[0].info.run_id, "validation_loss")
    assert sorted(point.step for point in points) == [1, 2]


def test_server_that_is_away_stops_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATHODEFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with live_run("x") as log_epoch:
        log_epoch(HISTORY[0])
