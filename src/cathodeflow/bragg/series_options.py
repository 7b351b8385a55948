"""Options of spots, of tracks over the states of charge, and of lattice parameters."""

from typing import Literal, Self

from pydantic import model_validator

from cathodeflow.cell_options import Cell
from cathodeflow.file_arguments import InputFile
from cathodeflow.options import Options, option


class Spots(Options):
    """Fitted peaks of neighbouring frames -> spots of a rocking scan, in row, column and angle of the sample."""

    max_distance: float = option(
        1.5,
        "Maximum distance between the peaks of a spot in neighbouring frames, in pixels of frames.h5.",
        unit="px",
        gt=0,
    )
    max_gap: int = option(1, "Maximum number of successive frames without a peak inside a spot.", ge=0, le=10)
    max_dip: float = option(
        0.5,
        "Two rocking curves that follow each other at one place are separated where the amplitude falls below this "
        "fraction of the lower of both maxima.",
        ge=0,
        lt=1,
    )
    min_frames: int = option(1, "Minimum number of frames in which a spot has a peak.", ge=1)


class Tracks(Options):
    """Spots of all scans of a series -> tracks of particles over the states of charge."""

    max_strain: float = option(
        0.06, "Maximum relative change of the lattice spacing of a particle between two states.", gt=0, le=0.5
    )
    max_azimuth: float = option(
        0.5, "Maximum change of the azimuth of a spot between two states, beyond its errors.", unit="deg", gt=0
    )
    max_angle: float = option(
        0.5,
        "Maximum change of the angle of the sample at which a particle diffracts, beyond its errors; in frames if the "
        "angles are not known.",
        unit="deg",
        gt=0,
    )
    max_gap: int = option(1, "Maximum number of successive states in which a particle is missed.", ge=0, le=10)
    ring_width: float = option(
        0.01,
        "Smoothing of the distribution of the lattice spacings in which rings are found, relative to the spacing. "
        "Decrease it if reflections are closer than about three times this.",
        gt=0,
        le=0.1,
    )


class Cycler(Options):
    """Table of the battery cycler, for the voltage of every scan."""

    file: InputFile | None = option(
        None, "Table of the cycler (CSV, TSV, Excel or Parquet). Default: none, the figures have no voltage."
    )
    time: str = option(
        "time", "Column of the cycler's table with the time, in the unit of the column `time` of the sample sheet."
    )
    voltage: str = option("voltage", "Column of the cycler's table with the voltage [V].")
    charge: str = option(
        "charge",
        "Column of the cycler's table with the charge or capacity, by which scans without a `time` in the"
        " sample sheet are matched.",
    )
    capacity: float | None = option(
        None,
        "Charge at a state of charge of 1, in the unit of the charge column. Default: the charge column "
        "holds the state of charge, 0 to 1.",
        gt=0,
    )


class Lattice(Options):
    """Tracks -> lattice parameters and strain of every particle, and their distribution in every state."""

    cell: Cell = option(Cell(), "Unit cell.")
    cycler: Cycler = option(Cycler(), "Table of the cycler.")
    reference: str | None = option(
        None,
        "Name of the scan that strain refers to. Default: for each track, its first scan in the order of charge.",
    )
    cell_error: float = option(
        0.005, "Relative standard error of the given lattice parameters, in the reference state.", gt=0, le=0.05
    )
    particle_spread: float = option(
        0.01,
        "Starting value for the standard deviation of the relative differences of d between particles, "
        "which is then estimated from the data. Increase it if many tracks are unexplained.",
        gt=0,
        le=0.1,
    )
    min_probability: float = option(
        0.99, "Minimum probability at which an hkl is assigned to a track; tracks below it are ambiguous.", gt=0.5, lt=1
    )
    spacing: Literal["relative", "absolute"] = option(
        "relative",
        "Lattice spacing from which a and c of a particle are computed: `relative` takes that of the "
        "population in the reference state times (1 + strain), which does not depend on the particle's "
        "position along the beam; `absolute` takes the particle's own d.",
    )
    min_weight: float = option(
        0.3,
        "Minimum weight of a lattice parameter in d (d ln d / d ln c) for a reflection to give that parameter.",
        gt=0,
        le=1,
    )
    bootstrap: int = option(1000, "Number of bootstrap samples of the intervals.", ge=100, le=100_000)
    seed: int | None = option(None, "Random seed of the bootstrap. Default: the workflow's seed.", ge=0)


class SeriesFigures(Options):
    """Tracks of a series -> figures."""

    min_states: int = option(2, "Minimum number of states of charge of the tracks that are drawn.", ge=1)


class Movie(Options):
    """Frames and peaks of the series -> movie in the order of charge (MP4 and GIF)."""

    frames_per_scan: int = option(
        40, "Maximum number of frames of each scan, evenly spaced over it; each is one picture of the movie.", ge=1
    )
    fps: int = option(10, "Pictures per second.", ge=1, le=60)
    height: int = option(
        720, "Height of the pictures, an even number; they are 16 : 9.", unit="px", ge=240, le=2160, multiple_of=2
    )
    min_counts: float | None = option(
        None, "Lower end of the logarithmic colour scale. Default: from the frames.", unit="counts", gt=0
    )
    max_counts: float | None = option(
        None, "Upper end of the logarithmic colour scale. Default: from the frames.", unit="counts", gt=0
    )
    colour_map: Literal["gray", "magma", "inferno", "viridis", "cividis"] = option(
        "gray", "Colour map of the intensity; `gray` leaves colour to the tracks."
    )
    max_distance: float = option(
        3.0, "Maximum distance between a peak and the spot whose track gives its colour.", unit="px", gt=0
    )
    gif: bool = option(True, "Write a GIF of smaller pictures beside the MP4 file.")
    gif_width: int = option(640, "Width of the pictures of the GIF.", unit="px", ge=120, le=1920)
    gif_frames: int = option(60, "Maximum number of pictures of the GIF, evenly spaced over the movie.", ge=1, le=500)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_counts is not None and self.max_counts is not None and self.min_counts >= self.max_counts:
            raise ValueError("min_counts below max_counts")
        return self
