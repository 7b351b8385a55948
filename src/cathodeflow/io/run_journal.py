"""The journal of a run of the workflow: its jobs, and when each began, ended or failed; and the last words of logs.

Another process reads it while the run goes on: lines of JSON that are appended, of which the first has the plan.
"""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

#: The journal of the last run in a folder.
JOURNAL = ".snakemake/cathodeflow/run.jsonl"
#: Beginning of the first entry of a log, which is the command.
COMMAND = "command: "
# At the beginning of an entry, see `cathodeflow.commands.start`.
_TIME = re.compile(r"\d\d:\d\d:\d\d ")
# The end of a log that is read [bytes].
_END = 500_000


def begin(plan: dict[str, Any], folder: str = ".") -> None:
    """Write the plan of a new run in place of the journal of the last one. Where it cannot be written, none is kept."""
    path = Path(folder, JOURNAL)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plan) + "\n", encoding="ascii")


def add(event: dict[str, Any], folder: str = ".") -> None:
    """Append an event."""
    with suppress(OSError), open(Path(folder, JOURNAL), "a", encoding="ascii") as file:
        file.write(json.dumps(event) + "\n")


def read(folder: str = ".") -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """Return the plan and the events of the last run in a folder; None if there was none.

    A line that is being written just now is left out.
    """
    try:
        lines = Path(folder, JOURNAL).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(json.loads(line))
    if not found or not isinstance(found[0], dict) or "jobs" not in found[0]:
        return None
    return found[0], [event for event in found[1:] if isinstance(event, dict)]


def changed(path: str, folder: str = ".") -> float:
    """Return when a file was written last [seconds since 1970]; 0 if there is none."""
    try:
        return os.stat(os.path.join(folder, path)).st_mtime
    except OSError:
        return 0.0


def last_entry(path: str, folder: str = ".") -> list[str]:
    """Return the lines of the last entry of a log, without its time; none if there is no entry beside the command."""
    try:
        with open(os.path.join(folder, path), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
            lines = file.read().decode("utf-8", "replace").rstrip().splitlines()
    except OSError:
        return []
    start = max((number for number, line in enumerate(lines) if _TIME.match(line)), default=max(0, len(lines) - 1))
    entry = [_TIME.sub("", line, count=1) if number == 0 else line for number, line in enumerate(lines[start:])]
    return [] if entry and entry[0].startswith(COMMAND) else entry
