"""Text files: configurations, text tables, and output for people. Light to import."""

import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cathodeflow.errors import InputError
from cathodeflow.io.atomic import atomic_path
from cathodeflow.io.guard import one_line

log = logging.getLogger("cathodeflow")

_Path = str | os.PathLike[str]
# UTF-32 first, as its mark begins with that of UTF-16.
_BYTE_ORDER_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}
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
    return read_piece(path, 0, n_bytes)


def read_piece(path: _Path, start: int, n_bytes: int) -> bytes:
    """Read bytes of a file from a position on; of one that cannot be read, none."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(n_bytes)
    except OSError:
        return b""


def decoded(path: str, content: bytes, expected: str) -> str:
    """Decode the text of a person: UTF-8, UTF-16 or UTF-32, otherwise Windows-1252, with a warning.

    Parameters
    ----------
    path, expected : str
        Name of the file and description of it, for errors.
    content : bytes

    Raises
    ------
    InputError
        It is no text.

    Examples
    --------
    >>> decoded("a.txt", "Käfer".encode("utf-16-le"), "a text")
    'Käfer'
    """
    encoding = _encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8" or b"\0" in content:
            raise InputError(path, f"an error ({one_line(error)})", f"{expected} in UTF-8") from None
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        raise InputError(path, f"an error ({one_line(error)})", f"{expected} in UTF-8") from None
    log.warning("%s is not in UTF-8: it was read as Windows-1252", path)
    return text


def _encoding(content: bytes) -> str:
    for mark, name in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return name
    # Every other byte of Latin letters in UTF-16 is zero.
    zeros = [content[start:200:2].count(0) for start in (0, 1)]
    if max(zeros) > len(content[:200]) // 4:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return "utf-8"


def read_lines(path: str, expected: str) -> list[tuple[int, str]]:
    """Read the lines of a text table, without empty lines and comments, which begin with `#`.

    Parameters
    ----------
    path : str
        Text as `decoded` reads it.
    expected : str
        Description of the file in errors.

    Returns
    -------
    list of (int, str)
        Line numbers, from 1, and lines.

    Raises
    ------
    InputError
        The file is missing or no text.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(path, "no such file", expected) from None
    except OSError as error:
        raise InputError(path, f"an error ({one_line(error)})", f"{expected} in UTF-8") from None
    lines = enumerate(re.split("\r\n|\r|\n", decoded(path, content, expected)), start=1)
    return [(number, line) for number, line in lines if line.strip() and not line.startswith("#")]


def read_yaml(path: str) -> dict[str, Any]:
    """Read a YAML file in UTF-8 that contains a mapping.

    Raises
    ------
    InputError
        The file is missing or not YAML, does not contain a mapping, has a key twice, or more than 100,000 values.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        _require_plain_spaces(path, text)
        values = yaml.load(text, Loader=_OnceLoader)
    except FileNotFoundError:
        raise InputError(path, "no such file", "a configuration file") from None
    except IsADirectoryError:
        raise InputError(path, "a folder", "a YAML file") from None
    except UnicodeDecodeError as error:
        # Not read in any other encoding, as Snakemake reads the file, too.
        found = "UTF-16 text" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "text in another encoding"
        raise InputError(path, found, "a YAML file in UTF-8; save it so in the editor") from None
    except _RepeatedKeyError as error:
        raise InputError(f"{path} line {error.line}", f"'{error.key}' a second time", "every key once") from None
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(path, text, error) from None
    except (OSError, ValueError, TypeError, RecursionError, OverflowError, AttributeError, yaml.YAMLError) as error:
        raise InputError(path, " ".join(str(error).split())[:300], "a YAML file") from None
    if values is None:
        raise InputError(path, "an empty file", "a mapping of settings")
    if not isinstance(values, dict):
        raise InputError(path, f"a {type(values).__name__}", "a mapping of settings")
    if _size(values, {}) > _MAX_VALUES:
        raise InputError(path, "aliases that expand to too many values", f"at most {_MAX_VALUES} values")
    return values


def _require_plain_spaces(path: str, text: str) -> None:
    """Refuse the spaces that web pages and word processors put at the beginning of lines: YAML takes them for keys."""
    for number, line in enumerate(text.splitlines(), start=1):
        if "\xa0" in line[: len(line) - len(line.lstrip())]:
            raise InputError(f"{path} line {number}", "a non-breaking space", "plain spaces before a key")


def _not_yaml(path: str, text: str, error: yaml.MarkedYAMLError) -> InputError:
    """Return the error of a YAML file with the number of the line and what is usually meant."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return InputError(path, str(error.problem), "a YAML file")
    where, line = f"{path} line {mark.line + 1}", [*text.splitlines(), ""][mark.line]
    problem = str(error.problem).removeprefix("found ").removeprefix("but found ")
    if "'\\t'" in problem or "\t" in line[: len(line) - len(line.lstrip())]:
        return InputError(where, "a tab", "spaces, as YAML allows no tabs between keys and values")
    if "unknown escape character" in problem:
        return InputError(where, f"'{line.strip()}'", "single quotes around a text with backslashes")
    if (error.context or "").endswith(("an alias", "next token")) or "undefined alias" in problem:
        return InputError(where, f"'{line.strip()}'", "quotes around a text that begins with * & @ % ` or !")
    if problem.startswith("another document"):
        return InputError(where, "a second document after ---", "one")
    begun = f" that begins in line {error.context_mark.line + 1}" if error.context_mark else ""
    part = str(error.context or "").removeprefix("while parsing ").removeprefix("while scanning ")
    return InputError(where, f"{problem} in {part}{begun}" if part else problem, "a YAML file")


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
