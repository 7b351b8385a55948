"""Spots of one grain as a function of its orientation, position and cell, and the least-squares fit of these.

The reciprocal vector of a reflection in the sample is exp(-E) U B hkl: B is the reciprocal cell (Busing and Levy, Acta
Cryst. 22, 457, 1967), U the orientation, and E = ln V the strain of the grain relative to that cell in the sample's
frame, V the left stretch tensor (Bernier et al., J. Strain Anal. Eng. Des. 46, 527, 2011). Either the free parameters
of the cell are fitted, with E = 0, or E with a fixed cell.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import expm
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from cathodeflow.bragg.reflections import FreeCell, reciprocal_axes
from cathodeflow.bragg.rotation_scans import RotationScan, detector_positions, diffraction_angles, wrapped

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Components of the strain, in the order of the parameters.
STRAINS = ("xx", "yy", "zz", "yz", "xz", "xy")
_AT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
# Steps of the parameters, of the size of their usual errors, which make the fit well scaled: rotation [rad],
# position [mm], lengths [Angstrom], angles [deg], strain.
_ROTATION, _POSITION, _LENGTH, _ANGLE, _STRAIN = 1e-4, 1e-2, 1e-4, 1e-2, 1e-4
# Singular values below this fraction of the largest: a parameter that the spots do not determine.
_RANK = 1e-7
# Part of a parameter along such a direction that leaves it undetermined.
_SHARE = 1e-3


class Grain(NamedTuple):
    """State of a grain.

    Attributes
    ----------
    orientation : (3, 3) float64
        Turns the crystal's Cartesian frame into that of the sample.
    position : (3,) float64
        In the sample [mm].
    cell : (6,) float64
        a, b, c [Angstrom], alpha, beta, gamma [deg].
    strain : (3, 3) float64
        ln V relative to `cell`.
    """

    orientation: Floats
    position: Floats
    cell: Floats
    strain: Floats


class Fitted(NamedTuple):
    """Result of a fit.

    Attributes
    ----------
    grain : Grain
    covariance : (n, n) float64
        Of rotation about the axes of the sample [rad], position [mm], and free cell parameters or strain, as far as
        they were fitted; NaN in the rows of parameters that the spots do not determine.
    residuals : (m, 3) float64
        Measured minus expected row, col [px] and omega [deg].
    leverage : (m, 3) float64
        Part of each measured value in its own fit, 0 to 1: the expected square of a residual is sigma^2 (1 - leverage).
    """

    grain: Grain
    covariance: Floats
    residuals: Floats
    leverage: Floats


def expected_spots(scan: RotationScan, grain: Grain, hkl: NDArray[np.integer], branch: NDArray[np.integer]) -> Floats:
    """Return (..., 3) row, col [px] and omega [deg] of reflections.

    Parameters
    ----------
    scan : RotationScan
    grain : Grain
    hkl : (n, 3) int
    branch : (n,) int
        Which of the two angles of rotation, 0 or 1.
    """
    g = reciprocal(grain, hkl)
    omega = np.take_along_axis(diffraction_angles(scan, g), np.asarray(branch)[:, None], axis=1)[:, 0]
    row, col = detector_positions(scan, g, omega, grain.position)
    return np.stack([row, col, omega], axis=1)


def reciprocal(grain: Grain, hkl: NDArray[np.integer]) -> Floats:
    """Return the (n, 3) reciprocal vectors of reflections in the sample [1/Angstrom]."""
    return np.asarray(hkl @ (expm(-grain.strain) @ grain.orientation @ reciprocal_axes(grain.cell)).T)


def fit_grain(
    scan: RotationScan,
    grain: Grain,
    hkl: NDArray[np.integer],
    branch: NDArray[np.integer],
    measured: Floats,
    sigma: Floats,
    *,
    free: FreeCell | None = None,
    strain: bool = False,
    robust: bool = False,
) -> Fitted:
    """Fit orientation and position, and the cell or the strain, to the spots of a grain.

    Parameters
    ----------
    scan : RotationScan
    grain : Grain
        Start.
    hkl : (m, 3) int
        Reflection of each spot.
    branch : (m,) int
        Which of its two angles of rotation, 0 or 1.
    measured, sigma : (m, 3) float64
        Row, col [px] and omega [deg] without distortion, and their standard errors.
    free : FreeCell, optional
        Parameters of the cell to fit. Default: none.
    strain : bool
        Fit the strain relative to `grain.cell`.
    robust : bool
        Reduce the weight of outliers (loss soft_l1), for a start that is not sure.
    """
    start = np.zeros(6) if free is None else free.free(grain.cell)
    if strain:
        start = np.array([grain.strain[at] for at in _AT])
    steps = [_ROTATION] * 3 + [_POSITION] * 3
    if strain:
        steps += [_STRAIN] * 6
    elif free is not None:
        steps += [_LENGTH if name in "abc" else _ANGLE for name in free.names]

    def changed(parameters: Floats) -> Grain:
        values = parameters * steps
        turn = Rotation.from_rotvec(values[:3]).as_matrix()
        cell, tensor = grain.cell, grain.strain
        if strain:
            tensor = _tensor(start + values[6:])
        elif free is not None:
            cell = free.all(start + values[6:])
        return Grain(turn @ grain.orientation, grain.position + values[3:6], cell, tensor)

    def differences(parameters: Floats) -> Floats:
        found = measured - expected_spots(scan, changed(parameters), hkl, branch)
        found[:, 2] = wrapped(found[:, 2])
        # A reflection that no longer diffracts is far away.
        return np.nan_to_num(found, nan=1e3, posinf=1e3, neginf=-1e3)

    solution = least_squares(
        lambda parameters: (differences(parameters) / sigma).ravel(),
        np.zeros(len(steps)),
        jac="3-point",
        loss="soft_l1" if robust else "linear",
        x_scale="jac",
        max_nfev=50,
    )
    left, values, right = np.linalg.svd(solution.jac, full_matrices=False)
    kept = values > _RANK * values.max(initial=0.0)
    covariance = (right[kept].T / values[kept] ** 2) @ right[kept]
    # What lies along the directions that are left out is not determined.
    lost = np.any(np.abs(right[~kept]) > _SHARE, axis=0)
    covariance[lost], covariance[:, lost] = np.nan, np.nan
    leverage = np.sum(left[:, kept] ** 2, axis=1).reshape(-1, 3)
    return Fitted(changed(solution.x), covariance * np.outer(steps, steps), differences(solution.x), leverage)


def _tensor(components: ArrayLike) -> Floats:
    tensor = np.zeros((3, 3))
    for (row, col), value in zip(_AT, np.asarray(components), strict=True):
        tensor[row, col] = tensor[col, row] = value
    return tensor
