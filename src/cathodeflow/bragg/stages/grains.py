"""Stage: index the spots of a rotation scan and refine its grains."""

import logging

import gemmi
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.bragg.detector_positions import flat_pixels
from cathodeflow.bragg.grain_options import Grains
from cathodeflow.bragg.grain_refinement import SeenRegion
from cathodeflow.bragg.grain_search import Found, Measured, find_grains
from cathodeflow.bragg.grain_tables import grain_spot_table, grain_table
from cathodeflow.bragg.reflections import PARAMETERS, free_cell
from cathodeflow.bragg.rotation_scans import rotation_scan
from cathodeflow.cell_options import Cell, unit_cell
from cathodeflow.errors import InputError
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.geometry_files import read_detector_geometry
from cathodeflow.io.tables import read_table, write_table
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage
from cathodeflow.statistics import median

log = logging.getLogger("cathodeflow.bragg")

_COLUMNS = ["spot", "row", "col", "omega", "row_err", "col_err", "omega_err", "intensity", "good"]


@stage("bragg.grains")
def grains(
    frames: InputFile,
    spots: InputFile,
    detector_file: InputFile,
    *,
    out: OutputFile,
    spots_out: OutputFile,
    detector: str | None = None,
    energy_kev: float | None = None,
    options: Grains,
) -> Metrics:
    """Find the grains in the SPOTS of the rotation scan FRAMES with the geometry in DETECTOR_FILE.

    Orientation, position, cell and strain of each grain follow from all of its reflections.

    Parameters
    ----------
    frames : path
        Frames file (frames.h5), with the angle of every frame.
    spots : path
        Table of the spots (spots.parquet).
    detector_file : path
        Geometry of the detector: a PONI file (pyFAI), an instrument of hexrd (YAML), or a NeXus file.
    out : path
        Table of the grains to write (Parquet): a row per grain.
    spots_out : path
        Table of the spots of all grains to write (Parquet), with grain and hkl.
    detector : str
        Name of the detector in the geometry file. Default: the only one that the file describes.
    energy_kev : float
        Photon energy [keV], instead of that in the geometry file.

    Raises
    ------
    InputError
        Cell, energy or angles are missing, or the geometry cannot be read or is of a detector of another shape.
    """
    cell, group = _cell(options.cell)
    free = free_cell(group)
    with read_frames_file(frames) as file:
        geometry = read_detector_geometry(detector_file, detector=detector, shape=file.raw_shape)
        if file.omega is None or not np.isfinite(file.omega).all() or len(np.unique(file.omega)) < 2:
            raise InputError(frames, "no angle of the sample for some frames", "the angle (omega) of every frame")
        step = float(np.median(np.abs(np.diff(file.omega))))
        region = SeenRegion(file.raw_shape, file.omega, step, geometry)
    energy = geometry.energy_kev if energy_kev is None else energy_kev
    if energy is None:
        raise InputError(geometry.where, "no photon energy", "one in the geometry file, or energy_kev")
    axis = options.axis or ((0.0, 1.0, 0.0) if geometry.axis is None else geometry.axis)
    scan = rotation_scan(geometry, axis, energy)
    table = read_table(spots, _COLUMNS)
    used = _usable(table, step)
    row, col = flat_pixels(geometry, used["row"], used["col"])
    if (outside := ~np.isfinite(row)).any():
        log.warning("%d of %d spots lie on no module of the detector: they are not used", outside.sum(), len(used))
        used, row, col = used[~outside].reset_index(drop=True), row[~outside], col[~outside]
    place = np.column_stack([row, col, used["omega"]])
    sigma = used[["row_err", "col_err", "omega_err"]].to_numpy(np.float64)
    intensity = used["intensity"].to_numpy(np.float64)
    found = find_grains(scan, region, Measured(place, sigma, intensity), cell, group, options)
    write_table(out, grain_table(found, sigma, free))
    assigned = grain_spot_table(found, used["spot"].to_numpy(np.int64), place)
    write_table(spots_out, assigned)
    if not found.grains:
        log.warning(
            "no grain found among %d spots: check cell, geometry and axis, or lower min_completeness", len(used)
        )
    log.info("%d grains, %d of %d spots assigned", len(found.grains), len(assigned), len(used))
    return _metrics(found, len(used), len(assigned))


def _cell(options: Cell) -> tuple[NDArray[np.float64], gemmi.SpaceGroup]:
    """Return the six parameters of the cell, and its space group."""
    where = options.file or "bragg.grains.cell"
    lengths, angles, name = unit_cell(options)
    group = gemmi.find_spacegroup_by_name(name, *((angles[0], angles[2]) if angles else ()))
    if group is None:
        raise InputError(where, f"space group {name}", "a symbol such as R -3 m:H, or a number")
    free = free_cell(group)
    if angles is None:
        if not set(free.names) <= {"a", "b", "c"}:
            raise InputError(where, f"space group {group.xhm()} without angles", "a CIF file with the cell (file)")
        angles = tuple(free.fixed[3:])
    cell = np.array([*lengths, *angles], np.float64)
    if not np.allclose(free.all(free.free(cell)), cell, atol=1e-4):
        found = ", ".join(f"{value:g}" for value in cell)
        raise InputError(where, f"a cell {found}", f"one as the space group {group.xhm()} has it")
    return cell, group


def _usable(table: pd.DataFrame, step: float) -> pd.DataFrame:
    """Keep good spots with a position and errors; a spot on one frame has the angle of the whole frame."""
    known = np.isfinite(table[["row", "col", "omega", "row_err", "col_err"]].to_numpy(np.float64)).all(axis=1)
    used = table[table["good"].to_numpy(bool) & known].reset_index(drop=True)
    return used.assign(omega_err=used["omega_err"].where(used["omega_err"] > 0, step / np.sqrt(12)))


def _metrics(found: Found, n_spots: int, n_assigned: int) -> Metrics:
    cells = np.array([solution.fit.grain.cell for solution in found.grains]).reshape(-1, 6)
    complete = [len(solution.spots.spot) / max(solution.spots.expected, 1) for solution in found.grains]
    metrics = {
        "grains": len(found.grains),
        "spots": n_spots,
        "share_assigned": n_assigned / n_spots if n_spots else None,
        "median_completeness": median(complete),
        "d_min": found.d_min,
        **{f"median_{name}": median(values) for name, values in zip(PARAMETERS, cells.T, strict=True)},
        **dict(zip(("added_row_err", "added_col_err", "added_omega_err"), found.added.tolist(), strict=True)),
    }
    if (instrument := found.instrument) is not None:
        metrics |= {"detector_along": instrument.along, "detector_across": instrument.across}
        metrics |= {f"detector_tilt_{name}": value for name, value in zip("rcn", instrument.tilt.tolist(), strict=True)}
        metrics |= {"axis_tilt": instrument.axis, "omega_scale": instrument.omega_scale}
        metrics["modules"] = instrument.modules.tolist()
    return Metrics(metrics)
