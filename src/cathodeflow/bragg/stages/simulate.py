"""Stage: simulate the raw frames of a scan."""

import logging

from cathodeflow.bragg.particles import PIXEL_SIZE
from cathodeflow.bragg.peak_options import Simulate
from cathodeflow.bragg.simulation import raw_frames, simulate_scan
from cathodeflow.errors import InputError
from cathodeflow.io.geometry_poni import write_poni
from cathodeflow.io.simulated import write_nexus_series, write_tiff, write_tiff_series
from cathodeflow.io.tables import write_csv, write_table
from cathodeflow.progress import progress
from cathodeflow.stage import Metrics, OutputFolder, stage

log = logging.getLogger("cathodeflow.bragg")


@stage("bragg.simulate")
def simulate(folder: OutputFolder, *, state_of_charge: float, options: Simulate) -> Metrics:
    """Simulate raw frames with known peaks and write them to FOLDER.

    Parameters
    ----------
    folder : path
        Folder for the raw frames, `dark.tif`, `mask.tif`, the angle of each frame (`omega.csv`), the geometry of the
        detector (`geometry.poni`) and the true positions (`truth.parquet`).
    state_of_charge : float
        State of charge of the cell, 0 (discharged) to 1 (charged).

    Raises
    ------
    InputError
        The state of charge is not between 0 and 1.
    """
    if not 0 <= state_of_charge <= 1:
        raise InputError("--state-of-charge", str(state_of_charge), "0 to 1")
    scan = simulate_scan(options, state_of_charge=state_of_charge)
    shown = progress(raw_frames(scan), "frames", total=options.n_frames)
    if options.format == "tiff":
        write_tiff_series(folder, shown)
    else:
        shape = (options.rows, options.cols)
        write_nexus_series(f"{folder}/frames.h5", shown, n_frames=options.n_frames, shape=shape)
    write_tiff(f"{folder}/dark.tif", scan.dark)
    write_tiff(f"{folder}/mask.tif", scan.mask)
    write_csv(f"{folder}/omega.csv", {"omega": scan.omega})
    place = scan.geometry
    write_poni(
        f"{folder}/geometry.poni",
        distance=place.distance * PIXEL_SIZE,
        beam=(place.beam_row, place.beam_col),
        pixel_size=PIXEL_SIZE,
        wavelength=place.wavelength,
        shape=(options.rows, options.cols),
    )
    write_table(f"{folder}/truth.parquet", scan.truth)
    log.info("%d frames with %d peaks", options.n_frames, len(scan.truth))
    return Metrics({"frames": options.n_frames, "peaks": len(scan.truth)})
