"""Each way of deployment is understood; tests/unit/test_run_messages.py runs Snakemake without an activated environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import ROOT


def snakemake(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Snakemake by the path of its interpreter, as a cron job or an IDE does: nothing else is on the PATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(Path(sys.executable).parent / "snakemake"), "-s", str(ROOT / "Snakefile"), "--cores", "1"]
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment | {"PATH": os.defpath}, capture_output=True, text=True
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scans.tsv").write_text("sample\trole\tframes\nscan\tfit\tsimulated\n")
    (tmp_path / "config.yaml").write_text(
        "bragg: {samples: scans.tsv, simulate: {n_frames: 2, rows: 64, cols: 64, n_peaks: 5}}\n"
    )
    return tmp_path


def test_jobs_may_run_in_containers(folder: Path) -> None:
    done = snakemake(folder, "--configfile", "config.yaml", "--sdm", "apptainer", "-n")
    assert done.returncode == 0 and "bragg_simulate" in done.stdout, done.stderr[-2000:]


def test_environments_of_conda_are_asked_of_conda(folder: Path) -> None:
    # Without conda, this is the only thing that is missing: the workflow itself was understood.
    done = snakemake(folder, "--configfile", "config.yaml", "--sdm", "conda", "-n")
    assert done.returncode == 0 or "conda info" in done.stdout + done.stderr, done.stderr[-2000:]
