"""Stage: draw the grains of a rotation scan."""

from cathodeflow.bragg.grain_options import GrainFigures
from cathodeflow.bragg.grain_plots import grain_figure
from cathodeflow.bragg.grain_tables import GRAIN_COLUMNS, SPOT_COLUMNS
from cathodeflow.io.figures import save_figure
from cathodeflow.io.tables import read_table
from cathodeflow.stage import InputFile, Metrics, OutputFolder, stage


@stage("bragg.grain_figures")
def grain_figures(grains: InputFile, spots: InputFile, *, out: OutputFolder, options: GrainFigures) -> Metrics:
    """Draw positions, cells and residuals of GRAINS with their SPOTS: grains.png.

    Parameters
    ----------
    grains : path
        Table of the grains (grains.parquet).
    spots : path
        Table of their spots (grain_spots.parquet).
    out : path
        Folder for the figure.
    """
    figure = grain_figure(read_table(grains, GRAIN_COLUMNS), read_table(spots, SPOT_COLUMNS), shown=options.shown)
    path = f"{out}/grains.png"
    save_figure(path, figure)
    return Metrics({}, figures=[path])
