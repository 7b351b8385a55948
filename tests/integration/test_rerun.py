"""After a change, exactly what it made invalid is planned again."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cathodeflow.io.digests import file_digest
from cathodeflow.io.notes import Notes

from ..conftest import Project

# Jobs behind a change in one scan that the network is trained on, and in one that is only measured.
MEASURED = {
    "bragg_frames": 1,
    "bragg_find_peaks": 1,
    "bragg_fit": 1,
    "bragg_spots": 1,
    "bragg_locate": 1,
    "bragg_compare": 1,
    "bragg_figures": 1,
    "mlflow": 1,
}
FIGURES = {"bragg_figures": 2, "bragg_training_figures": 1, "mlflow": 1}
NETWORK = {"bragg_train": 1, "bragg_locate": 2, "bragg_compare": 2, **FIGURES}
TRAINED = {**MEASURED, "bragg_patches": 1, **NETWORK}
FIT = {"bragg_fit": 2, "bragg_spots": 2, "bragg_patches": 1, **NETWORK}


def edit(path: Path, pattern: str, replacement: str) -> None:
    """Replace the one place in a file that matches."""
    text = path.read_text()
    new, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert count == 1, f"{pattern} is not in {path}"
    path.write_text(new)


def nothing(project: Project) -> None:
    """Leave all as it is."""


def touch(project: Project) -> None:
    for path in (project.folder / "raw/first").iterdir():
        os.utime(path, (time.time() + 60,) * 2)


def copy_again(project: Project) -> None:
    shutil.copytree(project.folder / "raw", project.folder / "again")
    shutil.rmtree(project.folder / "raw")
    (project.folder / "again").rename(project.folder / "raw")


def flip_byte(scan: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        path = project.folder / f"raw/{scan}/frame_00003.tif"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))

    return change


def replace(file: str, *, age: float) -> Callable[[Project], None]:
    """Put other bytes in a file's place, with its time or an older one [s], as `cp -p` and `rsync -t` do."""

    def change(project: Project) -> None:
        path = project.folder / file
        before = path.stat()
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        other = path.with_name("other")
        other.write_bytes(bytes(content))
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns - round(age * 1e9)))
        shutil.copy2(other, path)
        other.unlink()

    return change


def move_raw(project: Project) -> None:
    """Move the raw folder, and name it by its absolute path."""
    (project.folder / "raw").rename(project.folder.parent / "beamtime")
    sheet = project.folder / "scans.tsv"
    sheet.write_text(sheet.read_text().replace("raw/", f"{project.folder.parent}/beamtime/"))


def change_and_move(project: Project) -> None:
    replace("raw/second/frame_00003.tif", age=0)(project)
    move_raw(project)


def rename_sheet(project: Project) -> None:
    """Other names, order and comments of what stands in the sheet."""
    lines = (project.folder / "scans.tsv").read_text().splitlines()
    cells = [line.split("\t")[::-1] for line in lines]
    text = "\n".join(["\t".join(row) for row in cells] + ["# A comment."]) + "\n"
    (project.folder / "scans.tsv").write_text(text)


def add_frame(project: Project) -> None:
    shutil.copy2(project.folder / "raw/second/frame_00003.tif", project.folder / "raw/second/frame_00099.tif")


def remove_frame(project: Project) -> None:
    (project.folder / "raw/second/frame_00003.tif").unlink()


def change_dark(project: Project) -> None:
    shutil.copy(project.folder / "raw/second/frame_00003.tif", project.folder / "raw/second/dark.tif")


def change_option(pattern: str, replacement: str) -> Callable[[Project], None]:
    return lambda project: edit(project.folder / "config.yaml", pattern, replacement)


def edit_source(file: str, pattern: str, replacement: str) -> Callable[[Project], None]:
    return lambda project: edit(project.checkout / "src/cathodeflow" / file, pattern, replacement)


def reformat_sources(project: Project) -> None:
    """Comment and blank lines into every source file, and other docstrings."""
    for path in (project.checkout / "src").rglob("*.py"):
        text = path.read_text()
        text = re.sub(r'^"""', '"""Reworded. ', text, count=1)
        path.write_text(re.sub(r"^(def |class |@)", r"# A comment.\n\n\n\1", text, count=3, flags=re.MULTILINE))


def delete(output: str) -> Callable[[Project], None]:
    return lambda project: (project.folder / output).unlink()


