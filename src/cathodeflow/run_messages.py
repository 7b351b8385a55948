"""What a person reads while the workflow runs: a line for each job, the progress, and of a failure the cause.

The complete log of Snakemake, in `.snakemake/log`, has all the rest.
"""

import re
import time
from collections.abc import Callable
from logging import WARNING, LogRecord
from typing import Any

from cathodeflow.io.run_journal import last_entry
from cathodeflow.run_failures import Failures, missing_output
from cathodeflow.run_jobs import Job, Run, duration, time_left

# Lines of Snakemake that say nothing about this run.
_NOISE = re.compile(
    r"Assuming unrestricted shared|Using shell|Provided |Rules claiming|Conda environments: ign|Singularity"
    r"|Group jobs: inactive|Select jobs|Execute \d+ jobs|Job rate limit|host: |Reasons:|Some jobs were triggered"
    r"|Rules with provenance|Building DAG|None$"
)
# The command of a failed job is in the message of the job already.
_REPEATED = re.compile(
    r"(RuleException:\s*)?(CalledProcessError|Exiting because a job)|WorkflowError:\s*At least one job"
)
# Longest command and longest entry of a log that are shown.
_COMMAND, _ENTRY = 1500, 15
_REASON = 160


def short_reason(reason: str) -> str:
    """Shorten why Snakemake runs a job: of several files the first one.

    Examples
    --------
    >>> short_reason("Missing output files: a.h5, b.h5, c.h5; Code has changed since last execution")
    'Missing output files: a.h5 and 2 more; Code has changed since last execution'
    """
    parts = []
    for part in reason.split("; "):
        head, mark, rest = part.partition(": ")
        names = rest.split(", ")
        if mark and len(names) > 1 and "files" in head:
            part = f"{head}: {names[0]} and {len(names) - 1} more"
        parts.append(part if len(part) <= _REASON else f"{part[:_REASON]}...")
    return "; ".join(parts)


class Messages:
    """Turns the events of Snakemake into lines for a person.

    Parameters
    ----------
    dry_run : bool
        Whether jobs are only planned.
    clock : callable
        Time now [seconds since 1970].
    """

    def __init__(self, *, dry_run: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._dry_run = dry_run
        self._clock = clock
        self._run = Run(clock())
        self._table: str | None = None
        self._failures = Failures()

    def lines(self, record: LogRecord) -> list[str]:
        """Return the lines of a record of Snakemake's logger; none for most."""
        event = getattr(record, "event", None)
        if event is None:
            return self._plain(record)
        of_event = {
            "error": self._plain,
            "shellcmd": self._command,
            "run_info": self._plan,
            "job_info": self._begun,
            "job_finished": self._finished,
            "job_error": self._failed,
            "group_error": self._group_failed,
        }
        return of_event[str(event)](record) if str(event) in of_event else []

    def rest(self) -> list[str]:
        """Return what is left at the end: the table of a dry run that listed no jobs."""
        table, self._table = self._table, None
        return [table] if table else []

    def status(self) -> str:
        """Return a line about what goes on, for the bottom of a terminal; "" between runs."""
        running = [job for job in self._run.jobs.values() if job.state == "running" and job.rule != "all"]
        if self._dry_run or not running:
            return ""
        names = ", ".join(f"{job.name} (since {_clock(job.begun)})" for job in running)
        return f"{self._progress()} | running: {names}"

    def _progress(self) -> str:
        done, total = self._run.count("done"), self._run.total
        left = time_left(self._run, self._clock())
        return f"{done} of {total} jobs" + (f", {left}" if left and done < total else "")

    def _plain(self, record: LogRecord) -> list[str]:
        text = record.getMessage().strip()
        if record.levelno >= WARNING:
            self._failures.note(text)
            # With --quiet it is not known which job it is.
            if (missing := missing_output(text)) and missing.number in self._run.jobs:
                now = self._clock()
                job = self._run.end(missing.number, now, "failed", missing.problem)
                return [
                    f"{_clock(now)} FAILED  {job.name}: {missing.problem}",
                    *([f"    log: {job.log}"] if job.log else []),
                ]
            return [] if _REPEATED.match(text) else [text]
        return [text] if text and not _NOISE.match(text) else []

    def _command(self, record: LogRecord) -> list[str]:
        command = _of(record, "shellcmd", "")
        return [f"Shell command: {command}"] if command else []

    def _plan(self, record: LogRecord) -> list[str]:
        table = record.getMessage()
        self._run.expect(_of(record, "stats", {}))
        if not self._dry_run:
            return [table]
        # A dry run gives it before its list of jobs and after it.
        if self._table is None:
            self._table = table
            return []
        return self.rest()

    def _begun(self, record: LogRecord) -> list[str]:
        wildcards = {name: str(value) for name, value in dict(_of(record, "wildcards", {})).items()}
        made = Job(record.rule_name, wildcards, next(iter(_of(record, "log", [])), ""))  # type: ignore[attr-defined]
        if made.rule == "all":
            return []
        job = self._run.begin(record.jobid, self._clock(), made)  # type: ignore[attr-defined]
        what = (_of(record, "rule_msg", "") or "").strip()
        text = f"{job.name}: {what}" if what else job.name
        if self._dry_run:
            return [text, f"    {short_reason(_of(record, 'reason', ''))}"]
        return [f"{_clock(job.begun)}       {text}"]

    def _finished(self, record: LogRecord) -> list[str]:
        number = record.job_id  # type: ignore[attr-defined]
        if number not in self._run.jobs:
            return []
        now = self._clock()
        job = self._run.end(number, now)
        share = self._run.count("done") / max(1, self._run.total)
        return [f"{_clock(now)} {share:4.0%}  {job.name}: done in {duration(now - job.begun)}; {self._progress()}"]

    def _failed(self, record: LogRecord) -> list[str]:
        now, number = self._clock(), record.jobid  # type: ignore[attr-defined]
        said = self._failures.problem(record)
        job = self._run.end(number, now, "failed", said)
        job.rule = record.rule_name  # type: ignore[attr-defined]
        logs = list(_of(record, "log", []))
        entries = [(log, entry) for log in logs if (entry := last_entry(log))]
        entry = entries[0][1] if entries else ["it wrote no log"]
        shown = entry[:_ENTRY] + ([f"... {len(entry) - _ENTRY} more lines in the log"] if len(entry) > _ENTRY else [])
        first = f"{_clock(now)} FAILED  {job.name}" + (f" after {duration(now - job.begun)}" if job.begun else "")
        lines = [f"{first}: {shown[0]}", *(f"    {line}" for line in shown[1:])]
        # Such as that the time limit of a cluster was reached, or that the job was killed.
        lines += [f"    {said}"] if said and "check log file" not in said else []
        lines += [f"    log: {log}" for log in logs]
        command = (_of(record, "shellcmd", "") or "").strip()
        # Of a group, the command says nothing about the job that failed.
        if command and len(command) <= _COMMAND and not _of(record, "indent", False):
            lines.append(f"    command: {command}")
        return lines

    def _group_failed(self, record: LogRecord) -> list[str]:
        logs = _of(record, "aux_logs", [])
        said = str(_of(record, "msg", "") or "")
        first = (
            f"{_clock(self._clock())} FAILED  group {_of(record, 'groupid', '')}; the last line of each of its jobs:"
        )
        return [first, *([f"    {said}"] if said else []), *(f"    log: {log}" for log in logs)]


def _of(record: LogRecord, name: str, default: Any) -> Any:
    value = getattr(record, name, None)
    return default if value is None else value


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
