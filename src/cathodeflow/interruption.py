"""Signals that ask a run or a stage to end: Ctrl-C, a closed terminal, the end of a job's time.

It ends within seconds with one line, and goes on when the same command is started again: all outputs are written whole
or not at all, and a training continues from its checkpoint.
"""

import logging
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Time that jobs have to remove what they have half written [s].
_PATIENCE = 3.0


class Interrupted(BaseException):
    """The process got a signal; the message is its name.

    No KeyboardInterrupt, on which libraries print lines of their own.
    """


def interrupt_on_signals() -> None:
    """Raise `Interrupted` at the first signal; a second Ctrl-C ends the process at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        _answer(_ignore)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise Interrupted(signal.Signals(number).name)

    _answer(interrupt)


def end_run_on_signals(workflow: Any) -> None:
    """End a run of Snakemake with all its jobs at the first signal, those on a cluster too.

    Snakemake itself waits for running jobs, reports each as failed, or leaves them behind, depending on the signal. It
    needs no time to end: what it knows of finished jobs is on the disk.

    Parameters
    ----------
    workflow : snakemake.workflow.Workflow
    """

    def end(number: int, frame: FrameType | None) -> None:
        _answer(_ignore)
        # Jobs that are ended now have not failed.
        logging.disable(logging.CRITICAL)
        # The terminal may be gone.
        with suppress(OSError):
            # A terminal's last line may show what goes on.
            erased = "\r\x1b[K" if os.isatty(2) else ""
            line = f"{erased}stopped by {signal.Signals(number).name}; start the same command again to go on\n"
            os.write(2, line.encode())
        with suppress(Exception):
            _cancel(workflow)
        _end_descendants()
        os._exit(128 + number)

    _answer(end)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing; Python complains of a signal that is on its way when SIG_IGN is set."""


def _answer(handler: Callable[[int, FrameType | None], None]) -> None:
    """Set what becomes of the signals, but for those that are ignored, as `nohup` and shells have it."""
    for number in _SIGNALS:
        # Only the main thread can; a notebook may run Snakemake in another.
        with suppress(ValueError):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)


def _cancel(workflow: Any) -> None:
    """Cancel the jobs that were sent to a cluster."""
    executor = getattr(workflow.scheduler, "_executor", None)
    if name := getattr(executor, "run_uuid", None):
        # On Slurm all jobs of a run have this name; the list of the executor is empty while it asks for their states.
        subprocess.run(["scancel", "--name", str(name)], capture_output=True, timeout=20, check=False)
    elif executor is not None and (jobs := getattr(executor, "active_jobs", None)):
        executor.cancel_jobs(list(jobs))


def _end_descendants() -> None:
    """Ask all processes that this one has started to end, and make those end that do not."""
    import psutil

    found = psutil.Process().children(recursive=True)
    for process in found:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(found, timeout=_PATIENCE)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=1)
