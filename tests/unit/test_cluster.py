import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from cathodeflow import cluster
from cathodeflow.cli import cli
from cathodeflow.cluster import require_profile
from cathodeflow.config import validate
from cathodeflow.errors import InputError
from cathodeflow.io.atomic import is_first_process

BRAGG = {"bragg": {"samples": "scans.tsv"}}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this process's own environment counts, and nothing stays in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CATHODEFLOW_", "SLURM_"))}
    monkeypatch.setattr(os, "environ", kept)


def test_what_the_configuration_says_reaches_the_jobs_by_the_environment() -> None:
    config = validate({**BRAGG, "dask": {"scheduler": "tcp://node1:8786"}, "processes": {"devices": 2}})
    os.environ.update(cluster.environment(config))
    assert cluster.chosen(cluster.Dask) == config.dask
    assert cluster.chosen(cluster.Processes) == config.processes


def test_without_any_word_everything_is_done_here_and_alone() -> None:
    assert cluster.chosen(cluster.Dask) == cluster.Dask()
    assert cluster.chosen(cluster.Processes) == cluster.Processes()
    assert is_first_process() and cluster.launcher(cluster.Processes()) == ""


@pytest.mark.parametrize(
    ("section", "where"),
    [
        ({"dask": {"scheduler": "somewhere"}}, "dask.scheduler"),
        ({"cluster": {"memory": {"bragg.fits": 1000}}}, "cluster.memory"),
        ({"cluster": {"memory": {"bragg.samples": 1000}}}, "cluster.memory"),
        ({"cluster": {"runtime": {"bragg.fit": 0}}}, "cluster.runtime"),
        ({"processes": {"devices": 0}}, "processes.devices"),
    ],
)
def test_a_wrong_word_is_named(section: dict, where: str) -> None:
    with pytest.raises(InputError, match=where):
        validate({**BRAGG, **section})


def test_only_the_first_of_all_processes_writes() -> None:
    os.environ.update(NODE_RANK="1", LOCAL_RANK="0")
    assert not is_first_process()
    os.environ.update(NODE_RANK="0", SLURM_PROCID="3")
    assert not is_first_process()


def test_under_slurm_a_training_is_started_as_tasks_of_its_job() -> None:
    os.environ.update(SLURM_JOB_ID="7", SLURM_CPUS_PER_TASK="4", SLURM_GPUS="4")
    command = cluster.launcher(cluster.Processes(devices=2, num_nodes=2))
    assert command == "srun --nodes=2 --ntasks-per-node=2 --cpus-per-task=4 --gpu-bind=none"


def test_limits_of_one_machine_are_a_warning_on_a_cluster() -> None:
    assert cluster.limit_warning(None) is None and cluster.limit_warning(4) is None
    text = cluster.limit_warning(1)
    assert text and "no more than one GPU job" in text and text.endswith("Use --workflow-profile instead of --profile.")


SECRETS = [
    "http://ada:hunter2@mlflow.example.org",
    "https://hunter2@mlflow.example.org:5000/path",
    "https://ada:hunter2/x@mlflow.example.org",
    "HTTPS://ada:hunter2@mlflow.example.org",
    "postgresql://ada:hunter2@db.example.org/mlflow",
    "postgresql+psycopg2:///mlflow?user=ada&password=hunter2",
    "https://mlflow.example.org?token=hunter2",
]
NO_SECRETS = [
    "sqlite:///results/mlflow.db",
    "sqlite:////home/ada@example.org/a:b@c.db",
    "https://mlflow.example.org:5000/path",
    "postgresql://ada@db.example.org/mlflow",
]


@pytest.mark.parametrize("uri", SECRETS)
def test_passwords_in_addresses_are_refused_and_not_shown(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    with pytest.raises(InputError) as caught:
        validate({"tracking": {"uri": uri}, "bragg": {"samples": "scans.tsv"}}, "config.yaml")
    told.append(f"{caught.value}")
    assert told[0].startswith("config.yaml: tracking.uri: found '")
    track = ["track", "results", "--sheet", "bragg=s.tsv", "--experiment", "x", "--out", "o.json", "--uri", uri]
    monkeypatch.delenv("CATHODEFLOW_TRACKING_URI", raising=False)
    for line, environment in (
        (track, {}),
        (["--tracking-uri", uri, "schema"], {}),
        (["schema"], {"CATHODEFLOW_TRACKING_URI": uri}),
    ):
        done = CliRunner().invoke(cli, line, env=environment)
        assert isinstance(done.exception, InputError)
        told.append(f"{done.exception}{done.output}")
    assert told[1].startswith("--uri: found") and all(text.startswith("--tracking-uri: found") for text in told[2:])
    for text in told:
        assert "hunter2" not in text and "MLFLOW_TRACKING_PASSWORD" in text and "\n" not in text


@pytest.mark.parametrize("uri", NO_SECRETS)
def test_addresses_without_secrets_are_taken(uri: str) -> None:
    assert validate({"tracking": {"uri": uri}, "bragg": {"samples": "scans.tsv"}}).tracking.uri == uri


def test_an_address_in_the_place_of_a_section_is_not_shown_either() -> None:
    with pytest.raises(InputError) as caught:
        validate({"tracking": "http://ada:hunter2@example.org", "bragg": {"samples": "scans.tsv"}})
    assert "hunter2" not in str(caught.value)


def test_a_workflow_profile_that_does_not_exist_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clone/profiles/slurm").mkdir(parents=True)
    (tmp_path / "here/profiles/mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    clone = str(tmp_path / "clone")
    for name in ("slurm", "mine", "profiles/mine", f"{clone}/profiles/slurm", "none"):
        require_profile(["--cores", "2", "--workflow-profile", name, "-n"], clone)
        require_profile([f"--workflow-profile={name}"], clone)
    require_profile(["--profile", "nowhere"], clone)
    with pytest.raises(InputError) as error:
        require_profile(["all", "--workflow-profile", "profiles/slrum", "--configfile", "c.yaml"], clone)
    assert str(error.value) == (
        "--workflow-profile profiles/slrum: found no such folder, expected a folder with a config.yaml, such as "
        "profiles/slurm"
    )
