"""Locks of runs that were killed are free again, and those of living ones are not."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

RUN = """
import os, pathlib
from cathodeflow.io.runs import join_as_run
join_as_run()
print(os.path.exists(".snakemake/locks/0.output.lock"), flush=True)
os.makedirs(".snakemake/locks", exist_ok=True)
pathlib.Path(".snakemake/locks/0.output.lock").write_text("results/a")
input()
"""
JOB = """
from cathodeflow.io.runs import join_as_job
join_as_job()
print("joined", flush=True)
input()
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], str]]]:
    """Give a function that starts a process and returns it with the first line that it prints."""
    started = []

    def begin(code: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def test_locks_of_a_killed_run_are_free_again(start: Callable[[str], tuple[subprocess.Popen[str], str]]) -> None:
    first, _ = start(RUN)
    second, seen = start(RUN)
    assert seen == "True", "the lock of a living run was taken away"
    end(first)
    end(second)
    assert start(RUN)[1] == "False"


def test_a_job_that_outlives_its_run_keeps_its_locks(start: Callable[[str], tuple[subprocess.Popen[str], str]]) -> None:
    run, _ = start(RUN)
    job, _ = start(JOB)
    end(run)
    second, seen = start(RUN)
    assert seen == "True"
    end(job)
    end(second)
    assert start(RUN)[1] == "False"
