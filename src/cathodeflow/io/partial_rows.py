"""Rows of a table that is not yet complete, so that an interrupted command goes on where it was."""

import json
import os
from pathlib import Path
from typing import Any

from cathodeflow.io.tables import plain


class PartialRows:
    """Finished rows in a file beside the output: a line of JSON each, written as soon as it is known.

    Parameters
    ----------
    path : path
        Rows that another key wrote are discarded, and so is a line that was being written when its process ended.
    key : str
        What the rows depend on, other than their files.

    Attributes
    ----------
    rows : dict
        Values by the name of the row, a file that is as it was when the row was written.
    """

    def __init__(self, path: str | os.PathLike[str], key: str) -> None:
        self._path = Path(path)
        self.rows: dict[str, Any] = {}
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            lines = []
        if lines and lines[0] == json.dumps(key):
            for line in lines[1:]:
                try:
                    name, state, values = json.loads(line)
                except ValueError:
                    continue
                if state == _state(name):
                    self.rows[name] = values
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._path, "w", encoding="utf-8")  # noqa: SIM115 - closed by `close`
        self._file.write(json.dumps(key) + "\n")
        for name, values in self.rows.items():
            self.add(name, values)

    def add(self, name: str, values: Any) -> None:
        """Keep the values of a row; numbers keep all their digits."""
        self._file.write(json.dumps([name, _state(name), plain(values)]) + "\n")
        self._file.flush()

    def close(self, *, keep: bool) -> None:
        """End writing; without `keep` the file is removed."""
        self._file.close()
        if not keep:
            self._path.unlink(missing_ok=True)


def _state(name: str) -> list[int] | None:
    """Size and time of a file; None if there is none."""
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]
