"""A run that is asked to end: in seconds, with all its jobs, in one line, and it goes on when it is started again."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from ..conftest import Project
from .conftest import TARGETS, command, start, tally, times

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stages(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Give the running stages among the jobs of a run."""
    try:
        return [job for job in psutil.Process(process.pid).children(recursive=True) if "--record" in job.cmdline()]
    except psutil.Error:
        return []


def test_a_run_ends_in_seconds_and_goes_on(fresh: Project, tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    # What was started with `nohup` ignores SIGHUP, and so do its processes.
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heard[: times(3)]:
        with tally(f"{number.name} to a run with jobs"):
            process = start(fresh, TARGETS[0], output=output)
            while process.poll() is None and not (jobs := stages(process)):
                time.sleep(0.05)
            assert process.poll() is None, output.read_text()
            before = output.stat().st_size
            # As a terminal does it, to all; as a person or a service manager does it, to one.
            (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
            assert process.wait(timeout=20) == 128 + number
            printed = output.read_bytes()[before:].decode().strip().splitlines()
            assert printed[-1] == f"stopped by {number.name}; start the same command again to go on"
            assert "Traceback" not in output.read_text() and "Error" not in output.read_text()
            assert not [job for job in jobs if job.is_running() and job.status() != psutil.STATUS_ZOMBIE]
    fresh.snakemake("results/bragg/only/frames.h5")
    assert command(fresh.folder, "verify").returncode == 0


def test_a_stage_by_hand_ends_in_one_line(tmp_path: Path) -> None:
    script = (
        "import os, signal, click\n"
        "from cathodeflow.commands import main\n"
        "@click.command()\n"
        "def stage():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "main(stage)\n"
    )
    done = subprocess.run(["python", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "interrupted by SIGTERM\n")


@pytest.mark.parametrize("megabytes", [200])
def test_too_little_memory_is_one_line(tmp_path: Path, source: Path, megabytes: int) -> None:
    line = f"ulimit -v {megabytes * 1024}; exec python -m cathodeflow bragg frames raw/only/frame_00001.tif --out {tmp_path}/f.h5"
    with tally("a limit of memory below what a stage needs"):
        done = subprocess.run(["bash", "-c", line], cwd=source, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "memory" in done.stderr and not (tmp_path / "f.h5").exists()
