"""Command that compares network, fit and truth."""

import logging

import click

from cathodeflow.bragg.cli.shared import group
from cathodeflow.bragg.options import Compare
from cathodeflow.commands import stage_command

log = logging.getLogger("cathodeflow.bragg")


@stage_command(group, Compare)
@click.argument("frames_file")
@click.argument("fitted_file")
@click.argument("located_file")
@click.option("--truth", metavar="FILE", help="Table of the true positions, for simulated scans.")
@click.option("--sample", required=True, help="Name of the scan.")
@click.option("--table", required=True, metavar="FILE", help="CSV table to write, a row per peak.")
@click.option("--record", required=True, metavar="FILE", help="JSON file for options and figures.")
@click.option("--figures", required=True, metavar="FOLDER", help="Folder for the figures.")
def compare(
    frames_file: str,
    fitted_file: str,
    located_file: str,
    truth: str | None,
    sample: str,
    table: str,
    record: str,
    figures: str,
    options: Compare,
) -> None:
    """Compare the positions of FITTED_FILE, LOCATED_FILE and the truth."""
    import numpy as np

    from cathodeflow.bragg import compare as stage
    from cathodeflow.bragg import plots
    from cathodeflow.bragg.crop import crop_patches
    from cathodeflow.bragg.simulate import TRUTH
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.frames_file import read_frames_file
    from cathodeflow.io.peaks import read_peaks
    from cathodeflow.io.tables import as_frame, read_table, write_csv
    from cathodeflow.record import write_record

    peaks = read_peaks(fitted_file, ["candidate", "converged"])
    fits = as_frame(
        {
            "frame": peaks["peak_fidx"],
            "row": peaks["peak_row"],
            "col": peaks["peak_col"],
            "candidate": peaks["candidate"],
        }
    )[peaks["converged"].astype(bool)]
    located = read_table(located_file, ["frame", "row", "col", "persistence", "candidate"])
    true = read_table(truth, list(TRUTH)) if truth else None
    rng = np.random.default_rng(options.seed or 0)
    with read_frames_file(frames_file) as file:
        if true is not None:
            numbers = {int(number): index for index, number in enumerate(file.frame_number)}
            true = true[true["frame"].isin(list(numbers))]
            true = true.assign(frame=true["frame"].map(numbers))
        result = stage.compare(
            fits,
            located,
            true,
            binning=file.binning,
            max_distance=options.max_distance,
            n_bins=options.n_bins,
            min_amplitude=options.min_amplitude,
            rng=rng,
        )
        chosen = plots.choose_cases(result.peaks["network_fit"]).ravel()
        shown = result.peaks.iloc[chosen]
        corners = np.rint(shown[["network_row", "network_col"]].to_numpy()).astype(int)
        corners = np.clip(corners, 0, np.array(file.frames.shape[1:]) - 1)
        patches = [
            crop_patches(file.frames[int(frame)], [row], [col], size=11)[0]
            for frame, (row, col) in zip(shown["frame"], corners, strict=True)
        ]
        busiest = int(located["frame"].mode().iloc[0]) if len(located) else 0
        drawn = {
            "patches": plots.patch_sheet(np.array(patches), corners - 5, shown),
            "distances": plots.distances(result.peaks),
            "intensity": plots.error_against_intensity(result.by_intensity, result.by_amplitude),
            "frame": plots.frame_with_peaks(
                file.frames[busiest],
                result.peaks[result.peaks["frame"] == busiest],
                fits[(fits["frame"] == busiest) & ~fits["candidate"].isin(located["candidate"])],
                title=f"{sample}, frame {file.frame_number[busiest]}",
            ),
        }
    files = [f"{figures}/{name}.png" for name in drawn]
    for path, figure in zip(files, drawn.values(), strict=True):
        save_figure(path, figure)
    write_csv(table, result.peaks)
    write_record(record, stage="bragg.compare", sample=sample, options=options, metrics=result.metrics, figures=files)
    for name in ("network_fit", "network_truth", "fit_truth"):
        if (value := result.metrics.get(f"{name}_median")) is not None:
            log.info("%s: median %.4f px", name.replace("_", " to "), value)
