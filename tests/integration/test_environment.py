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


def test_another_workflow_may_use_this_one_as_a_module(folder: Path) -> None:
    (folder / "outer").mkdir()
    (folder / "outer" / "Snakefile").write_text(
        f"module cathodeflow:\n    snakefile: {str(ROOT / 'Snakefile')!r}\n"
        f"    config: {{'bragg': {{'samples': 'scans.tsv'}}}}\n"
        "use rule * from cathodeflow as cathodeflow_*\n"
        "rule mine:\n    input: 'results/bragg/scan/peaks.h5'\n    output: 'mine.txt'\n    shell: 'wc {input} > {output}'\n"
    )
    # Also a rule of a file that is found by its name, in the folder of this workflow and not of the other one.
    outer = ["--snakefile", str(folder / "outer" / "Snakefile"), "-n"]
    done = snakemake(folder, "mine", "cathodeflow_study", *outer)
    assert done.returncode == 0, done.stderr[-2000:]
    for rule in ("mine", "cathodeflow_bragg_simulate", "cathodeflow_bragg_study"):
        assert f"\n{rule} " in done.stdout, done.stdout
