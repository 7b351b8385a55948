"""Processes that work in a folder, so that stale locks of a killed Snakemake run are removed.

Snakemake's own lock is a list of files that a killed run leaves behind, and that somebody has to remove by hand. The
kernel's locks end with the process that holds them, however it ends: every run and every job holds a shared one, and
who gets it alone knows that nobody else is at work.
"""

import fcntl
import os
import shutil
from contextlib import suppress
from typing import IO

_FOLDER = ".snakemake"
_LOCK = os.path.join(_FOLDER, "cathodeflow.lock")
# Open as long as the process lives.
_HELD: list[IO[str]] = []


def join_as_run() -> None:
    """Register this process as a run of Snakemake in the current folder, which it is about to lock.

    Where nobody else is at work, Snakemake's locks are those of a run that was killed, and are removed. A job that
    outlived its run counts: it may still write. Where the file system has no locks nothing is done.
    """
    with suppress(OSError):
        os.makedirs(_FOLDER, exist_ok=True)
        file = open(_LOCK, "w", encoding="utf-8")  # noqa: SIM115
        _HELD.append(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            shutil.rmtree(os.path.join(_FOLDER, "locks"), ignore_errors=True)
        fcntl.flock(file, fcntl.LOCK_SH)


def join_as_job() -> None:
    """Register this process as a job in the current folder, if Snakemake runs there."""
    with suppress(OSError):
        file = open(_LOCK, encoding="utf-8")  # noqa: SIM115
        _HELD.append(file)
        fcntl.flock(file, fcntl.LOCK_SH)
