"""Scattering angles, scattering vector and lattice spacing at positions on a detector, with their standard errors."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cathodeflow.bragg.detector_positions import positions_and_steps
from cathodeflow.io.detector_geometry import HC_KEV_ANGSTROM, DetectorGeometry

Floats = NDArray[np.float64]


class Scattering(NamedTuple):
    """Scattering of peaks, (n,) float64 each; NaN errors where the errors of the position are NaN.

    All are NaN between the modules of a detector.

    Attributes
    ----------
    two_theta, two_theta_err
        Angle between the primary and the diffracted beam [deg].
    azimuth, azimuth_err
        Angle about the primary beam, seen along it: 0 to the right, 90 up, -180 to 180 [deg].
    q, q_err
        Length of the scattering vector, 4 pi sin(theta) / wavelength [1/Angstrom].
    d, d_err
        Lattice spacing 2 pi / q [Angstrom].
    """

    two_theta: Floats
    azimuth: Floats
    q: Floats
    d: Floats
    two_theta_err: Floats
    azimuth_err: Floats
    q_err: Floats
    d_err: Floats


def positions(geometry: DetectorGeometry, row: ArrayLike, col: ArrayLike) -> Floats:
    """Return the (n, 3) positions [m] of detector pixels in the laboratory frame; any fractions of pixels.

    They are corrected for the distortion that the geometry describes, and NaN between its modules.
    """
    return positions_and_steps(geometry, row, col)[0]


def scattering(
    geometry: DetectorGeometry,
    row: ArrayLike,
    col: ArrayLike,
    *,
    row_err: ArrayLike | None = None,
    col_err: ArrayLike | None = None,
    energy_kev: ArrayLike | None = None,
) -> Scattering:
    """Compute the scattering of peaks.

    The errors are those of the positions, which are taken as independent, to first order. The errors of geometry and
    energy are common to all peaks and are not in them.

    Parameters
    ----------
    geometry : DetectorGeometry
    row, col : (n,) floating
        Position in detector pixels.
    row_err, col_err : (n,) floating, optional
        Standard errors [px].
    energy_kev : (n,) floating or number, optional
        Photon energy, instead of that of the geometry; without either, q and d are NaN.

    Returns
    -------
    Scattering

    Examples
    --------
    >>> beam, geometry = np.array([0.0, 0, 1]), None
    >>> flat = DetectorGeometry("x", beam, np.array([0, -1e-4, 0]), np.array([-1e-4, 0, 0]), beam, 12.398419843, None)
    >>> found = scattering(flat, [0.0], [10000.0], row_err=[1.0], col_err=[1.0])
    >>> found.two_theta.round(6), found.azimuth.round(6), found.d.round(4)
    (array([45.]), array([0.]), array([1.3066]))
    """
    vector, *steps = positions_and_steps(geometry, row, col)
    beam = geometry.beam / np.linalg.norm(geometry.beam)
    # Directions across the beam: to the right and up, as seen along it; they need not be at right angles to the beam.
    right = np.cross(beam, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, beam)
    along, x, y = vector @ beam, vector @ right, vector @ up
    across = np.hypot(x, y)
    two_theta, azimuth = np.arctan2(across, along), np.arctan2(y, x)
    # Unit vectors of increasing angles, and the length that an angle of 1 rad spans along each.
    with np.errstate(divide="ignore", invalid="ignore"):
        radial = (x[:, None] * right + y[:, None] * up) / across[:, None]
        tangential = (x[:, None] * up - y[:, None] * right) / across[:, None]
        distance = np.hypot(across, along)
        outward = (radial * along[:, None] - beam * across[:, None]) / distance[:, None]
    errors = [
        np.full(len(vector), np.nan) if given is None else np.asarray(given, np.float64) for given in (row_err, col_err)
    ]

    def propagated(direction: Floats, length: Floats) -> Floats:
        parts = [np.sum(direction * step, axis=1) / length * error for step, error in zip(steps, errors, strict=True)]
        return np.asarray(np.sqrt(np.sum(np.square(parts), axis=0)))

    with np.errstate(divide="ignore", invalid="ignore"):
        two_theta_err = propagated(outward, distance)
        azimuth_err = propagated(tangential, across)
    energy = geometry.energy_kev if energy_kev is None else energy_kev
    wave_number = (
        2
        * np.pi
        / HC_KEV_ANGSTROM
        * np.broadcast_to(np.asarray(np.nan if energy is None else energy, np.float64), two_theta.shape)
    )
    q = 2 * wave_number * np.sin(two_theta / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        d = 2 * np.pi / q
        q_err = wave_number * np.cos(two_theta / 2) * two_theta_err
        d_err = d * q_err / q
    return Scattering(
        np.rad2deg(two_theta),
        np.rad2deg(azimuth),
        q,
        d,
        np.rad2deg(two_theta_err),
        np.rad2deg(azimuth_err),
        q_err,
        d_err,
    )
