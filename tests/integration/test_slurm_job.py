"""The Bragg part through sbatch on a real Slurm; `make test-slurm` (tests/long/test_slurm.py) runs the longer cases."""

from pathlib import Path

import pytest

from cathodeflow.run_status import status_lines

from .. import slurm
from ..conftest import Project
from ..slurm_project import finish, same_data, start, unfinished

pytestmark = pytest.mark.skipif(bool(slurm.missing()), reason=str(slurm.missing()))


def test_stages_of_a_scan_run_as_one_slurm_job_with_the_results_of_a_local_run(
    finished: Project, tmp_path: Path
) -> None:
    project = unfinished(finished, tmp_path / "on_slurm")
    with slurm.slurm(tmp_path / "daemons"):
        output = finish(start(project, "results/bragg/second/peaks.h5"))
        states = [job["state"] for job in slurm.jobs()]
    assert states == ["COMPLETED"], output
    # What a person reads in the meantime, and afterwards from another terminal.
    assert "bragg fit second: done in " in output and "Reason:" not in output, output
    lines = status_lines(str(project.folder))
    assert "ended well" in lines[0] and lines[3].split() == ["bragg", "second", "3", "-", "-", "-"], lines
    for file in ("frames.h5", "peaks.h5"):
        same_data(project.folder / "results/bragg/second" / file, finished.folder / "results/bragg/second" / file)
    assert project.planned("results/bragg/second/peaks.h5") == {}
