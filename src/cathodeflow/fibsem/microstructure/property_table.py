"""Properties of a microstructure as rows of a table, and the voxel that lengths are measured in."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Columns of `properties.csv`.
COLUMNS = (
    "property", "phase", "direction", "value", "unit", "standard_error", "low_68", "high_68", "low_95", "high_95",
    "note",
)  # fmt: skip
NAN = math.nan
#: Notes of what cannot be computed.
ABSENT, ONE_SLICE = "phase absent", "one voxel along this direction"


class Property(NamedTuple):
    """One property of a phase, or of a pair of phases such as `pore-active`.

    property, phase : str
    direction : int, optional
        Axis (0 slices, 1 rows, 2 columns); None for properties without a direction.
    value : float
        NaN if it cannot be computed, `inf` for a tortuosity factor without percolation; `note` says why.
    unit : str
        `1` for ratios.
    standard_error, low_68, high_68, low_95, high_95 : float
        Standard error and limits of the 68 % and 95 % intervals; NaN if they are not known.
    note : str
    """

    property: str
    phase: str
    direction: int | None
    value: float
    unit: str
    standard_error: float = NAN
    low_68: float = NAN
    high_68: float = NAN
    low_95: float = NAN
    high_95: float = NAN
    note: str = ""


class Curve(NamedTuple):
    """A two-point correlation or a distribution of sizes.

    name, phase : str
    direction : int, optional
    x : (n,) float64, distance or size [unit].
    y : (n,) float64, probability; for distributions, that of a size up to the next one.
    unit : str
    """

    name: str
    phase: str
    direction: int | None
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    unit: str


class Voxel(NamedTuple):
    """Size of a voxel.

    size : (3,) float, along slices, rows and columns [unit].
    unit : str, `um`, or `voxel` if the size is not known.
    """

    size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    unit: str = "voxel"

    @property
    def volume(self) -> float:
        """Volume of the voxel [unit ** 3]."""
        return math.prod(self.size)


def as_columns(properties: Iterable[Property]) -> dict[str, list[Any]]:
    """Return the columns of the table of properties; a missing direction is an empty text.

    Examples
    --------
    >>> columns = as_columns([Property("volume_fraction", "pore", None, 0.4, "1")])
    >>> columns["value"], columns["direction"]
    ([0.4], [''])
    """
    rows = list(properties)
    columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    columns["direction"] = ["" if value is None else str(value) for value in columns["direction"]]
    return columns
