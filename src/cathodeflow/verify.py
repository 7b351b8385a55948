"""Whether a folder of results still holds what was written into it."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cathodeflow.config import techniques
from cathodeflow.errors import InputError
from cathodeflow.io.digests import content_digest, file_digest
from cathodeflow.io.manifests import SUFFIX, check_store, locate
from cathodeflow.io.tables import read_json
from cathodeflow.provenance import installed
from cathodeflow.record import CHECKSUM, FORMAT, JOB, identity


class Findings(NamedTuple):
    """What was compared, and what is wrong.

    Attributes
    ----------
    records, files, stores : int
        Records read, files that they name, and stores with manifests.
    unknown : list of str
        Files that no record names.
    errors : list of InputError
        A line for every file that is missing or changed.
    remove : list of str
        What to remove so that Snakemake makes it anew.
    versions : list of str
        A line for every result that was made with other versions than are installed; it is not damaged.
    """

    records: int
    files: int
    stores: int
    unknown: list[str]
    errors: list[InputError]
    remove: list[str]
    versions: list[str]


def verify(results: str) -> Findings:
    """Compare all results with their records, and all stores with their manifests.

    Parameters
    ----------
    results : str
        Folder of results.

    Raises
    ------
    InputError
        There is no such folder, or no result in it.
    """
    if not os.path.isdir(results):
        raise InputError(results, "no such folder", "a folder of results")
    files, stores = _list(results)
    records = [path for path in files if path.endswith(".json") and not path.endswith(SUFFIX)]
    if not records:
        raise InputError(results, "no record", "a folder of results, such as results")
    errors: list[InputError] = []
    remove: list[str] = []
    named: dict[str, str] = {}
    versions: list[str] = []
    for path in records:
        try:
            record = _read(path)
            for name, digest in _strings(record.get("outputs")):
                named[os.path.join(os.path.dirname(path), name)] = digest
            versions += _other_versions(path, record)
        except InputError as error:
            errors += error.errors
            remove.append(path)
    for path, digest in named.items():
        if not os.path.isfile(path):
            errors.append(InputError(path, "no such file", "a result"))
        elif (found := file_digest(path)) != digest:
            errors.append(InputError(path, f"sha256 {found}", f"sha256 {digest}"))
            remove.append(path)
    for manifest in (path for path in files if path.endswith(SUFFIX)):
        try:
            check_store(locate(manifest)[0], manifest, verify=True)
        except InputError as error:
            errors += error.errors
            remove.append(locate(manifest)[0])
    described = {locate(path)[0] for path in files if path.endswith(SUFFIX)}
    unknown = [path for path in files if path not in named and path not in records]
    unknown += [store for store in stores if store not in described]
    return Findings(len(records), len(named), len(described), unknown, errors, list(dict.fromkeys(remove)), versions)


def rebuild_command(remove: list[str]) -> str:
    """Write the command line that makes removed results anew."""
    return " && ".join([f"rm -rf {shlex.join(remove)}"] * bool(remove) + ["snakemake --cores all"])


def _list(results: str) -> tuple[list[str], list[str]]:
    """List the files of all techniques, but of stores only where they are; hidden files are those of killed jobs."""
    files: list[str] = []
    stores: list[str] = []
    for technique in techniques():
        for place, below, names in os.walk(Path(results, technique)):
            stores += [os.path.join(place, name) for name in below if name.endswith(".zarr")]
            below[:] = [name for name in below if not name.endswith(".zarr") and not name.startswith(".")]
            files += [os.path.join(place, name) for name in names if not name.startswith(".")]
    return sorted(files), sorted(stores)


def _read(path: str) -> dict[str, Any]:
    content: Any = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(path, "other JSON", f"a record ({FORMAT})")
    checksum = content.pop(CHECKSUM, None)
    compared = [(content.get("digest"), identity(content))]
    if checksum or JOB in content:  # records of before have one digest
        compared.append((checksum, content))
    for said, part in compared:
        if (found := content_digest(part)) != said:
            raise InputError(path, f"content of sha256 {found}", f"{said}, as the record itself says")
    return content


def _other_versions(path: str, record: dict[str, Any]) -> Iterator[str]:
    other = [
        f"{name} {version} (installed: {installed(name) or 'none'})"
        for name, version in _strings(record.get("versions"))
        if installed(name) != version
    ]
    if other:
        yield f"{path}: made with {', '.join(other)}"


def _strings(values: Any) -> Iterator[tuple[str, str]]:
    for name, digest in values.items() if isinstance(values, dict) else ():
        if not os.path.isabs(name) and ".." not in name.split("/"):
            yield name, str(digest)
