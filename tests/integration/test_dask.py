"""Array stages on real Dask schedulers: the same stores as with threads."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .. import slurm
from ..conftest import run_stage

STAGE = "simulate --size 16 --oversampling 2.2,3.8 --seed 4 --sample model/train --objects {0}/objects.zarr --good {0}/good.zarr"
STAGE += " --out {0}/amplitudes.zarr --table {0}/crystals.parquet --record {0}/simulate.json"


def simulate(folder: Path, name: str, scheduler: str, crystals: int, *flags: str) -> dict[str, str]:
    """Simulate crystals, and give the digest of every store."""
    environment = {**os.environ, "CATHODEFLOW_DASK_SCHEDULER": scheduler}
    line = [*STAGE.format(name).split(), "--crystals", str(crystals)]
    command = [sys.executable, "-m", "cathodeflow", "--log", f"{name}.log", "--threads", "2", *flags, "bcdi", *line]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stderr
    stores = ("amplitudes", "objects", "good")
    return {one: json.loads((folder / name / f"{one}.zarr.manifest.json").read_text())["digest"] for one in stores}


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """A Dask scheduler, by its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
         "--dashboard-address", "127.0.0.1:0"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    for line in process.stderr:
        if found := re.search(r"Scheduler at:\s+(tcp://\S+)", line):
            break
    yield found.group(1)
    process.terminate()
    process.wait(timeout=60)


def worker(folder: Path, address: str) -> subprocess.Popen[str]:
    """Start a worker in a folder of its own, without a nanny that would start it anew."""
    folder.mkdir()
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--nthreads", "1"]
    return subprocess.Popen([*command, "--no-dashboard"], cwd=folder, stderr=subprocess.DEVNULL, text=True)


def test_two_workers_one_of_which_is_killed_write_what_threads_write(scheduler: str, tmp_path: Path) -> None:
    expected = simulate(tmp_path, "threads", "threads", 200)
    workers = [worker(tmp_path / f"worker{number}", scheduler) for number in range(2)]
    watcher = threading.Thread(target=kill_when_begun, args=(tmp_path / "workers", workers[0].pid), daemon=True)
    watcher.start()
    try:
        assert simulate(tmp_path, "workers", scheduler, 200) == expected
        watcher.join(timeout=60)
        assert workers[0].wait(timeout=60) == -signal.SIGKILL
    finally:
        for one in workers:
            one.kill()
    log = (tmp_path / "workers.log").read_text()
    assert f"Dask: {scheduler}, dashboard at http://127.0.0.1:" in log


def kill_when_begun(folder: Path, pid: int) -> None:
    """Kill a process as soon as a file of the store is there, or in the end."""
    deadline = time.monotonic() + 300
    while not list(folder.glob(".amplitudes.zarr.*/partial.zarr/0/c/**/0")) and time.monotonic() < deadline:
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_an_address_where_no_scheduler_is_ends_in_one_line(tmp_path: Path) -> None:
    line = ["--dask-scheduler", "tcp://127.0.0.1:9", "bcdi", *STAGE.format("x").split(), "--crystals", "2"]
    result = run_stage(tmp_path, *line)
    expected = "dask.scheduler: tcp://127.0.0.1:9: found no answer, expected a running Dask scheduler"
    assert result.returncode == 1 and result.stderr.strip().endswith(expected)
    assert not (tmp_path / "x").exists() or not list((tmp_path / "x").iterdir())


@pytest.mark.skipif(bool(slurm.missing()), reason=str(slurm.missing()))
def test_workers_as_slurm_jobs_write_what_threads_write(tmp_path: Path) -> None:
    expected = simulate(tmp_path, "threads", "threads", 4)
    flags = ["--dask-workers", "1", "--dask-cores", "1", "--dask-memory", "1000"]
    with slurm.slurm(tmp_path / "daemons"):
        assert simulate(tmp_path, "workers", "slurm", 4, *flags) == expected
        assert slurm.jobs()
