"""How jobs failed, where only an error of Snakemake itself says so: a signal, an exit status, a missing output."""

import re
from logging import LogRecord
from typing import NamedTuple

_DEATH = re.compile(r"died with <Signals\.(?P<signal>\w+): \d+>|returned non-zero exit status (?P<status>\d+)")
_MISSING = re.compile(r"Job (\d+)\s+completed successfully, but some output files are missing")
_FILE = re.compile(r"^(.+?) \(missing ", re.MULTILINE)
# Exit status of a stage that says in its log what is wrong.
_TOLD = 1
# Added by a shell to the number of the signal that ended a command.
_SIGNALS = {128 + 6: "SIGABRT", 128 + 9: "SIGKILL", 128 + 11: "SIGSEGV", 128 + 15: "SIGTERM"}


class MissingOutput(NamedTuple):
    """A job that ended well without its files.

    Attributes
    ----------
    number : int
        Number of the job.
    problem : str
    """

    number: int
    problem: str


class Failures:
    """Keeps how the commands of jobs ended, until Snakemake says which job failed."""

    def __init__(self) -> None:
        self._ended: list[tuple[str, str]] = []

    def note(self, text: str) -> None:
        """Note an error of Snakemake, if it is of a command that ended otherwise than by an error of its own."""
        if found := _DEATH.search(text):
            problem = _ended_by(found["signal"] or _SIGNALS.get(int(found["status"]), ""), found["status"])
            self._ended += [(text, problem)] if problem else []

    def problem(self, record: LogRecord) -> str:
        """Return what is known of a job that failed beside its log: from a cluster, or from an error noted before."""
        said = str(getattr(record, "rule_msg", None) or "").strip()
        command = str(getattr(record, "shellcmd", None) or "").strip()
        for one in self._ended if command else ():
            if command in one[0]:
                self._ended.remove(one)
                return said or one[1]
        return said


def missing_output(text: str) -> MissingOutput | None:
    r"""Return the job of an error about outputs that a job did not write; None for other errors.

    Examples
    --------
    >>> text = "Job 5  completed successfully, but some output files are missing. Missing:\na.h5 (missing locally)"
    >>> missing_output(text).problem
    'it ended well, but did not write a.h5; on a network disk, increase --latency-wait'
    """
    found = _MISSING.search(text)
    if not found:
        return None
    names = ", ".join(_FILE.findall(text[found.end() :])) or "all of its files"
    return MissingOutput(
        int(found[1]), f"it ended well, but did not write {names}; on a network disk, increase --latency-wait"
    )


def _ended_by(signal: str, status: str | None) -> str:
    if signal:
        return f"killed by {signal}" + (", as if the memory was exhausted" if signal == "SIGKILL" else "")
    return f"exit status {status}" if int(status or 0) != _TOLD else ""
