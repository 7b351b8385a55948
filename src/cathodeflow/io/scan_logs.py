"""Motors of a scan from files of beamlines: SPEC, fio (PETRA III), HDF5 and NeXus (BLISS, MAX IV, SOLEIL).

fio: `%p` begins lines `name = value`, `%d` the columns (`Col 1 om DOUBLE`) and their values.
HDF5: every number, or number for each frame, by the path of its dataset; in a file of several scans, of one entry.
"""

import os
import re
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded, one_line
from cathodeflow.io.hdf5 import open_hdf5
from cathodeflow.io.hdf5_search import walk
from cathodeflow.io.spec import read_spec_scan

Floats = NDArray[np.float64]
_HDF5 = (".h5", ".hdf5", ".nxs", ".nx5", ".cxi", ".hdf", ".nexus")
# Beyond this length a dataset is no list of the positions of a motor.
_LONGEST = 100_000


class ScanLog(NamedTuple):
    """What a file says of the motors of a scan.

    Attributes
    ----------
    where : str
        File and scan, for messages.
    motors : dict of str to float
        Single values by name, or by path in HDF5.
    columns : dict of str to (n,) float64
        Values for each point, likewise.
    n_points : int, optional
        Number of points, where the file has a table of them.
    detector : str
        Name of the area detector, "" if it is not said.
    region : (slice, slice), optional
        Rows and columns of the detector that were saved.
    """

    where: str
    motors: dict[str, float]
    columns: dict[str, Floats]
    n_points: int | None
    detector: str = ""
    region: tuple[slice, slice] | None = None

    def require_points(self, n_frames: int | None) -> None:
        """Require as many points as there are frames, if both numbers are known.

        Raises
        ------
        InputError
            They differ.
        """
        if n_frames is not None and self.n_points is not None and self.n_points != n_frames:
            expected = f"{n_frames}, one for each frame of the scan"
            raise InputError(self.where, f"{self.n_points} points", expected)

    def find(self, names: tuple[str, ...], n_points: int | None = None) -> float | Floats | None:
        """Find a quantity by its names, the preferred one first: its value for each point, else its single value.

        Parameters
        ----------
        names : tuple of str
            In upper or lower case. In HDF5 the end of the path of a dataset, such as `eta` or `positioners/eta`.
        n_points : int, optional
            Number of points that a column must have. Default: any.
        """
        for name in names:
            wanted = name.lower()
            for table in (self.columns, self.motors):
                found = [key for key in table if f"/{key.lower()}".endswith(f"/{wanted}")]
                if table is self.columns and n_points is not None:
                    found = [key for key in found if len(self.columns[key]) == n_points]
                if found:
                    # Of several, such as positions before and after the scan, the one highest in the file.
                    value = table[min(found, key=lambda key: (key.count("/"), key))]
                    return float(value) if np.ndim(value) == 0 else np.asarray(value)
        return None


def read_scan_log(path: str | os.PathLike[str], number: int | None = None) -> ScanLog:
    """Read the motors of a scan.

    Parameters
    ----------
    path : path
        SPEC file, fio file (`.fio`), or HDF5 file (`.h5`, `.hdf5`, `.nxs`, `.cxi`).
    number : int, optional
        Number of the scan, needed for SPEC files and HDF5 files of several scans.

    Raises
    ------
    InputError
        The file cannot be read, or has no such scan.
    """
    name = os.fspath(path)
    if name.lower().endswith(".fio"):
        return _of_fio(name)
    if name.lower().endswith(_HDF5):
        return _of_hdf5(name, number)
    if number is None:
        raise InputError("--scan", "nothing", f"the number of a scan in {name}")
    scan = read_spec_scan(path, number)
    return ScanLog(scan.where, scan.motors, scan.columns, len(scan.positions), scan.detector, scan.region)


def scan_entry(file: h5py.File, number: int | None) -> str:
    """Name the group of a scan in an HDF5 file: `3.1` of BLISS, `scan_0003`, or the only group.

    Raises
    ------
    InputError
        There are several groups and none of this number, or no number is given.
    """
    groups = [name for name, node in file.items() if isinstance(node, h5py.Group)]
    if number is not None:
        found = [name for name in groups if re.fullmatch(rf"(.*\D)?0*{number}(\.1)?", name)]
        if found:
            return min(found, key=len)
    if len(groups) != 1:
        named = ", ".join(groups[:8]) + (" ..." if len(groups) > 8 else "")
        expected = "the number of one of them" if number is None else f"a scan {number}"
        raise InputError(file.filename, f"groups {named or 'none'}", expected)
    return str(groups[0])


def _of_hdf5(path: str, number: int | None) -> ScanLog:
    motors: dict[str, float] = {}
    columns: dict[str, Floats] = {}
    with open_hdf5(path) as file, guarded(path, "a readable HDF5 file"):
        entry = scan_entry(file, number)
        nodes, _ = walk(file, f"/{entry}", images_only=False)
        for node in nodes:
            dataset = node.dataset
            if dataset.dtype.kind not in "iuf" or dataset.ndim > 1 or not 0 < dataset.size <= _LONGEST:
                continue
            values = np.asarray(dataset[()], np.float64).reshape(-1)
            if len(values) == 1:
                motors[node.path] = float(values[0])
            else:
                columns[node.path] = values
    # Datasets of other lengths are no points, so their number is not known.
    return ScanLog(f"{path}, {entry}", motors, columns, None)


def _of_fio(path: str) -> ScanLog:
    motors: dict[str, float] = {}
    names: list[str] = []
    rows: list[list[float]] = []
    section = ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in map(str.strip, file):
                if re.fullmatch(r"%[a-z]", line):
                    section = line
                elif not line or line.startswith("!"):
                    continue
                elif section == "%p" and (match := re.fullmatch(r"(\S+)\s*=\s*([-+.\deE]+)", line)):
                    motors[match[1]] = float(match[2])
                elif section == "%d" and (match := re.match(r"Col\s+\d+\s+(\S+)", line)):
                    names.append(match[1])
                elif section == "%d":
                    rows.append([_number(word) for word in line.split()])
    except OSError as error:
        raise InputError(path, error.strerror or one_line(error), "a fio file") from error
    except ValueError as error:
        raise InputError(path, f"an error ({one_line(error)})", "numbers in a fio file") from error
    if not section:
        raise InputError(path, "no section %p or %d", "a fio file")
    if any(len(row) != len(names) for row in rows):
        raise InputError(path, f"a row of {next(len(r) for r in rows if len(r) != len(names))} values",
                         f"{len(names)}, one for each column")  # fmt: skip
    table = np.array(rows, np.float64).reshape(-1, len(names))
    columns = {name: table[:, index] for index, name in enumerate(names)}
    return ScanLog(path, motors, columns, len(rows) or None)


def _number(word: str) -> float:
    """Read a number; other words, such as file names in a column, are NaN."""
    try:
        return float(word)
    except ValueError:
        return float("nan")
