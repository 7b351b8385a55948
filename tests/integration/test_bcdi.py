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

from ..conftest import Project, run_stage

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


@pytest.fixture
def particle(demo: Project) -> Path:
    """Results of the particle of the demo."""
    return demo.folder / "results/bcdi/particle"


@pytest.mark.parametrize("route", ["phase", "refine"])
def test_a_simulated_scan_becomes_strain(particle: Path, route: str) -> None:
    """From random starts, and from the prediction of a network that was trained for seconds."""
    found = read_cxi(particle / route / "reconstruction.cxi")
    assert found.frame == "laboratory" and found.geometry["beamline"] == "34-ID-C"
    assert [name for name, _, _ in found.fields] == ["strain along Q", "displacement along Q"]
    extent = json.loads((particle / route / "strain.json").read_text())["metrics"]
    assert 300 < max(extent[f"extent_{axis}_nm"] for axis in "xyz") < 550
    best = pd.read_csv(particle / route / "metrics.csv").iloc[0]
    assert best["true_correlation"] > 0.98 and best["phase_error"] < 0.15
    if route == "phase":
        assert best["strain_error"] < 0.7 * best["true_strain_deviation"]
    assert {"PRTF", "FSC of the best two"} >= set(pd.read_csv(particle / route / "curves.csv")["curve"])


def test_the_network_needs_fewer_iterations_than_random_starts(particle: Path) -> None:
    table = pd.read_csv(particle.parent / "model/success.csv").query("regime == 'all'")
    success = table.set_index(["start", "iterations"])["share"]
    assert success["network", 10] > success["random", 10] and success["network", 50] >= success["random", 50]
    history = json.loads((particle.parent / "model/train.json").read_text())["history"]
    # An untrained network is at about .3.
    assert history[-1]["validation_correlation"] > max(0.5, history[0]["validation_correlation"])


def test_without_a_geometry_there_is_an_object_but_no_strain(particle: Path, tmp_path: Path) -> None:
    out = ("--sample", "s", "--out", "s.cxi", "--vti", "s.vti", "--statistics", "s.csv", "--record", "s.json")
    done = run_stage(tmp_path, "bcdi", "strain", str(particle / "phase/objects.h5"), *out)
    assert done.returncode == 0, done.stderr
    assert "no geometry (energy_kev" in (tmp_path / "log.txt").read_text()
    assert not read_cxi(tmp_path / "s.cxi").fields and pd.read_csv(tmp_path / "s.csv").empty


def test_one_command_gives_what_the_workflow_gives(demo: Project, particle: Path, tmp_path: Path) -> None:
    """All stages in one process, with the options of a file or of its own."""
    raw = demo.folder / "results/raw/bcdi/particle"
    whole = ["reconstruct", str(raw / "frames"), "--out", "all", "--geometry", str(raw / "geometry.yaml")]
    for name in ("dark", "whitefield", "mask"):
        whole += [f"--{name}", str(raw / f"{name}.tif")]
    options = ["--prepare-size", "32,32,32", "--phase-starts", "3", "--phase-threads", "1"]
    options += ["--phase-seed", "20", "--trust-seed", "20"]
    for given in (["--config", str(demo.folder / "config.yaml")], options):
        done = run_stage(tmp_path, "bcdi", *whole, *given, "--record", "all/reconstruct.json")
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / "all/reconstruct.json").read_text())
        assert {"prepared.h5", "objects.h5", "reconstruction.cxi", "slices.png"} <= set(record["outputs"])
        for theirs, mine in (
            ("prepared.h5", "prepared.h5"),
            ("phase/objects.h5", "objects.h5"),
            ("phase/curves.csv", "curves.csv"),
            ("phase/trust.csv", "trust.csv"),
            ("phase/errors.png", "errors.png"),
            ("phase/slices.png", "slices.png"),
            ("phase/diffraction.png", "diffraction.png"),
            ("phase/resolution.png", "resolution.png"),
        ):
            assert (particle / theirs).read_bytes() == (tmp_path / "all" / mine).read_bytes(), mine
        # The page names its sample.
        pages = [path.read_text() for path in (particle / "phase/particle.html", tmp_path / "all/particle.html")]
        assert pages[0].replace("particle/phase", "all") == pages[1]
    both = run_stage(tmp_path, "bcdi", *whole, "--config", str(demo.folder / "config.yaml"), *options)
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
