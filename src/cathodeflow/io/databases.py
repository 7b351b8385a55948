"""SQLite databases: whether one is whole."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from cathodeflow.errors import InputError

_EXPECTED = (
    "a database of MLflow: move it away, and snakemake --cores all records all runs of these results in a new one"
)


def check_database(path: str | os.PathLike[str]) -> list[InputError]:
    """Find what is wrong with a database of MLflow; none is fine, and one that is being written is not looked at.

    Returns
    -------
    list of InputError
        At most one: the file is no database, is damaged, or holds something else.
    """
    if not os.path.lexists(path):
        return []
    try:
        # Not read-only, where that can be: what a killed process left half-written is rolled back first.
        where = f"{Path(path).resolve().as_uri()}?mode={'rw' if os.access(path, os.W_OK) else 'ro'}"
        with closing(sqlite3.connect(where, uri=True)) as connection:
            state = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        return [] if "locked" in str(error) else [InputError(path, f"an error ({error})", _EXPECTED)]
    if state != "ok":
        return [InputError(path, f"an error ({' '.join(state.split())[:200]})", _EXPECTED)]
    return [] if {"experiments", "runs"} <= tables else [InputError(path, "a database of something else", _EXPECTED)]
