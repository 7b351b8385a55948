"""State of the run of the workflow in a folder, seen from another process: `cathodeflow status`."""

import socket
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import psutil

from cathodeflow.io.run_journal import add, begin, changed, last_entry, read
from cathodeflow.run_failures import Failures, missing_output
from cathodeflow.run_jobs import Job, Run, State, duration, time_left

# Times of files on other machines, and rounded ones, may differ this much [s].
_TOLERANCE = 2.0
_STATES: tuple[State, ...] = ("done", "running", "failed", "waiting")
# Event of a job that ended well without its outputs, for which Snakemake has none.
_MISSING = "output_missing"
# Of the run of this process.
_failures = Failures()


def begin_journal(jobs: Iterable[tuple[int, Job, bool]]) -> None:
    """Write down what a run plans, in the current folder.

    Parameters
    ----------
    jobs : iterable of (number, Job, whether it is to run)
    """
    process = psutil.Process()
    plan = {
        "begun": time.time(),
        "host": socket.gethostname(),
        "pid": process.pid,
        "process_begun": process.create_time(),
        "jobs": [
            [number, job.rule, job.wildcards, job.log, job.benchmark, to_run]
            for number, job, to_run in jobs
            if job.rule != "all"
        ],
    }
    begin(plan)


def note_event(record: Any) -> None:
    """Write down that a job began, ended or failed: the handler of Snakemake's logger calls it for every record."""
    event = str(getattr(record, "event", None))
    if event == "error":
        _failures.note(text := record.getMessage())
        if missing := missing_output(text):
            add({"event": _MISSING, "job": missing.number, "time": time.time(), "problem": missing.problem})
    number = getattr(record, "job_id", None) if event == "job_finished" else getattr(record, "jobid", None)
    if event in ("job_info", "job_finished", "job_error") and number is not None:
        said = _failures.problem(record) if event == "job_error" else ""
        add({"event": event, "job": number, "time": time.time(), "problem": said})


def note_end(result: str) -> None:
    """Write down that the run has ended: `done` or `failed`."""
    add({"event": "end", "result": result, "time": time.time()})


def status_lines(folder: str = ".", now: float | None = None) -> list[str]:
    """Describe the last run in a folder: jobs by technique and sample, those that run, and why others failed.

    Parameters
    ----------
    folder : str
        Folder that Snakemake runs in.
    now : float, optional
        Time [seconds since 1970]. Default: the present.
    """
    found = read(folder)
    if found is None:
        return [f"{folder}: no run of the workflow is known in this folder"]
    plan, events = found
    now = time.time() if now is None else now
    run = _run_of(plan, events, folder)
    end = next((event for event in reversed(events) if event["event"] == "end"), None)
    alive = end is None and _is_alive(plan)
    if not alive:
        for job in run.jobs.values():
            job.state = "waiting" if job.state == "running" else job.state
    counts = {state: run.count(state) for state in _STATES}
    left = time_left(run, now)
    lines = [
        f"{_began(plan, now)}, {_state_of_run(plan, end, alive, now)}: {counts['done']} of {len(run.jobs)} jobs done"
        + "".join(f", {counts[state]} {state}" for state in _STATES[1:] if counts[state])
        + (f"; {left}" if alive and left else "")
    ]
    lines += ["", *_table(run)]
    running = [job for job in run.jobs.values() if job.state == "running"]
    lines += ["", "running:"] if running else []
    for job in sorted(running, key=lambda job: job.begun):
        said = last_entry(job.log, folder) if job.log else []
        lines.append(f"  {job.name}, {duration(now - job.begun)}" + (f": {said[0]}" if said else ""))
    failed = [job for job in run.jobs.values() if job.state == "failed"]
    lines += ["", "failed:"] if failed else []
    for job in failed:
        said = (last_entry(job.log, folder) if job.log else []) or [job.problem or "it wrote no log"]
        lines.append(f"  {job.name}, at {_clock(job.ended)}: {said[0]}")
        lines += [f"    {line}" for line in said[1:6]]
        lines += (
            [f"    {job.problem}"] if job.problem and job.problem != said[0] and "log file" not in job.problem else []
        )
        lines += [f"    log: {job.log}"] if job.log else []
    return lines


def _run_of(plan: dict[str, Any], events: list[dict[str, Any]], folder: str) -> Run:
    run = Run(plan["begun"])
    missing: set[int] = set()
    run.expect(Counter(rule for _, rule, _, _, _, to_run in plan["jobs"] if to_run))
    for number, rule, wildcards, log, benchmark, to_run in plan["jobs"]:
        run.jobs[number] = Job(rule, wildcards, log, benchmark, state="waiting" if to_run else "done")
    for event in events:
        number = event.get("job")
        if number not in run.jobs:
            continue
        if event["event"] == "job_info":
            run.begin(number, event["time"])
            missing.discard(number)
        else:
            failed = event["event"] in ("job_error", _MISSING)
            if event["event"] == _MISSING:
                missing.add(number)
            run.end(number, event["time"], "failed" if failed else "done", event.get("problem", ""))
    for number, job in run.jobs.items():
        if number not in missing:
            _look_at_files(job, folder)
    return run


def _look_at_files(job: Job, folder: str) -> None:
    """Correct the state of a job of a cluster: one in the queue has not begun, one of a group may have ended already.

    Only jobs that end well have a benchmark file, and each opens its log when it begins.
    """
    if job.state not in ("running", "failed"):
        return
    since = job.begun - _TOLERANCE
    if job.benchmark and (ended := changed(job.benchmark, folder)) > since:
        job.state, job.ended = "done", ended
    elif job.log and changed(job.log, folder) < since:
        # A job that was killed in the queue has failed by itself.
        job.state = "failed" if job.problem else "waiting"


def _table(run: Run) -> list[str]:
    groups: dict[tuple[str, str], Counter[str]] = {}
    for job in run.jobs.values():
        groups.setdefault((job.technique, job.sample), Counter())[job.state] += 1
    rows = [("technique", "sample", *_STATES)]
    rows += [
        (technique, sample or "-", *(str(counts[state] or "-") for state in _STATES))
        for (technique, sample), counts in sorted(groups.items())
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(
            zip(row, widths, strict=True)
        ))
        for row in rows
    ]  # fmt: skip


def _began(plan: dict[str, Any], now: float) -> str:
    day = "%H:%M:%S" if now - plan["begun"] < 43200 else "%Y-%m-%d %H:%M"
    return f"run that began at {time.strftime(day, time.localtime(plan['begun']))} on {plan['host']}"


def _state_of_run(plan: dict[str, Any], end: dict[str, Any] | None, alive: bool, now: float) -> str:
    if end:
        how = "ended well" if end["result"] == "done" else "ended with failures"
        return f"{how} after {duration(end['time'] - plan['begun'])}"
    return f"running for {duration(now - plan['begun'])}" if alive else "stopped before its end"


def _is_alive(plan: dict[str, Any]) -> bool:
    """Whether the process of a run is at work; one on another machine is taken to be."""
    if plan["host"] != socket.gethostname():
        return True
    try:
        return abs(psutil.Process(plan["pid"]).create_time() - plan["process_begun"]) < _TOLERANCE
    except psutil.Error:
        return False


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
