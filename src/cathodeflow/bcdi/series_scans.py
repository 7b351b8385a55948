"""Scans of the sample sheet that form series of one particle. Light to import: the workflow reads it."""

from collections.abc import Mapping
from typing import NamedTuple

from cathodeflow.bcdi.scans import Scan
from cathodeflow.bcdi.series_options import CONDITIONS
from cathodeflow.series import ordered


class ScanSeries(NamedTuple):
    """Scans of one particle in the order of a condition.

    Attributes
    ----------
    scans : list of str
    against : str
        Column of the sample sheet that orders them.
    conditions : dict of str to list of float
        Columns in which all of them have a value.
    """

    scans: list[str]
    against: str
    conditions: dict[str, list[float]]


def scan_series(samples: Mapping[str, Scan], against: str | None, route: str) -> dict[str, ScanSeries]:
    """Find the series of the sample sheet, by their name.

    Parameters
    ----------
    samples : mapping of str to Scan
    against : str, optional
        Column that orders the scans. Default: the first of `CONDITIONS` that at least two scans of a series have.
    route : str
        Route to a reconstruction, which the scans of the series take.

    Examples
    --------
    >>> given = {"a": 4.2, "b": 3.6, "c": None}
    >>> samples = {name: Scan(sample=name, frames="*.tif", voltage=volt) for name, volt in given.items()}
    >>> scan_series(samples, None, "phase")
    {'all': ScanSeries(scans=['b', 'a'], against='voltage', conditions={'voltage': [3.6, 4.2]})}
    """
    found = {}
    for series in dict.fromkeys(scan.series for scan in samples.values()):
        scans = {name: scan for name, scan in samples.items() if scan.series == series and route in scan.routes}
        for column in CONDITIONS if against is None else (against,):
            names = ordered({name: getattr(scan, column) for name, scan in scans.items()})
            if names:
                values = {key: [getattr(scans[name], key) for name in names] for key in CONDITIONS}
                known = {key: column for key, column in values.items() if None not in column}
                found[series] = ScanSeries(names, column, known)
                break
    return found
