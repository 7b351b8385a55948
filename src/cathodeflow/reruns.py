"""What Snakemake compares of a job besides its code: contents of what the user gives, never places or times.

Snakemake looks into a file only where its time is newer than that of the results, and takes a file at another place for
another one. Here the contents of all that the user gives are a parameter of the job, and the files no inputs of it.
"""

import hashlib
import os
from collections.abc import Callable, Iterable

from cathodeflow.file_arguments import file_argument
from cathodeflow.io.notes import Notes
from cathodeflow.io.sources import is_remote, split_source
from cathodeflow.options import OptionsT, leaves, value_of, with_value

RESULTS = "results"


def followed(files: Iterable[str]) -> list[str]:
    """Files that Snakemake itself must follow: what its jobs make, and what it fetches.

    Examples
    --------
    >>> followed(["raw/a.tif", "results/raw/bragg/a/dark.tif", "s3://beamtime/a.h5"])
    ['results/raw/bragg/a/dark.tif', 's3://beamtime/a.h5']
    """
    return [file for file in files if is_remote(file) or _is_result(file)]


def _is_result(file: str) -> bool:
    return os.path.relpath(file).split(os.sep)[0] == RESULTS


def content(
    source: str, files: Iterable[str], digests: Callable[[list[str]], list[str]], base: str | None = None
) -> str:
    """Describe what a source holds, the same wherever it lies.

    Parameters
    ----------
    source : str
        Such as `raw/scan1/*.h5::/entry/data`, of which the dataset counts, and all of an address.
    files : iterable of str
        The files that are read for it, in their order.
    digests : callable
        Gives the digests of files.
    base : str, optional
        Folder that the names of the files are relative to, where more than the last part matters.

    Returns
    -------
    str
        Digest of the names and contents of the files, without those of `followed`; an address as it stands.
    """
    given = [file for file in files if not is_remote(file) and not _is_result(file)]
    pattern, dataset = split_source(source)
    if is_remote(pattern):
        return source
    names = [os.path.relpath(file, base) if base else os.path.basename(file) for file in given]
    lines = [f"{digest} {name}" for digest, name in zip(digests(given), names, strict=True)]
    found = hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest() if lines else RESULTS
    return found + (f"::{dataset}" if dataset else "")


def with_contents(options: OptionsT, digests: Callable[[list[str]], list[str]]) -> OptionsT:
    """Replace the files that options name by the digests of their contents; those of jobs keep their names."""
    for key, field in leaves(type(options)):
        if file_argument(field.annotation) and (file := value_of(options, key)) is not None and not _is_result(file):
            options = with_value(options, key, digests([file])[0])
    return options


class Devices:
    """Which device the results of each stage count as made on, so that `auto` takes what is there.

    A result of the CPU stays valid where `device: auto` finds a GPU, and one of the GPU where there is none; only who
    asks for `cpu` or `cuda` gets results of that device alone. The name by which Snakemake knows the results is noted
    with the devices that jobs ran on under it.

    Parameters
    ----------
    notes : Notes
        Where both are kept from run to run.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._known: dict[str, list[str]] | None = None
        self._answers: dict[str, list[str]] = {}
        self._running = False

    def name(self, stage: str, asked: str, here: str) -> str:
        """Give the name that Snakemake compares.

        Parameters
        ----------
        stage : str
            The stage, and the network where it has several.
        asked : {"auto", "cpu", "cuda"}
            As in the options.
        here : {"cpu", "cuda"}
            What `auto` finds in this run.
        """
        if self._known is None:
            self._known = self._notes.read()
        if stage not in self._answers:
            device = here if asked == "auto" else asked
            name, *used = map(str, self._known.get(stage) or [device])
            if asked != "auto" and set(used) - {device}:
                # Some were made on the other device: none of them counts. The name must be a new one.
                name, used = (device if name != device else f"{device} only"), []
            self._answers[stage] = [name, *sorted({*used, device})]
            if self._running:
                self._note(stage)
        return self._answers[stage][0]

    def begin(self) -> None:
        """Note what jobs run on from now on; without this call, as in a dry run, nothing is noted."""
        self._running = True
        for stage in self._answers:
            self._note(stage)

    def _note(self, stage: str) -> None:
        if (self._known or {}).get(stage) != self._answers[stage]:
            self._notes.add({stage: self._answers[stage]})
