"""Discharge curves of cells by PyBaMM, an optional dependency (`cathodeflow[cell]`)."""

import copy
import importlib.util
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError

# Points of a curve.
_POINTS = 100


class Curve(NamedTuple):
    """A discharge at constant current, to the lower voltage cut-off.

    capacity : (100,) float64, charge that was drawn [A h]; the last one is the capacity of the discharge.
    voltage : (100,) float64 [V].
    """

    capacity: NDArray[np.float64]
    voltage: NDArray[np.float64]


def has_pybamm() -> bool:
    """Whether PyBaMM is installed."""
    return importlib.util.find_spec("pybamm") is not None


def require_pybamm() -> None:
    """Raise an error where PyBaMM is not installed.

    Raises
    ------
    InputError
    """
    if not has_pybamm():
        raise InputError("discharge", "PyBaMM is not installed", "pip install 'cathodeflow[cell]'")


def discharge(content: Mapping[str, Any], *, current: float, c_rate: float, model: str) -> Curve | None:
    """Discharge a full cell at constant current.

    Parameters
    ----------
    content : mapping
        A valid BPX file.
    current : float
        [A]
    c_rate : float
        Of this current; sets the longest time that is computed.
    model : str
        `DFN` or `SPMe`.

    Returns
    -------
    Curve, or None if the solver finds none, as for a cell that is below the cut-off from the start.

    References
    ----------
    V. Sulzer et al., Python Battery Mathematical Modelling (PyBaMM), J. Open Res. Softw. 9, 14 (2021)
    """
    import pybamm

    pybamm.set_logging_level("ERROR")
    with warnings.catch_warnings():
        # On defaults of the BPX section `State`, and on events at the end of a discharge.
        warnings.simplefilter("ignore")
        values = pybamm.ParameterValues.create_from_bpx_obj(_with_entropy(content))
        values["Current function [A]"] = current
        kind = {"DFN": pybamm.lithium_ion.DFN, "SPMe": pybamm.lithium_ion.SPMe}[model]
        try:
            solution = pybamm.Simulation(kind(), parameter_values=values).solve([0, 2 * 3600 / c_rate], initial_soc=1.0)
        except pybamm.SolverError:
            return None
        charge, voltage = (solution[name].entries for name in ("Discharge capacity [A.h]", "Voltage [V]"))
    grid = np.linspace(0, float(charge[-1]), _POINTS)
    return Curve(grid, np.interp(grid, charge, voltage))


def _with_entropy(content: Mapping[str, Any]) -> dict[str, Any]:
    """Set the entropic change of electrodes without one to 0: it has no effect at constant temperature."""
    full = copy.deepcopy(dict(content))
    for electrode in ("Negative electrode", "Positive electrode"):
        full["Parameterisation"][electrode].setdefault("Entropic change coefficient [V.K-1]", 0.0)
    return full
