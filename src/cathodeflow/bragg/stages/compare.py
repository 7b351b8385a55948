"""Stage: compare the positions by the network with those by the fit and, where known, the truth."""

import logging

import pandas as pd

from cathodeflow.bragg.comparison import compare_positions
from cathodeflow.bragg.network_options import Compare
from cathodeflow.bragg.simulation import TRUTH
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.peaks import read_fits
from cathodeflow.io.tables import read_table, write_csv
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bragg")


@stage("bragg.compare")
def compare(
    frames: InputFile,
    fitted: InputFile,
    located: InputFile,
    *,
    table: OutputFile,
    by_intensity: OutputFile,
    by_amplitude: OutputFile,
    truth: InputFile | None = None,
    options: Compare,
) -> Metrics:
    """Compare the peak positions of LOCATED (network), FITTED and, where known, the truth.

    Parameters
    ----------
    frames : path
        Frames file (frames.h5).
    fitted : path
        Fitted peaks (peaks.h5).
    located : path
        Table of the network's positions (located.parquet).
    table : path
        CSV table to write: one row per peak.
    by_intensity : path
        CSV table to write: median distance in bins of intensity.
    by_amplitude : path
        CSV table to write: recall and precision in bins of amplitude; empty without a truth.
    truth : path
        Table of the true positions of a simulated scan.
    """
    fits = read_fits(fitted)
    positions = read_table(located, ["frame", "row", "col", "persistence", "candidate"])
    true = read_table(truth, list(TRUTH)) if truth else None
    with read_frames_file(frames) as file:
        binning = file.binning
        if true is not None:
            numbers = {int(number): index for index, number in enumerate(file.frame_number)}
            true = true[true["frame"].isin(list(numbers))]
            true = true.assign(frame=true["frame"].map(numbers))
    result = compare_positions(fits[fits["good"]], positions, true, options, binning=binning)
    write_csv(table, result.peaks)
    write_csv(by_intensity, pd.concat([rows.assign(distance=name) for name, rows in result.by_intensity.items()]))
    write_csv(by_amplitude, pd.DataFrame() if result.by_amplitude is None else result.by_amplitude)
    for name in ("network_fit", "network_truth", "fit_truth"):
        if (value := result.metrics.get(f"{name}_median")) is not None:
            log.info("median distance %s: %.4f px", name.replace("_", " to "), value)
    return Metrics(result.metrics)
