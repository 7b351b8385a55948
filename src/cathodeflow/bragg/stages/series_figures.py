"""Stage: draw the figures of a series of scans."""

from matplotlib.figure import Figure

from cathodeflow.bragg.lattice_plots import lattice_figure
from cathodeflow.bragg.series_options import SeriesFigures
from cathodeflow.bragg.series_plots import tracks_on_detector
from cathodeflow.io.figures import save_figure
from cathodeflow.io.tables import read_csv, read_table
from cathodeflow.stage import InputFile, Metrics, OutputFolder, stage

_COLUMNS = ("sample", "state_of_charge", "track", "phase", "row", "col")


@stage("bragg.series_figures")
def series_figures(
    *,
    out: OutputFolder,
    tracks: InputFile | None = None,
    lattice: InputFile | None = None,
    summary: InputFile | None = None,
    options: SeriesFigures,
) -> Metrics:
    """Draw the figures of a series for which tables are given.

    With `tracks`: tracks.png. With `lattice` and `summary`: lattice.png.

    Parameters
    ----------
    out : path
        Folder for the figures.
    tracks : path
        Table of tracks (tracks.parquet).
    lattice : path
        Table of the lattice parameters of particles (lattice.csv).
    summary : path
        Table of their distribution in every state (summary.csv).
    """
    drawn: dict[str, Figure] = {}
    if tracks:
        drawn["tracks"] = tracks_on_detector(read_table(tracks, _COLUMNS), min_states=options.min_states)
    if lattice and summary:
        drawn["lattice"] = lattice_figure(read_csv(summary), read_csv(lattice))
    files = [f"{out}/{name}.png" for name in drawn]
    for path, figure in zip(files, drawn.values(), strict=True):
        save_figure(path, figure)
    return Metrics({}, figures=files)
