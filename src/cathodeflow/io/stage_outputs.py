"""Check all outputs of a stage before it computes anything."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.outputs import IsOurs, require_replaceable
from cathodeflow.io.sources import is_remote, list_files, matching, split_source


def require_outputs(
    *, files: Iterable[str], stores: Iterable[str], folders: Iterable[str], inputs: Iterable[str], is_ours: IsOurs
) -> None:
    """Check all outputs of a stage before it computes anything.

    Parameters
    ----------
    files, stores, folders : iterable of str
        What it writes; a folder is one that files are written into.
    inputs : iterable of str
        What it reads: files, stores, folders, patterns.
    is_ours : callable
        As of `require_replaceable`, for the stores.

    Raises
    ------
    InputError
        A line for everything that would be lost, for an output that is also an input or inside a store, and for a name
        given twice.
    """
    errors: list[InputError] = []
    files, stores = list(files), list(stores)
    taken: set[str] = set()
    # Raw folders may hold 100,000 files, which need not be looked at where no output exists yet.
    sources = inputs if any(map(os.path.lexists, (*files, *stores))) else ()
    read = {os.path.realpath(path) for source in sources for path in _listed(source)}
    for path in (*files, *stores):
        try:
            require_replaceable(path, is_ours=is_ours if path in stores else None)
        except InputError as error:
            errors += error.errors
            continue
        place = os.path.realpath(path)
        above = [str(folder) for folder in Path(place).parents]
        if any(store in above for store in map(os.path.realpath, stores)) or any(map(_is_store, above)):
            errors.append(InputError(path, "a place inside a Zarr store", "a place beside it"))
        if place in read:
            errors.append(InputError(path, "an input of the same command", "another name for the output"))
        if place in taken:
            errors.append(InputError(path, "two outputs of this name", "a name for each output"))
        taken.add(place)
    for path in folders:
        if os.path.lexists(path) and not os.path.isdir(path):
            errors.append(InputError(path, "something else than a folder", "a folder for the outputs, or a new name"))
    if errors:
        raise InputErrors.of(errors)


def _is_store(folder: str) -> bool:
    return any(os.path.isfile(os.path.join(folder, name)) for name in ("zarr.json", ".zgroup", ".zarray"))


def _listed(source: str) -> list[str]:
    """Files and stores that a source stands for; an address stands for none here."""
    pattern, _ = split_source(source)
    if is_remote(pattern):
        return []
    found = [pattern, *matching(pattern)]
    with suppress(InputError):  # what is wrong with an input, its reader says
        found += list_files(source)
    return found
