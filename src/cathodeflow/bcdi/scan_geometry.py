"""Geometry of a scan from what its files, a geometry file and the options say, the last one first."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cathodeflow.bcdi.beamlines import Beamline
from cathodeflow.bcdi.geometry import Floats, ScanVectors
from cathodeflow.bcdi.rocking_positions import EvenScan, even_scan
from cathodeflow.bcdi.scan_vectors import ENERGY, Setting, require_sane, scan_vectors
from cathodeflow.errors import InputError
from cathodeflow.io.scan_logs import ScanLog

# Motors that move less than this fraction of the range of the one that moves most are not scanned.
_STILL = 0.05
# Relative change of the photon energy in an energy scan.
_ENERGY_SCAN = 1e-4
# Columns of SOLEIL for the motor that was scanned, whose name they do not have.
_ACTUATORS = ("actuator_1_1", "actuator_1_2")
_DIRECTIONS = {"down": "y-", "up": "y+", "outboard": "x+", "inboard": "x-"}


class Recorded(NamedTuple):
    """Quantities of a scan in the words of its beamline.

    Attributes
    ----------
    values : dict of str to float
        `energy_kev`, `distance_m`, `pixel_um`, as far as they are known.
    angles : dict of str to float
        Positions of motors at rest [degrees], slides [mm].
    scan : EvenScan, optional
        Positions of those that moved.
    """

    values: dict[str, float]
    angles: dict[str, float]
    scan: EvenScan | None


def recorded(log: ScanLog, beamline: Beamline, *, n_frames: int | None = None, axis: str | None = None) -> Recorded:
    """Find energy, distance, pixel size and motors of a beamline in the log of a scan.

    Parameters
    ----------
    log : ScanLog
    beamline : Beamline
    n_frames : int, optional
        Number of frames, which columns must have. Default: that of the log, or any.
    axis : str, optional
        Circle that was scanned, where the log does not name it.

    Raises
    ------
    InputError
        The numbers of frames and points differ, or a value is beyond its bounds.
    """
    log.require_points(n_frames)
    n_points = n_frames or log.n_points
    found = {name: log.find(beamline.names_of(name), n_points) for name in beamline.motors}
    lists = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    moving = {name: value for name, value in lists.items() if np.ptp(value) > 0}
    if axis in beamline.motors and axis not in moving and (given := log.find(_ACTUATORS, n_points)) is not None:
        moving[axis] = np.asarray(given)
    most = max((float(np.ptp(each)) for each in moving.values()), default=0.0)
    scanned = {name: each for name, each in moving.items() if np.ptp(each) >= _STILL * most}
    angles = {name: float(np.mean(value)) for name, value in found.items() if value is not None and name not in scanned}
    values: dict[str, float] = {}
    energy = log.find(beamline.energy.names, n_points)
    if energy is not None:
        energies = np.asarray(energy, np.float64) * beamline.energy.factor
        if energies.ndim and np.ptp(energies) > _ENERGY_SCAN * energies.mean():
            scanned[ENERGY] = energies
        values[ENERGY] = float(energies.mean())
    distance = log.find(beamline.distance.names, n_points)
    # A distance of 0 stands for one that was not set.
    if distance is not None and np.mean(distance) > 0:
        values["distance_m"] = float(np.mean(distance)) * beamline.distance.factor
    sizes = {name.lower(): size for name, size in beamline.detectors.items()}
    if sizes:
        values["pixel_um"] = sizes.get(log.detector.lower(), next(iter(sizes.values())))
    return Recorded(values, angles, even_scan(log.where, scanned) if scanned else None)


def setting_of(
    options: Mapping[str, Any],
    *,
    known: Recorded | None = None,
    required: Sequence[str] = (),
    where: str = "geometry",
    peak: tuple[float, float, float] | None = None,
) -> tuple[Setting | None, list[str]]:
    """Combine the log of a scan with the options, which override it.

    Parameters
    ----------
    options : mapping
        Options of the geometry that are given: `energy_kev`, `distance_m`, `pixel_um`, angles as `delta_deg`, or in
        `angles`; `rocking_axis`, `rocking_step_deg`, or `steps`; `direct_beam`, `peak_pixel`.
    known : Recorded, optional
    required : sequence of str
        Circles whose angles must be given if there is no log; others are 0.
    where : str
        Source of the log, for messages.
    peak : (float, float, float), optional
        Frame, row and column of the peak on the detector.

    Returns
    -------
    setting : Setting, optional
        None if a value is missing.
    missing : list of str
        Names of the missing values.

    Raises
    ------
    InputError
        A value is beyond its bounds.
    """
    values: dict[str, float] = dict(known.values) if known else {}
    angles: dict[str, float] = dict(known.angles) if known else {}
    steps: dict[str, float] = {}
    if known and known.scan:
        for name, positions in known.scan.positions.items():
            at = _at_peak(positions, None if peak is None else peak[0])
            steps[name] = float(np.diff(positions).mean())
            (values if name == ENERGY else angles)[name] = at
    values |= {name: options[name] for name in ("energy_kev", "distance_m", "pixel_um") if name in options}
    angles |= {name.removesuffix("_deg"): value for name, value in options.items() if name in ANGLES}
    angles |= options.get("angles", {})
    if "steps" in options:
        steps = dict(options["steps"])
    elif "rocking_step_deg" in options and (axis := options.get("rocking_axis", _only(steps))):
        steps = {axis: options["rocking_step_deg"]}
    require_sane(where, values)
    missing = [name for name in ("energy_kev", "distance_m", "pixel_um") if name not in values]
    if not steps:
        missing += [name for name in ("rocking_axis", "rocking_step_deg") if name not in options]
    if known is None:
        missing += [f"{name}_deg" for name in required if name not in angles]
    if missing:
        return None, missing
    offset = (0.0, 0.0)
    if (beam := options.get("direct_beam")) is not None:
        place = options.get("peak_pixel", None if peak is None else peak[1:])
        if place is None:
            raise InputError("direct_beam", "no pixel of the peak", "peak_pixel as well, or the prepared pattern")
        offset = (place[0] - beam[0], place[1] - beam[1])
    frame = float(known is not None and known.scan is not None and peak is not None)
    pixel = float(options.get("direct_beam") is not None)
    place = (values["energy_kev"], values["distance_m"], values["pixel_um"])
    return Setting(*place, angles, steps, offset, (frame, pixel, pixel)), []


def vectors_of(beamline: Beamline, name: str, setting: Setting, options: Mapping[str, Any]) -> ScanVectors:
    """Scattering vector and sampling of a setting, with the mounting of the detector that the options give."""
    changes = {"rows": options.get("row_direction"), "cols": options.get("col_direction")}
    mounting = {key: _DIRECTIONS[value] for key, value in changes.items() if value is not None}
    return scan_vectors(beamline.model_copy(update=mounting), setting, name=name)


#: Options of the angles of 34-ID-C.
ANGLES = ("delta_deg", "gamma_deg", "theta_deg", "chi_deg", "phi_deg")


def _at_peak(positions: Floats, frame: float | None) -> float:
    """Position at a frame, which may lie between two; without one in the middle of the scan."""
    if frame is None:
        return float(positions.mean())
    return float(positions[0] + frame * np.diff(positions).mean())


def _only(steps: Mapping[str, float]) -> str | None:
    return next(iter(steps)) if len(steps) == 1 else None
