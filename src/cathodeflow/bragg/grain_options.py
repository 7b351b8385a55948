"""Options of the indexing of grains."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from cathodeflow.cell_options import Cell
from cathodeflow.options import Options, option

Count = Annotated[int, Field(ge=1, le=64)]


class Grains(Options):
    """Spots of a rotation scan -> grains with orientation, position, cell and strain, where the sheet asks for it."""

    cell: Cell = option(Cell(), "Cell of the grains.")
    axis: tuple[float, float, float] | None = option(
        None,
        "Direction of the axis about which the sample turns right-handed, with x to the left as seen along the beam, y "
        "up and z along the beam. Default: that of the geometry file, else (0, 1, 0).",
    )
    d_min: float | None = option(
        None,
        "Smallest lattice spacing of the reflections that are used. Default: that of the spots, without "
        "the outermost 5 %.",
        unit="Angstrom",
        gt=0,
    )
    max_offset: float = option(
        0.5, "Maximum distance of a grain from the axis of rotation. Increase it for large samples.", unit="mm", gt=0
    )
    max_strain: float = option(
        0.002,
        "Maximum relative difference between the lattice spacings of a grain and those of the cell.",
        ge=0,
        lt=0.1,
    )
    omega_tolerance: float = option(
        0.5, "Maximum difference between the angle of a spot and that of its reflection.", unit="deg", gt=0, le=10
    )
    n_families: int = option(
        10,
        "Number of families of reflections, from the largest lattice spacing down, that are combined in "
        "pairs to find orientations.",
        ge=2,
    )
    n_partners: int = option(
        200, "Maximum number of spots that each spot is combined with. Increase it if grains are missed.", ge=1
    )
    max_failures: int = option(
        300,
        "Spots are tried from the strongest down; the search ends after this many in a row that lead to "
        "no grain. Increase it if weak grains are missed.",
        ge=1,
    )
    min_completeness: float = option(
        0.5, "Minimum completeness of a grain: fraction of its reflections on the detector that are found.", gt=0, le=1
    )
    min_spots: int = option(8, "Minimum number of spots of a grain.", ge=4)
    max_deviation: float = option(
        5.0, "Spots further from their reflection than this many standard deviations (sigma) are left out.", gt=1
    )
    calibrate: bool = option(
        False,
        "Refine the instrument with the grains, all of which must then have exactly the given cell, like "
        "a calibrant: shift and tilt of the detector, tilt of the axis, scale of the angles, and "
        "`modules`.",
    )
    modules: tuple[Count, Count] = option(
        (1, 1), "Number of modules of the detector along rows and columns, whose positions `calibrate` refines."
    )

    @model_validator(mode="after")
    def _direction(self) -> Self:
        if self.axis is not None and not any(self.axis):
            raise ValueError("axis: a direction other than (0, 0, 0)")
        return self


class GrainFigures(Options):
    """Grains of a rotation scan -> figure of their positions, cells and residuals."""

    shown: float = option(4.0, "Range of the residuals that is drawn, in multiples of their root mean square.", gt=0)
