"""Records say what was done, with what, when and by whom; equal jobs have equal digests."""

import getpass
import importlib.metadata
import json
import os
import platform
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cathodeflow.bragg.network_options import Train
from cathodeflow.bragg.peak_options import FindPeaks
from cathodeflow.io import digests
from cathodeflow.io.atomic import WRITTEN
from cathodeflow.io.digests import file_digest, input_digests, remembered_digest
from cathodeflow.io.tables import write_json
from cathodeflow.io.volumes import write_volume
from cathodeflow.provenance import stage_reach
from cathodeflow.record import Begun, begin, identity, write_record


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("raw").mkdir()
    Path("raw/a.tif").write_bytes(b"a")
    WRITTEN.clear()  # what other tests wrote is not of this job
    return tmp_path


def record(name: str = "r.json", sample: str = "model", **more: Any) -> dict[str, Any]:
    write_record(name, stage="bragg.train", sample=sample, options=Train(), metrics={"loss": 0.5}, **more)
    return json.loads(Path(name).read_text())


def test_record_says_with_what_it_was_made(folder: Path) -> None:
    found = record(inputs=["raw/a.tif"])
    assert found["versions"]["python"] == platform.python_version()
    assert (
        found["versions"]["torch"] == importlib.metadata.version("torch")
        and found["versions"]["numpy"] == np.__version__
    )
    assert found["code"] == stage_reach("bragg.train").digest
    assert "mlflow" not in found["versions"] and "matplotlib" not in found["versions"]
    assert found["inputs"] == {"raw/a.tif": file_digest("raw/a.tif")}
    assert found["job"]["platform"] == platform.platform() and found["job"]["user"] == getpass.getuser()


def test_record_has_the_versions_of_its_stage_alone(folder: Path) -> None:
    write_record("p.json", stage="bragg.find_peaks", sample="a", options=FindPeaks(), metrics={})
    versions = json.loads(Path("p.json").read_text())["versions"]
    assert "numba" in versions and "torch" not in versions


def test_times_are_those_of_the_job(folder: Path) -> None:
    begun, before = begin(), time.time()
    sum(k * k for k in range(10**6))
    time.sleep(0.2)
    job = record(begun=begun)["job"]
    start, end = (datetime.fromisoformat(job[name]).timestamp() for name in ("start", "end"))
    assert abs(start - before) < 0.1 and 0.2 <= end - start <= time.time() - before + 0.01
    assert 0.01 < job["cpu_time_s"] < end - start + 5 and job["max_rss_mb"] > 20
    # Without it, the job is the process.
    own = record()["job"]
    assert datetime.fromisoformat(own["start"]).timestamp() < before and own["cpu_time_s"] > job["cpu_time_s"]


def test_equal_jobs_have_equal_digests_at_any_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = record("one.json", inputs=["raw/a.tif"], begun=Begun(1e9, 0.0), run_name="first")
    WRITTEN.clear()  # as every stage does when it begins
    two = record("two.json", inputs=["raw/a.tif"])
    assert one["digest"] == two["digest"] and identity(one) == identity(two) and one["job"] != two["job"]
    Path("raw/a.tif").write_bytes(b"b")
    WRITTEN.clear()
    assert record(inputs=["raw/a.tif"])["digest"] != one["digest"]


def test_times_of_a_record_that_is_an_input_do_not_count(folder: Path) -> None:
    digests = []
    for begun in (Begun(1.0, 0.0), Begun(2e9, 0.0)):
        record("train.json", begun=begun)
        WRITTEN.clear()  # as every stage does when it begins
        digests.append(record("figures.json", inputs=["train.json"])["digest"])
        WRITTEN.clear()
    assert digests[0] == digests[1]
    record("train.json", inputs=["raw/a.tif"])
    WRITTEN.clear()
    assert record("figures.json", inputs=["train.json"])["digest"] != digests[0]


