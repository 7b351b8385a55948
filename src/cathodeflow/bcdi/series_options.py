"""Options of series of scans of one particle: their simulation, the comparison of the scans, and its figure."""

from typing import Literal

from cathodeflow.options import Options, option

#: Columns of the sample sheet that a series can be ordered by, the first of which is used that its scans have.
CONDITIONS = ("state_of_charge", "time", "temperature", "voltage")
Condition = Literal["state_of_charge", "time", "temperature", "voltage"]


class ChargeSeries(Options):
    """Changes of the simulated crystal with the state of charge, for simulated scans that have one.

    All simulated scans of a series are of the same crystal.
    """

    lattice_change: float = option(
        0.0015, "Relative change of the lattice spacing from state of charge 0 to 1.", gt=-0.1, lt=0.1
    )
    phase_ranges: tuple[float, ...] = option(
        (0.5, 3.0),
        "Range of the phase in the crystal at state of charge 0 and 1, and its maximum in the middle.",
        unit="rad",
        min_length=2,
        max_length=2,
    )


class Series(Options):
    """Objects of the scans of one particle -> lattice spacing, strain, volume and shape against the state of charge."""

    against: Condition | None = option(
        None,
        "Column of the sample sheet that orders the scans. Default: the first of `state_of_charge`, `time`, "
        "`temperature` and `voltage` that at least two scans of the series have.",
    )
    reference: str | None = option(
        None, "Name of the scan that the mean strain refers to. Default: the first scan in the order."
    )
    min_correlation: float = option(
        0.9,
        "Minimum correlation of a start with the best start of its scan; the errors are the standard deviation over "
        "these starts.",
        gt=0,
        lt=1,
    )
    voxel_nm: float | None = option(
        None, "Side of the cubic voxels of the aligned objects. Default: that of the first scan.", unit="nm", gt=0
    )


class SeriesFigures(Options):
    """Series -> figure of all quantities, and of the strain of all scans with the same colour scale."""

    columns: int = option(5, "Maximum number of strain maps beside each other.", ge=1, le=12)
    strain_limit: float | None = option(
        None,
        "Limit of the colour scale of the strain, on both sides of 0. Default: from the strain of all scans.",
        gt=0,
    )
