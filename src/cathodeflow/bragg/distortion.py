"""Distortion of a flat detector: from where a peak is measured to where the beam met an ideal detector, and back.

The functions are those of hexrd (`hexrd.distortion`, by name). Positions are x along the columns and y against the rows
of a panel, from its middle [mm].
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.io.detector_geometry import Distortion

Floats = NDArray[np.float64]

# Radius to which the coefficients of GE_41RT refer [mm].
_GE_RADIUS = 204.8
_MAX_ITERATIONS = 50
# Step of the differences that give the derivatives of GE_41RT [mm]: their error is about 1e-10.
_STEP = 1e-3


class _Affine(NamedTuple):
    """Measured position = offset + matrix @ ideal position."""

    offset: Floats
    matrix: Floats


def ideal(distortion: Distortion, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return where the beam would meet the detector without distortion.

    - `GE_41RT`: the radius r becomes r (1 + p1 s^p4 cos(2 eta) + p2 s^p5 cos(4 eta) + p3 s^p6), with the angle eta
      about the middle and s = r / 204.8 mm.
    - `Dexela_2923`: each quarter of the panel is moved by (x, y): first x, y >= 0, then counter-clockwise.
    - `Dexela_2923_quad`: measured x = p1 + p2 x + p3 y, measured y = p4 + p5 x + p6 y of the ideal position.

    Parameters
    ----------
    distortion : Distortion
    x, y : (n,) float64
        Measured positions [mm].

    Returns
    -------
    x, y : (n,) float64
        [mm]
    """
    if distortion.function == "GE_41RT":
        radius, eta = np.hypot(x, y), np.arctan2(y, x)
        scale = 1 + _stretch(distortion.parameters, radius, eta)[0]
        return scale * x, scale * y
    if distortion.function == "Dexela_2923":
        shift = _shifts(distortion)[_quarter(x, y)]
        return x + shift[:, 0], y + shift[:, 1]
    affine = _affine(distortion)
    found = np.linalg.solve(affine.matrix, np.stack([x, y]) - affine.offset[:, None])
    return found[0], found[1]


def measured(distortion: Distortion, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return where a beam is measured: the inverse of `ideal`.

    Positions are NaN where the beam meets the gap between the quarters of a Dexela, or where there is no solution.
    Where quarters overlap, the position is in the quarter of the ideal position.

    Parameters
    ----------
    distortion : Distortion
    x, y : (n,) float64
        Ideal positions [mm].

    Returns
    -------
    x, y : (n,) float64
        [mm]
    """
    if distortion.function == "GE_41RT":
        return _measured_ge(distortion.parameters, x, y)
    if distortion.function == "Dexela_2923":
        shifts, own = _shifts(distortion), _quarter(x, y)
        found_x, found_y = np.full(len(x), np.nan), np.full(len(x), np.nan)
        for turn in range(4):
            tried = (own + turn) % 4
            there_x, there_y = x - shifts[tried, 0], y - shifts[tried, 1]
            inside = np.isnan(found_x) & (_quarter(there_x, there_y) == tried)
            found_x, found_y = np.where(inside, there_x, found_x), np.where(inside, there_y, found_y)
        return found_x, found_y
    affine = _affine(distortion)
    found = affine.offset[:, None] + affine.matrix @ np.stack([x, y])
    return found[0], found[1]


def derivatives(distortion: Distortion, x: Floats, y: Floats) -> Floats:
    """Return the (n, 2, 2) derivatives of the ideal x, y (second index) by the measured x, y (third index)."""
    if distortion.function == "GE_41RT":
        along_x = [ideal(distortion, x + step, y) for step in (_STEP, -_STEP)]
        along_y = [ideal(distortion, x, y + step) for step in (_STEP, -_STEP)]
        columns = [(np.stack(ahead) - np.stack(behind)) / (2 * _STEP) for ahead, behind in (along_x, along_y)]
        return np.stack(columns, axis=-1).transpose(1, 0, 2)
    matrix = np.eye(2) if distortion.function == "Dexela_2923" else np.linalg.inv(_affine(distortion).matrix)
    return np.broadcast_to(matrix, (len(x), 2, 2))


def _stretch(parameters: Floats, radius: Floats, eta: Floats) -> tuple[Floats, Floats]:
    """Return ideal radius / measured radius - 1, and the derivative of the ideal by the measured radius - 1."""
    parts = [
        coefficient * (radius / _GE_RADIUS) ** power * np.cos(order * eta)
        for coefficient, power, order in zip(parameters[:3], parameters[3:], (2, 4, 0), strict=True)
    ]
    slopes = [(power + 1) * part for power, part in zip(parameters[3:], parts, strict=True)]
    return np.sum(parts, axis=0), np.sum(slopes, axis=0)


def _measured_ge(parameters: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Find the measured radius by Newton's method; the angle stays the same."""
    wanted, eta = np.hypot(x, y), np.arctan2(y, x)
    radius = wanted.copy()
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for _ in range(_MAX_ITERATIONS):
            stretch, slope = _stretch(parameters, radius, eta)
            change = (radius * (1 + stretch) - wanted) / (1 + slope)
            radius = radius - change
            left = np.abs(change) > 1e-13 * np.maximum(wanted, 1.0)
            if not left.any():
                break
    radius = np.where(left | (radius < 0), np.nan, radius)
    return radius * np.cos(eta), radius * np.sin(eta)


def _quarter(x: Floats, y: Floats) -> NDArray[np.int64]:
    """Return the number of the quarter of each position: 0 with x, y >= 0, then counter-clockwise."""
    return np.where(y >= 0, np.where(x >= 0, 0, 1), np.where(x >= 0, 3, 2)).astype(np.int64)


def _shifts(distortion: Distortion) -> Floats:
    return distortion.parameters.reshape(4, 2)


def _affine(distortion: Distortion) -> _Affine:
    table = distortion.parameters.reshape(2, 3)
    return _Affine(table[:, 0], table[:, 1:])
