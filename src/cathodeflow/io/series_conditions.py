"""Sample angle and photon energy of all frames of a series: from its files, or from a table, dataset or SPEC scan."""

import os

import numpy as np
import pandas as pd

from cathodeflow.errors import InputError
from cathodeflow.io.conditions import dataset_angles
from cathodeflow.io.formats import named
from cathodeflow.io.frames import FrameSeries
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import open_hdf5
from cathodeflow.io.raw_format import FrameConditions
from cathodeflow.io.sources import split_source
from cathodeflow.io.spec import read_spec_scan
from cathodeflow.io.tables import read_table

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": r"\s+", ".dat": r"\s+"}


def series_conditions(series: FrameSeries, omega_name: str | None = None) -> FrameConditions:
    """Read the angle and energy of every frame from the files of a series.

    Parameters
    ----------
    series : FrameSeries
    omega_name : str, optional
        Name of the angle in the files, or the path of its dataset in HDF5; by default the usual names.

    Returns
    -------
    FrameConditions
        (n_frames,) each, by the number in the series; NaN where the files say nothing and for files that are left out.

    Raises
    ------
    InputError
        What a file says cannot be read, or no file has an angle of the given name.
    """
    omega, energy = np.full((2, series.n_frames), np.nan)
    for file in series.files:
        reader = named(file.header.format).frames if file.header is not None else None
        if file.header is None or reader is None or reader.conditions is None:
            continue
        with guarded(file.path, "a readable header"):
            found = reader.conditions(file.path, file.header, omega_name)
        part = slice(file.first, file.first + file.n_frames)
        omega[part], energy[part] = found.omega, found.energy_kev
    if omega_name is not None and np.isnan(omega).all():
        raise InputError(series.source, f"no angle {omega_name} in the files", "the name of an angle (omega_name)")
    return FrameConditions(omega, energy)


def read_conditions(source: str, n_frames: int, omega_name: str | None = None) -> FrameConditions:
    """Read the angle and energy of every frame of a series from a file beside its frames.

    Parameters
    ----------
    source : str
        Table (`.csv`, `.tsv`, `.txt`, `.dat` with blanks, or `.parquet`) with a column `omega` [deg], `energy_kev` or
        both, and a row for each frame of the series; `FILE.h5::/DATASET`; or `FILE::NUMBER`, a scan of a SPEC file.
    n_frames : int
        Frames of the series.
    omega_name : str, optional
        Name of the angle: of the column, or of the motor; by default `omega`, and the motor that was scanned.

    Raises
    ------
    InputError
        The source cannot be read, or does not have a value for each frame.
    """
    path, part = split_source(source)
    unknown = np.full(n_frames, np.nan)
    if part is not None and part.isdigit():
        return _of_spec(path, int(part), n_frames, omega_name)
    if part is not None:
        with open_hdf5(path) as file, guarded(source, "readable angles"):
            return FrameConditions(dataset_angles(file, part, n_frames), unknown)
    table = _table(path)
    name = omega_name or "omega"
    columns = {"omega": name, "energy_kev": "energy_kev"}
    if not set(columns.values()) & set(table.columns):
        raise InputError(path, f"columns {', '.join(map(str, table.columns))[:200]}", f"a column {name} or energy_kev")
    if len(table) != n_frames:
        raise InputError(path, f"{len(table)} rows", f"{n_frames}, one for each frame")
    values = {}
    for key, column in columns.items():
        given = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64) if column in table else unknown
        if column in table and not np.isfinite(given).all():
            row = int(np.argmin(np.isfinite(given)))
            raise InputError(f"{path}, row {row + 1}", f"{column} = {table[column].iloc[row]}", "a number")
        values[key] = given
    return FrameConditions(**values)


def _of_spec(path: str, number: int, n_frames: int, omega_name: str | None) -> FrameConditions:
    scan = read_spec_scan(path, number)
    if omega_name is None or omega_name == scan.scanned:
        if len(scan.positions) != n_frames:
            raise InputError(scan.where, f"{len(scan.positions)} points", f"{n_frames}, one for each frame")
        omega = scan.positions.astype(np.float64)
    elif omega_name in scan.motors:
        omega = np.full(n_frames, scan.motors[omega_name])
    else:
        raise InputError(scan.where, f"no motor {omega_name}", f"one of {', '.join(scan.motors)}"[:300])
    energy = next((value for name, value in scan.motors.items() if name.lower() == "energy"), np.nan)
    # Beamlines of hard X-rays write keV or eV.
    return FrameConditions(omega, np.full(n_frames, energy / 1000 if energy > 1000 else energy))


def _table(path: str) -> pd.DataFrame:
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".parquet":
        return read_table(path)
    if suffix not in _SEPARATORS:
        raise InputError(path, f"suffix {suffix or 'none'}", f"{', '.join(_SEPARATORS)}, .parquet, or FILE::SCAN")
    if not os.path.isfile(path):
        raise InputError(path, "no such file", "a table of the angles of the frames")
    with guarded(path, "a table with a line of names"):
        return pd.read_csv(path, sep=_SEPARATORS[suffix], comment="#")
