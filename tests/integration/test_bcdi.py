"""Coherent diffraction: from raw frames to strain, and bad input is one clear line each."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from cathodeflow import bcdi
from cathodeflow.io.phasing import read_pattern
from cathodeflow.io.reconstructions import read_cxi

from ..conftest import run_stage

SHAPE = (16, 32, 32)
PREPARE = ("bcdi", "prepare", "frames", "--sample", "s", "--out", "out/p.h5", "--record", "out/p.json")


def scan(folder: Path, centre: tuple[int, int, int] = (8, 16, 16), level: float = 0.0) -> None:
    """Frames of a round peak of 1000 counts."""
    rng = np.random.default_rng(0)
    distance = sum((axis - at) ** 2 / n for axis, at, n in zip(np.indices(SHAPE), centre, SHAPE, strict=True))
    (folder / "frames").mkdir()
    for number, frame in enumerate(rng.poisson(1000 * np.exp(-2 * distance) + level)):
        tifffile.imwrite(folder / f"frames/f{number:03d}.tif", frame.astype(np.int32))


def one_frame(folder: Path) -> list[str]:
    for path in sorted((folder / "frames").glob("*.tif"))[1:]:
        path.unlink()
    return []


def other_size(folder: Path) -> list[str]:
    tifffile.imwrite(folder / "frames/f005.tif", np.zeros((32, 31), np.int32))
    return []


def dark_of_another_size(folder: Path) -> list[str]:
    tifffile.imwrite(folder / "dark.tif", np.zeros((64, 64), np.int32))
    return ["--dark", "dark.tif"]


def nothing_counted(folder: Path) -> list[str]:
    for path in (folder / "frames").glob("*.tif"):
        tifffile.imwrite(path, np.zeros(SHAPE[1:], np.int32))
    return []


def region_beyond_the_detector(folder: Path) -> list[str]:
    return [*dark_of_another_size(folder), "--region", "40,72,0,32"]


@pytest.mark.parametrize(
    ("spoil", "where", "found"),
    [
        (one_frame, "frames", "one frame"),
        (other_size, "f005.tif", "(32, 31)"),
        (dark_of_another_size, "dark.tif", "64 x 64"),
        (nothing_counted, "frames", "0 everywhere"),
        (region_beyond_the_detector, "dark.tif", "region 40 to 72"),
    ],
)
def test_bad_frames_are_one_line(tmp_path: Path, spoil: Callable[[Path], list[str]], where: str, found: str) -> None:
    scan(tmp_path)
    run = run_stage(tmp_path, *PREPARE, *spoil(tmp_path))
    assert run.returncode == 1 and "Traceback" not in run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1 and where in lines[0] and found in lines[0], run.stderr
    assert not list((tmp_path / "out").glob("*"))


def test_negative_counts_are_counted_and_a_cut_peak_is_warned_of(tmp_path: Path) -> None:
    scan(tmp_path, centre=(8, 16, 29), level=3)
    tifffile.imwrite(tmp_path / "dark.tif", np.full(SHAPE[1:], 3, np.int32))
    run = run_stage(tmp_path, *PREPARE, "--dark", "dark.tif")
    assert run.returncode == 0, run.stderr
    figures = json.loads((tmp_path / "out/p.json").read_text())["metrics"]
    assert figures["negative_voxels"] > 100 and figures["negative_counts"] < -100
    assert figures["edge_share_lost_by_axis_cols"] > 0.05
    log = (tmp_path / "log.txt").read_text()
    assert "cut at the edge of the columns" in log and f"{figures['edge_share_lost']:.1%}" in log
    assert (read_pattern(tmp_path / "out/p.h5").amplitude >= 0).all()


def test_a_simulated_scan_becomes_strain(tmp_path: Path) -> None:
    def run(*line: str) -> None:
        done = run_stage(tmp_path, "bcdi", *line)
        assert done.returncode == 0, done.stderr

    size = ("--frames", "32", "--rows", "40", "--cols", "40", "--coherence", "0")
    run("simulate-scan", "raw", *size, "--offset", "1,-3,2")
    raw = ("--dark", "raw/dark.tif", "--whitefield", "raw/whitefield.tif", "--mask", "raw/mask.tif")
    run("prepare", "raw/frames", *raw, "--sample", "s", "--out", "p.h5", "--record", "p.json", "--size", "32,32,32")
    out = ("--sample", "s", "--out", "o.h5", "--record", "o.json")
    run("phase", "p.h5", *out, "--starts", "2", "--sigma", "1,0.5", "--shrink-every", "10", "--threads", "1")
    out = ("--sample", "s", "--out", "s.cxi", "--vti", "s.vti", "--statistics", "s.csv", "--record", "s.json")
    run("strain", "o.h5", *out)
    assert "no geometry (energy_kev" in (tmp_path / "log.txt").read_text()
    assert not read_cxi(tmp_path / "s.cxi").fields and pd.read_csv(tmp_path / "s.csv").empty
    run("strain", "o.h5", *out, "--geometry", "raw/geometry.yaml")
    found = read_cxi(tmp_path / "s.cxi")
    assert found.frame == "laboratory" and found.geometry["beamline"] == "34-ID-C"
    assert [name for name, _, _ in found.fields] == ["strain along Q", "displacement along Q"]
    extent = json.loads((tmp_path / "s.json").read_text())["metrics"]
    assert 300 < max(extent[f"extent_{axis}_nm"] for axis in "xyz") < 550
    out = ("--sample", "s", "--out", "m.csv", "--curves", "c.csv", "--record", "m.json")
    run("metrics", "p.h5", "o.h5", "s.cxi", "--truth", "raw/truth.cxi", *out)
    best = pd.read_csv(tmp_path / "m.csv").iloc[0]
    assert best["true_correlation"] > 0.98 and best["phase_error"] < 0.15
    assert best["strain_error"] < 0.7 * best["true_strain_deviation"]
    assert set(pd.read_csv(tmp_path / "c.csv")["curve"]) == {"PRTF", "FSC of the best two"}
    drawn = ("--pattern", "p.h5", "--objects", "o.h5", "--phasing", "o.json", "--reconstruction", "s.cxi")
    run("figures", *drawn, "--curves", "c.csv", "--sample", "all", "--out", ".")
    # One command gives the same, with the options of a file or of its own.
    (tmp_path / "c.yaml").write_text(
        "bcdi: {samples: none, prepare: {size: [32, 32, 32]}, phase: {starts: 2, sigma: [1, 0.5], shrink_every: 10,"
        " threads: 1}}"
    )
    whole = ("reconstruct", "raw/frames", *raw, "--out", "all", "--geometry", "raw/geometry.yaml")
    options = ("--prepare-size", "32,32,32", "--phase-starts", "2", "--phase-threads", "1")
    for given in (("--config", "c.yaml"), options):
        run(*whole, *given, "--record", "all/reconstruct.json")
        record = json.loads((tmp_path / "all/reconstruct.json").read_text())
        assert {"prepared.h5", "objects.h5", "reconstruction.cxi", "slices.png"} <= set(record["outputs"])
        for mine, theirs in (
            ("p.h5", "prepared.h5"),
            ("o.h5", "objects.h5"),
            ("c.csv", "curves.csv"),
            ("errors.png", "errors.png"),
            ("slices.png", "slices.png"),
            ("particle.html", "particle.html"),
            ("diffraction.png", "diffraction.png"),
            ("resolution.png", "resolution.png"),
        ):
            assert (tmp_path / mine).read_bytes() == (tmp_path / "all" / theirs).read_bytes(), theirs
    both = run_stage(tmp_path, "bcdi", *whole, "--config", "c.yaml", *options)
    assert both.returncode == 1 and "only one of them" in both.stderr


def test_a_stage_is_a_function_that_writes_what_its_command_writes(tmp_path: Path) -> None:
    raw = {name: tmp_path / f"raw/{name}.tif" for name in ("dark", "whitefield", "mask")}
    bcdi.simulate_scan(tmp_path / "raw", options=bcdi.SimulateScan(frames=32, rows=32, cols=32))
    size = bcdi.Prepare(size=(32, 32, 32))
    metrics = bcdi.prepare(tmp_path / "raw/frames", **raw, out=tmp_path / "mine.h5", options=size)
    line = [word for name, path in raw.items() for word in (f"--{name}", str(path))]
    run = run_stage(tmp_path, "bcdi", "prepare", "raw/frames", *line, "--out", "out.h5", "--record", "out.json",
                    "--size", "32,32,32")  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "mine.h5").read_bytes() == (tmp_path / "out.h5").read_bytes()
    assert json.loads((tmp_path / "out.json").read_text())["metrics"] == metrics
