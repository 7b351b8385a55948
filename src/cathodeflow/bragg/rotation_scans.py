"""Where a rotated crystal diffracts: angle of rotation and detector pixel of a reflection, and the way back.

The sample turns right-handed by omega about an axis through the origin of the laboratory (`io.detector_geometry`); its
frame is that of the laboratory at omega = 0. A reflection with the reciprocal vector g (length 1 / d) in the sample
diffracts where beam . g(omega) = -wavelength g^2 / 2 (Ewald's sphere), at two angles or none; the beam leaves from the
position of the grain at that angle (Poulsen, Three-Dimensional X-Ray Diffraction Microscopy, 2004, chapter 3;
Bernier et al., J. Strain Anal. Eng. Des. 46, 527, 2011).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cathodeflow.io.detector_geometry import HC_KEV_ANGSTROM, DetectorGeometry

Floats = NDArray[np.float64]


class RotationScan(NamedTuple):
    """Geometry of a scan in which the sample is turned.

    Attributes
    ----------
    geometry : DetectorGeometry
    axis : (3,) float64
        Direction of the axis of rotation in the laboratory, of length 1.
    wavelength : float
        [Angstrom]
    """

    geometry: DetectorGeometry
    axis: Floats
    wavelength: float


def rotation_scan(geometry: DetectorGeometry, axis: ArrayLike, energy_kev: float) -> RotationScan:
    """Return the geometry of a scan; the axis may have any length."""
    direction = np.asarray(axis, np.float64)
    return RotationScan(geometry, direction / np.linalg.norm(direction), HC_KEV_ANGSTROM / energy_kev)


def turned(vectors: Floats, axis: Floats, omega: ArrayLike) -> Floats:
    """Turn (..., 3) vectors about an axis of length 1 by angles [deg] (Rodrigues' formula)."""
    angle = np.deg2rad(np.asarray(omega, np.float64))[..., None]
    along = (vectors @ axis)[..., None] * axis
    return np.asarray(along + np.cos(angle) * (vectors - along) + np.sin(angle) * (vectors @ _cross(axis)))


def diffraction_angles(scan: RotationScan, g: Floats) -> Floats:
    """Return the two angles at which reflections diffract.

    Parameters
    ----------
    scan : RotationScan
    g : (..., 3) float64
        Reciprocal vectors in the sample [1/Angstrom].

    Returns
    -------
    (..., 2) float64
        Angles from -180 to 180 [deg]; NaN where the reflection never meets Ewald's sphere.
    """
    beam = scan.geometry.beam / np.linalg.norm(scan.geometry.beam)
    along = g @ scan.axis
    # beam . g(omega) = constant + cosine cos(omega) + sine sin(omega)
    constant = along * (beam @ scan.axis)
    cosine, sine = g @ beam - constant, g @ _cross(scan.axis) @ beam
    wanted = -0.5 * scan.wavelength * np.sum(g * g, axis=-1) - constant
    with np.errstate(invalid="ignore", divide="ignore"):
        half = np.arccos(wanted / np.hypot(cosine, sine))
    middle = np.arctan2(sine, cosine)
    return np.asarray(wrapped(np.rad2deg(np.stack([middle - half, middle + half], axis=-1))))


def detector_positions(scan: RotationScan, g: Floats, omega: Floats, place: Floats) -> tuple[Floats, Floats]:
    """Return where reflections meet the detector.

    Parameters
    ----------
    scan : RotationScan
    g : (..., 3) float64
        Reciprocal vectors in the sample [1/Angstrom].
    omega : (...,) float64
        Angle at which each diffracts [deg].
    place : (3,) float64
        Position of the grain in the sample [mm].

    Returns
    -------
    row, col : (...,) float64
        Position on the flat detector, without distortion [px]; NaN where the beam goes away from the detector.
    """
    geometry = scan.geometry
    beam = geometry.beam / np.linalg.norm(geometry.beam)
    direction = beam + scan.wavelength * turned(g, scan.axis, omega)
    start = 1e-3 * turned(np.broadcast_to(place, g.shape), scan.axis, omega)
    normal = np.cross(geometry.row_step, geometry.col_step)
    with np.errstate(invalid="ignore", divide="ignore"):
        way = ((geometry.origin - start) @ normal) / (direction @ normal)
        hit = start + np.where(way > 0, way, np.nan)[..., None] * direction
    return _pixels(geometry, hit)


def diffracted_vectors(scan: RotationScan, place: Floats) -> Floats:
    """Return the (n, 3) reciprocal vectors [1/Angstrom] in the sample of spots from a grain at the origin.

    Parameters
    ----------
    scan : RotationScan
    place : (n, 3) float64
        Row, col [px], without distortion, and omega [deg].
    """
    geometry = scan.geometry
    beam = geometry.beam / np.linalg.norm(geometry.beam)
    vector = geometry.origin + place[:, :1] * geometry.row_step + place[:, 1:2] * geometry.col_step
    direction = vector / np.linalg.norm(vector, axis=1, keepdims=True)
    return turned((direction - beam) / scan.wavelength, scan.axis, -place[:, 2])


def wrapped(angle: ArrayLike) -> Floats:
    """Return angles, or their differences, between -180 and 180 [deg]."""
    return np.asarray((np.asarray(angle, np.float64) + 180.0) % 360.0 - 180.0)


def _cross(axis: Floats) -> Floats:
    """Return the (3, 3) matrix with which `vectors @ matrix` is the cross product of the axis and each vector."""
    x, y, z = axis
    return np.array([[0.0, z, -y], [-z, 0.0, x], [y, -x, 0.0]])


def _pixels(geometry: DetectorGeometry, point: Floats) -> tuple[Floats, Floats]:
    found = (point - geometry.origin) @ np.linalg.pinv(np.stack([geometry.row_step, geometry.col_step]))
    return found[..., 0], found[..., 1]
