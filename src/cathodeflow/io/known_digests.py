"""Digests of raw files, known from the last time while nothing about a file has changed. Light to import."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from cathodeflow.errors import InputError
from cathodeflow.io.digests import Facts, file_digest, is_digest, remembered_digest
from cathodeflow.io.notes import Notes

T = TypeVar("T")

_THREADS = 8
# What is read within a few seconds needs no word.
_LONG_BYTES = 2**30


class KnownDigests:
    """SHA-256 of files, each read once while its facts stay the same.

    Parameters
    ----------
    notes : Notes
        Where they are kept from run to run.
    cache : bool
        Whether files with the facts of the last time are believed to have its content; otherwise all are read, once in
        a process.
    tell : callable
        Called once, with a sentence, before reading takes long.
    """

    def __init__(self, notes: Notes, *, cache: bool = True, tell: Callable[[str], Any] = lambda text: None) -> None:
        self._notes, self._cache, self._tell = notes, cache, tell
        self._known: dict[str, list[Any]] | None = None
        # One answer in a process, whatever happens to the file meanwhile: a job must not change while it is planned.
        self._answers: dict[str, str] = {}

    def of(self, files: Iterable[str]) -> list[str]:
        """Give the digests of files, in their order.

        Raises
        ------
        InputError
            A file is not there, or cannot be read.
        """
        files = list(files)
        new = {file: os.path.realpath(file) for file in files if file not in self._answers}
        if self._known is None:
            self._known = self._notes.read() if self._cache else {}
        facts = {file: _checked(Facts.of, file) for file in new}
        unknown = []
        for file, path in new.items():
            *numbers, digest = self._known.get(path) or [None]
            if tuple(numbers) == facts[file] and is_digest(digest):
                self._answers[file] = digest
            else:
                unknown.append(file)
        if sum(facts[file].size for file in unknown) >= _LONG_BYTES:
            self._tell(f"Reading {len(unknown)} raw files that are new or may have changed, to know their contents.")
            self._tell = lambda text: None
        # Large files have notes of their own, which the records of jobs are written from too: both read them once.
        read = remembered_digest if self._cache else file_digest
        with ThreadPoolExecutor(_THREADS) as pool:
            digests = list(pool.map(lambda file: _checked(read, file), unknown))
        self._answers |= dict(zip(unknown, digests, strict=True))
        self._notes.add(
            {
                new[file]: [*facts[file], digest]
                for file, digest in zip(unknown, digests, strict=True)
                if facts[file].settled and _checked(Facts.of, file) == facts[file]
            }
        )
        return [self._answers[file] for file in files]


def _checked(function: Callable[[str], T], file: str) -> T:
    try:
        return function(file)
    except OSError as error:
        raise InputError(file, (error.strerror or str(error)).lower(), "a file that can be read") from None
