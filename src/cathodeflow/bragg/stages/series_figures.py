"""Stage: draw the figures of a series of scans."""

from matplotlib.figure import Figure

from cathodeflow.bragg.options import SeriesFigures
from cathodeflow.bragg.series_plots import tracks_on_detector
from cathodeflow.io.figures import save_figure
from cathodeflow.io.tables import read_table
from cathodeflow.stage import InputFile, Metrics, OutputFolder, stage

_COLUMNS = ("sample", "state_of_charge", "track", "phase", "row", "col")


@stage("bragg.series_figures")
def series_figures(*, out: OutputFolder, tracks: InputFile | None = None, options: SeriesFigures) -> Metrics:
    """Draw the figures of a series for which tables are given.

    With `tracks`: tracks.png.

    Parameters
    ----------
    out : path
        Folder for the figures.
    tracks : path
        Table of tracks (tracks.parquet).
    """
    drawn: dict[str, Figure] = {}
    if tracks:
        drawn["tracks"] = tracks_on_detector(read_table(tracks, _COLUMNS), min_states=options.min_states)
    files = [f"{out}/{name}.png" for name in drawn]
    for path, figure in zip(files, drawn.values(), strict=True):
        save_figure(path, figure)
    return Metrics({}, figures=files)
