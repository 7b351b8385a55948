"""Scans in SPEC files: motors, the scanned motor, its positions.

The format is described in the SPEC manual of Certified Scientific Software, "Standard Data File Format": `#O` names all
motors, separated by two blanks, `#o` their mnemonics, `#P` has their positions, `#L` names the columns of the data.
"""

import os
import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import one_line


class SpecScan(NamedTuple):
    """A scan of a SPEC file.

    Attributes
    ----------
    where : str
        File and scan, for messages.
    command : str
        As typed: `ascan  th -0.28 0.72  200 0.25`.
    motors : dict of str to float
        Positions of all motors before the scan, by name.
    scanned : str
        Name of the motor that was scanned.
    positions : (n,) float64
        Its position at each point.
    columns : dict of str to (n,) float64
        All columns of the scan by their labels.
    detector : str
        Name of the area detector, "" if there is none.
    region : (slice, slice), optional
        Rows and columns of the detector that were saved.
    """

    where: str
    command: str
    motors: dict[str, float]
    scanned: str
    positions: NDArray[np.float64]
    columns: dict[str, NDArray[np.float64]]
    detector: str
    region: tuple[slice, slice] | None


def read_spec_scan(path: str | os.PathLike[str], number: int) -> SpecScan:
    """Read a scan; if several have this number, the last one.

    Parameters
    ----------
    path : path
    number : int
        As in `#S 54`.

    Raises
    ------
    InputError
        The file cannot be read or has no such scan, or the scan has no motors or data.
    """
    where = f"{os.fspath(path)}, scan {number}"
    header, scan = _sections(path, number)
    command = scan[0].split(None, 2)[2] if len(scan[0].split(None, 2)) > 2 else ""
    motors = _motors(where, header, scan)
    labels = _last(scan, "#L ")
    points = [line.split() for line in scan if line.strip() and line[0] not in "#@"]
    if labels is None or not points:
        raise InputError(where, "no points", "a scan with data")
    # The first column is the motor in every kind of scan.
    scanned = re.split(r" {2,}", labels.strip())[0]
    if scanned not in motors:
        raise InputError(where, f"a scan over {scanned}", "a scan of one motor")
    try:
        table = np.array([[float(value) for value in point] for point in points])
    except ValueError as error:
        raise InputError(where, f"an error ({one_line(error)})", "numbers") from error
    columns = dict(zip(re.split(r" {2,}", labels.strip()), table.T, strict=False))
    detector = (_last(scan, "#UIMDET ") or "").strip().rstrip(":")
    return SpecScan(where, command, motors, scanned, table[:, 0], columns, detector, _region(where, scan))


def spec_scans(path: str | os.PathLike[str]) -> list[int]:
    """List the numbers of the scans of a SPEC file, in its order; a number that occurs twice once.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            heads = [line.split(None, 2) for line in file if line.startswith("#S ")]
    except OSError as error:
        raise InputError(os.fspath(path), error.strerror or one_line(error), "a SPEC file") from error
    return list(dict.fromkeys(int(words[1]) for words in heads if len(words) > 1 and words[1].isdigit()))


def _sections(path: str | os.PathLike[str], number: int) -> tuple[list[str], list[str]]:
    """Return the lines of the file header that applies to a scan, and those of the scan."""
    header: list[str] = []
    found: tuple[list[str], list[str]] | None = None
    current: list[str] = []
    seen = False
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("#F ") or line.startswith("#E "):
                    # Each time SPEC opens the file it writes a new header.
                    if current is not header:
                        header = []
                    current = header
                elif line.startswith("#S "):
                    seen, current = True, []
                    words = line.split(None, 2)
                    if len(words) > 1 and words[1] == str(number):
                        found = header, current
                current.append(line.rstrip("\n"))
    except OSError as error:
        raise InputError(os.fspath(path), error.strerror or one_line(error), "a SPEC file") from error
    if not seen:
        raise InputError(os.fspath(path), "no line #S", "a SPEC file with scans")
    if found is None:
        raise InputError(os.fspath(path), f"no scan {number}", "a scan of the file")
    return found


def _motors(where: str, header: list[str], scan: list[str]) -> dict[str, float]:
    names = [name for line in _numbered(header, "O") for name in re.split(r" {2,}", line.strip()) if name]
    values = [value for line in _numbered(scan, "P") for value in line.split()]
    if not names or len(names) != len(values):
        raise InputError(
            where, f"{len(names)} names and {len(values)} positions of motors", "one position for each name"
        )
    try:
        return dict(zip(names, map(float, values), strict=True))
    except ValueError as error:
        raise InputError(where, f"an error ({one_line(error)})", "positions of motors") from error


def _region(where: str, scan: list[str]) -> tuple[slice, slice] | None:
    """Rows and columns of `#UIMR5 column columns row rows`, the saved region of interest of 34-ID-C."""
    line = _last(scan, "#UIMR5 ")
    if line is None:
        return None
    try:
        col, cols, row, rows = map(int, line.split()[:4])
    except ValueError as error:
        raise InputError(where, f"#UIMR5 {line.strip()}", "first column, columns, first row, rows") from error
    return slice(row, row + rows), slice(col, col + cols)


def _numbered(lines: list[str], letter: str) -> list[str]:
    """Contents of the lines #O0, #O1, ... in the order of their numbers."""
    found = [re.match(rf"#{letter}(\d+) ?(.*)", line) for line in lines]
    return [match[2] for match in sorted(filter(None, found), key=lambda match: int(match[1]))]


def _last(lines: list[str], prefix: str) -> str | None:
    return next((line[len(prefix) :] for line in reversed(lines) if line.startswith(prefix)), None)