def new_scan(project: Project) -> None:
    shutil.copytree(project.folder / "raw/second", project.folder / "raw/third")
    sheet = project.folder / "scans.tsv"
    sheet.write_text(sheet.read_text() + "third\tmeasure\traw/third/frame_*.tif\t\t\n")


def new_fitted_scan(project: Project) -> None:
    """A scan that is only fitted, with a range of frames of its own and a geometry."""
    shutil.copytree(project.folder / "raw/second", project.folder / "raw/third")
    config = '{"pixel1": 1e-4, "pixel2": 1e-4}'
    (project.folder / "a.poni").write_text(f"Detector_config: {config}\nDistance: 0.1\nPoni1: 0\nPoni2: 0\n")
    sheet = project.folder / "scans.tsv"
    header, rest = sheet.read_text().split("\n", 1)
    columns = [*header.split("\t"), "stop", "geometry"]
    row = {"sample": "third", "role": "fit", "frames": "raw/third/frame_*.tif", "stop": "6", "geometry": "a.poni"}
    sheet.write_text("\t".join(columns) + f"\n{rest}" + "\t".join(row.get(name, "") for name in columns) + "\n")


def new_fitted_scan_in_stages(project: Project) -> None:
    new_fitted_scan(project)
    edit(project.folder / "config.yaml", "^bragg:", "bragg:\n  one_pass: false")


