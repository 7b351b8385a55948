"""The configuration file: settings of the workflow, and one section of options per technique."""

import importlib
from functools import cache
from typing import Any, Literal

from pydantic import create_model, field_validator

from cathodeflow.cluster import Cluster, Dask, Processes, Tracking
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.file_arguments import file_argument
from cathodeflow.io.text import read_yaml
from cathodeflow.options import Options, OptionsT, from_config, full_annotation, leaves, option, to_flags, value_of
from cathodeflow.provenance import installed
from cathodeflow.samples import TechniqueSection, read_samples
from cathodeflow.stage import stage_names, technique_names


class Reruns(Options):
    """Triggers for rerunning stages in addition to data, options and code."""

    libraries: tuple[str, ...] = option(
        (),
        "Packages such as `torch`, or `python`, whose version matters: stages that use one run again when"
        " its installed version changes, and once when it is added here. Default: no package.",
    )
    cache: bool = option(
        True,
        "Take a raw file as unchanged if its size, times and inode are those of the last run. Disable it "
        "for a run on a file system that keeps no time of change (ctime); then all raw files are read.",
    )

    @field_validator("cache", mode="before")
    @classmethod
    def _from_command_line(cls, value: Any) -> Any:
        # As `--config reruns='{cache: false}'` gives it: Snakemake reads no types inside braces.
        return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


class Settings(Options):
    """Settings of the whole workflow."""

    seed: int = option(0, "Random seed of all stages. The same seed gives the same results.", ge=0, le=2**32 - 1)
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto",
        "Device for the networks. `auto` uses a GPU if there is one; results of either device count as up to date.",
    )
    run_name: str | None = option(
        None, "Name of the run, kept in the records and shown in MLflow. A new name reruns nothing."
    )
    reruns: Reruns = option(Reruns(), "Triggers for rerunning stages in addition to data, options and code.")
    tracking: Tracking = option(Tracking(), "MLflow tracking.")
    cluster: Cluster = option(Cluster(), "Memory and time limits of cluster jobs.")
    dask: Dask = option(Dask(), "Dask scheduler of the stages that compute on arrays.")
    processes: Processes = option(Processes(), "Distributed training.")


@cache
def techniques() -> dict[str, type[TechniqueSection]]:
    """Return the section class of every technique by name: `Section` of its `options` module."""
    return {name: importlib.import_module(f"cathodeflow.{name}.options").Section for name in technique_names()}


@cache
def stages() -> dict[str, type[Options]]:
    """Return the options classes of all stages, by names such as `bragg.fit`."""
    return {
        f"{technique}.{name}": field.annotation
        for technique, section in techniques().items()
        for name, field in section.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Options)
    }


@cache
def config_class() -> type[Settings]:
    """Return the class of the whole configuration: the settings and an optional section for every technique."""
    sections: dict[str, Any] = {
        name: (section | None, option(None, (section.__doc__ or "").splitlines()[0]))
        for name, section in techniques().items()
    }
    return create_model("Config", __base__=Settings, **sections)


def validate(values: dict[str, Any], where: str = "configuration") -> Settings:
    """Check the values of a configuration file.

    Raises
    ------
    InputError
        One line for every wrong key, with its value and what was expected.
    """
    config = from_config(config_class(), values, where)
    if not any(getattr(config, name) for name in techniques()):
        raise InputError(where, "no technique", f"a section {' or '.join(techniques())}")
    errors = [
        InputError(f"{where}: cluster.{key}", f"'{stage}'", "a stage such as bragg.fit")
        for key in ("memory", "runtime")
        for stage in getattr(config.cluster, key)
        if stage not in _with_jobs()
    ]
    errors += [
        InputError(f"{where}: reruns.libraries", f"'{name}'", "an installed package such as torch")
        for name in config.reruns.libraries
        if installed(name) is None
    ]
    errors += _braces(config, where)
    if errors:
        raise InputErrors.of(errors)
    return config


def _braces(config: Settings, where: str) -> list[InputError]:
    """Find files with braces in their path, which Snakemake reads as wildcards."""
    found = {}
    for technique in techniques():
        section = getattr(config, technique)
        for key, field in leaves(type(section)) if section is not None else ():
            if file_argument(full_annotation(field)):
                found[f"{where}: {technique}.{key}"] = value_of(section, key)
    given = {key: path for key, path in found.items() if isinstance(path, str) and set("{}") & set(path)}
    return [InputError(key, path, "a path without { and }") for key, path in given.items()]


def _with_jobs() -> set[str]:
    """Return the names of all stages, of those too that have no section of their own."""
    names = {name: stage_names(f"cathodeflow.{name}", section.model_fields) for name, section in techniques().items()}
    return {f"{technique}.{stage}" for technique, found in names.items() for stage in found}


def load(path: str) -> Settings:
    """Read and check a configuration file with its sample sheets.

    Raises
    ------
    InputError
        The file is not YAML, or a key, a value or a sample sheet is wrong.
    """
    values = read_yaml(path)
    config = validate(values, path)
    samples(config)
    return config


def samples(config: Settings, *, checked: bool = True) -> dict[str, dict[str, Any]]:
    """Read the sample sheet of every configured technique.

    Parameters
    ----------
    config : Settings
    checked : bool
        Whether to require that files exist, and that options and samples are consistent.

    Returns
    -------
    dict
        By technique, the samples by name, each an instance of the section's `Sample` class.

    Raises
    ------
    InputError
        One line for each problem in the sheets.
    """
    sheets, errors = {}, []
    for name in techniques():
        section = getattr(config, name)
        if section is None:
            continue
        try:
            sheets[name] = read_samples(section.samples, section.sample_class)
            if checked:
                section.check(sheets[name])
        except InputError as error:
            errors += error.errors
    if errors:
        raise InputErrors.of(errors)
    return sheets


def complete(config: Settings, options: OptionsT) -> OptionsT:
    """Set the seed and device of options to those of the workflow where they are None."""
    shared = {key: getattr(config, key) for key in ("seed", "device")}
    fields = type(options).model_fields
    return options.model_copy(
        update={key: value for key, value in shared.items() if key in fields and getattr(options, key) is None}
    )


def stage_options(config: Settings, stage: str) -> Options:
    """Return the options of a stage such as `bragg.find_peaks`, with seed and device of the workflow as defaults."""
    technique, name = stage.split(".")
    options: Options = getattr(getattr(config, technique), name)
    return complete(config, options)


def stage_flags(config: Settings, stage: str) -> str:
    """Write the options of a stage as one line of command-line flags."""
    return to_flags(stage_options(config, stage))
