"""Whether a folder of results still holds what was written into it, and the removal of what does not."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cathodeflow.config import techniques
from cathodeflow.errors import InputError
from cathodeflow.io.databases import check_database
from cathodeflow.io.digests import file_digest
from cathodeflow.io.guard import one_line
from cathodeflow.io.manifests import SUFFIX, check_store, is_own_manifest, is_own_store, locate
from cathodeflow.io.outputs import remove_output
from cathodeflow.io.tables import read_json
from cathodeflow.provenance import installed
from cathodeflow.record_files import is_ours, read_record

#: The list of the records that were imported, which the workflow writes into the folder of results.
INDEX = "mlflow.json"
_DATABASE = "mlflow.db"


class Findings(NamedTuple):
    """Numbers of compared files, and problems.

    Attributes
    ----------
    records, files, stores : int
        Records read, files that they name, and stores with manifests.
    unknown : list of str
        Files that no record names.
    errors : list of InputError
        One line for every file that is missing or changed.
    damaged : list of str
        Files and stores that were written by us and are damaged: what a repair removes.
    remake : list of str
        Files that Snakemake is asked for, so that it makes just what is damaged or missing again.
    left : list of str
        What is damaged and is not removed: it is not known to be ours, or lies outside the folder.
    versions : list of str
        One line for every result that was made with other versions than the installed ones; it is not damaged.
    """

    records: int
    files: int
    stores: int
    unknown: list[str]
    errors: list[InputError]
    damaged: list[str]
    remake: list[str]
    left: list[str]
    versions: list[str]


def verify(results: str) -> Findings:
    """Compare all results with their records, and all stores with their manifests.

    Parameters
    ----------
    results : str
        Folder of results, or any folder with records.

    Raises
    ------
    InputError
        There is no such folder, or no record in it.
    """
    if not os.path.isdir(results):
        raise InputError(results, "no such folder", "a folder of results")
    files, stores = _list(results)
    found = Findings(0, 0, 0, [], [], [], [], [], [])
    listed = _listed_records(results, found)
    records = [path for path in files if path.endswith(".json") and (path in listed or is_ours(path))]
    if not records and not listed:
        raise InputError(results, "no record", "a folder of results, such as results")
    named: dict[str, str] = {}
    for path in sorted({*records, *listed}):
        _check_record(path, named, found)
    for path, digest in named.items():
        _check_file(results, path, digest, found)
    manifests = [path for path in files if path.endswith(SUFFIX) and (path in named or is_own_manifest(path))]
    for manifest in manifests:
        _check_store(manifest, manifest in named, found)
    if broken := check_database(os.path.join(results, _DATABASE)):
        # It may hold runs of other folders, and notes, which nobody can make again.
        _note(found, broken[0].where, broken, removed=[])
    described = {locate(path)[0] for path in manifests}
    unknown = [path for path in files if path not in named and path not in records]
    unknown += [store for store in stores if store not in described]
    return Findings(
        len(records), len(named), len(described), unknown, found.errors, _once(found.damaged), _once(found.remake),
        found.left, found.versions,
    )  # fmt: skip


def remove_damaged(found: Findings) -> None:
    """Remove what is damaged, so that Snakemake makes it again; files of others are not among it."""
    for path in found.damaged:
        remove_output(path)


def rebuild_command(remake: list[str]) -> str:
    """Write the command line that makes removed results again, and nothing else."""
    return f"snakemake {shlex.join(remake)} --cores all"


def _check_record(path: str, named: dict[str, str], found: Findings) -> None:
    if not os.path.lexists(path):
        _note(found, path, [InputError(path, "no such file", f"a record, which {INDEX} lists")])
        return
    try:
        record = read_record(path)
    except (InputError, OSError) as error:
        _note(found, path, _lines(error, path), removed=[path] * _is_plain(path))
        return
    for name, digest in record["outputs"].items():
        # Absolute paths would be those of another machine.
        if not os.path.isabs(name):
            named[os.path.normpath(os.path.join(os.path.dirname(path), name))] = digest
    found.versions.extend(_other_versions(path, record))


def _check_file(results: str, path: str, digest: str, found: Findings) -> None:
    # A record may name files outside the folder, which are compared too, but not removed.
    inside = Path(path).resolve().is_relative_to(Path(results).resolve())
    if not os.path.isfile(path):
        _note(found, path, [InputError(path, "no such file", "a result")], removed=None if inside else [])
        return
    try:
        now = file_digest(path)
    except OSError as error:
        _note(found, path, _lines(error, path), removed=[])
        return
    if now != digest:
        changed = InputError(path, f"sha256 {now}", f"sha256 {digest}")
        _note(found, path, [changed], removed=[path] * (inside and _is_plain(path)))


def _check_store(manifest: str, recorded: bool, found: Findings) -> None:
    store = locate(manifest)[0]
    try:
        check_store(store, manifest, verify=True)
    except (InputError, OSError) as error:
        ours = not os.path.lexists(store) or is_own_store(store, recorded=recorded)
        parts = [path for path in (store, manifest) if os.path.lexists(path)]
        _note(found, manifest, _lines(error, manifest), removed=parts * (ours and _is_plain(manifest)))


def _note(found: Findings, path: str, errors: list[InputError], removed: list[str] | None = None) -> None:
    """Note what is wrong with a file, and what to remove before it can be made again: nothing if it is missing."""
    found.errors.extend(errors)
    if removed == []:
        found.left.append(path)
    else:
        found.damaged.extend(removed or [])
        found.remake.append(path)


def _listed_records(results: str, found: Findings) -> set[str]:
    """List the records that the workflow imported, or that wait for a server: what should be there."""
    index = os.path.join(results, INDEX)
    if not os.path.isfile(index):
        return set()
    try:
        content = read_json(index)
        base = content.get("results", "results")
        paths = [os.path.relpath(path, base) for path in content.get("records", content["runs"])]
    except (InputError, OSError, AttributeError, LookupError, TypeError, ValueError) as error:
        _note(found, index, _lines(error, index), removed=[index] * _is_plain(index))
        return set()
    return {os.path.normpath(os.path.join(results, path)) for path in paths if not path.startswith("..")}


def _list(results: str) -> tuple[list[str], list[str]]:
    """List files, but of stores only where they are; hidden files are those of killed jobs.

    In a folder of the workflow these are the files of all techniques, in any other folder all.
    """
    folders = [folder for name in techniques() if (folder := Path(results, name)).is_dir()] or [Path(results)]
    files: list[str] = []
    stores: list[str] = []
    for folder in folders:
        for current, below, names in os.walk(folder):
            stores += [os.path.join(current, name) for name in below if name.endswith(".zarr")]
            below[:] = [name for name in below if not name.endswith(".zarr") and not name.startswith(".")]
            files += [os.path.join(current, name) for name in names if not name.startswith(".")]
    return sorted(map(os.path.normpath, files)), sorted(map(os.path.normpath, stores))


def _lines(error: BaseException, path: str) -> list[InputError]:
    return error.errors if isinstance(error, InputError) else [InputError(path, one_line(error), "a readable file")]


def _is_plain(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _once(paths: list[str]) -> list[str]:
    return list(dict.fromkeys(paths))


def _other_versions(path: str, record: dict[str, Any]) -> Iterator[str]:
    other = [
        f"{name} {version} (installed: {installed(name) or 'none'})"
        for name, version in (record.get("versions") or {}).items()
        if installed(name) != version
    ]
    if other:
        yield f"{path}: made with {', '.join(other)}"
