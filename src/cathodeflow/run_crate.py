"""Results, configuration, code, versions and provenance of a run as a Workflow Run RO-Crate.

S. Leo et al., Recording provenance of workflow runs with RO-Crate, PLOS ONE 19 (2024) e0309210.
"""

import os
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import cathodeflow
from cathodeflow.config import techniques, validate
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.crates import Crate, CrateAction, CrateFile, write_crate
from cathodeflow.io.sources import is_remote, matching
from cathodeflow.io.text import read_yaml
from cathodeflow.record_files import find_records, is_ours, read_records
from cathodeflow.verify import verify

# Parts of the checkout that a run needs.
_CODE = ("Snakefile", "workflow", "src", "envs", "profiles", "pyproject.toml", "LICENSE", "README.md")
_NOT_CODE = {"__pycache__", ".ipynb_checkpoints"}
# What can be made again, or belongs to this machine.
_NOT_PACKED = {"checkpoints", "raw", "mlflow.db", "mlflow.db.lock", "mlflow-artifacts"}
_WORKFLOW = "code/Snakefile"
_DATASET = "::"


class Exported(NamedTuple):
    """What was written.

    Attributes
    ----------
    jobs, files : int
        Numbers of jobs and of files of results.
    referenced : list of str
        Raw data that is described with its digest, but not copied.
    """

    jobs: int
    files: int
    referenced: list[str]


def export_run(configs: Iterable[str], results: str, out: str, *, raw: bool, checkout: str | None = None) -> Exported:
    """Write a run as an RO-Crate.

    Parameters
    ----------
    configs : iterable of str
        Configuration files of the run, in their order.
    results : str
        Folder of the results.
    out : str
        Folder to write, or ZIP file if it ends with `.zip`.
    raw : bool
        Whether raw data inside the working folder is copied, so that the crate can be run again anywhere.
    checkout : str, optional
        Folder with the Snakefile of the run. Default: that of the package.

    Raises
    ------
    InputError
        A result is damaged or missing, a file of the run lies outside the working folder, a folder of results is a
        link, or `out` exists or lies among the results.
    """
    code = checkout or str(Path(cathodeflow.__file__).parents[2])
    if not os.path.isfile(os.path.join(code, "Snakefile")):
        raise InputError(code, "no Snakefile", "the checkout of the workflow: --workflow FOLDER")
    if _is_within(out, results):
        raise InputError(out, f"a name in {results}", "one outside: later crates would hold this one")
    if linked := next(_linked_folders(results), None):
        raise InputError(linked, "a link to a folder", "the folder itself, as links may lead anywhere")
    if problems := verify(results).errors:
        raise InputErrors.of(problems)
    records, errors = read_records(filter(is_ours, find_records(results)))
    if errors:
        raise InputErrors.of(errors)
    configs = list(configs)
    given = [*configs, *_sheets(configs)]
    named = {
        os.path.normpath(os.path.join(path.parent, name)) for path, record in records for name in record["outputs"]
    }
    packed = [
        file
        for file in _packed_results(results)
        # A file that somebody linked may be anything; a result that was moved elsewhere was compared with its digest.
        if not os.path.islink(path := str(file.source)) or _is_within(path, results) or os.path.normpath(path) in named
    ]
    files = {file.place: file for file in [*_code_files(code), *packed]}
    for path in given:
        if (place := _inside(path)) is None:
            raise InputError(path, "a file outside the working folder", "configuration and sheets in it or below it")
        files[place] = CrateFile(place, path, about="configuration" if path in configs else "sample sheet")
    places: dict[str, str] = {}
    referenced = set()
    for name, digest in {name: found for _, record in records for name, found in record["inputs"].items()}.items():
        place = _result_place(name, results)
        if place not in files:
            # A folder of results is an input of the stages that read whatever its methods wrote.
            of_results = place is not None and place.endswith("/") and any(each.startswith(place) for each in files)
            added = _raw_files(name, digest, copy=raw and not of_results)
            files |= {file.place: file for file in added}
            place = added[-1].place
            if added[-1].source is None and not added[-1].parts and not of_results:
                referenced.add(name)
        places[name] = place
    actions = []
    tools: dict[str, dict[str, Any]] = {}
    for written, record in records:
        made = {
            place: digest
            for name, digest in record["outputs"].items()
            if (place := _result_place(os.path.join(written.parent, name), results)) and place in files
        }
        files |= {place: files[place]._replace(digest=digest) for place, digest in made.items()}
        actions.append(_action(record, [places[name] for name in record["inputs"]], list(made)))
        tools |= _tools(record)
    if not actions:
        raise InputError(results, "no record", "a folder of results, such as results")
    actions.sort(key=lambda action: action.start)
    run = CrateAction(
        "Run of the workflow",
        _WORKFLOW,
        actions[0].start,
        max(action.end for action in actions),
        actions[0].agent,
        [place for place in files if place.startswith("inputs/")],
        sorted({place for action in actions for place in action.outputs}),
        {},
    )
    title = records[0][1]["job"].get("run_name") or "Cathodeflow run"
    commits = sorted({record["commit"] for _, record in records if record["commit"]})
    about = (
        f"{len(records)} jobs of the workflow Cathodeflow {cathodeflow.__version__}"
        + (f", commit {', '.join(commits)}" if commits else "")
        + ". To run it again, copy the folder inputs, and there call: snakemake --snakefile"
        + f" CRATE/{_WORKFLOW} --cores all --configfile {' '.join(configs)}"
    )
    crate = Crate(title, about, run.end, _WORKFLOW, version("snakemake"), list(files.values()), tools, [run, *actions])
    write_crate(out, crate)
    return Exported(len(records), sum(place.startswith("results/") for place in files), sorted(referenced))


