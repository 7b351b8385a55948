"""What is imported into MLflow: whole records with figures of their own; each bad one is a line and holds up no other."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cathodeflow.bragg.peak_options import FindPeaks
from cathodeflow.io.atomic import WRITTEN
from cathodeflow.io.digests import content_digest
from cathodeflow.io.tables import write_json
from cathodeflow.record import write_record
from cathodeflow.record_files import find_records, read_records
from cathodeflow.tracking import next_attempt

GOOD, BAD = "results/bragg/a/good.json", "results/bragg/a/bad.json"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("results/bragg/a/figures").mkdir(parents=True)
    Path("results/bragg/a/figures/f.png").write_bytes(b"a figure")
    for path in (GOOD, BAD):
        WRITTEN.clear()
        write_record(
            path, stage="bragg.find_peaks", sample="a", options=FindPeaks(), metrics={"peaks": 5},
            figures=["results/bragg/a/figures/f.png"],
        )  # fmt: skip
    return tmp_path


def sealed(**changed: Any) -> str:
    """The record with other parts, and the digests that fit them, as one who knows them would write it."""
    record = {**json.loads(Path(BAD).read_text()), **changed}
    job = record.pop("job")
    for key in ("digest", "checksum"):
        del record[key]
    record = {**record, "digest": content_digest(record), "job": job}
    return json.dumps({**record, "checksum": content_digest(record)}, indent=2, sort_keys=True)


def outside() -> str:
    Path("secret.png").write_bytes(b"a secret")
    return sealed(figures=["secret.png"])


def linked() -> str:
    Path("results/bragg/a/figures/linked.png").symlink_to("/etc/passwd")
    return sealed(figures=["results/bragg/a/figures/linked.png"])


#: What is written, and what is said of it.
RECORDS: dict[str, tuple[Callable[[], str], str]] = {
    "a number edited": (lambda: Path(BAD).read_text().replace('"peaks": 5', '"peaks": 9'), "as the record itself says"),
    "NaN": (lambda: Path(BAD).read_text().replace('"peaks": 5', '"peaks": NaN'), "a record without NaN"),
    "no sample": (lambda: sealed(sample=None), "sample: found None, expected"),
    "a figure of the system": (lambda: sealed(figures=["/etc/passwd"]), "found a figure at /etc/passwd, expected"),
    "a figure above": (lambda: sealed(figures=["results/bragg/a/../../../etc/hostname"]), ""),
    "a figure outside": (outside, "found a figure at secret.png, expected figures in the folder of the record"),
    "a link as a figure": (linked, "found a figure at results/bragg/a/figures/linked.png"),
    "markup in an option": (lambda: sealed(options={"<script>x</script>": 1}), "bad.json: options: found '<script>"),
    "outputs of another type": (lambda: sealed(outputs=["a"]), "outputs: found ['a'], expected"),
    "a stage of another form": (lambda: sealed(stage="<b>"), "stage: found '<b>', expected"),
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_bad_record_is_one_line_and_the_others_are_imported(folder: Path, case: str) -> None:
    write, text = RECORDS[case]
    Path(BAD).write_text(write())
    found, errors = read_records([BAD, GOOD])
    if text:
        assert [path.as_posix() for path, _ in found] == [GOOD] and len(errors) == 1
        assert str(errors[0]).startswith(BAD) and text in str(errors[0]) and "\n" not in str(errors[0])
    else:  # nothing is there
        assert errors == [] and len(found) == 2


def test_notes_of_the_user_beside_records_are_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path("results/bragg/a/notes.json").write_text('{"temperature": 25}')
    Path("results/bragg/a/other.json").write_text("{ no JSON")
    write_json("results/bragg/a/v.zarr.manifest.json", {})
    paths = list(find_records("results/bragg"))
    assert [Path(path).name for path in paths] == ["bad.json", "good.json", "notes.json", "other.json"]
    with caplog.at_level(logging.INFO, logger="cathodeflow"):
        found, errors = read_records(paths)
    assert [path.as_posix() for path, _ in found] == [BAD, GOOD] and errors == []
    assert "results/bragg/a/notes.json is no record" in caplog.text


def test_the_import_runs_again_when_its_database_is_gone(folder: Path) -> None:
    out, uri = "results/mlflow.json", "sqlite:///results/mlflow.db"
    assert next_attempt(out, uri) == 0
    write_json(out, {"attempt": 2, "runs": {}, "waiting": None})
    assert next_attempt(out, uri) == 3 and next_attempt(out, "http://127.0.0.1:5000") == 2
    Path("results/mlflow.db").touch()
    assert next_attempt(out, uri) == 2
    # Written by the import with the number that it was started with, so that it is not started once more.
    write_json(out, {"attempt": 3, "runs": {}, "waiting": None})
    assert next_attempt(out, uri) == 3
