"""Where the work is done, and who watches it: a cluster, Dask, processes of a training, a tracking server.

None of it is an option of a stage, as it changes no result: the command line takes it before the name of the technique,
from the environment too, which jobs of a cluster inherit. So another scheduler reruns nothing.
"""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import click
from pydantic import field_validator

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.flags import flag
from cathodeflow.options import Options, OptionsT, from_flags, option

_ADDRESS = r"(tcp|tls|ucx)://\S+:\d+"
_SERVERS = ("http", "https")
_SECRETS = re.compile(r"[?&][^=&]*(passw|pwd|token|secret|key|credential)[^=&]*=", re.IGNORECASE)


class Cluster(Options):
    """What jobs ask of a cluster, by stage, such as `bragg.fit: 4000`; the rules know a value for every stage."""

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
    """Where array stages compute: in threads, in processes, or on a cluster of Dask workers."""

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
    """Processes that a network is trained in, each with a share of every batch."""

    devices: int = option(1, "Number of GPUs per machine, or of processes on a machine without a GPU.", ge=1)
    num_nodes: int = option(1, "Number of machines.", ge=1)
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = option(
        "auto",
        "Strategy of lightning-fabric for distributed training. `ddp` is faster than `auto`, but requires that all"
        " parameters contribute to the loss.",
    )


class Tracking(Options):
    """Where runs are recorded."""

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


# Sections of the configuration that the command line takes, and the beginning of their flags.
SECTIONS: dict[str, type[Options]] = {"dask": Dask, "processes": Processes, "tracking": Tracking}


def flags(function: Callable[..., None]) -> Callable[..., None]:
    """Add a flag for every option of the sections, which the environment may give too."""
    for section, name, variable in _variables():
        made = flag(f"{section}_{name}", SECTIONS[section].model_fields[name])
        made.name, made.envvar = f"{section}_{name}", variable
        function = _with_parameter(function, made)
    return function


def choose(values: dict[str, Any]) -> None:
    """Check what the flags say, and keep it for this process and those that it starts.

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
            named = [(one.where.replace("--", f"--{section}-", 1), one.found, one.expected) for one in error.errors]
            raise InputErrors.of([InputError(*one) for one in named]) from None


def environment(config: Any) -> dict[str, str]:
    """Variables that say the sections of a configuration, for the jobs of a workflow."""
    return {
        variable: str(value)
        for section, name, variable in _variables()
        if (value := getattr(getattr(config, section), name)) is not None
    }


def chosen(cls: type[OptionsT]) -> OptionsT:
    """Section as the command line, or what started this process, says."""
    found = {
        name: os.environ.get(variable) or None for section, name, variable in _variables() if SECTIONS[section] is cls
    }
    return from_flags(cls, found)


def launcher(processes: Processes) -> str:
    """Command before that of a training, in a job of Slurm that has several tasks for it; else nothing.

    Every process must see all GPUs of its machine, of which it takes its own.
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
