"""Refinement of the instrument with grains whose cell is known: detector, axis of rotation, angles, detector modules.

All grains are taken to have the given cell, as a calibrant has; what the spots of all of them then have in common is
the instrument. The position along the beam is fixed by the cell; the position along the axis of rotation and the zero
of the angle cannot be told from positions and orientations of the grains and are kept. The modules of a detector may be
shifted and turned in its plane, by amounts with the mean 0 over the modules.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from cathodeflow.bragg.grain_model import Grain, expected_spots
from cathodeflow.bragg.grain_refinement import Assigned
from cathodeflow.bragg.rotation_scans import RotationScan, wrapped
from cathodeflow.errors import InputError
from cathodeflow.io.detector_geometry import DetectorGeometry

Floats = NDArray[np.float64]

# Steps of the parameters, of the size of usual errors: shift [mm], tilt [rad], relative scale of the angles,
# shift of a module [px], turn of a module [rad]; orientation [rad] and position [mm] of a grain.
_SHIFT, _TILT, _SCALE, _MODULE, _TURN = 0.1, 1e-4, 1e-4, 0.1, 1e-4
_GRAIN = np.repeat([1e-4, 1e-2], 3)
# Grains that are used at most, those with the most spots: they determine the instrument well enough.
_MOST = 20


class Instrument(NamedTuple):
    """Changes of an instrument.

    Attributes
    ----------
    along, across : float
        Shift of the detector along the beam, and across it and the axis of rotation [mm].
    tilt : (3,) float64
        Turn of the detector about the directions of rows, columns and its normal, through its middle [rad].
    axis : float
        Turn of the axis of rotation about the direction across it and the beam [rad].
    omega_scale : float
        Relative excess of the recorded differences of angles over the true ones.
    modules : (n, 3) float64
        Shift of each module along rows and columns [px], and its turn from rows to columns [rad].
    """

    along: float
    across: float
    tilt: Floats
    axis: float
    omega_scale: float
    modules: Floats


def calibrate(
    scan: RotationScan,
    grains: Sequence[Grain],
    assigned: Sequence[Assigned],
    measured: Floats,
    sigma: Floats,
    *,
    shape: tuple[int, int],
    modules: tuple[int, int],
) -> Instrument:
    """Refine the instrument with the spots of grains.

    Parameters
    ----------
    scan : RotationScan
        The instrument to begin with.
    grains : sequence of Grain
        With the known cell.
    assigned : sequence of Assigned
        Spots of each.
    measured, sigma : (n, 3) float64
        Row, col [px] and omega [deg] of all spots, and their standard errors.
    shape : (int, int)
        (row, col) of the detector [px].
    modules : (int, int)
        Modules of the detector along rows and columns; (1, 1) for none.

    Raises
    ------
    InputError
        There are fewer spots than parameters.
    """
    most = np.argsort([-len(one.spot) for one in assigned], kind="stable")[:_MOST]
    used = [(grains[index], assigned[index]) for index in most]
    count = int(np.prod(modules))
    # Amounts of the modules with the mean 0.
    basis = null_space(np.ones((1, count))) if count > 1 else np.zeros((1, 0))
    steps = np.array([_SHIFT] * 2 + [_TILT] * 4 + [_SCALE] + [_MODULE] * 2 * (count - 1) + [_TURN] * (count - 1))
    spots = sum(len(one.spot) for _, one in used)
    needed = len(steps) + 6 * len(used)
    if 3 * spots <= needed:
        found = f"{spots} spots of indexed grains"
        raise InputError("bragg.grains.calibrate", found, f"at least {needed // 3 + 1} to refine the instrument")

    def instrument(parameters: Floats) -> Instrument:
        values = parameters[: len(steps)] * steps
        parts = values[7:].reshape(3, count - 1) @ basis.T
        return Instrument(values[0], values[1], values[2:5], values[5], values[6], parts.T)

    def differences(parameters: Floats) -> Floats:
        changed, corrected = apply(instrument(parameters), scan, measured, shape=shape, modules=modules)
        found = []
        for number, (grain, one) in enumerate(used):
            first = len(steps) + 6 * number
            values = parameters[first : first + 6] * _GRAIN
            turn = Rotation.from_rotvec(values[:3]).as_matrix()
            moved = grain._replace(orientation=turn @ grain.orientation, position=grain.position + values[3:])
            left = corrected[one.spot] - expected_spots(changed, moved, one.hkl, one.branch)
            left[:, 2] = wrapped(left[:, 2])
            found.append(np.nan_to_num(left, nan=1e3) / sigma[one.spot])
        return np.concatenate(found).ravel()

    solution = least_squares(differences, np.zeros(needed), loss="soft_l1", x_scale="jac", max_nfev=30)
    return instrument(solution.x)


def apply(
    instrument: Instrument,
    scan: RotationScan,
    measured: Floats,
    *,
    shape: tuple[int, int],
    modules: tuple[int, int],
) -> tuple[RotationScan, Floats]:
    """Return the changed geometry, and the spots without the changes of modules and angles; see `calibrate`."""
    geometry = scan.geometry
    beam = geometry.beam / np.linalg.norm(geometry.beam)
    across = np.cross(scan.axis, beam)
    across /= np.linalg.norm(across)
    middle = (np.asarray(shape, np.float64) - 1) / 2
    steps = np.stack([geometry.row_step, geometry.col_step])
    directions = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    normal = np.cross(*directions)
    turn = Rotation.from_rotvec(instrument.tilt @ np.stack([*directions, normal / np.linalg.norm(normal)])).as_matrix()
    centre = geometry.origin + middle @ steps + 1e-3 * (instrument.along * beam + instrument.across * across)
    steps = steps @ turn.T
    changed = DetectorGeometry(*geometry)._replace(origin=centre - middle @ steps, row_step=steps[0], col_step=steps[1])
    axis = Rotation.from_rotvec(instrument.axis * across).as_matrix() @ scan.axis
    corrected = measured.copy()
    shift = instrument.modules[_module(measured, shape, modules)]
    away = measured[:, :2] - middle
    corrected[:, 0] -= shift[:, 0] - shift[:, 2] * away[:, 1]
    corrected[:, 1] -= shift[:, 1] + shift[:, 2] * away[:, 0]
    # Between -180 and 180 degrees about the middle of one turn.
    corrected[:, 2] -= instrument.omega_scale * (np.mod(measured[:, 2], 360.0) - 180.0)
    return scan._replace(geometry=changed, axis=axis), corrected


def _module(measured: Floats, shape: tuple[int, int], modules: tuple[int, int]) -> NDArray[np.int64]:
    """Return the number of the module of each spot, row by row."""
    sizes = np.asarray(shape) / np.asarray(modules)
    which = np.clip(np.floor((measured[:, :2] + 0.5) / sizes), 0, np.asarray(modules) - 1).astype(np.int64)
    return which[:, 0] * modules[1] + which[:, 1]