def _sheets(configs: list[str]) -> list[str]:
    """Sample sheets of a configuration, which is checked."""
    from snakemake.utils import update_config

    values: dict[str, Any] = {}
    for path in configs:
        # As Snakemake joins several files.
        update_config(values, read_yaml(path))
    config = validate(values, " + ".join(configs))
    return [section.samples for name in techniques() if (section := getattr(config, name)) is not None]


def _code_files(checkout: str) -> Iterator[CrateFile]:
    for part in _CODE:
        path = os.path.join(checkout, part)
        for file in _walk(path) if os.path.isdir(path) else [path]:
            if os.path.isfile(file):
                yield CrateFile("code/" + Path(os.path.relpath(file, checkout)).as_posix(), file)


def _walk_results(results: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk over the results that are packed; as for `os.walk`, folders that are taken off the list are passed over."""
    for folder, below, names in os.walk(results):
        if folder == results:
            below[:] = [name for name in below if name not in _NOT_PACKED]
            names = [name for name in names if name not in _NOT_PACKED]
        yield folder, below, names


def _packed_results(results: str) -> Iterator[CrateFile]:
    for folder, below, names in _walk_results(results):
        stores = [name for name in below if name.endswith(".zarr")]
        below[:] = sorted(set(below) - set(stores))
        for path in (os.path.join(folder, name) for name in sorted([*names, *stores])):
            yield CrateFile(_result_place(path, results) or path, path)


def _linked_folders(results: str) -> Iterator[str]:
    """Yield links to folders among the results, which neither records nor files are looked for in."""
    for folder, below, _ in _walk_results(results):
        below[:] = sorted(name for name in below if not name.endswith(".zarr"))
        yield from (path for name in below if os.path.islink(path := os.path.join(folder, name)))


def _is_within(path: str, folder: str) -> bool:
    return Path(path).resolve().is_relative_to(Path(folder).resolve())


def _walk(folder: str) -> Iterator[str]:
    for place, below, names in os.walk(folder):
        below[:] = sorted(
            name for name in below if name not in _NOT_CODE and not name.startswith(".") and ".egg-info" not in name
        )
        yield from (os.path.join(place, name) for name in sorted(names) if not name.endswith(".pyc"))


def _inside(path: str) -> str | None:
    """Place in the crate of a file in the working folder; None for a file elsewhere."""
    relative = os.path.relpath(path)
    return None if relative.startswith(os.pardir) else "inputs/" + Path(relative).as_posix()


def _result_place(path: str, results: str) -> str | None:
    """Place in the crate of a file or store among the results; None for a file elsewhere."""
    relative = os.path.relpath(path, results)
    if relative.startswith(os.pardir):
        return None
    return "results/" + Path(relative).as_posix() + ("/" if os.path.isdir(path) else "")


def _raw_files(name: str, digest: str | None, *, copy: bool) -> list[CrateFile]:
    """Describe what a job read and no job made; the last entry stands for all of it."""
    if is_remote(name):
        return [CrateFile(name, None, digest, "raw data")]
    path = name.split(_DATASET)[0]
    place = _inside(path)
    if not copy or place is None:
        return [CrateFile(Path(os.path.abspath(path)).as_uri(), None, digest, "raw data, not copied")]
    if os.path.isfile(path):
        return [CrateFile(place, path, digest, "raw data")]
    found = list(_walk(path)) if os.path.isdir(path) else sorted(filter(os.path.isfile, matching(path)))
    files = [CrateFile(place, file, about="raw data") for file in found if (place := _inside(file))]
    return [*files, CrateFile(f"#{name}", None, digest, "raw data", [file.place for file in files])]


def _action(record: dict[str, Any], inputs: list[str], outputs: list[str]) -> CrateAction:
    job = record["job"]
    return CrateAction(
        f"{record['stage']} of {record['sample']}",
        f"#{record['stage']}-{record['code']}",
        job["start"],
        job["end"],
        job.get("user"),
        inputs,
        outputs,
        {key: str(value) for key, value in record["options"].items()},
    )


def _tools(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Describe the stage of a record, with the digest of its code, and the packages that it used."""
    packages = {f"#{name}-{number}": {"name": name, "version": number} for name, number in record["versions"].items()}
    stage = {"name": f"cathodeflow {record['stage']}", "version": record["code"], "requires": list(packages)}
    return {**packages, f"#{record['stage']}-{record['code']}": stage}
