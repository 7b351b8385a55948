"""Options of facets, line profiles and the resolution by direction."""

import re

from pydantic import field_validator

from cathodeflow.cell_options import Cell
from cathodeflow.options import Options, option


class Facets(Options):
    """Reconstruction -> facets with Miller indices and strain, line profiles, resolution by direction.

    Made for every scan if `reflection` is set, otherwise only on request, as by
    `snakemake results/bcdi/SCAN/phase/facets.png`.
    """

    reflection: tuple[int, ...] | None = option(
        None,
        "Miller indices h,k,l of the measured Bragg peak. Default: not known, facets get no indices.",
        min_length=3,
        max_length=3,
    )
    cell: Cell = option(Cell(), "Unit cell of the particle.")
    families: tuple[str, ...] = option(
        (),
        "Families of facets that can occur, such as `1 0 4`. Default: all with indices up to `max_index`.",
    )
    max_index: int = option(2, "Largest Miller index of facets, unless `families` names them.", ge=1, le=6)
    isosurface: float = option(
        0.5, "Level of the surface, as a fraction of the median amplitude in the particle.", gt=0, lt=1
    )
    smoothing: float = option(
        1.0,
        "Standard deviation of the Gaussian by which the amplitude is smoothed for the normals of the surface.",
        unit="px",
        gt=0,
        le=5,
    )
    bandwidth_deg: float = option(
        8.0,
        "Standard deviation of the kernel with which the density of the normals is estimated; its maxima are the "
        "facets. Decrease it if neighbouring facets are joined.",
        unit="degrees",
        gt=0,
        le=30,
    )
    max_angle_deg: float = option(
        15.0, "Maximum angle between the surface and the facet that it belongs to.", unit="degrees", gt=0, le=45
    )
    min_area: float = option(
        0.015, "Minimum flat area of a facet, as a fraction of the surface of the particle.", gt=0, lt=1
    )
    max_misfit_deg: float = option(
        10.0, "Maximum angle between a facet and the direction of its Miller indices.", unit="degrees", gt=0, le=45
    )
    depth: float = option(
        3.0, "Depth below the surface down to which voxels count for the strain of a facet.", unit="px", gt=1
    )
    cone_deg: float = option(
        30.0, "Half the opening angle of the cones in which the resolution is computed.", unit="degrees", gt=5, le=90
    )

    @field_validator("families")
    @classmethod
    def _indices(cls, families: tuple[str, ...]) -> tuple[str, ...]:
        if any(not re.fullmatch(r"-?\d+ -?\d+ -?\d+", family) or family in ("0 0 0",) for family in families):
            raise ValueError("three whole numbers each, separated by blanks, such as 1 0 4")
        return families

    @field_validator("reflection")
    @classmethod
    def _not_zero(cls, reflection: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if reflection is not None and not any(reflection):
            raise ValueError("three indices, not all 0")
        return reflection


class FacetFigures(Options):
    """Facets, profiles and resolution -> one figure."""

    strain_limit: float | None = option(
        None, "Limit of the colour scale of the strain, on both sides of 0. Default: from the facets.", gt=0
    )
