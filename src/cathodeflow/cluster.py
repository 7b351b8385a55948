"""Where jobs run and are tracked: cluster, Dask, training processes, tracking server.

These are not options of a stage, as they do not change results. The command line takes them before the technique,
or from the environment, which cluster jobs inherit. So another scheduler reruns nothing.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NoReturn

import click
from pydantic import field_validator

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.flags import flag
from cathodeflow.options import Options, OptionsT, from_flags, option

_ADDRESS = r"(tcp|tls|ucx)://\S+:\d+"
_SERVERS = ("http", "https")
_SECRETS = re.compile(r"[?&][^=&]*(passw|pwd|token|secret|key|credential)[^=&]*=", re.IGNORECASE)


class Cluster(Options):
    """Resources of cluster jobs by stage, such as `bragg.fit: 4000`; every rule has default values."""

    memory: dict[str, int] = option({}, "Memory of a stage's jobs; each retry requests this amount more.",
                                    unit="MB")  # fmt: skip
    runtime: dict[str, int] = option({}, "Time limit of a stage's jobs.", unit="min")

    @field_validator("memory", "runtime")
    @classmethod
    def _above_zero(cls, values: dict[str, int]) -> dict[str, int]:
        if any(value <= 0 for value in values.values()):
            raise ValueError("numbers above 0")
        return values


class Dask(Options):
    """Dask scheduler of the stages that compute on arrays: threads, processes, or a cluster of workers."""

    scheduler: str = option(
        "threads",
        "Dask scheduler: `threads` or `processes` on this machine, `tcp://HOST:PORT` of a running scheduler, or "
        "`slurm` to start workers as Slurm jobs.",
    )
    workers: int = option(2, "Number of workers to start with `processes` and `slurm`.", ge=1)
    cores: int = option(4, "Cores per Slurm worker.", ge=1)
    memory: int = option(8000, "Memory per Slurm worker.", unit="MB", ge=100)
    runtime: int = option(240, "Time limit per Slurm worker.", unit="min", ge=1)
    partition: str | None = option(None, "Slurm partition of the workers. Default: the cluster's default partition.")
    account: str | None = option(None, "Slurm account of the workers. Default: the user's default account.")

    @field_validator("scheduler")
    @classmethod
    def _is_known(cls, scheduler: str) -> str:
        if scheduler not in ("threads", "processes", "slurm") and not re.fullmatch(_ADDRESS, scheduler):
            raise ValueError("threads, processes, slurm or an address like tcp://host:8786")
        return scheduler


class Processes(Options):
    """Distributed training of a network: each process takes a part of every batch."""

    devices: int = option(
        1, "Number of GPUs per machine for each training, or of processes on a machine without a GPU.", ge=1
    )
    num_nodes: int = option(1, "Number of machines for each training.", ge=1)
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = option(
        "auto",
        "Strategy of lightning-fabric for distributed training. `ddp` is faster than `auto`, but requires that all"
        " parameters contribute to the loss.",
    )


class Tracking(Options):
    """MLflow server or database for the runs."""

    uri: str = option(
        "sqlite:///results/mlflow.db",
        "MLflow tracking address: a database file or a server. A server also receives the training curves live. User "
        "and password belong in the environment: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
        "MLFLOW_TRACKING_TOKEN.",
    )
    experiment: str = option("cathodeflow", "MLflow experiment for the runs.")

    @field_validator("uri")
    @classmethod
    def _holds_no_secret(cls, uri: str) -> str:
        scheme, _, rest = uri.partition("://")
        user, at, _ = rest.rpartition("@")
        # A file's path may hold an @, and a database's address its user.
        secret = at and scheme != "file" and not scheme.startswith("sqlite") and (":" in user or scheme in _SERVERS)
        if secret or _SECRETS.search(uri):
            raise ValueError(
                "an address without user and password, which belong in the environment: MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; those of a database in its own, such as PGPASSWORD"
            )
        return uri


# Sections of the configuration that are command-line flags, and the prefixes of these flags.
SECTIONS: dict[str, type[Options]] = {"dask": Dask, "processes": Processes, "tracking": Tracking}


def flags(function: Callable[..., None]) -> Callable[..., None]:
    """Add a flag for every option of the sections; the environment may set them, too."""
    for section, name, variable in _variables():
        made = flag(f"{section}_{name}", SECTIONS[section].model_fields[name])
        made.name, made.envvar = f"{section}_{name}", variable
        function = _with_parameter(function, made)
    return function


def choose(values: dict[str, Any]) -> None:
    """Check the values of the flags, and keep them for this process and its child processes.

    Raises
    ------
    InputError
        Naming the flag.
    """
    for section, cls in SECTIONS.items():
        given = {name: values[f"{section}_{name}"] for name in cls.model_fields}
        try:
            _keep(section, from_flags(cls, given))
        except InputError as error:
            # The flags begin with the name of the section.
            named = [
                InputError(problem.where.replace("--", f"--{section}-", 1), problem.found, problem.expected)
                for problem in error.errors
            ]
            raise InputErrors.of(named) from None


def environment(config: Any) -> dict[str, str]:
    """Return environment variables with the sections of a configuration, for the jobs of a workflow."""
    return {
        variable: str(value)
        for section, name, variable in _variables()
        if (value := getattr(getattr(config, section), name)) is not None
    }


def chosen(cls: type[OptionsT]) -> OptionsT:
    """Return a section as set on the command line or in the environment."""
    found = {
        name: os.environ.get(variable) or None for section, name, variable in _variables() if SECTIONS[section] is cls
    }
    return from_flags(cls, found)


def prefer_this_environment() -> None:
    """Put the programs of the environment of this process before all others, for the commands that it starts."""
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])


def use_default_account(settings: Any) -> None:
    """Let Slurm use the user's default account, if the `settings` of the executor say so (`slurm-no-account`).

    Jobs with the resource `slurm_account` keep it.
    """
    if not getattr(settings, "no_account", False):
        return
    from snakemake_executor_plugin_slurm import Executor

    # Version 2.8 of the plugin does not read its own setting, and takes the account of the user's latest job.
    given = Executor.get_account_arg
    Executor.get_account_arg = lambda self, job: given(self, job) if job.resources.get("slurm_account") else iter([""])


def limit_warning(gpus: int | None) -> str | None:
    """Return what to say of limits that were meant for one machine but hold for a cluster; None without such limits.

    Parameters
    ----------
    gpus : int or None
        Maximum number of GPUs for the whole run; None without a maximum.
    """
    if gpus != 1:
        return None
    return (
        "profiles/default counts, too: no more than one GPU job runs at a time on the whole cluster, and a job has no"
        f" more threads than this machine has cores ({os.cpu_count()}). Use --workflow-profile instead of --profile."
    )


def require_profile(arguments: Sequence[str], checkout: str) -> None:
    """Require that the workflow profile of a Snakemake command exists: without it, all jobs would run on this machine.

    Parameters
    ----------
    arguments : sequence of str
        Command line of Snakemake, which passes over a profile that it does not find.
    checkout : str
        Folder of the Snakefile.

    Raises
    ------
    InputError
        It is in none of the places where Snakemake looks for it.
    """
    given = _Profile(add_help=False, allow_abbrev=False)
    given.add_argument("--workflow-profile")
    name = given.parse_known_args(list(arguments))[0].workflow_profile
    if name in (None, "none"):
        return
    inner = os.path.join("profiles", name)
    if not any(os.path.exists(path) for path in (name, inner, os.path.join(checkout, inner))):
        raise InputError(
            f"--workflow-profile {name}", "no such folder", "a folder with a config.yaml, such as profiles/slurm"
        )


class _Profile(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave what Snakemake itself has accepted."""
        raise InputError("--workflow-profile", "nothing", "a folder with a config.yaml")


def launcher(processes: Processes) -> str:
    """Return the command that starts the processes of a training in a Slurm job with several tasks, else "".

    All GPUs of a machine must be visible to each process, which uses its own.
    """
    if processes.devices * processes.num_nodes == 1 or "SLURM_JOB_ID" not in os.environ:
        return ""
    words = ["srun", f"--nodes={processes.num_nodes}", f"--ntasks-per-node={processes.devices}"]
    words += [f"--cpus-per-task={cores}"] if (cores := os.environ.get("SLURM_CPUS_PER_TASK")) else []
    words += ["--gpu-bind=none"] if "SLURM_GPUS" in os.environ else []
    return " ".join(words)


def _variables() -> Iterator[tuple[str, str, str]]:
    for section, cls in SECTIONS.items():
        for name in cls.model_fields:
            yield section, name, f"CATHODEFLOW_{section}_{name}".upper()


def _with_parameter(function: Callable[..., None], parameter: click.Option) -> Callable[..., None]:
    parameters = function.__dict__.setdefault("__click_params__", [])
    parameters.append(parameter)
    return function


def _keep(section: str, options: Options) -> None:
    for of, name, variable in _variables():
        if of == section and (value := getattr(options, name)) is not None:
            os.environ[variable] = str(value)
