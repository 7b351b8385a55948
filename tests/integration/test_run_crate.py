"""`cathodeflow export`: a run as an RO-Crate that other programs read, and that can be run again in another folder."""

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rocrate.rocrate import ROCrate

from cathodeflow.errors import InputError
from cathodeflow.io.digests import file_digest
from cathodeflow.record_files import find_records, is_ours
from cathodeflow.run_crate import export_run

from ..conftest import Project
from .conftest import copy


@pytest.fixture(scope="module")
def crate(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The crate of a finished project, with its raw data."""
    out = tmp_path_factory.mktemp("crate") / "crate"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished.folder)
        done = export_run(["config.yaml"], "results", str(out), raw=True, checkout=str(finished.checkout))
    assert done.referenced == []
    yield out


def test_a_crate_describes_every_job_and_holds_every_file_that_it_names(crate: Path, finished: Project) -> None:
    read = ROCrate(crate)
    assert read.mainEntity.id == "code/Snakefile" and "Snakemake" in read.mainEntity["programmingLanguage"]["name"]
    profiles = [profile.id for profile in read.root_dataset["conformsTo"]]
    assert any("wfrun/workflow" in profile for profile in profiles)
    described = 0
    for entity in read.get_by_type("File"):
        assert (crate / entity.id).is_file(), entity.id
        if digest := entity.get("sha256"):
            assert file_digest(crate / entity.id) == digest, entity.id
            described += 1
    records = {
        path: json.loads(Path(path).read_text()) for path in find_records(finished.folder / "results") if is_ours(path)
    }
    actions = {action["name"]: action for action in read.get_by_type("CreateAction")}
    assert set(actions) == {"Run of the workflow", *(f"{r['stage']} of {r['sample']}" for r in records.values())}
    fit = actions["bragg.fit of second"]
    assert [one.id for one in fit["result"]] == ["results/bragg/second/peaks.h5"]
    used = {one.get("name"): one for one in fit["object"]}
    assert "results/bragg/second/frames.h5" in used and used["threshold"]["value"] == "0.0"
    assert fit["startTime"] < fit["endTime"] and fit["agent"]["name"]
    assert {"numpy", "python"} <= {package["name"] for package in fit["instrument"]["softwareRequirements"]}
    frames = next(one for one in actions["bragg.frames of second"]["object"] if one.type == "Collection")
    assert len(frames["hasPart"]) == 12
    # What can be made again, or belongs to a machine, is left out.
    assert not (crate / "results/checkpoints").exists() and not (crate / "results/mlflow.db").exists()


def test_runcrate_reads_a_crate(crate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = pytest.importorskip("runcrate.report")
    report.dump_crate_actions(crate)
    text = capsys.readouterr().out
    assert text.startswith("action: #action-0\n  instrument: code/Snakefile")
    assert "results/bragg/second/peaks.h5" in text


def test_a_run_from_a_crate_in_another_folder_gives_equal_digests(crate: Path, tmp_path: Path) -> None:
    shutil.copytree(crate / "inputs", tmp_path / "again")
    Project(tmp_path / "again", crate / "code").snakemake("results/bragg/second/peaks.h5")
    for name in ("frames", "candidates", "fit"):
        again, before = (
            json.loads((folder / f"results/bragg/second/{name}.json").read_text())
            for folder in (tmp_path / "again", crate)
        )
        assert again["outputs"] == before["outputs"] and again["outputs"]
        assert again["digest"] == before["digest"]


def test_without_raw_data_its_digests_are_kept_and_a_zip_file_is_written(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.folder)
    out = tmp_path / "run.zip"
    done = export_run(["config.yaml"], "results", str(out), raw=False, checkout=str(finished.checkout))
    assert "raw/second/frame_*.tif" in done.referenced
    with zipfile.ZipFile(out) as packed:
        names = packed.namelist()
        entities = json.loads(packed.read("ro-crate-metadata.json"))["@graph"]
    assert "inputs/scans.tsv" in names and not any("inputs/raw" in name for name in names)
    raw = next(one for one in entities if one["@id"].endswith("raw/second/dark.tif"))
    assert raw["@id"].startswith("file:///") and raw["sha256"] == file_digest("raw/second/dark.tif")


def test_what_cannot_be_packed_is_named(finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = copy(finished, tmp_path)
    monkeypatch.chdir(project.folder)

    def export(*configs: str, out: str = "crate", checkout: Path = project.checkout) -> None:
        export_run(configs, "results", out, raw=False, checkout=str(checkout))

    Path("taken").mkdir()
    with pytest.raises(InputError, match=r"^taken: found an existing file or folder, expected a new name"):
        export("config.yaml", out="taken")
    with pytest.raises(InputError, match=r"nowhere/x: found no such folder|nowhere: found no such folder"):
        export("config.yaml", out="nowhere/x")
    with pytest.raises(InputError, match="found no Snakefile, expected the checkout"):
        export("config.yaml", checkout=tmp_path)
    shutil.copy("config.yaml", tmp_path / "config.yaml")
    with pytest.raises(InputError, match="found a file outside the working folder"):
        export("../config.yaml")
    (project.folder / "results/bragg/first/compare.csv").write_text("changed")
    with pytest.raises(InputError, match=r"compare\.csv: found"):
        export("config.yaml")
    assert not Path("crate").exists() and not list(Path().glob(".crate-*"))


def test_links_among_the_results_lead_nowhere_and_a_crate_lies_outside(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy(finished, tmp_path)
    monkeypatch.chdir(project.folder)

    def export(out: str) -> None:
        export_run(["config.yaml"], "results", out, raw=False, checkout=str(project.checkout))

    with pytest.raises(InputError, match=r"^results/crate: found a name in results, expected one outside"):
        export("results/crate")
    # A key beside the results is not published; a result that was moved to another disk is.
    (tmp_path / "key").write_text("secret")
    Path("results/key").symlink_to(tmp_path / "key")
    moved = Path("results/bragg/second/peaks.h5")
    moved.rename(tmp_path / "peaks.h5")
    moved.symlink_to(tmp_path / "peaks.h5")
    export("run.ZIP")
    with zipfile.ZipFile("run.ZIP") as packed:
        names = packed.namelist()
    assert "results/bragg/second/peaks.h5" in names and "results/key" not in names
    Path("results/bragg/second").rename(tmp_path / "second")
    Path("results/bragg/second").symlink_to(tmp_path / "second")
    with pytest.raises(InputError, match=r"^results/bragg/second: found a link to a folder, expected the folder"):
        export("other")
