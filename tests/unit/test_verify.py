"""Every file of a folder of results is compared with what was written; what differs is named, with the way to mend it."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cathodeflow.bragg.options import FindPeaks
from cathodeflow.cli import cli
from cathodeflow.errors import InputError
from cathodeflow.io.digests import content_digest
from cathodeflow.io.tables import write_json, write_table
from cathodeflow.io.volumes import write_volume
from cathodeflow.record import write_record
from cathodeflow.verify import rebuild_command, verify

TABLE, RECORD, STORE = "results/bragg/a/candidates.parquet", "results/bragg/a/candidates.json", "results/bragg/a/v.zarr"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
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
    assert removed in found.remove
    done = CliRunner().invoke(cli, ["verify", "results"])
    assert done.exit_code == 1 and f"{path}: found" in done.output and f"rm -rf {removed}" in done.output


def test_what_is_missing_or_unknown_is_named(results: Path) -> None:
    Path(TABLE).unlink()
    Path("results/bragg/a/other.txt").write_text("by hand")
    found = verify("results")
    assert [str(error) for error in found.errors] == [f"{TABLE}: found no such file, expected a result"]
    assert found.unknown == ["results/bragg/a/other.txt"] and found.remove == []
    assert rebuild_command(found.remove) == "snakemake --cores all"


def test_a_folder_without_records_is_one_line(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="expected a folder of results"):
            verify(str(folder))


def test_results_of_other_versions_are_listed_and_not_damaged(results: Path) -> None:
    content = json.loads(Path(RECORD).read_text())
    content["versions"] |= {"numpy": "1.0.0", "gone": "2.0"}
    job = {key: content.pop(key) for key in ("job", "digest", "checksum")}["job"]
    content |= {"digest": content_digest(content), "job": job}
    write_json(RECORD, {**content, "checksum": content_digest(content)})
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
