"""Manifests of stores: one file with the digest of every file, which the workflow compares instead of the store."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.digests import file_digest
from cathodeflow.io.tables import read_json, write_json

SUFFIX = ".manifest.json"
_FORMAT = "cathodeflow volume manifest 1"
_METADATA = "zarr.json"
#: Attribute of our stores, by which one is known whose manifest was not written yet, or is damaged.
CREATOR = {"creator": "cathodeflow"}
# Files of our stores: the metadata of the group and of its array, and the chunks.
_OWN_NAME = re.compile(r"zarr\.json|0/zarr\.json|0/c(/\d+)*")


def manifest_path(path: str | os.PathLike[str]) -> str:
    """Return the path of the manifest of a store."""
    return os.fspath(path) + SUFFIX


def locate(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the paths of a store and its manifest, given either."""
    store = os.fspath(path).rstrip("/").removesuffix(SUFFIX)
    return store, manifest_path(store)


def store_digests(store: str) -> dict[str, str]:
    """Return the digests of all files of a store, by name."""
    return _digests(store, _files(store))


def write_manifest(path: str, digests: Mapping[str, str], layout: Mapping[str, Any]) -> None:
    """Write the digests of a store's files, and its layout."""
    write_json(path, {"format": _FORMAT, **layout, "files": digests, "digest": _overall(digests)})


def check_store(store: str, manifest: str, *, verify: bool = False) -> int:
    """Compare a store with its manifest: file names, metadata, and with `verify` the digest of every file.

    Returns
    -------
    int
        Number of files.

    Raises
    ------
    InputError
        One line for every file that is missing, changed or added.
    """
    content = read_json(manifest)
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("files"), dict):
        raise InputError(manifest, "no list of digests", "a manifest of a volume")
    expected: dict[str, str] = {str(name): str(digest) for name, digest in content["files"].items()}
    if _overall(expected) != content.get("digest"):
        raise InputError(manifest, "an overall digest that does not match the list", "an unchanged manifest")
    if not os.path.isdir(store):
        raise InputError(store, "no such store", f"the store that {manifest} describes")
    # Metadata have no checksums, but are compared quickly. Zarr silently reads zeros from an empty file.
    names = _files(store)
    found = _digests(store, [name for name in names if verify or name.endswith(_METADATA) or _empty(store, name)])
    errors = [InputError(f"{store}/{name}", "no such file", "a chunk") for name in sorted(set(expected) - set(names))]
    for name in names:
        if name not in expected:
            errors.append(
                InputError(f"{store}/{name}", "a file that is not in the manifest", "only the files of the manifest")
            )
        elif found.get(name, expected[name]) != expected[name]:
            errors.append(InputError(f"{store}/{name}", f"sha256 {found[name]}", f"sha256 {expected[name]}"))
    if errors:
        raise InputErrors.of(errors)
    return len(names)


def is_own_store(store: str, *, recorded: bool = False) -> bool:
    """Whether a folder is a store that we wrote, with nothing of anybody else's in it.

    Either its manifest lists all its files, with the digest of at least one of them, or all its files have names of our
    stores, and its own metadata name us or a record names its manifest (`recorded`). Damaged and missing chunks make it
    no less ours.
    """
    inside = (os.path.join(folder, name) for folder, below, files in os.walk(store) for name in (*below, *files))
    if any(map(os.path.islink, inside)):
        return False
    names = _files(store)
    known = _listed_files(manifest_path(store))
    if set(names) <= known.keys() and any(file_digest(os.path.join(store, name)) == known[name] for name in names):
        return True
    return all(map(_OWN_NAME.fullmatch, names)) and (recorded or _names_us(store))


def is_own_manifest(manifest: str) -> bool:
    """Whether a file is the manifest of a store that we wrote, whole or damaged."""
    try:
        return _FORMAT.encode() in Path(manifest).read_bytes() or is_own_store(locate(manifest)[0])
    except OSError:
        return False


def _listed_files(manifest: str) -> dict[str, str]:
    try:
        content = read_json(manifest)
        return {str(name): str(digest) for name, digest in content["files"].items()}
    except (InputError, AttributeError, KeyError, TypeError):
        return {}


def _names_us(store: str) -> bool:
    try:
        attributes = json.loads(Path(store, _METADATA).read_bytes())["attributes"]
        return all(attributes[key] == value for key, value in CREATOR.items())
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return False


def _empty(store: str, name: str) -> bool:
    return not os.path.getsize(os.path.join(store, name))


def _digests(store: str, names: Sequence[str]) -> dict[str, str]:
    return {name: file_digest(os.path.join(store, name)) for name in names}


def _files(store: str) -> list[str]:
    # Snakemake adds a file to folders that are outputs.
    names = [os.path.join(folder, name) for folder, _, names in os.walk(store) for name in names]
    found = [name for name in names if os.path.basename(name) != ".snakemake_timestamp"]
    return sorted(os.path.relpath(name, store).replace(os.sep, "/") for name in found)


def _overall(digests: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()).hexdigest()
