"""What happens to jobs on a real Slurm: cancelled, out of memory, with their Snakemake interrupted. `make test-slurm`."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import slurm
from ..conftest import Project
from ..slurm_project import finish, same_data, start, unfinished, wait_for

pytestmark = pytest.mark.skipif(bool(slurm.missing()), reason=str(slurm.missing()))

PEAKS = "results/bragg/second/peaks.h5"


@pytest.fixture(autouse=True)
def cluster(tmp_path: Path) -> Iterator[None]:
    """A Slurm of its own for every test: numbers of jobs begin with 1."""
    with slurm.slurm(tmp_path / "daemons"):
        yield


def test_the_bragg_part_gives_the_same_on_slurm_as_locally(finished: Project, tmp_path: Path) -> None:
    # A GPU is asked for, and there is none: the networks run on CPUs, as in the local run.
    project = unfinished(finished, tmp_path / "on_slurm")
    text = (project.folder / "config.yaml").read_text().replace("device: cpu\n", "device: auto\n")
    (project.folder / "config.yaml").write_text(text)
    finish(start(project))
    asked = {job["comment"]: "gpu" in slurm.description(job["id"]) for job in slurm.jobs()}
    assert "rule_bragg_train" in asked
    with_gpu = {name for name, gpu in asked.items() if gpu}
    assert with_gpu == {name for name in asked if name == "rule_bragg_train" or "located" in name}
    assert project.planned() == {}
    for scan in ("first", "second"):
        for file in ("frames.h5", "peaks.h5", "located.h5"):
            same_data(project.folder / f"results/bragg/{scan}/{file}", finished.folder / f"results/bragg/{scan}/{file}")
        for table in ("compare.csv",):
            ours, theirs = (one.folder / f"results/bragg/{scan}/{table}" for one in (project, finished))
            assert ours.read_text() == theirs.read_text()
    assert {job["state"] for job in slurm.jobs()} == {"COMPLETED"}


def test_a_cancelled_job_is_tried_again(finished: Project, tmp_path: Path) -> None:
    project = unfinished(finished, tmp_path / "on_slurm")
    process = start(project, PEAKS)
    wait_for(lambda: any(job["state"] == "RUNNING" for job in slurm.jobs()))
    slurm.cancel("1")
    output = finish(process)
    assert [job["state"] for job in sorted(slurm.jobs(), key=lambda job: int(job["id"]))] == ["CANCELLED", "COMPLETED"]
    assert "Trying to restart" in output
    same_data(project.folder / PEAKS, finished.folder / PEAKS)


def test_a_job_over_its_memory_is_tried_again_with_more(finished: Project, tmp_path: Path) -> None:
    scarce = "cluster: {memory: {bragg.frames: 150, bragg.find_peaks: 150, bragg.fit: 150}}\n"
    project = unfinished(finished, tmp_path / "on_slurm", scarce)
    # As many attempts as it takes until what the stages and their Snakemake hold fits.
    finish(start(project, PEAKS, "--retries", "9"))
    *failed, last = sorted(slurm.jobs(), key=lambda job: int(job["id"]))
    assert failed and last["state"] == "COMPLETED"
    assert [job["memory"] for job in (*failed, last)] == [f"{150 * n}M" for n in range(1, len(failed) + 2)]
    assert {job["state"] for job in failed} <= {"FAILED", "CANCELLED", "OUT_OF_MEMORY"}
    assert "exceeded memory limit" in (tmp_path / "daemons" / "slurmd.log").read_text()
    same_data(project.folder / PEAKS, finished.folder / PEAKS)


def test_an_interrupted_snakemake_goes_on_where_it_was(finished: Project, tmp_path: Path) -> None:
    project = unfinished(finished, tmp_path / "on_slurm")
    frames = project.folder / "results/bragg/second/frames.h5"
    finish(start(project, str(frames.relative_to(project.folder))))
    made = frames.stat().st_mtime_ns
    process = start(project, PEAKS)
    wait_for(lambda: any(job["state"] == "RUNNING" and job["id"] == "2" for job in slurm.jobs()))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in output
    assert output.endswith("stopped by SIGINT; start the same command again to go on\n")
    # Its jobs end with it.
    wait_for(lambda: not [job for job in slurm.jobs() if job["state"] in ("PENDING", "RUNNING", "COMPLETING")])
    assert not (project.folder / PEAKS).exists()
    finish(start(project, PEAKS))
    assert frames.stat().st_mtime_ns == made
    same_data(project.folder / PEAKS, finished.folder / PEAKS)


def test_a_training_in_two_tasks_follows_the_curve_of_one(finished: Project, tmp_path: Path) -> None:
    project = unfinished(finished, tmp_path / "on_slurm", "processes: {devices: 2}\n")
    # Two tasks of one core, on machines that have no more.
    text = (project.folder / "config.yaml").read_text().replace("{epochs: 2}", "{epochs: 2, threads: 1}")
    (project.folder / "config.yaml").write_text(text)
    target = "results/bragg/model/train.json"
    finish(start(project, target))
    ours, theirs = (json.loads((one.folder / target).read_text()) for one in (project, finished))
    assert ours["history"] and len(ours["history"]) == len(theirs["history"])
    for row, expected in zip(ours["history"], theirs["history"], strict=True):
        assert row == pytest.approx(expected, rel=1e-3)
    assert {job["state"] for job in slurm.jobs()} == {"COMPLETED"}
    log = (project.folder / "results/logs/bragg/model/train.log").read_text()
    assert log.count("BraggNN: epoch 1 of") == 1
