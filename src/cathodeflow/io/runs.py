"""Registration of processes that work in a folder, to remove stale locks of a killed Snakemake run.

Snakemake's own lock is a list of files, which a killed run leaves behind for somebody to remove by hand. Locks of the
kernel always end with the process that holds them. Every run and every job holds a shared lock; a process that gets an
exclusive one is the only one at work.
"""

import fcntl
import os
import shutil
from contextlib import suppress
from typing import IO

_FOLDER = ".snakemake"
_LOCK = os.path.join(_FOLDER, "cathodeflow.lock")
# Open until the process ends.
_HELD: list[IO[str]] = []


def join_as_run() -> None:
    """Register this process as a run of Snakemake in the current folder, before it locks the folder.

    If no other process is at work, the locks of Snakemake are those of a killed run and are removed. A job that
    outlived its run counts as at work, as it may still write. On file systems without locks nothing is done.
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
