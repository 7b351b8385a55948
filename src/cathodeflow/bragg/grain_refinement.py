"""Refinement of indexed grains: which spot is which reflection, and the errors of what follows from it.

The errors of the spots contain their counting statistics alone. What else moves them (shape of the grain, response and
distortion of the detector, steps of the rotation) is an additional variance that all spots of the scan have in common,
one for rows, columns and angles each. It is estimated from the residuals, such that their mean square is that expected
(Paule and Mandel, J. Res. NBS 87, 377, 1982), so that the errors of the grains are true.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from cathodeflow.bragg.detector_positions import frame_pixels
from cathodeflow.bragg.grain_indexing import Crystal
from cathodeflow.bragg.grain_model import Fitted, Grain, fit_grain, reciprocal
from cathodeflow.bragg.reflections import FreeCell
from cathodeflow.bragg.rotation_scans import RotationScan, detector_positions, diffraction_angles
from cathodeflow.io.detector_geometry import DetectorGeometry

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]

# Rounds in which the spots are assigned and fitted.
_ROUNDS = 8
# Smallest radius in which spots are looked for, in rows, columns [px] and angle [deg].
_CLOSEST = np.array([1.0, 1.0, 0.05])
# From the median absolute value to the standard deviation of a normal distribution.
_MAD = 1.4826


class Assigned(NamedTuple):
    """Spots of one grain.

    Attributes
    ----------
    spot : (m,) int64
        Index of the spot.
    hkl : (m, 3) int64
    branch : (m,) int64
        Which of the two angles of the reflection, 0 or 1.
    expected : int
        Reflections that the detector could have seen.
    """

    spot: Integers
    hkl: Integers
    branch: Integers
    expected: int


class SeenRegion(NamedTuple):
    """What was measured.

    Attributes
    ----------
    shape : (int, int)
        (row, col) of the detector [px].
    omega : (n,) float64
        Angles of the frames [deg].
    step : float
        Range of one frame [deg].
    geometry : DetectorGeometry, optional
        Where its modules are, and their distortion. Default: the frame is one flat detector.
    """

    shape: tuple[int, int]
    omega: Floats
    step: float
    geometry: DetectorGeometry | None = None

    def contains(self, row: Floats, col: Floats, omega: Floats) -> Bools:
        """Return which spots, at pixels of a flat detector, are on the frame and within the range of rotation."""
        if self.geometry is not None:
            row, col = frame_pixels(self.geometry, row, col)
        with np.errstate(invalid="ignore"):
            on = (row > -0.5) & (row < self.shape[0] - 0.5) & (col > -0.5) & (col < self.shape[1] - 0.5)
        angles = np.unique(np.mod(self.omega, 360.0))
        near = np.searchsorted(angles, np.mod(np.nan_to_num(omega), 360.0)) % len(angles)
        distance = np.stack([np.mod(omega, 360.0) - angles[near], np.mod(omega, 360.0) - angles[near - 1]])
        distance = np.abs((distance + 180.0) % 360.0 - 180.0).min(axis=0)
        return np.asarray(on & (distance <= 0.5 * self.step * (1 + 1e-6)))


def observable(scan: RotationScan, region: SeenRegion, g: Floats) -> Bools:
    """Return which reflections, of (..., 3) reciprocal vectors, the detector sees at either angle."""
    return np.asarray(_seen(scan, region, g, np.zeros(3))[0].any(axis=-1))


def align(grain: Grain, known: Crystal, spots: Floats, tolerance: float) -> Grain:
    """Turn a grain such that its reflections fit reciprocal vectors of spots near them, (n, 3) [1/Angstrom]."""
    g = reciprocal(grain, known.hkl)
    distance, nearest = cKDTree(g).query(spots, distance_upper_bound=tolerance)
    near = np.isfinite(distance)
    if np.count_nonzero(near) < 2:
        return grain
    turn, _ = Rotation.align_vectors(spots[near], g[nearest[near]])
    return grain._replace(orientation=turn.as_matrix() @ grain.orientation)


def assign(
    scan: RotationScan, region: SeenRegion, grain: Grain, known: Crystal, measured: Floats, radius: Floats
) -> Assigned:
    """Assign to each reflection of a grain the nearest spot.

    Parameters
    ----------
    scan, region
    grain : Grain
    known : Crystal
    measured : (n, 3) float64
        Row, col [px] and omega [deg] of the spots.
    radius : (3,) float64
        Maximum distance, in the same units.
    """
    seen, expected = _seen(scan, region, reciprocal(grain, known.hkl), grain.position)
    reflection, branch = np.nonzero(seen)
    scale = np.append(radius[:2], radius[2])
    around = 360.0 / radius[2]

    def scaled(values: Floats) -> Floats:
        at = values / scale
        at[:, 2] = np.mod(values[:, 2], 360.0) / radius[2] % around
        # Periodic in the angle alone; positions are on the detector.
        at[:, :2] += 1.0
        return at

    far = 4.0 + max(region.shape) / min(radius[:2])
    on = (measured[:, :2] > -0.5).all(axis=1) & (measured[:, :2] < np.array(region.shape) - 0.5).all(axis=1)
    numbers = np.flatnonzero(on)
    tree = cKDTree(scaled(measured[on]), boxsize=[2 * far, 2 * far, around])
    distance, nearest = tree.query(scaled(expected[reflection, branch]), distance_upper_bound=1.0)
    # A spot belongs to the nearest of the reflections that claim it.
    order = np.argsort(distance, kind="stable")
    order = order[np.isfinite(distance[order])]
    order = order[np.unique(nearest[order], return_index=True)[1]]
    return Assigned(numbers[nearest[order]], known.hkl[reflection[order]], branch[order], len(reflection))


def refine(
    scan: RotationScan,
    region: SeenRegion,
    grain: Grain,
    known: Crystal,
    measured: Floats,
    sigma: Floats,
    *,
    free: FreeCell,
    radius: Floats,
    deviations: float,
) -> tuple[Grain, Assigned]:
    """Assign and fit in turn until the assignment is stable; see `fit_grain` and `assign` for the parameters.

    `radius` is that of the first assignment; it follows the residuals as `deviations` times their robust spread.
    """
    current = radius
    found = assign(scan, region, grain, known, measured, current)
    for number in range(_ROUNDS):
        if 3 * len(found.spot) < 6 + len(free.names) + 3:
            break
        fitted = fit_grain(
            scan,
            grain,
            found.hkl,
            found.branch,
            measured[found.spot],
            sigma[found.spot],
            free=free if number else None,
            robust=True,
        )
        grain = fitted.grain
        spread = _MAD * np.median(np.abs(fitted.residuals), axis=0)
        current = np.minimum(radius, np.maximum(deviations * spread, _CLOSEST))
        before, found = found, assign(scan, region, grain, known, measured, current)
        if number > 1 and np.array_equal(np.sort(before.spot), np.sort(found.spot)):
            break
    return grain, found


def added_sigma(fits: Sequence[Fitted], sigmas: Sequence[Floats]) -> Floats:
    """Return the (3,) additional standard deviation of rows, columns [px] and angles [deg] (Paule and Mandel).

    Parameters
    ----------
    fits : sequence of Fitted
    sigmas : sequence of (m, 3) float64
        Standard errors of the spots of each, without the addition.
    """
    residuals, leverage = (np.concatenate([getattr(fit, name) for fit in fits]) for name in ("residuals", "leverage"))
    sigma = np.concatenate(sigmas)
    found = np.zeros(3)
    for axis in range(3):
        square, variance = residuals[:, axis] ** 2, sigma[:, axis] ** 2
        left = float(np.sum(1 - leverage[:, axis]))

        def excess(added: float, square: Floats = square, variance: Floats = variance, left: float = left) -> float:
            return float(np.sum(square / (variance + added)) - left)

        high = float(square.sum() / max(left, 1.0)) * 2 + 1e-30
        if left >= 1 and excess(0.0) > 0 > excess(high):
            found[axis] = np.sqrt(brentq(excess, 0.0, high, xtol=1e-12))
    return found


def _seen(scan: RotationScan, region: SeenRegion, g: Floats, position: Floats) -> tuple[Bools, Floats]:
    """Return which reflections are seen, (..., 2) for both angles, and (..., 2, 3) row, col and omega."""
    omega = diffraction_angles(scan, g)
    both = np.broadcast_to(g[..., None, :], (*omega.shape, 3))
    row, col = detector_positions(scan, both, omega, position)
    return region.contains(row, col, omega), np.stack([row, col, omega], axis=-1)
