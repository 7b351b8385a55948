"""Series of scans: columns of the sample sheet that order the scans of a sample, such as its state of charge."""

from collections.abc import Mapping
from typing import TypeVar

from cathodeflow.options import option
from cathodeflow.samples import Sample

#: Folder of the series in the results of a technique, so no scan may have this name.
SERIES_FOLDER = "series"

_Name = TypeVar("_Name", bound=str)


class SeriesSample(Sample):
    """A row of the sample sheet of a technique whose scans may form a series."""

    state_of_charge: float | None = option(
        None, "State of charge of the cell, 0 (discharged) to 1 (charged).", ge=0, le=1
    )
    time: float | None = option(
        None,
        "Time of the scan, in any unit; with a table of the cycler (`bragg.lattice.cycler`) in the unit of that table.",
    )


def ordered(values: Mapping[_Name, float | None]) -> list[_Name]:
    """Return the names of the scans that have a value, in its order; none if it is a single one.

    Examples
    --------
    >>> ordered({"b": 0.8, "a": 0.1, "c": None})
    ['a', 'b']
    """
    known = {name: value for name, value in values.items() if value is not None}
    return sorted(known, key=lambda name: known[name]) if len(known) > 1 else []
