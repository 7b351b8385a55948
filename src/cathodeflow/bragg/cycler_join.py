"""Voltage and charge of every scan of a series from the table of the cycler."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cathodeflow.bragg.series_options import Cycler
from cathodeflow.errors import InputError


def cycler_columns(options: Cycler, times: Mapping[str, float]) -> list[str]:
    """Columns of the cycler's table that are needed: the time where scans have one, else the charge."""
    return [options.time if times else options.charge, options.voltage]


def scan_voltages(
    table: pd.DataFrame, states: Mapping[str, float], times: Mapping[str, float], options: Cycler
) -> dict[str, float]:
    """Voltage of every scan [V], interpolated linearly.

    Parameters
    ----------
    table : DataFrame
        Of the cycler, with the columns of `cycler_columns`.
    states : mapping
        State of charge of each scan.
    times : mapping
        Time of each scan, of all or of none; without times the scans are joined by their state of charge.
    options : Cycler

    Raises
    ------
    InputError
        Some scans have a time and others none, a scan is outside the table, or the charge is not monotonic, so that
        a state of charge does not have one voltage.
    """
    where = str(options.file)
    if times and (without := [name for name in states if name not in times]):
        raise InputError("bragg sample sheet", f"no time for {', '.join(without)}", "a time for all scans, or for none")
    if times:
        known, wanted, name = table[options.time].to_numpy(), times, options.time
    else:
        known, wanted, name = table[options.charge].to_numpy() / (options.capacity or 1.0), states, options.charge
    steps = np.diff(known)
    if not ((steps >= 0).all() or (steps <= 0).all()):
        expected = "one that only rises or only falls" + ("" if times else ", or a `time` of every scan in the sheet")
        raise InputError(where, f"{name} that rises and falls", expected)
    order = np.argsort(known, kind="stable")
    known, voltage = known[order], table[options.voltage].to_numpy()[order]
    margin = 1e-6 * max(float(np.ptp(known)), 1e-12)
    outside = [n for n, value in wanted.items() if not known[0] - margin <= value <= known[-1] + margin]
    if outside:
        found = f"{name} from {known[0]:g} to {known[-1]:g}"
        raise InputError(where, found, f"that of {', '.join(f'{n} ({wanted[n]:g})' for n in outside)}")
    return {name: float(np.interp(value, known, voltage)) for name, value in wanted.items()}
