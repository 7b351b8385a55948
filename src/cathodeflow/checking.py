"""What is wrong with a configuration and its raw data, found before the workflow runs: errors, and warnings."""

import importlib
import importlib.util
import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import psutil

from cathodeflow.config import Settings, load, samples, stages
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.image_lists import image_files
from cathodeflow.io.sources import is_remote, list_files
from cathodeflow.options import Options, leaves, value_of
from cathodeflow.same_images import IMAGE_COLUMNS, copy_warnings, same_warnings
from cathodeflow.samples import Sample, read_metadata

log = logging.getLogger("cathodeflow")

_GIGABYTE = 1e9


def check_config(path: str) -> list[str]:
    """Check a configuration file, its sample sheets and the headers of the raw files.

    Warnings are logged, also where there are errors.

    Returns
    -------
    list of str
        A line for each technique without errors, and for further columns of its sheet.

    Raises
    ------
    InputError
        One line for each problem, of all techniques together.
    """
    config = load(path)
    lines: list[str] = []
    errors: list[InputError] = []
    files: dict[str, dict[str, list[str]]] = {}
    for technique, sheet in samples(config).items():
        section = getattr(config, technique)
        try:
            section.read_headers(sheet)
            if further_errors := _further(technique, section, sheet):
                raise InputErrors.of(further_errors)
            count = f"{len(sheet)} sample{'s' if len(sheet) > 1 else ''}"
            lines.append(f"{path}: {technique}: {count}, no problem found")
        except InputError as error:
            errors += error.errors
        rows = read_metadata(section.samples, section.sample_class).values()
        if further := list(dict.fromkeys(name for row in rows for name in row)):
            lines.append(f"{section.samples}: further columns, kept in the records: {', '.join(further)}")
        files[technique] = {name: own for name, row in sheet.items() if (own := raw_files(row))}
        own_files = files[technique]
        for text in [*case_warnings(sheet), *same_warnings(sheet, own_files), *copy_warnings(own_files)]:
            log.warning("%s: %s", section.samples, text)
    every = [file for own in files.values() for name in own for file in own[name]]
    for text in [*disk_warnings(every, os.getcwd()), *device_warnings(config)]:
        log.warning("%s: %s", path, text)
    if errors:
        raise InputErrors.of(errors)
    return lines


def _further(technique: str, section: Any, sheet: Mapping[str, Any]) -> list[InputError]:
    """Find problems that need the modules of a technique: `find_problems` of its module `header_checks`, if any."""
    name = f"cathodeflow.{technique}.header_checks"
    if importlib.util.find_spec(name) is None:
        return []
    return list(importlib.import_module(name).find_problems(section, sheet))


def raw_files(row: Sample) -> list[str]:
    """List the local files with the images of a sample; none if they are simulated, remote or missing."""
    source = next((getattr(row, column) for column in IMAGE_COLUMNS if hasattr(row, column)), None)
    if source is None or is_remote(source) or getattr(row, "simulated", False):
        return []
    try:
        # Class folders lie below the folder that a sheet names.
        in_folders = os.path.isdir(source) and not any(entry.is_file() for entry in os.scandir(source))
        return image_files(source) if in_folders or source.endswith((".csv", ".tsv")) else list_files(source)
    except InputError:
        return []


def case_warnings(names: Mapping[str, Any]) -> Iterator[str]:
    """Find samples whose names differ by case only: on some file systems they have the same folder of results.

    Examples
    --------
    >>> list(case_warnings({"cell": 0, "Cell": 1, "other": 2}))
    ["samples 'cell' and 'Cell' differ by case only: macOS and Windows have one folder for their results; rename one"]
    """
    by_case = defaultdict(list)
    for name in names:
        by_case[name.casefold()].append(name)
    for alike in by_case.values():
        if len(alike) > 1:
            named = " and ".join(f"'{name}'" for name in alike)
            place = "macOS and Windows have one folder for their results"
            yield f"samples {named} differ by case only: {place}; rename one"


def disk_warnings(files: list[str], results: str) -> Iterator[str]:
    """Compare the size of the raw files with the free space: the corrected images alone take about as much.

    Parameters
    ----------
    files : list of str
    results : str
        Folder that exists, on the disk of the results.
    """
    needed = sum(os.path.getsize(file) for file in set(files) if os.path.isfile(file))
    free = psutil.disk_usage(results).free
    if needed > free:
        sizes = f"{needed / _GIGABYTE:.1f} GB of raw files, {free / _GIGABYTE:.1f} GB free"
        yield f"{sizes} in {results}: the results may not fit, as the corrected images alone take about as much"


def device_warnings(config: Settings) -> Iterator[str]:
    """Find a GPU that is asked for, by the workflow or a stage, and absent on this machine."""
    asked = ["device"] if config.device == "cuda" else []
    for stage, cls in stages().items():
        technique, name = stage.split(".")
        options: Options | None = getattr(getattr(config, technique), name, None)
        if options is None:
            continue
        for key in [key for key, _ in leaves(cls) if key.rpartition(".")[2] == "device"]:
            asked += [f"{stage}.{key}"] if value_of(options, key) == "cuda" else []
    if asked and not has_gpu():
        where = "run on a machine with one, or set auto or cpu"
        yield f"cuda in {', '.join(asked)}, but there is no GPU on this machine: {where}"


def has_gpu() -> bool:
    """Whether torch finds a GPU on this machine."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()
