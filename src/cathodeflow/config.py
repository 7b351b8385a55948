"""The configuration file: the settings of the workflow and a section of options for every technique."""

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import create_model

import cathodeflow
from cathodeflow.cluster import Cluster, Dask, Processes, Tracking
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.options import Options, OptionsT, from_config, option, to_flags
from cathodeflow.samples import TechniqueSection, read_samples

# A file of a few hundred bytes can stand for billions of values, by aliases of aliases.
_MOST_VALUES = 100_000


class Settings(Options):
    """Settings of the whole workflow."""

    seed: int = option(0, "Random seed of all stages. The same seed gives the same results.", ge=0, le=2**32 - 1)
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", "Device for the networks. `auto` uses a GPU if there is one."
    )
    tracking: Tracking = option(Tracking(), "MLflow tracking.")
    cluster: Cluster = option(Cluster(), "Memory and time limits of cluster jobs.")
    dask: Dask = option(Dask(), "Dask scheduler of the stages that compute on arrays.")
    processes: Processes = option(Processes(), "Distributed training.")


@cache
def techniques() -> dict[str, type[TechniqueSection]]:
    """Names of the techniques, and the class of each one's section: `Section` in the technique's `options` module."""
    found = {}
    for module in pkgutil.iter_modules(cathodeflow.__path__):
        if module.ispkg and any(Path(folder, module.name, "options.py").is_file() for folder in cathodeflow.__path__):
            found[module.name] = importlib.import_module(f"cathodeflow.{module.name}.options").Section
    return found


@cache
def config_class() -> type[Settings]:
    """Class of the whole configuration: the settings and an optional section for every technique."""
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
        A line for every wrong key, naming it, its value and what was expected.
    """
    config = from_config(config_class(), values, where)
    if not any(getattr(config, name) for name in techniques()):
        raise InputError(where, "no technique", f"a section {' or '.join(techniques())}")
    errors = [
        InputError(f"{where}: cluster.{key}", f"'{stage}'", "a stage such as bragg.fit")
        for key in ("memory", "runtime")
        for stage in getattr(config.cluster, key)
        if not _is_stage(stage)
    ]
    if errors:
        raise InputErrors.of(errors)
    return config


def _is_stage(text: str) -> bool:
    technique, _, name = text.partition(".")
    fields = techniques()[technique].model_fields if technique in techniques() else {}
    annotation = fields[name].annotation if name in fields else None
    return isinstance(annotation, type) and issubclass(annotation, Options)


def load(path: str) -> Settings:
    """Read and check a configuration file with its sample sheets.

    Raises
    ------
    InputError
        The file is not YAML, a key or value is wrong, or a sample sheet is.
    """
    values = read_yaml(path)
    config = validate(values, path)
    samples(config)
    return config


def read_yaml(path: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(path, "no such file", "a configuration file") from None
    except (OSError, ValueError, TypeError, RecursionError, OverflowError, AttributeError, yaml.YAMLError) as error:
        raise InputError(path, " ".join(str(error).split())[:300], "a YAML file") from None
    if not isinstance(values, dict):
        raise InputError(path, f"a {type(values).__name__}", "a mapping of settings")
    if _size(values, {}) > _MOST_VALUES:
        raise InputError(path, "aliases that stand for more and more values", f"at most {_MOST_VALUES} values")
    return values


def _size(value: Any, known: dict[int, float]) -> float:
    """Count the values in nested mappings and lists, those behind an alias each time; infinitely many in a circle."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")
        known[id(value)] = 1 + sum(_size(one, known) for one in (value.values() if isinstance(value, dict) else value))
    return known[id(value)]


def samples(config: Settings, *, look: bool = True) -> dict[str, dict[str, Any]]:
    """Read the sample sheet of every configured technique.

    Parameters
    ----------
    config : Settings
    look : bool
        Whether files are looked for, and options and samples compared.

    Returns
    -------
    dict
        By technique, the samples by name, each an instance of the section's `Sample` class.

    Raises
    ------
    InputError
        A line for everything that is wrong in the sheets.
    """
    sheets, errors = {}, []
    for name in techniques():
        section = getattr(config, name)
        if section is None:
            continue
        try:
            sheets[name] = read_samples(section.samples, section.sample_class)
            if look:
                section.check(sheets[name])
        except InputError as error:
            errors += error.errors
    if errors:
        raise InputErrors.of(errors)
    return sheets


def complete(config: Settings, options: OptionsT) -> OptionsT:
    """Give options the workflow's seed and device where they take one and have none."""
    shared = {key: getattr(config, key) for key in ("seed", "device")}
    fields = type(options).model_fields
    return options.model_copy(
        update={key: value for key, value in shared.items() if key in fields and getattr(options, key) is None}
    )


def stage_options(config: Settings, stage: str) -> Options:
    """Options of a stage such as `bragg.find_peaks`, with the workflow's seed and device where it takes them."""
    technique, name = stage.split(".")
    options: Options = getattr(getattr(config, technique), name)
    return complete(config, options)


def stage_flags(config: Settings, stage: str) -> str:
    """Options of a stage as one line of command-line flags."""
    return to_flags(stage_options(config, stage))
