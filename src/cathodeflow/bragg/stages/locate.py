"""Stage: locate the peaks of a scan with BraggNN."""

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cathodeflow.bragg.binning import to_detector
from cathodeflow.bragg.calibration import stored_coefficients
from cathodeflow.bragg.candidate_table import COLUMNS, by_frame, require_inside
from cathodeflow.bragg.flags import FLAGS
from cathodeflow.bragg.model import from_weights
from cathodeflow.bragg.network_options import Locate
from cathodeflow.bragg.positions import build_locator, locate_frames
from cathodeflow.errors import InputError
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.models import load_model
from cathodeflow.io.peaks import read_peaks, write_peaks
from cathodeflow.io.tables import read_table, write_table
from cathodeflow.parallel import thread_count
from cathodeflow.progress import progress
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage
from cathodeflow.statistics import median

log = logging.getLogger("cathodeflow.bragg")


@stage("bragg.locate")
def locate(
    frames: InputFile,
    candidates: InputFile,
    *,
    table: OutputFile,
    out: OutputFile,
    fitted: InputFile | None = None,
    options: Locate,
) -> Metrics:
    """Locate the central peaks of CANDIDATES on FRAMES with a trained BraggNN (`--model`).

    Parameters
    ----------
    frames : path
        Frames file (frames.h5).
    candidates : path
        Table of candidate peaks that `find-peaks` wrote.
    table : path
        Table of the positions to write (Parquet).
    out : path
        File of the same peaks in the layout of peaks.h5, to write.
    fitted : path
        Fits of all candidates (peaks.h5), whose flags are added to the table.

    Raises
    ------
    InputError
        No model is given, it is not a BraggNN of this patch size, or the candidates are not those of the frames.
    """
    if not options.model:
        raise InputError("--model", "nothing", "a trained BraggNN")
    # Sums over several threads differ in their last bits: results must not depend on the available cores.
    torch.set_num_threads(1)
    weights, metadata = load_model(options.model)
    network = from_weights(weights, patch_size=options.patch_size, where=options.model)
    min_value = float(metadata.get("min_value", 0.0) if options.min_value is None else options.min_value)
    errors = stored_coefficients(metadata, options.model)
    if options.uncertainty and errors is None:
        log.warning("%s has no calibration: standard errors contain counting noise only", options.model)
    locator = build_locator(network, options, workers=thread_count(), errors=errors)
    found = read_table(candidates, COLUMNS)
    flags = _flags(fitted, len(found)) if fitted else {}
    found = found[found["central"].to_numpy(bool)]
    rows, cols = found["row"].to_numpy(), found["col"].to_numpy()
    with read_frames_file(frames) as file:
        require_inside(rows, cols, file.frames.shape[1:], candidates)
        binning = file.binning
        wanted = progress(by_frame(found, len(file.frames), candidates), "locating")
        pixels = ((file.frames[number], rows[part], cols[part]) for number, part in wanted)
        located = locate_frames(pixels, locator, patch_size=options.patch_size, min_value=min_value)
    columns = {"candidate": found.index.to_numpy(np.uint32), "persistence": found["persistence"].to_numpy()}
    columns |= {"detector_row": to_detector(located.row, binning), "detector_col": to_detector(located.col, binning)}
    if located.row_std is not None and located.col_std is not None:
        columns |= {"row_std": located.row_std, "col_std": located.col_std}
    columns |= {name: values[found.index] for name, values in flags.items()}
    write_table(table, {"frame": found["frame"].to_numpy(), "row": located.row, "col": located.col, **columns})
    distance = np.hypot(located.row - rows, located.col - cols)
    away = np.where(found["npeaks"] > 1, -1.0, distance)
    attributes = {"model": options.model, "binning": binning}
    write_peaks(
        out, found["frame"], located.row, located.col, away, found["npeaks"], columns=columns, attributes=attributes
    )
    log.info("%d peaks located", len(found))
    metrics: dict[str, Any] = {"peaks": len(found), "median_from_pixel": median(distance), "min_value": min_value}
    if options.uncertainty:
        metrics["calibrated"] = errors is not None
    return Metrics(metrics | {name: int(np.count_nonzero(columns[name])) for name in flags})


def _flags(fitted: str, n_candidates: int) -> dict[str, NDArray[np.bool_]]:
    """Read the flags of the fits, a row per candidate."""
    peaks = read_peaks(fitted, [*FLAGS, "good"])
    if len(peaks["good"]) != n_candidates:
        raise InputError(fitted, f"fits of {len(peaks['good'])} candidates", f"{n_candidates}, as in the table")
    return {name: peaks[name] != 0 for name in (*FLAGS, "good")}
