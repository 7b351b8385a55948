"""Scattering vector and sampling of a scan at any beamline, from the Ewald sphere at the pixel of the peak.

The scattering vector of a pixel is k (n - z): n the direction from the sample to the pixel, z the beam, and
k = 2 pi / lambda. In the frame of the sample it is S^T k (n - z), with the rotation S of the sample. Its changes from
frame to frame, from row to row and from column to column, rotated back to the laboratory, are the sampling vectors
[1]_. Any motor may move during the scan, several at a time, and the photon energy.

References
----------
.. [1] S. Maddali et al., J. Appl. Cryst. 53, 393 (2020)
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cathodeflow.bcdi.beamlines import Beamline, orientation, vector
from cathodeflow.bcdi.geometry import FLAT, HC, Floats, ScanVectors
from cathodeflow.errors import InputError

#: Name of the photon energy among the steps of a scan.
ENERGY = "energy_kev"
# Values beyond which a unit is wrong: minimum, maximum, unit, advice.
_BOUNDS = {
    "energy_kev": (1.0, 200.0, "keV", "an energy in eV is 1000 times as large"),
    "distance_m": (0.05, 100.0, "m", "a distance in mm is 1000 times as large"),
    "pixel_um": (1.0, 1000.0, "um", "a pixel in m is 1e-6 times as large"),
}
_MOST_DEGREES = 360.0
# Largest angle that a motor moves between two frames [degrees].
_MOST_STEP = 2.0


class Setting(NamedTuple):
    """Positions of a diffractometer at the frame of the peak, and their changes from frame to frame.

    Attributes
    ----------
    energy_kev, distance_m, pixel_um : float
    angles : mapping
        Angles of the circles [degrees] and positions of slides [mm]; missing ones are 0.
    steps : mapping
        Changes per frame of those that were scanned; `energy_kev` is the photon energy [keV].
    offset : (float, float)
        Rows and columns from the pixel of the direct beam at zero angles to that of the peak.
    at_peak : (float, float, float)
        1 for frame, row and column if the positions, and the offset, are those of the peak.
    """

    energy_kev: float
    distance_m: float
    pixel_um: float
    angles: Mapping[str, float]
    steps: Mapping[str, float]
    offset: tuple[float, float] = (0.0, 0.0)
    at_peak: tuple[float, float, float] = (0.0, 0.0, 0.0)


def require_sane(where: str, values: Mapping[str, float]) -> None:
    """Require that energy, distance, pixel size and angles are possible.

    Parameters
    ----------
    where : str
        Source of the values, for messages.
    values : mapping
        `energy_kev`, `distance_m`, `pixel_um`; all others are angles [degrees].

    Raises
    ------
    InputError
        A value is not finite or beyond its bounds, which the message gives with their unit.
    """
    for name, value in values.items():
        low, high, unit, advice = _BOUNDS.get(name, (-_MOST_DEGREES, _MOST_DEGREES, "degrees", "an angle"))
        if not low <= value <= high:
            raise InputError(f"{where}: {name}", f"{value:g} {unit}", f"{low:g} to {high:g} {unit}: {advice}")


def scan_vectors(beamline: Beamline, setting: Setting, *, name: str = "") -> ScanVectors:
    """Scattering vector at the peak and the sampling vectors of a scan, in the laboratory frame.

    Parameters
    ----------
    beamline : Beamline
    setting : Setting
    name : str
        Name of the beamline.

    Raises
    ------
    InputError
        The peak lies in the direct beam, nothing was scanned, or the scan does not move the peak through the detector.
    """
    unknown = [each for each in (*setting.angles, *setting.steps) if each not in (*beamline.motors, ENERGY)]
    if unknown:
        raise InputError("geometry", f"a circle {unknown[0]}", f"circles of the beamline: {', '.join(beamline.motors)}")
    require_sane("geometry", {key: getattr(setting, key) for key in _BOUNDS})
    require_sane("geometry", {key: value for key, value in setting.angles.items() if key not in beamline.slides})
    wide = [key for key, value in setting.steps.items() if key != ENERGY and not abs(value) <= _MOST_STEP]
    if wide:
        found = f"a step of {setting.steps[wide[0]]:g} degrees of {wide[0]}"
        raise InputError("geometry", found, f"at most {_MOST_STEP:g} degrees from frame to frame")
    if not any(setting.steps.values()):
        raise InputError("geometry", "no motor that moves", "the change of an angle or energy from frame to frame")
    row, col = setting.offset
    at_peak = _orientation(beamline, setting, 0.0)

    def sampled(frame: float, down: float, across: float) -> Floats:
        """Scattering vector of a pixel in the frame of the sample, rotated back as at the peak."""
        turned: Floats = at_peak @ _orientation(beamline, setting, frame).T @ _q(beamline, setting, frame, down, across)
        return turned

    q = sampled(0, row, col)
    if np.linalg.norm(q) < 1e-6:
        raise InputError("geometry", "the peak in the direct beam", "the angles of a Bragg peak")
    half = 0.5
    step = sampled(half, row, col) - sampled(-half, row, col)
    rows = sampled(0, row + half, col) - sampled(0, row - half, col)
    cols = sampled(0, row, col + half) - sampled(0, row, col - half)
    normal = np.cross(rows, cols)
    out = abs(step @ normal) / np.linalg.norm(normal)
    if out < FLAT * max(float(np.linalg.norm(step)), 1e-12) or out == 0:
        found = f"a scan of {', '.join(setting.steps)} that does not move the peak out of the detector's plane"
        raise InputError("geometry", found, "another rocking axis")
    made = [tuple(float(value) for value in each) for each in (q, step, rows, cols)]
    place = (setting.energy_kev, setting.distance_m, setting.pixel_um)
    return ScanVectors(name, *place, made[0], made[1], made[2], made[3], setting.at_peak)


def _orientation(beamline: Beamline, setting: Setting, frame: float) -> Floats:
    return orientation(beamline.sample, _at(setting, frame))


def _q(beamline: Beamline, setting: Setting, frame: float, row: float, col: float) -> Floats:
    """Scattering vector of a pixel in the laboratory [1/nm], `frame` frames after the peak."""
    angles = _at(setting, frame)
    pixel = setting.pixel_um * 1e-6
    place = setting.distance_m * np.array([0.0, 0.0, 1.0])
    place = place + pixel * (row * vector(beamline.rows) + col * vector(beamline.cols))
    for name, axis in beamline.slides.items():
        place = place + 1e-3 * angles.get(name, 0.0) * vector(axis)
    direction = orientation(beamline.arm, angles) @ place
    energy = setting.energy_kev + frame * setting.steps.get(ENERGY, 0.0)
    q: Floats = 2 * np.pi * energy / HC * (direction / np.linalg.norm(direction) - [0.0, 0.0, 1.0])
    return q


def _at(setting: Setting, frame: float) -> dict[str, float]:
    moving = {name: frame * step for name, step in setting.steps.items() if name != ENERGY}
    return {name: setting.angles.get(name, 0.0) + moving.get(name, 0.0) for name in {*setting.angles, *moving}}
