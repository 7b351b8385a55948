"""Every file of a folder of results is compared with what was written; what differs is named, and removed on demand."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cathodeflow import bragg
from cathodeflow.bragg.peak_options import FindPeaks
from cathodeflow.cli import cli
from cathodeflow.errors import InputError
from cathodeflow.io.atomic import WRITTEN
from cathodeflow.io.digests import content_digest
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.io.tables import write_json, write_table
from cathodeflow.io.volumes import write_volume
from cathodeflow.record import write_record
from cathodeflow.verify import rebuild_command, verify

TABLE, RECORD, STORE = "results/bragg/a/candidates.parquet", "results/bragg/a/candidates.json", "results/bragg/a/v.zarr"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    WRITTEN.clear()  # what other tests wrote is not of this job
    write_table(TABLE, {"row": np.arange(5)})
    write_volume(STORE, np.ones((4, 8, 8), np.uint8))
    write_record(RECORD, stage="bragg.find_peaks", sample="a", options=FindPeaks(), metrics={"peaks": 5, "no": np.nan})
    return tmp_path / "results"


def damage(path: str) -> None:
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 4
    Path(path).write_bytes(bytes(content))


def test_what_is_whole_is_well(results: Path) -> None:
    found = verify("results")
    assert (found.records, found.files, found.stores, found.errors, found.unknown) == (1, 2, 1, [], [])
    assert found.versions == []
    assert json.loads(Path(RECORD).read_text())["outputs"].keys() == {"candidates.parquet", "v.zarr.manifest.json"}
    done = CliRunner().invoke(cli, ["verify"])
    assert done.exit_code == 0 and "all unchanged" in done.output


@pytest.mark.parametrize("path", [TABLE, RECORD, f"{STORE}/zarr.json", f"{STORE}/0/c/0/0/0", f"{STORE}.manifest.json"])
def test_what_was_changed_is_named(results: Path, path: str) -> None:
    damage(path)
    found = verify("results")
    assert path in {error.where for error in found.errors}
    removed = STORE if path.startswith(f"{STORE}/") else path
    assert removed in found.damaged
    done = CliRunner().invoke(cli, ["verify", "results"])
    assert done.exit_code == 1 and f"{path}: found" in done.output
    assert "cathodeflow verify results --repair" in done.output and "rm " not in done.output
    remade = f"{STORE}.manifest.json" if path.startswith(STORE) else path
    assert found.remake == [remade] and f"    snakemake {remade} --cores all" in done.output
    before = {path for path in results.rglob("*") if path.is_file()}
    done = CliRunner().invoke(cli, ["verify", "results", "--repair"])
    assert done.exit_code == 0 and f"    snakemake {remade} --cores all" in done.output
    # The damaged file, and all of a store with its manifest, and nothing else.
    parts = {path for path in before if STORE in str(path)} if path.startswith(STORE) else {results.parent / path}
    assert before - {path for path in results.rglob("*") if path.is_file()} == parts


def test_what_is_missing_or_unknown_is_named(results: Path) -> None:
    Path(TABLE).unlink()
    Path("results/bragg/a/other.txt").write_text("by hand")
    found = verify("results")
    assert [str(error) for error in found.errors] == [f"{TABLE}: found no such file, expected a result"]
    assert found.unknown == ["results/bragg/a/other.txt"] and found.damaged == []
    assert rebuild_command(found.remake) == f"snakemake {TABLE} --cores all"


def test_a_folder_without_records_is_one_line(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="expected a folder of results"):
            verify(str(folder))


def sealed(record: dict[str, object]) -> str:
    """A record with the digests that fit its content, as one who knows them would write it."""
    content = {key: value for key, value in record.items() if key not in ("job", "digest", "checksum")}
    content |= {"digest": content_digest(content), "job": record["job"]}
    return json.dumps({**content, "checksum": content_digest(content)}, indent=2, sort_keys=True)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


#: What stands in a record, and what is said of it.
DAMAGE: dict[str, tuple[Callable[[str], str], str]] = {
    "NaN": (lambda text: text.replace('"peaks": 5', '"peaks": NaN'), "expected a record without NaN"),
    "infinity": (lambda text: text.replace('"peaks": 5', '"peaks": 1e999'), "expected a record without NaN"),
    "another number": (lambda text: text.replace('"peaks": 5', '"peaks": 6'), "as the record itself says"),
    "cut": (lambda text: text[: len(text) // 2], "expected a JSON file"),
    "no sample": (
        lambda text: sealed({key: value for key, value in json.loads(text).items() if key != "sample"}),
        "sample: found nothing, expected a value",
    ),
    "metrics of another type": (lambda text: sealed({**json.loads(text), "metrics": 3}), "metrics: found 3, expected"),
    "a time of another type": (lambda text: sealed({**json.loads(text), "job": {"start": "x"}}), "job.start: found"),
    "deeply nested": (lambda text: text.replace('"peaks": 5', f'"peaks": {nested(100_000)}'), "expected a JSON file"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_record_is_one_line_and_the_others_are_checked(results: Path, case: str) -> None:
    change, text = DAMAGE[case]
    other = "results/bragg/b/candidates.parquet"
    WRITTEN.clear()
    write_table(other, {"row": np.arange(5)})
    write_record(
        other.replace("parquet", "json"), stage="bragg.find_peaks", sample="b", options=FindPeaks(), metrics={}
    )
    damage(other)
    Path(RECORD).write_text(change(Path(RECORD).read_text()))
    done = CliRunner().invoke(cli, ["verify"])
    lines = [line for line in done.output.splitlines() if ": found " in line]
    assert len(lines) == 2 and lines[0].startswith(RECORD) and text in lines[0] and lines[1].startswith(other)
    assert CliRunner().invoke(cli, ["verify", "--repair"]).exit_code == 0
    assert not Path(RECORD).exists() and not Path(other).exists() and Path(TABLE).exists()


def test_files_of_others_are_never_damage(results: Path) -> None:
    """Whatever they hold, in any folder, and also inside of stores."""
    notes = {
        "results/bragg/a/notes.json": '{"temperature": 25}',
        "results/bragg/a/list.json": "[1, 2",
        "results/bragg/a/settings.json": '{\n  "options": {},\n  "stage": "x",\n  "sample": NaN\n}',
        "results/bragg/plan.zarr.manifest.json": "{}",
        "results/bragg/photo.png": "x",
        f"{STORE}/notes.txt": "years of work",
    }
    for path, text in notes.items():
        Path(path).write_text(text)
    damage(f"{STORE}/zarr.json")
    damage(TABLE)
    found = verify("results")
    assert found.damaged == [TABLE]
    assert set(notes) - set(found.unknown) == {f"{STORE}/notes.txt"}
    done = CliRunner().invoke(cli, ["verify", "--repair"])
    # What cannot be repaired without a loss is left to the user.
    assert done.exit_code == 1 and f"{STORE}.manifest.json: not removed" in done.output
    assert all(Path(path).read_text() == text for path, text in notes.items()) and Path(STORE).is_dir()
    assert not Path(TABLE).exists()


def test_links_and_files_outside_the_folder_are_compared_and_not_removed(results: Path) -> None:
    write_table("elsewhere/t.parquet", {"row": np.arange(3)})
    write_table("results/bragg/a/linked.parquet", {"row": np.arange(4)})
    write_record(RECORD, stage="bragg.find_peaks", sample="a", options=FindPeaks(), metrics={})
    outside, linked = "elsewhere/t.parquet", "results/bragg/a/linked.parquet"
    assert verify("results").errors == []
    shutil.move(linked, "raw.parquet")
    Path(linked).symlink_to("../../../raw.parquet")
    for path in (outside, "raw.parquet"):
        damage(path)
    found = verify("results")
    assert {error.where for error in found.errors} == {outside, linked} and set(found.left) == {outside, linked}
    assert found.damaged == found.remake == []
    assert CliRunner().invoke(cli, ["verify", "--repair"]).exit_code == 1
    assert Path(outside).exists() and Path("raw.parquet").exists() and Path(linked).is_symlink()


def test_a_record_elsewhere_has_the_outputs_of_its_stage_and_they_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = enumerate(np.random.default_rng(0).poisson(5, (2, 32, 32)).astype(np.float32))
    write_frames("frames.h5", images, shape=(32, 32), mask=np.zeros((32, 32), bool), source="simulated")
    bragg.find_peaks("frames.h5", out="tables/c.parquet", record="records/c.json", options=bragg.FindPeaks())
    assert json.loads(Path("records/c.json").read_text())["outputs"].keys() == {"../tables/c.parquet"}
    found = verify("records")
    assert (found.records, found.files, found.errors) == (1, 1, [])
    damage("tables/c.parquet")
    assert [error.where for error in verify("records").errors] == ["tables/c.parquet"]


@pytest.fixture
def indexed(results: Path) -> Path:
    """The folder after an import, with the list of its records."""
    write_json("results/mlflow.json", {"results": "results", "records": [RECORD], "runs": {RECORD: "1"}})
    return results


def test_a_record_that_is_gone_is_missed(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verify("results").errors == []
    Path(RECORD).unlink()
    found = verify("results")
    assert [error.where for error in found.errors] == [RECORD] and found.remake == [RECORD]
    # By whatever path the folder is named.
    monkeypatch.chdir(indexed / "bragg")
    assert [error.where for error in verify("..").errors] == ["../bragg/a/candidates.json"]


def test_a_record_of_zeros_is_known_by_the_list_of_records(indexed: Path) -> None:
    Path(RECORD).write_bytes(bytes(Path(RECORD).stat().st_size))
    assert verify("results").damaged == [RECORD]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"runs": 3}', '{"runs": [3]}', '{"results": 3, "runs": ["a"]}'])
def test_a_damaged_list_of_records_is_one_line(indexed: Path, text: str) -> None:
    Path("results/mlflow.json").write_text(text)
    found = verify("results")
    assert {error.where for error in found.errors} == {"results/mlflow.json"}
    assert found.damaged == found.remake == ["results/mlflow.json"] and found.records == 1


def test_a_damaged_database_is_one_line_and_stays(results: Path) -> None:
    path = Path("results/mlflow.db")
    path.write_bytes(b"SQLite format 3\0" + bytes(5000))
    done = CliRunner().invoke(cli, ["verify", "--repair"])
    assert done.exit_code == 1 and path.exists() and "results/mlflow.db: not removed" in done.output
    assert sum(line.startswith("results/mlflow.db: found ") for line in done.output.splitlines()) == 1
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (a)")
    assert "found a database of something else" in str(verify("results").errors[0])


def test_results_of_other_versions_are_listed_and_not_damaged(results: Path) -> None:
    content = json.loads(Path(RECORD).read_text())
    content["versions"] |= {"numpy": "1.0.0", "gone": "2.0"}
    Path(RECORD).write_text(sealed(content))
    found = verify("results")
    assert found.errors == []
    assert found.versions == [
        f"{RECORD}: made with gone 2.0 (installed: none), numpy 1.0.0 (installed: {np.__version__})"
    ]
    done = CliRunner().invoke(cli, ["verify"])
    assert done.exit_code == 0 and found.versions[0] in done.output and "all unchanged" in done.output


def test_a_change_in_any_part_of_a_record_is_found(results: Path) -> None:
    content = Path(RECORD).read_text()
    for key in ("stage", "versions", "job", "checksum", "digest", "start", "platform"):
        assert f'"{key}"' in content
        Path(RECORD).write_text(content.replace(f'"{key}"', f'"{key[:-1]}"'))
        assert RECORD in {error.where for error in verify("results").errors}, key
    Path(RECORD).write_text(content)
    assert verify("results").errors == []


def test_records_of_before_are_still_read(results: Path) -> None:
    content = json.loads(Path(RECORD).read_text())
    for key in ("versions", "inputs", "job", "digest", "checksum"):
        del content[key]
    write_json(RECORD, {**content, "digest": content_digest(content)})
    assert verify("results").errors == []
    write_json(RECORD, {**content, "sample": "b", "digest": content_digest(content)})
    assert verify("results").errors != []
