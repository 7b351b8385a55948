"""Stage: write peaks or spots as other programs read them."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import pandas as pd

from cathodeflow.bragg import export_columns
from cathodeflow.bragg.peak_options import EXPORT_SUFFIXES, Export
from cathodeflow.errors import InputError
from cathodeflow.io.detector_geometry import DetectorGeometry
from cathodeflow.io.frames_file import FramesFile, read_frames_file
from cathodeflow.io.geometry_files import read_detector_geometry
from cathodeflow.io.peak_exports import write_columnfile, write_columnfile_hdf5, write_hexrd_spots, write_nxdata
from cathodeflow.io.peaks import read_peaks
from cathodeflow.io.tables import read_table
from cathodeflow.stage import InputFile, Metrics, OutputFolder, stage

log = logging.getLogger("cathodeflow.bragg")

_SPOTS = ("spot", "row", "col", "first_frame", "last_frame", "omega", "intensity", "fwhm_row", "fwhm_col")


@stage("bragg.export")
def export(
    tables: Sequence[InputFile],
    *,
    out: OutputFolder,
    frames: InputFile | None = None,
    geometry: InputFile | None = None,
    detector: str | None = None,
    sample: str = "scan",
    options: Export,
) -> Metrics:
    """Write the peaks or spots in TABLES as files for ImageD11, hexrd, or NeXus.

    The files are named peaks or spots, with .flt and .flt.h5 (ImageD11), .hexrd.out or .nxs.

    Parameters
    ----------
    tables : sequence of path
        Fitted peaks (peaks.h5), spots (spots.parquet) of a scan, or both.
    out : path
        Folder for the files.
    frames : path
        Frames file (frames.h5), for the angle of the sample and the photon energy of each frame.
    geometry : path
        Geometry of the detector: a PONI file (pyFAI), an instrument of hexrd (YAML), or a NeXus file. Needed for hexrd.
    detector : str
        Name of the detector in the geometry file. Default: the only one that the file describes.
    sample : str
        Name of the scan, for the title of the NeXus file.

    Raises
    ------
    InputError
        No format is given, a table is of another kind, or hexrd's positions on the panel cannot be computed.
    """
    if not options.formats:
        raise InputError("--formats", "nothing", "at least one of " + ", ".join(EXPORT_SUFFIXES))
    counts = {}
    with read_frames_file(frames) if frames else nullcontext() as file:
        place = None
        if geometry:
            shape = file.raw_shape if file else None
            place = read_detector_geometry(geometry, detector=detector, shape=shape)
        if "hexrd" in options.formats and (place is None or (file is None and place.shape is None)):
            needed = "--geometry" if place is None else "--frames"
            raise InputError(needed, "nothing", "a file, for the positions on the panel in the format hexrd")
        for table in tables:
            name = "spots" if table.endswith(".parquet") else "peaks"
            if name in counts:
                raise InputError(table, f"a second table of {name}", "one of peaks (.h5) and one of spots (.parquet)")
            rows = _spots(table, options) if name == "spots" else _peaks(table, file, options)
            if place is not None:
                rows = export_columns.with_angles(rows, place, _energies(rows, file, place))
            if not np.isfinite(rows["omega"]).all():
                log.warning("the angle of the sample is not known for all %s: it is NaN there", name)
            _write(rows, f"{out}/{name}", file, place, options, title=f"Bragg {name} of {sample}", source=table)
            counts[name] = len(rows)
            log.info("%d %s written as %s", len(rows), name, ", ".join(options.formats))
    return Metrics(counts)


def _write(
    rows: pd.DataFrame,
    stem: str,
    file: FramesFile | None,
    place: DetectorGeometry | None,
    options: Export,
    *,
    title: str,
    source: str,
) -> None:
    columns = export_columns.imaged11_columns(rows, len(file.frames) if file else None)
    for kind in options.formats:
        path = stem + EXPORT_SUFFIXES[kind]
        if kind == "imaged11":
            write_columnfile(path, columns)
        elif kind == "imaged11-hdf5":
            write_columnfile_hdf5(path, columns)
        elif kind == "hexrd" and place is not None:
            shape = file.raw_shape if file else place.shape
            assert shape is not None
            write_hexrd_spots(path, export_columns.hexrd_columns(rows, place, shape))
        elif kind == "nexus":
            known, units = export_columns.nexus_columns(rows), export_columns.UNITS
            write_nxdata(path, known, signal="intensity", units=units, title=title, source=source)


def _spots(path: str, options: Export) -> pd.DataFrame:
    spots = read_table(path, required=[*_SPOTS, "good"])
    return export_columns.spots_in_common(spots[spots["good"]] if options.only_good else spots).reset_index(drop=True)


def _peaks(path: str, file: FramesFile | None, options: Export) -> pd.DataFrame:
    needed = (*export_columns.FITTED, "candidate", "good", "converged", "detector_row", "detector_col")
    stored = read_peaks(path, needed)
    names = {"frame": "peak_fidx", "number": "candidate", "row": "peak_row", "col": "peak_col"}
    peaks = pd.DataFrame({name: stored[column] for name, column in names.items()} | stored)
    # Peaks without a fit have neither widths nor errors.
    peaks = peaks[(peaks["good"] if options.only_good else peaks["converged"]) != 0]
    if file is not None and len(peaks) and peaks["frame"].max() >= len(file.frames):
        raise InputError(path, f"peaks of frame {peaks['frame'].max()}", f"peaks of {len(file.frames)} frames")
    # By the definition of `to_detector`; the file of the frames is not always there.
    ratio = (peaks["detector_row"] + 0.5) / (peaks["row"] + 0.5)
    binning = file.binning if file is not None else round(float(ratio.median())) if len(peaks) else 1
    return export_columns.peaks_in_common(peaks, binning, None if file is None else file.omega).reset_index(drop=True)


def _energies(rows: pd.DataFrame, file: FramesFile | None, place: DetectorGeometry) -> np.ndarray | None:
    """Return the photon energy of each row: that of its middle frame, else that of the geometry."""
    if file is None or file.energy_kev is None:
        return None
    middle = ((rows["first_frame"] + rows["last_frame"]) // 2).to_numpy(np.int64)
    found = file.energy_kev[np.minimum(middle, len(file.energy_kev) - 1)]
    return found if place.energy_kev is None else np.where(np.isfinite(found), found, place.energy_kev)
