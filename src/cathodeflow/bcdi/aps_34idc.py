"""Geometry of rocking scans at beamline 34-ID-C of the Advanced Photon Source, from the motors of a SPEC file."""

from typing import Any

import numpy as np

from cathodeflow.bcdi.geometry import Geometry
from cathodeflow.errors import InputError
from cathodeflow.io.spec import SpecScan

# Motors of 34-ID-C by the fields of a geometry.
_MOTORS = {
    "energy_kev": "Energy",
    "distance_m": "camdist",
    "delta_deg": "Delta",
    "gamma_deg": "Gamma",
    "theta_deg": "Theta",
    "chi_deg": "Chi",
    "phi_deg": "Phi",
}
_AXES: dict[str, Any] = {"Theta": "theta", "Chi": "chi", "Phi": "phi"}
# Side of a pixel of a Timepix detector [um].
_PIXEL_UM = 55.0
# Maximum difference of a step of the scan from the mean step, relative to it.
_UNEVEN = 0.5


def geometry_of_34idc(scan: SpecScan) -> Geometry:
    """Geometry of a rocking scan at 34-ID-C, with the scanned angle at the middle of the scan.

    Parameters
    ----------
    scan : SpecScan
        Without the pixel size of the detector, which is assumed to be that of a Timepix, 55 um.

    Raises
    ------
    InputError
        A motor is missing, or the scan is not over theta, chi or phi, or has one point or uneven steps.
    """
    missing = [name for name in _MOTORS.values() if name not in scan.motors]
    if missing:
        raise InputError(scan.where, f"no motor {', '.join(missing)}", "the motors of 34-ID-C")
    if scan.scanned not in _AXES:
        raise InputError(scan.where, f"a scan of {scan.scanned}", f"a rocking scan of {', '.join(_AXES)}")
    if len(scan.positions) < 2:
        raise InputError(scan.where, "one point", "a rocking scan")
    steps = np.diff(scan.positions)
    step = float(steps.mean())
    if np.abs(steps - step).max() > _UNEVEN * abs(step):
        raise InputError(scan.where, f"steps of {steps.min():g} to {steps.max():g} degrees", "even steps")
    values: dict[str, Any] = {field: scan.motors[name] for field, name in _MOTORS.items()}
    axis = _AXES[scan.scanned]
    values[f"{axis}_deg"] = float(scan.positions.mean())
    # The motor is in millimetres.
    values["distance_m"] /= 1000
    return Geometry(**values, pixel_um=_PIXEL_UM, rocking_axis=axis, rocking_step_deg=step)
