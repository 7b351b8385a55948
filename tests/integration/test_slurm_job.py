"""The Bragg part through sbatch on a real Slurm; `make test-slurm` (tests/long/test_slurm.py) runs the longer cases."""

import re
from pathlib import Path

import pytest

from cathodeflow.run_status import status_lines

from .. import slurm
from ..conftest import Project
from ..slurm_project import finish, same_data, start, unfinished

pytestmark = pytest.mark.skipif(bool(slurm.missing()), reason=str(slurm.missing()))


def test_jobs_ask_slurm_for_what_the_rules_say_and_give_the_results_of_a_local_run(
    finished: Project, tmp_path: Path
) -> None:
    project = unfinished(finished, tmp_path / "on_slurm")
    model = finished.folder / "results/bragg/model/braggnn.pt"
    text = (project.folder / "config.yaml").read_text().replace("device: cpu\n", "device: auto\n")
    (project.folder / "config.yaml").write_text(text + f"  locate: {{model: {model}}}\n")
    scans = ("first", "second")
    with slurm.slurm(tmp_path / "daemons"):
        output = finish(start(project, *(f"results/bragg/{scan}/compare.csv" for scan in scans)))
        jobs = slurm.jobs()
        asked = {job["comment"]: slurm.description(job["id"]) for job in jobs}
    assert {job["state"] for job in jobs} == {"COMPLETED"}, output
    # The stages of a scan are one job, whose comment names rules and scan.
    assert sorted(asked) == [
        f"rule_{chain}_{scan}_{rules}"
        for chain, rules in (
            ("located", "bragg_compare_bragg_locate"),
            ("peaks", "bragg_find_peaks_bragg_fit_bragg_frames"),
        )
        for scan in scans
    ]
    assert len({job["name"] for job in jobs}) == 1 and jobs[0]["name"].startswith("cathodeflow_")
    # As many cores as the largest stage of a chain has threads, also if this machine has fewer; GPUs for networks only.
    assert {job["cores"] for job in jobs if "peaks_" in job["comment"][:11]} == {"8"}
    assert all(("gpu:1" in text) == ("located" in comment) for comment, text in asked.items()), asked
    # The limits of profiles/default hold for one machine; no account is guessed.
    assert not re.search("Provided resources.*gpu|Provided cores|profiles/default counts|guess", output), output
    # What a person reads in the meantime, and afterwards from another terminal.
    assert "bragg fit second: done in " in output and "Reason:" not in output, output
    lines = status_lines(str(project.folder))
    assert "ended well" in lines[0] and any(line.split()[:2] == ["bragg", "second"] for line in lines), lines
    for scan in scans:
        for file in ("frames.h5", "peaks.h5", "located.h5"):
            same_data(project.folder / f"results/bragg/{scan}/{file}", finished.folder / f"results/bragg/{scan}/{file}")
    assert project.planned(*(f"results/bragg/{scan}/compare.csv" for scan in scans)) == {}
