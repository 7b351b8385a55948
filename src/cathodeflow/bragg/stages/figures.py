"""Stage: draw the figures of a scan, or of the training."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cathodeflow.bragg import plots
from cathodeflow.bragg.crop import crop_patches
from cathodeflow.bragg.network_options import Figures
from cathodeflow.bragg.study_plots import search_settings
from cathodeflow.io.figures import save_figure
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.peaks import read_fits, read_peaks
from cathodeflow.io.tables import read_csv, read_json, read_table
from cathodeflow.plotting import training_curves
from cathodeflow.stage import InputFile, Metrics, OutputFolder, stage

LOSS_UNITS = {"mse": "squared patch sizes", "huber": "patch sizes"}


@stage("bragg.figures")
def figures(
    *,
    out: OutputFolder,
    sample: str = "scan",
    frames: InputFile | None = None,
    fitted: InputFile | None = None,
    located: InputFile | None = None,
    comparison: InputFile | None = None,
    by_intensity: InputFile | None = None,
    by_amplitude: InputFile | None = None,
    training: InputFile | None = None,
    study: InputFile | None = None,
    options: Figures,
) -> Metrics:
    """Draw the figures for which tables or records are given.

    With `frames` and `fitted` alone: fitted.png. With `comparison` and `located`: distances.png. With `by_intensity`
    too: intensity.png. With `frames` and `fitted` too: frame.png and patches.png. With `training`: train.png. With
    `study`: study.png.

    Parameters
    ----------
    out : path
        Folder for the figures.
    sample : str
        Name of the scan, for the titles.
    frames : path
        Frames file (frames.h5).
    fitted : path
        Fitted peaks (peaks.h5).
    located : path
        Table of the network's positions (located.parquet).
    comparison, by_intensity, by_amplitude : path
        Table that `compare` wrote.
    training : path
        Record of the training (train.json).
    study : path
        Comparison of search settings (study.csv).
    """
    drawn: dict[str, Figure] = {}
    if frames and fitted and not comparison:
        drawn["fitted"] = _fitted_only(frames, fitted, sample)
    if comparison:
        peaks = read_csv(comparison)
        drawn["distances"] = plots.distances(peaks)
        if by_intensity:
            errors = {str(name): rows for name, rows in read_csv(by_intensity).groupby("distance", sort=False)}
            detected = read_csv(by_amplitude) if by_amplitude and "network_truth" in peaks else None
            drawn["intensity"] = plots.error_against_intensity(errors, detected)
        if frames and fitted and located:
            positions = read_table(located, ["frame", "candidate"])
            drawn |= _of_frames(frames, peaks, read_fits(fitted), positions, sample, options)
    if training:
        record = read_json(training)
        unit, kept = LOSS_UNITS[record["options"]["loss"]], record["metrics"]["best_epoch"]
        drawn["train"] = training_curves(record["history"], unit=unit, kept=kept)
    if study:
        drawn["study"] = search_settings(read_csv(study))
    files = [f"{out}/{name}.png" for name in drawn]
    for path, figure in zip(files, drawn.values(), strict=True):
        save_figure(path, figure)
    return Metrics({}, figures=files)


def _fitted_only(frames: str, fitted: str, title: str) -> Figure:
    """Draw the frame with the most fitted peaks."""
    peaks = pd.DataFrame(read_peaks(fitted, ["persistence", "converged"]))
    peaks = peaks[peaks["converged"] != 0]
    busiest = int(peaks["peak_fidx"].mode().iloc[0]) if len(peaks) else 0
    names = {"peak_row": "network_row", "peak_col": "network_col"}
    shown = peaks[peaks["peak_fidx"] == busiest].rename(columns=names)
    with read_frames_file(frames) as file:
        image, number = file.frames[busiest], file.frame_number[busiest]
    return plots.frame_with_peaks(image, shown, title=f"{title}, frame {number}", persistence="persistence")


def _of_frames(
    frames: str, peaks: pd.DataFrame, fits: pd.DataFrame, positions: pd.DataFrame, title: str, options: Figures
) -> dict[str, Figure]:
    """Draw the frame with the most peaks, and the patches of the best, median and worst positions."""
    chosen = plots.choose_cases(peaks["network_fit"]).ravel()
    shown, size = peaks.iloc[chosen], options.patch_size
    with read_frames_file(frames) as file:
        corners = np.rint(shown[["network_row", "network_col"]].to_numpy()).astype(int)
        corners = np.clip(corners, 0, np.array(file.frames.shape[1:]) - 1)
        patches = [
            crop_patches(file.frames[int(frame)], [row], [col], size=size)[0]
            for frame, (row, col) in zip(shown["frame"], corners, strict=True)
        ]
        busiest = int(positions["frame"].mode().iloc[0]) if len(positions) else 0
        image, number = file.frames[busiest], file.frame_number[busiest]
    here = fits[fits["frame"] == busiest]
    fitted_only = here["good"] & ~here["candidate"].isin(positions["candidate"])
    title = f"{title}, frame {number}"
    return {
        "patches": plots.patch_sheet(np.array(patches), corners - size // 2, shown),
        "frame": plots.frame_with_peaks(
            image, peaks[peaks["frame"] == busiest], here[fitted_only], here[~here["good"]], title=title
        ),
    }