CASES = {
    "nothing changed": (nothing, {}),
    "raw files touched": (touch, {}),
    "raw files copied again": (copy_again, {}),
    "a byte of a frame of a measured scan": (flip_byte("second"), MEASURED),
    "a byte of a frame of a training scan": (flip_byte("first"), TRAINED),
    "a frame replaced by one of the same time": (replace("raw/second/frame_00003.tif", age=0), MEASURED),
    "a frame replaced by an older one": (replace("raw/first/frame_00003.tif", age=1e6), TRAINED),
    "the dark image replaced by an older one": (replace("raw/second/dark.tif", age=1e6), MEASURED),
    "the mask replaced by an older one": (replace("raw/second/mask.tif", age=1e6), MEASURED),
    "the raw folder moved": (move_raw, {}),
    "the raw folder moved after a change": (change_and_move, MEASURED),
    "the columns of the sheet in another order": (rename_sheet, {}),
    "the device chosen by the workflow": (change_option("device: cpu", "device: auto"), {}),
    "a frame added": (add_frame, MEASURED),
    "a frame removed": (remove_frame, MEASURED),
    "the dark image changed": (change_dark, MEASURED),
    "a scan added": (new_scan, MEASURED),
    "a scan added that is only fitted": (
        new_fitted_scan,
        {"bragg_measure": 1, "bragg_fit_figures": 1, "bragg_geometry": 1, "bragg_spots": 1, "mlflow": 1},
    ),
    "a scan added that is only fitted, stage by stage": (
        new_fitted_scan_in_stages,
        {
            "bragg_frames": 1,
            "bragg_find_peaks": 1,
            "bragg_fit": 1,
            "bragg_fit_figures": 1,
            "bragg_geometry": 1,
            "bragg_spots": 1,
            "mlflow": 1,
        },
    ),
    "an option of the fit": (change_option("^bragg:", "bragg:\n  fit: {model: gaussian}"), FIT),
    "an option of the training": (change_option("epochs: 2", "epochs: 3"), NETWORK),
    "an option given its default": (change_option("^bragg:", "bragg:\n  fit: {model: pseudo_voigt}"), {}),
    "two values swapped": (
        change_option("min_value: 20, min_persistence: 15", "min_value: 15, min_persistence: 20"),
        {"bragg_find_peaks": 2, **FIT},
    ),
    "the module of the network edited": (
        edit_source("bragg/model.py", r"(class BraggNN\(.*\n)", r"\1    edited = True\n"),
        NETWORK,
    ),
    "the module of the fit edited": (
        edit_source("bragg/peak_fits.py", r"^(def fit_peaks\()", r"EDITED = 1\n\n\n\1"),
        {},
    ),
    "the fit itself edited": (
        edit_source("bragg/profiles.py", r"^(def \w+\(.*\n)", r"\1    edited = True\n"),
        FIT,
    ),
    "a colour of a figure edited": (edit_source("bragg/plots.py", r"COLOURS\[2\]", "COLOURS[3]"), FIGURES),
    "comments, layout and docstrings edited": (reformat_sources, {}),
    "the wording of an error edited": (
        edit_source("bragg/peak_fits.py", r"(raise InputError\(.*)\"", r'\1 indeed"'),
        {},
    ),
    "the format of records edited": (edit_source("record.py", r"cathodeflow-record-1", "cathodeflow-record-2"), {}),
    "the run given a name": (change_option("^bragg:", "run_name: again\nbragg:"), {}),
    "versions compared of a library of one stage": (
        change_option("^bragg:", "reruns: {libraries: [findpeaks]}\nbragg:"),
        {"bragg_find_peaks": 2, **FIT},
    ),
    "versions compared of a library of no stage": (
        change_option("^bragg:", "reruns: {libraries: [mypy]}\nbragg:"),
        {},
    ),
    "a table deleted": (
        delete("results/bragg/second/candidates.parquet"),
        {name: number for name, number in MEASURED.items() if name != "bragg_frames"},
    ),
    "the network deleted": (delete("results/bragg/model/braggnn.pt"), NETWORK),
    "a record deleted": (
        delete("results/bragg/second/fit.json"),
        {"bragg_fit": 1, "bragg_spots": 1, "bragg_locate": 1, "bragg_compare": 1, "bragg_figures": 1, "mlflow": 1},
    ),
    "the database of runs deleted": (delete("results/mlflow.db"), {"mlflow": 1}),
    "a figure deleted": (delete("results/bragg/second/figures/frame.png"), {"bragg_figures": 1, "mlflow": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_dry_run_plans_what_became_invalid(project: Project, case: str) -> None:
    change, expected = CASES[case]
    change(project)
    assert project.planned() == expected


def test_repair_makes_just_what_is_damaged_again(project: Project) -> None:
    damaged, notes = "results/bragg/second/candidates.parquet", project.folder / "results/bragg/second/notes.json"
    good = {path: path.read_bytes() for path in (project.folder / "results/bragg").rglob("*") if path.is_file()}
    (project.folder / damaged).write_bytes(bytes(1000))
    notes.write_text('{"temperature": 25}')
    line = [sys.executable, "-m", "cathodeflow", "verify", "--repair"]
    done = subprocess.run(line, cwd=project.folder, capture_output=True, text=True, check=True)
    assert shlex.split(done.stderr.splitlines()[-1]) == ["snakemake", damaged, "--cores", "all"]
    assert not (project.folder / damaged).exists() and notes.exists()
    assert project.planned(damaged) == {"bragg_find_peaks": 1}
    project.snakemake(damaged)
    # What follows is as it was, as the table is; the record of its job has other times.
    assert {path.name for path in good if path.read_bytes() != good[path]} == {"candidates.json"}
    assert project.planned() == {"mlflow": 1}


def test_a_given_model_counts_by_its_content(project: Project) -> None:
    (project.folder / "models").mkdir()
    model = project.folder / "models/given.pt"
    shutil.copy(project.folder / "results/bragg/model/braggnn.pt", model)
    change_option("^bragg:", "bragg:\n  locate: {model: models/given.pt}")(project)
    located = {
        name: number for name, number in NETWORK.items() if name not in ("bragg_train", "bragg_training_figures")
    }
    assert project.planned() == located
    # As after an update of the workflow: the user takes the results as they are.
    project.snakemake("--touch")
    assert project.planned() == {}
    change_option("models/given.pt", str(model.rename(project.folder / "moved.pt")))(project)
    assert project.planned() == {}
    replace("moved.pt", age=1e6)(project)
    assert project.planned() == located


def test_reading_all_raw_files_finds_what_the_system_does_not_tell(project: Project) -> None:
    path = project.folder / "raw/second/frame_00003.tif"
    before = file_digest(path)
    replace("raw/second/frame_00003.tif", age=0)(project)
    # As on a file system that keeps no time of change: the facts that are noted with the content of before still hold.
    facts = path.stat()
    known = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, before]
    Notes(project.folder / ".snakemake/cathodeflow/raw_files").add({str(path.resolve()): known})
    assert project.planned() == {}
    assert project.planned("--config", "reruns={cache: false}") == MEASURED


def test_rerun_leaves_the_other_scan_alone_and_ends_clean(project: Project) -> None:
    others = [*(project.folder / "results/bragg/first").glob("*.h5"), project.folder / "results/bragg/model/braggnn.pt"]
    before = {path: path.stat().st_mtime_ns for path in others}
    assert len(before) >= 4
    flip_byte("second")(project)
    project.snakemake()
    assert {path: path.stat().st_mtime_ns for path in others} == before
    assert project.planned() == {}
