"""What is killed at any moment goes on when it is started again, and ends as if nothing had been."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from ..conftest import Project
from .conftest import TARGETS, digests, environment, kill_after, kill_often, only_full, patches, start, tally, times

#: By stage, the command that makes `results/bragg/out`.
STAGES = {
    "frames": "bragg frames big.h5 --sample a --out {out}/frames.h5 --record {out}/frames.json",
    "training": "bragg train patches.h5 --out {out}/model.pt --record {out}/train.json"
    " --checkpoint {out}/../checkpoints/a.ckpt --epochs 8",
    "Zarr": "fibsem volume raw/slices --labels raw/labels --sample a --out {out}/s.zarr --labels-out {out}/l.zarr --record {out}/a.json",
}  # fmt: skip


def begin(folder: Path, line: str) -> subprocess.Popen[bytes]:
    """Start a stage in a process group of its own."""
    words = [sys.executable, "-m", "cathodeflow", "--log", "log.txt", "--threads", "1", *line.split()]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(words, cwd=folder, env=environment(), stdout=quiet, stderr=quiet, start_new_session=True)


@pytest.mark.parametrize("stage", STAGES if times(1, 0) else ["training"])
def test_killed_stage_ends_with_the_same_files(source: Path, tmp_path: Path, stage: str) -> None:
    (tmp_path / "raw").symlink_to(source / "raw")
    patches(tmp_path / "patches.h5")
    with h5py.File(tmp_path / "big.h5", "w") as file:
        file["frames"] = np.random.default_rng(0).integers(0, 60_000, (300, 256, 256), np.uint16)
    line, rng = STAGES[stage], random.Random(stage)
    clock = time.monotonic()
    assert begin(tmp_path, line.format(out="results/bragg/unbroken")).wait(timeout=600) == 0
    lasts = time.monotonic() - clock
    wanted = times(6, 2)
    with tally(f"SIGKILL in the stage {stage}") as tried:
        killed = kill_often(lambda: begin(tmp_path, line.format(out="results/bragg/out")), wanted, lasts, rng)
        tried(killed)
        assert killed == wanted
        assert begin(tmp_path, line.format(out="results/bragg/out")).wait(timeout=600) == 0
        made, unbroken = (results_of(tmp_path, name) for name in ("out", "unbroken"))
        # The stage that writes Zarr stores makes several files.
        assert made == unbroken and len(made) > (stage == "Zarr")
        assert not list(tmp_path.glob("results/**/.*")), "what killed processes left"


def results_of(folder: Path, name: str) -> dict[str, str]:
    """Digests of a stage's results without its record, in which paths stand."""
    found = digests(folder, f"results/bragg/{name}")
    kept = {path: digest for path, digest in found.items() if not path.endswith(".json") or ".zarr" in path}
    return {path.removeprefix(f"results/bragg/{name}/"): digest for path, digest in kept.items()}


def rules_done(output: Path) -> list[str]:
    """Jobs that snakemake finished and recorded, by its output."""
    return re.findall(r"%  ([\w. -]+): done in ", output.read_text())


@only_full
def test_killed_run_makes_nothing_twice(fresh: Project, whole: Project, tmp_path: Path) -> None:
    """Snakemake and all its jobs are killed together; the same command goes on, without unlocking or cleaning up."""
    rng, done, killed, output = random.Random(1), [], 0, tmp_path / "output.txt"
    with tally("SIGKILL of a whole run, snakemake included") as tried:
        for _ in range(8):
            process = start(fresh, output=output)
            # From the moment that it has locked the folder, some jobs on.
            while process.poll() is None and not list(fresh.folder.glob(".snakemake/locks/*")):
                time.sleep(0.02)
            wait_for = rng.randrange(3)
            while process.poll() is None and len(rules_done(output)) < wait_for:
                time.sleep(0.02)
            alive = kill_after(process, rng.uniform(0, 4))
            killed += alive
            done += rules_done(output)
            if killed == 5 or not alive:
                break
        tried(killed)
        process = start(fresh, output=output)
        assert process.wait(timeout=900) == 0, output.read_text()
        done += rules_done(output)
        assert digests(fresh.folder) == digests(whole.folder)
        assert sorted(set(done)) == sorted(done), "a job was finished twice"
        assert killed >= 3


HOLD = """
import os
from cathodeflow.io.runs import join_as_job
join_as_job()
print("held", flush=True)
input()
"""


@only_full
def test_job_that_outlives_its_run_keeps_the_folder_locked(fresh: Project, tmp_path: Path) -> None:
    """Only snakemake is killed: its job may still write, so no second run may begin beside it."""
    # So much is to be done that the run is not over when the job is there.
    target, output = TARGETS[0], tmp_path / "output.txt"
    with tally("SIGKILL of snakemake alone, its job going on"):
        process = start(fresh, target, output=output)
        while process.poll() is None and not list(fresh.folder.glob(".snakemake/locks/*")):
            time.sleep(0.02)
        job = subprocess.Popen(
            [sys.executable, "-c", HOLD], cwd=fresh.folder, env=environment(), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert job.stdout is not None and job.stdout.readline() == "held\n"
        assert process.poll() is None, "the run was over before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        second = fresh.snakemake(target, check=False)
        assert second.returncode == 1 and "cannot be locked" in second.stdout + second.stderr
        job.communicate("\n")
        fresh.snakemake(target)


@only_full
def test_two_runs_in_one_folder(fresh: Project, tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    with tally("two runs at once in one folder"):
        first = start(fresh, TARGETS[0], output=output)
        while not list(fresh.folder.glob(".snakemake/locks/*")) and first.poll() is None:
            time.sleep(0.02)
        second = fresh.snakemake(TARGETS[0], check=False)
        assert second.returncode == 1 and "Directory cannot be locked" in second.stdout + second.stderr
        assert first.wait(timeout=600) == 0, output.read_text()