def test_name_of_the_run_comes_from_the_call_or_the_workflow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CATHODEFLOW_RUN", raising=False)
    assert record()["job"]["run_name"] is None
    monkeypatch.setenv("CATHODEFLOW_RUN", "beamtime 7")
    assert record()["job"]["run_name"] == "beamtime 7"
    assert record(run_name="by hand")["job"]["run_name"] == "by hand"


def test_further_columns_of_the_sheet_are_kept_with_the_sample(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("scans.tsv").write_text("sample\tframes\ttemperature\ns\tx.h5\t25\nt\ty.h5\t40\n")
    monkeypatch.setenv("CATHODEFLOW_SHEETS", '{"bragg": "scans.tsv"}')
    before = record(sample="s")
    assert before["job"]["sample_sheet"] == {"temperature": "25"}
    assert record(sample="model")["job"]["sample_sheet"] == {}
    # It is no result: another remark makes no other record.
    Path("scans.tsv").write_text("sample\tframes\ttemperature\ns\tx.h5\t26\n")
    WRITTEN.clear()
    assert record(sample="s")["digest"] == before["digest"]


def test_inputs_of_every_kind_have_digests(folder: Path) -> None:
    write_volume("v.zarr", np.ones((4, 8, 8), np.uint8))
    paths = ["raw", "raw/*.tif", "raw/a.tif::/entry", "v.zarr", "https://example.org/a.tif"]
    before = input_digests(paths)
    assert before["raw/a.tif::/entry"] == file_digest("raw/a.tif")
    assert before["v.zarr"] == file_digest("v.zarr.manifest.json") and before["https://example.org/a.tif"] is None
    Path("raw/b.tif").write_bytes(b"b")
    write_volume("v.zarr", np.zeros((4, 8, 8), np.uint8))
    after = input_digests(paths)
    assert [path for path in paths if before[path] != after[path]] == ["raw", "raw/*.tif", "v.zarr"]


def test_large_files_are_read_once_until_they_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("large.bin")
    path.write_bytes(bytes(digests.REMEMBERED_BYTES))
    past = time.time_ns() - 10**10
    os.utime(path, ns=(past, past))
    # Such an old time of its content says nothing: the file was written just now, and may be again.
    assert remembered_digest(path) == file_digest(path) and not Path("cache").exists()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 10)
    first = remembered_digest(path)
    assert first == file_digest(path)
    # What was noted is used: the file is not read again.
    notes = [note for note in Path("cache/cathodeflow/digests").rglob("*") if note.is_file()]
    assert [note.read_text() for note in notes] == [first]
    notes[0].write_text("0" * 64)
    assert remembered_digest(path) == "0" * 64
    # Another content of the same size and time is another file: its time of change of the inode differs.
    path.write_bytes(b"1" + bytes(digests.REMEMBERED_BYTES - 1))
    os.utime(path, ns=(past, past))
    assert remembered_digest(path) == file_digest(path) != first
    # A damaged note is no digest.
    for note in Path("cache").rglob("*"):
        if note.is_file():
            note.write_text("x" * 64)
    assert remembered_digest(path) == file_digest(path)


def test_digests_need_no_place_for_notes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    Path("large.bin").write_bytes(bytes(digests.REMEMBERED_BYTES))
    os.utime("large.bin", (1e9, 1e9))
    assert remembered_digest("large.bin") == file_digest("large.bin")


def test_outputs_in_other_folders_are_listed_by_their_way_from_the_record(folder: Path) -> None:
    (folder / "disk").mkdir()
    (folder / "linked").symlink_to("disk")
    for name in ("records/below/a.json", "tables/b.json", "linked/c.json"):
        write_json(name, {"of": name})
    found = record("records/r.json")["outputs"]
    assert found == {
        "below/a.json": file_digest("records/below/a.json"),
        "../tables/b.json": file_digest("tables/b.json"),
        "../disk/c.json": file_digest("disk/c.json"),
    }
    WRITTEN.clear()
    write_json("tables/b.json", {})
    # A record behind a link: `..` is the folder above where it leads.
    assert record("linked/r.json")["outputs"].keys() == {"../tables/b.json"}
    assert os.path.isfile("linked/../tables/b.json")
