"""Text files: configurations, text tables, and output for people. Light to import."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cathodeflow.errors import InputError
from cathodeflow.io.atomic import atomic_path
from cathodeflow.io.guard import one_line

_Path = str | os.PathLike[str]
# With aliases of aliases, a file of a few hundred bytes can expand to billions of values.
_MAX_VALUES = 100_000


def restart_in_utf8() -> None:
    """Start this process anew in Python's UTF-8 mode where the locale has another encoding, such as `LC_ALL=C`.

    Otherwise no file could be opened, and no text printed, whose name the locale does not have. Names of files and the
    texts of this package are UTF-8 on every machine.
    """
    if sys.getfilesystemencoding().lower() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def package_text(path: _Path) -> str:
    """Read a text file of the package, such as the template of a page."""
    return Path(path).read_text(encoding="utf-8")


def read_start(path: _Path, n_bytes: int) -> bytes:
    """Read the first bytes of a file, such as to find out what it is; of one that cannot be read, none."""
    try:
        with open(path, "rb") as file:
            return file.read(n_bytes)
    except OSError:
        return b""


def read_lines(path: str, expected: str) -> list[tuple[int, str]]:
    """Read the lines of a text table, without empty lines and comments, which begin with `#`.

    Parameters
    ----------
    path : str
        UTF-8, with or without a byte order mark.
    expected : str
        Description of the file in errors.

    Returns
    -------
    list of (int, str)
        Line numbers, from 1, and lines.

    Raises
    ------
    InputError
        The file is missing or not UTF-8 text.
    """
    try:
        with open(path, encoding="utf-8-sig") as stream:
            lines = list(enumerate(stream, start=1))
    except FileNotFoundError:
        raise InputError(path, "no such file", expected) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"an error ({one_line(error)})", f"{expected} in UTF-8") from None
    return [(number, line) for number, line in lines if line.strip() and not line.lstrip("\ufeff").startswith("#")]


def read_yaml(path: str) -> dict[str, Any]:
    """Read a YAML file that contains a mapping.

    Raises
    ------
    InputError
        The file is missing or not YAML, does not contain a mapping, has a key twice, or more than 100,000 values.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_OnceLoader)
    except FileNotFoundError:
        raise InputError(path, "no such file", "a configuration file") from None
    except _RepeatedKeyError as error:
        raise InputError(f"{path} line {error.line}", f"'{error.key}' a second time", "every key once") from None
    except (OSError, ValueError, TypeError, RecursionError, OverflowError, AttributeError, yaml.YAMLError) as error:
        raise InputError(path, " ".join(str(error).split())[:300], "a YAML file") from None
    if values is None:
        raise InputError(path, "an empty file", "a mapping of settings")
    if not isinstance(values, dict):
        raise InputError(path, f"a {type(values).__name__}", "a mapping of settings")
    if _size(values, {}) > _MAX_VALUES:
        raise InputError(path, "aliases that expand to too many values", f"at most {_MAX_VALUES} values")
    return values


class _RepeatedKeyError(Exception):
    def __init__(self, key: str, line: int) -> None:
        super().__init__(key)
        self.key, self.line = key, line


class _OnceLoader(yaml.SafeLoader):
    """Loader that does not take the last of several equal keys silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping of keys that stand in it once; those of a merge (`<<`) may be set again."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise _RepeatedKeyError(key.value, key.start_mark.line + 1)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def write_yaml(path: _Path, values: Mapping[str, Any]) -> None:
    """Write a mapping of plain values as YAML, keys in the given order."""
    write_text(path, yaml.safe_dump(dict(values), sort_keys=False))


def write_text(path: _Path, text: str) -> None:
    """Write a text in UTF-8 with Unix line ends."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_new(path: _Path, text: str) -> None:
    """Write a text file that does not exist yet.

    Raises
    ------
    InputError
        It exists.
    """
    if os.path.lexists(path):
        raise InputError(path, "a file", "none: nothing is replaced")
    write_text(path, text)


def _size(value: Any, known: dict[int, float]) -> float:
    """Count the values in nested mappings and lists, including repeated aliases; infinite for circular ones."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")
        known[id(value)] = 1 + sum(
            _size(item, known) for item in (value.values() if isinstance(value, dict) else value)
        )
    return known[id(value)]
