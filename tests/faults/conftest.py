"""A small project that faults are done to, what counts as the same results, and the tally of faults survived."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cathodeflow.io.patch_table import TrainingPatches
from cathodeflow.io.patches import write_patches
from cathodeflow.record import JOB, identity

from ..conftest import ROOT, Project, once

CONFIG = """\
seed: 5
device: cpu
bragg:
  samples: scans.tsv
  find_peaks: {min_value: 20, min_persistence: 15}
  train: {epochs: 6, hidden_units: [8, 4]}
"""
SCANS = "sample\trole\tframes\tdark\tmask\nonly\ttrain\traw/only/frame_*.tif\traw/only/dark.tif\traw/only/mask.tif\n"
BRAGG = "bragg simulate raw/only --state-of-charge 0.1 --seed 3 --n-frames 10 --rows 96 --cols 96 --n-peaks 60"
# `make faults` tries everything; `pytest tests/faults` a few of each.
FULL = bool(os.environ.get("CATHODEFLOW_FAULTS"))
only_full = pytest.mark.skipif(not FULL, reason="part of make faults")
#: The ends of all stages, without the import into MLflow, which takes as long as all the rest.
TARGETS = [f"results/bragg/only/{file}" for file in ("compare.csv", "located.h5")]


def times(full: int, sample: int = 1) -> int:
    """How often a fault is tried."""
    return full if FULL else sample


@contextmanager
def tally(fault: str, tried: int = 1) -> Iterator[Callable[[int], None]]:
    """Count a fault as survived when the block ends well, for the table of `make faults`.

    The function that the block gets changes how often the fault was tried.
    """
    counted = [tried]
    survived = 0
    try:
        yield lambda number: counted.__setitem__(0, number)
        survived = counted[0]
    finally:
        if table := os.environ.get("CATHODEFLOW_FAULTS"):
            with open(table, "a") as file:
                file.write(json.dumps([fault, counted[0], survived]) + "\n")


def environment(checkout: Path = ROOT) -> dict[str, str]:
    """Environment of every process that is started."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    more = {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    return {**os.environ, "PYTHONPATH": str(checkout / "src"), "PATH": path, **more}


def command(folder: Path, line: str | list[str], **keywords: object) -> subprocess.CompletedProcess[str]:
    """Run `cathodeflow` in a folder."""
    words = line.split() if isinstance(line, str) else line
    return subprocess.run(
        [sys.executable, "-m", "cathodeflow", *words],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=600, **keywords,
    )  # type: ignore[call-overload, no-any-return]  # fmt: skip


def start(project: Project, *arguments: str, output: Path) -> subprocess.Popen[bytes]:
    """Start snakemake in a process group of its own."""
    options = ["--snakefile", str(project.checkout / "Snakefile"), "--configfile", "config.yaml", "--cores", "2"]
    with output.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *options, *arguments],
            cwd=project.folder, env=environment(project.checkout), stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip


def kill(process: subprocess.Popen[Any]) -> None:
    """Kill a process with its whole group, as a power cut does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # The kernel takes a moment to end the last of the group.
    time.sleep(0.2)


def kill_after(process: subprocess.Popen[Any], seconds: float) -> bool:
    """Kill a process after some time; tell whether it was still running."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    if process.poll() is not None:
        return False
    kill(process)
    return True


def kill_often(begin: Callable[[], subprocess.Popen[Any]], wanted: int, lasts: float, rng: random.Random) -> int:
    """Start a process anew until so many were killed while they ran; return how many were.

    `lasts` are the seconds that it ran when nobody killed it. Where one is quicker, as the machine was busy then or had
    read nothing before, the next are killed earlier.
    """
    killed = 0
    for _ in range(10 * wanted):
        clock = time.monotonic()
        # The first part of the time is that of imports, where nothing can go wrong.
        if kill_after(begin(), rng.uniform(0.4, 1.0) * lasts):
            killed += 1
        else:
            lasts = min(0.9 * lasts, time.monotonic() - clock)
        if killed == wanted:
            break
    return killed


def digests(folder: Path, *below: str) -> dict[str, str]:
    """Digests of all results, without what tells the time: logs, benchmarks, the database of runs, times in records."""
    found = {}
    for part in below or ("results/bragg", "results/sem", "results/fibsem", "results/bcdi"):
        for path in sorted((folder / part).rglob("*")):
            if path.is_file() and path.name != ".snakemake_timestamp":
                content = path.read_bytes()
                if path.suffix == ".json" and JOB in (record := json.loads(content)):
                    content = json.dumps(identity(record)).encode()
                found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def raw(folder: Path) -> None:
    """Write raw data of a scan and of a volume, and the configuration."""
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "scans.tsv").write_text(SCANS)
    assert command(folder, BRAGG).returncode == 0
    rng = np.random.default_rng(0)
    for part, high in (("slices", 200), ("labels", 3)):
        (folder / "raw" / part).mkdir(parents=True)
        for number in range(40):
            image = rng.integers(0, high, (256, 256), np.uint8)
            tifffile.imwrite(folder / f"raw/{part}/s{number:02d}.tif", image)


def patches(path: Path) -> None:
    """Write patches to train on: a bright spot in each, and where it is."""
    rng = np.random.default_rng(0)
    row, col = rng.uniform(5.5, 6.5, (2, 600)).astype(np.float32)
    grid = np.arange(13, dtype=np.float32)
    spots = np.exp(-((grid[:, None] - row[:, None, None]) ** 2 + (grid - col[:, None, None]) ** 2) / 3)
    part = TrainingPatches(
        rng.poisson(300 * spots).astype(np.float32),
        row,
        col,
        np.arange(600) // 20,
        np.arange(600),
        np.full((600, 2), 0.05, "f4"),
    )
    write_patches(path, [part], patch_size=11, max_shift=1, min_value=0.0)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder with raw data and a configuration."""
    return once("source", tmp_path_factory, worker_id, raw)


@pytest.fixture(scope="session")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """A project that has been run to its end without any fault."""

    def make(folder: Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        output = folder.with_suffix(".txt")
        assert start(Project(folder, ROOT), output=output).wait(timeout=3000) == 0, output.read_text()

    return Project(once("whole", tmp_path_factory, worker_id, make), ROOT)


@pytest.fixture
def fresh(source: Path, tmp_path: Path) -> Project:
    """A project that nothing has been run in."""
    shutil.copytree(source, tmp_path / "fresh")
    return Project(tmp_path / "fresh", ROOT)


@pytest.fixture
def finished(whole: Project, tmp_path: Path) -> Project:
    """A copy of the finished project."""
    subprocess.run(["cp", "-a", whole.folder, tmp_path / "finished"], check=True)
    return Project(tmp_path / "finished", ROOT)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Give a function that mounts a file system of some MB at a folder, or changes its size or options."""
    mounted: list[Path] = []

    def mount(folder: Path, options: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        extra = ["-o", f"remount,{options}"] if folder in mounted else ["-t", "tmpfs", "-o", options]
        done = subprocess.run(["mount", *extra, "none", str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in dict.fromkeys(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
