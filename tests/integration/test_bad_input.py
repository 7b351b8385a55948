"""Bad input ends in one clear line, exit status 1, and nothing written - by hand and in the workflow."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch

from cathodeflow.bragg.model import BraggNN
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.io.models import save_model
from cathodeflow.io.tables import write_table

from ..conftest import ROOT, Project

FRAME = np.full((40, 50), 7, np.uint16)
OUTPUTS = "--sample s --out out/result --record out/record.json"


def cathodeflow(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cathodeflow", "--log", "log.txt", *line.split()]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def series(folder: Path, *frames: np.ndarray) -> None:
    (folder / "raw").mkdir()
    for number, frame in enumerate(frames):
        tifffile.imwrite(folder / f"raw/f{number}.tif", frame)


def truncated_hdf5(folder: Path) -> None:
    with h5py.File(folder / "raw.h5", "w") as file:
        file["data"] = np.zeros((20, 40, 50), np.uint16)
    content = (folder / "raw.h5").read_bytes()
    (folder / "raw.h5").write_bytes(content[: len(content) // 2])


def text_as_tiff(folder: Path) -> None:
    series(folder, FRAME, FRAME)
    (folder / "raw/f1.tif").write_text("this is no image")


def shapes_differ(folder: Path) -> None:
    series(folder, FRAME, FRAME, FRAME[:-1])


def not_a_number(folder: Path) -> None:
    frame = FRAME.astype(np.float32)
    frame[3, 4] = np.nan
    series(folder, FRAME.astype(np.float32), frame)


def negative(folder: Path) -> None:
    frame = FRAME.astype(np.int32)
    frame[3, 4] = -5
    series(folder, FRAME.astype(np.int32), frame)


def saturated(folder: Path) -> None:
    frame = FRAME.copy()
    frame[:20] = 65535
    series(folder, FRAME, frame)


def empty_scan(folder: Path) -> None:
    (folder / "raw").mkdir()


def no_frames_in_stack(folder: Path) -> None:
    with h5py.File(folder / "raw.h5", "w") as file:
        file["data"] = np.zeros((0, 40, 50), np.uint16)


def peaks_without_npeaks(folder: Path) -> None:
    write_frames(folder / "frames.h5", [(0, FRAME)], shape=FRAME.shape)
    with h5py.File(folder / "peaks.h5", "w") as file:
        file["peak_fidx"] = np.zeros(3, np.uint32)
        for name in ("peak_row", "peak_col", "deviations"):
            file[name] = np.ones(3, np.float32)


def other_patch_size(folder: Path) -> None:
    write_frames(folder / "frames.h5", [(0, FRAME)], shape=FRAME.shape)
    columns = {name: np.array([5]) for name in ("row", "col", "persistence", "npeaks")}
    write_table(folder / "candidates.parquet", {"frame": np.array([0]), **columns, "central": np.array([True])})
    save_model(
        folder / "weights.pth", BraggNN(9, (16, 8, 4, 2), generator=torch.Generator().manual_seed(0)).state_dict(), {}
    )


def foreign_weights(folder: Path) -> None:
    other_patch_size(folder)
    torch.save(torch.nn.Linear(3, 2).state_dict(), folder / "weights.pth")


def pickled_object(folder: Path) -> None:
    other_patch_size(folder)
    torch.save({"a": Path("/"), "b": torch.nn.ReLU()}, folder / "weights.pth")


FRAMES_TIFF = f"bragg frames raw/*.tif {OUTPUTS}"
LOCATE = f"bragg locate frames.h5 candidates.parquet --model weights.pth --table out/table.parquet {OUTPUTS}"
CASES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "truncated HDF5": (truncated_hdf5, f"bragg frames raw.h5::/data {OUTPUTS}", r"raw\.h5: found .*truncated"),
    "a TIFF that is not one": (text_as_tiff, FRAMES_TIFF, r"raw/f1\.tif: found .*expected"),
    "frames of different shapes": (shapes_differ, FRAMES_TIFF, r"raw/f2\.tif: found .*\(39, 50\).*expected.*\(40, 50\)"),
    "NaN": (not_a_number, FRAMES_TIFF, r"frame 1: found 1 pixels of NaN.*\(3, 4\).*expected finite"),
    "negative counts": (negative, FRAMES_TIFF, r"frame 1: found 1 pixels below zero \(lowest -5\).*expected"),
    "a saturated frame": (saturated, FRAMES_TIFF, r"frame 1: found 1000 of 2000 pixels saturated.*expected"),
    "an empty folder": (empty_scan, f"bragg frames raw {OUTPUTS}", r"raw: found .*expected"),
    "a pattern without files": (empty_scan, FRAMES_TIFF, r"raw/\*\.tif: found .*expected"),
    "a stack without frames": (no_frames_in_stack, f"bragg frames raw.h5 {OUTPUTS}", r"raw\.h5.*: found .*expected"),
    "peaks.h5 without npeaks": (
        peaks_without_npeaks, f"bragg patches frames.h5 peaks.h5 {OUTPUTS}", r"peaks\.h5.*found .*expected.*npeaks",
    ),
    "weights of another patch size": (
        other_patch_size, LOCATE, r"weights\.pth: found weights for patch size 9, expected 11",
    ),
    "weights of another network": (foreign_weights, LOCATE, r"weights\.pth: found no dense_layers, expected"),
    "weights that hold objects": (pickled_object, LOCATE, r"weights\.pth: found .*expected"),
    "no model": (
        other_patch_size, LOCATE.replace("--model weights.pth ", ""), r"--model: found nothing, expected a trained BraggNN",
    ),
    "a missing file": (empty_scan, f"bragg find-peaks none.h5 {OUTPUTS}", r"none\.h5: found .*expected"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_nothing_written(tmp_path: Path, case: str) -> None:
    make, line, expected = CASES[case]
    make(tmp_path)
    before = sorted(path for path in tmp_path.rglob("*"))
    result = cathodeflow(tmp_path, line)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and result.stdout == "", result.stderr
    assert re.search(expected, result.stderr), result.stderr
    left = {path for path in tmp_path.rglob("*") if path.is_file()} - set(before) - {tmp_path / "log.txt"}
    assert left == set()
    assert result.stderr.strip() in (tmp_path / "log.txt").read_text()


def test_all_bad_files_are_told_at_once_or_skipped(tmp_path: Path) -> None:
    series(tmp_path, *[FRAME] * 6)
    for number in (1, 4):
        (tmp_path / f"raw/f{number}.tif").write_text("no image")
    result = cathodeflow(tmp_path, FRAMES_TIFF)
    assert result.returncode == 1 and [line.split(":")[0] for line in result.stderr.splitlines()] == [
        "raw/f1.tif",
        "raw/f4.tif",
    ]
    result = cathodeflow(tmp_path, FRAMES_TIFF + " --on-bad-file skip")
    assert result.returncode == 0, result.stderr
    with h5py.File(tmp_path / "out/result") as file:
        assert file["frame_number"][:].tolist() == [0, 2, 3, 5]
    assert (tmp_path / "log.txt").read_text().count("left out: raw/f") == 2


@pytest.mark.parametrize(
    ("config", "sheet", "message"),
    [
        ("bragg: {samples: s.tsv, fitt: {}}", "", "config.yaml: bragg.fitt: found an unknown key, expected 'fit'"),
        ("bragg: {samples: s.tsv, fit: {patch_size: 10}}", "", "config.yaml: bragg.fit.patch_size: found 10, expected an odd"),
        ("bragg: {samples: s.tsv, train: {epochs: many}}", "", "config.yaml: bragg.train.epochs: found 'many', expected"),
        ("sed: 3\nbragg: {samples: s.tsv}", "", "config.yaml: sed: found an unknown key, expected 'seed'"),
        ("seed: 3", "", "config.yaml: found no technique, expected a section bcdi or bragg"),
        ("bragg: {samples: none.tsv}", "", "none.tsv: found no such file, expected a sample sheet"),
        ("bragg: {samples: s.tsv}", "a\ttrain\tnowhere/*.tif\n", "s.tsv: scan 'a', frames: nowhere/*.tif: found"),
        ("bragg: {samples: s.tsv}", "a\tmeasure\tsimulated\n", "s.tsv: found no scan to train the network on"),
        ("bragg: {samples: s.tsv}", "a\tteach\tsimulated\n", "s.tsv line 2: role: found 'teach', expected 'train', 'measure' or 'fit'"),
        ("bragg: {samples: s.tsv}", "a\ttrain\tsimulated\n" * 2, "s.tsv line 3: found sample 'a' a second time"),
        ("bragg: {samples: s.tsv, locate: {model: w.pth}}", "a\tmeasure\tsimulated\n", "bragg.locate.model: w.pth: found no"),
    ],
)  # fmt: skip
def test_wrong_configuration_stops_the_workflow_before_any_job(
    tmp_path: Path, config: str, sheet: str, message: str
) -> None:
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "s.tsv").write_text("sample\trole\tframes\n" + (sheet or "a\ttrain\tsimulated\n"))
    result = Project(tmp_path, ROOT).snakemake(check=False)
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if not line.startswith("Using workflow specific profile")]
    assert len(lines) == 1 and lines[0].startswith(message), result.stderr
    assert not (tmp_path / "results").exists()
