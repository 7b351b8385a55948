"""What is remembered from run to run in one small file, which may be deleted at any time."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# So many lines that others have replaced may stand in a file.
_REPLACED = 1000


class Notes:
    """Values by key, a line of JSON for each; of several lines of a key the last one counts.

    Lines that are damaged, as by a process killed while it wrote, are as if not there, and so is a file that cannot be
    read. Where it cannot be written, nothing is remembered.

    Parameters
    ----------
    path : path
        The file; its folder is made when something is noted.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def read(self) -> dict[str, list[Any]]:
        """Return all that is noted."""
        known: dict[str, list[Any]] = {}
        lines: list[str] = []
        with suppress(OSError, UnicodeDecodeError):
            lines = self._path.read_text(encoding="ascii").splitlines()
        for line in lines:
            with suppress(ValueError, TypeError):
                key, *values = json.loads(line)
                known[str(key)] = values
        if len(lines) > _REPLACED + 2 * len(known):
            self.clear()
            self.add(known)
        return known

    def clear(self) -> None:
        """Forget all."""
        with suppress(OSError):
            self._path.unlink()

    def add(self, values: Mapping[str, list[Any]]) -> None:
        """Note some values."""
        if not values:
            return
        lines = [json.dumps([key, *row]) for key, row in values.items()]
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # The first line break ends a line that another process left half.
            with open(self._path, "a", encoding="ascii") as file:
                file.write("\n" + "\n".join(lines) + "\n")
