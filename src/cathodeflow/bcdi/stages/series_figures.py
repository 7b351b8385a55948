"""Stage: draw the figure of a series of scans of one particle."""

from cathodeflow.bcdi.series_options import SeriesFigures
from cathodeflow.bcdi.series_plots import series_figure
from cathodeflow.io.aligned_series import read_aligned_series
from cathodeflow.io.figures import save_figure
from cathodeflow.io.tables import read_csv
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage


@stage("bcdi.series_figures")
def series_figures(table: InputFile, aligned: InputFile, *, out: OutputFile, options: SeriesFigures) -> Metrics:
    """Draw lattice spacing, strain, volume and shape in TABLE, and the strain of the ALIGNED objects.

    Parameters
    ----------
    table : path
        CSV table of `series` (series.csv).
    aligned : path
        Objects on the same voxels of `series` (aligned.h5).
    out : path
        Figure to write (PNG).
    """
    objects = read_aligned_series(aligned)
    figure = series_figure(
        read_csv(table),
        objects.strain,
        objects.support,
        against=objects.against,
        voxel_nm=objects.voxel_nm,
        columns=options.columns,
        strain_limit=options.strain_limit,
    )
    save_figure(out, figure)
    return Metrics({}, figures=[out])
