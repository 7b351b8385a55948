"""Stage: from positions on the detector to scattering angles and lattice spacings."""

import logging
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.bragg.binning import to_detector
from cathodeflow.bragg.peak_options import Geometry
from cathodeflow.bragg.scattering import scattering
from cathodeflow.errors import InputError
from cathodeflow.io.frames_file import FramesFile, read_frames_file
from cathodeflow.io.geometry_files import read_detector_geometry
from cathodeflow.io.peaks import read_peaks
from cathodeflow.io.tables import write_table
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage
from cathodeflow.statistics import median

log = logging.getLogger("cathodeflow.bragg")

# Columns of the peaks that later choices need, where the file has them.
_KEPT = ("candidate", "persistence", "converged", "good")


@stage("bragg.geometry")
def geometry(
    frames: InputFile,
    detector_file: InputFile,
    *,
    out: OutputFile,
    fitted: InputFile | None = None,
    located: InputFile | None = None,
    options: Geometry,
) -> Metrics:
    """Compute scattering angles, scattering vectors and lattice spacings of peaks with the geometry in DETECTOR_FILE.

    Parameters
    ----------
    frames : path
        Frames file (frames.h5); its photon energies are used where it has them, else that of the geometry.
    detector_file : path
        Geometry of the detector: a PONI file (pyFAI), an instrument of hexrd (YAML), or a NeXus file.
    out : path
        Table to write (Parquet): a row per peak of either method.
    fitted : path
        Fitted peaks (peaks.h5).
    located : path
        Peaks that the network located (located.h5).

    Raises
    ------
    InputError
        The geometry cannot be read or is of a detector of another shape, or no peaks are given.
    """
    given = {"fit": fitted, "network": located}
    if not any(given.values()):
        raise InputError("--fitted, --located", "nothing", "at least one file of peaks")
    with read_frames_file(frames) as file:
        place = read_detector_geometry(detector_file, detector=options.detector, shape=file.raw_shape)
        tables = []
        for method, path in given.items():
            if path:
                peaks = read_peaks(path, None)
                index = peaks["peak_fidx"].astype(np.int64)
                if len(index) and index.max() >= len(file.frames):
                    raise InputError(path, f"peaks of frame {index.max()}", f"peaks of {len(file.frames)} frames")
                row, col, row_err, col_err = _on_detector(peaks, file.binning)
                energy = _energies(file, place.energy_kev)[index]
                found = scattering(place, row, col, row_err=row_err, col_err=col_err, energy_kev=energy)
                omega = np.full(len(file.frames), np.nan) if file.omega is None else file.omega
                columns = {"method": np.full(len(index), method), "frame": index, "omega": omega[index]}
                columns |= {"detector_row": row, "detector_col": col, "energy_kev": energy, **found._asdict()}
                columns |= {name: peaks[name] for name in _KEPT if name in peaks}
                tables.append(pd.DataFrame(columns))
        known = np.isfinite(_energies(file, place.energy_kev))
    if not known.all():
        log.warning("no photon energy for %d of %d frames: their q and d are empty", (~known).sum(), len(known))
    table = pd.concat(tables, ignore_index=True)
    outside = int(table["two_theta"].isna().sum())
    if outside:
        log.warning("%d of %d peaks lie on no module of the detector: their angles are empty", outside, len(table))
    write_table(out, table)
    log.info("%d peaks between %.3f and %.3f degrees", len(table), *_limits(table["two_theta"]))
    errors = {f"median_{name}_err": median(table[f"{name}_err"].dropna()) for name in ("two_theta", "azimuth", "d")}
    low, high = _limits(table["two_theta"])
    return Metrics({"peaks": len(table), "min_two_theta": low, "max_two_theta": high, **errors})


def _on_detector(peaks: dict[str, NDArray[Any]], binning: int) -> tuple[NDArray[np.float64], ...]:
    """Return row and column of peaks in detector pixels and their standard errors, NaN where the file has none."""
    found = []
    for axis in ("row", "col"):
        stored = peaks.get(f"detector_{axis}")
        found.append(np.asarray(to_detector(peaks[f"peak_{axis}"], binning) if stored is None else stored, float))
    for axis in ("row", "col"):
        error = peaks.get(f"{axis}_err", peaks.get(f"{axis}_std"))
        size = len(peaks["peak_fidx"])
        found.append(np.full(size, np.nan) if error is None else binning * np.asarray(error, float))
    return tuple(found)


def _energies(file: FramesFile, of_geometry: float | None) -> NDArray[np.float64]:
    fallback = np.full(len(file.frames), np.nan if of_geometry is None else of_geometry)
    return fallback if file.energy_kev is None else np.where(np.isfinite(file.energy_kev), file.energy_kev, fallback)


def _limits(values: pd.Series) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (float("nan"), float("nan"))
