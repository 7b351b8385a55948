"""Stage: draw the figure of the facets of a particle."""

from cathodeflow.bcdi.facet_options import FacetFigures
from cathodeflow.bcdi.facet_plots import facets_figure
from cathodeflow.bcdi.geometry import q_vector, restored
from cathodeflow.io.figures import save_figure
from cathodeflow.io.reconstructions import read_cxi
from cathodeflow.io.tables import read_csv
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage


@stage("bcdi.facet_figures")
def facet_figures(
    facets: InputFile,
    *,
    out: OutputFile,
    profiles: InputFile,
    directions: InputFile,
    reconstruction: InputFile,
    options: FacetFigures,
) -> Metrics:
    """Draw the FACETS of a particle, their strain, line profiles, and the resolution by direction.

    Parameters
    ----------
    facets : path
        Table of `facets` (facets.csv).
    out : path
        Figure to write (PNG).
    profiles : path
        Table of the line profiles (profiles.csv).
    directions : path
        Table of the resolution by direction (directions.csv).
    reconstruction : path
        CXI file of `strain`, for the geometry.
    """
    q = q_vector(restored(read_cxi(reconstruction).geometry))
    figure = facets_figure(
        read_csv(facets), read_csv(profiles), read_csv(directions), q, strain_limit=options.strain_limit
    )
    save_figure(out, figure)
    return Metrics({}, figures=[out])
