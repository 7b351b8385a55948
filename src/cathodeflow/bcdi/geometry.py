"""Geometry of a rocking scan: its voxels in reciprocal and in real space, and objects on a cubic grid.

Laboratory frame, as at 34-ID-C of the Advanced Photon Source: x outboard and y up, both across the beam, z along the
beam; vectors are (x, y, z). Angles are those of the motors, rotations are right-handed [1]_ [2]_:

- The detector arm rotates by gamma about -x, then by delta about +y: gamma moves it up, delta outboard. At zero
  angles the detector faces the direct beam.
- The sample rotates by phi about +y, then by chi about -z, then by theta about +y: at chi = 90 degrees the axis of
  phi is +x, across the beam.

Rotating the sample by +d rotates its reciprocal lattice, so the detector, fixed in the laboratory, measures it at -d.

References
----------
.. [1] F. Hofmann et al., J. Synchrotron Rad. 24, 1048 (2017)
.. [2] S. Maddali et al., J. Appl. Cryst. 53, 393 (2020): bases of sampling in both spaces
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from cathodeflow.errors import InputError

Floats = NDArray[np.float64]

#: Planck's constant times the speed of light (exact in the SI) [keV nm].
HC = 1.2398419843320026
#: Sine of the minimum angle between each axis of a scan and the plane of the other two.
FLAT = 0.01


class Geometry(NamedTuple):
    """Geometry of a rocking scan: detector, sample, and rocking step."""

    energy_kev: float
    #: Distance from the sample to the detector [m].
    distance_m: float
    #: Side of a detector pixel [um].
    pixel_um: float
    #: Angles of the detector arm [degrees].
    delta_deg: float
    gamma_deg: float
    #: Angles of the sample, at the middle of the scan [degrees].
    theta_deg: float
    chi_deg: float
    phi_deg: float
    #: Angle that is scanned, and its step from frame to frame [degrees].
    rocking_axis: Literal["theta", "chi", "phi"]
    rocking_step_deg: float
    #: Directions in which row and column numbers of the detector increase, at zero angles of the arm.
    row_direction: Literal["down", "up"] = "down"
    col_direction: Literal["outboard", "inboard"] = "outboard"


class ScanVectors(NamedTuple):
    """Geometry of a scan at any beamline, as vectors (x, y, z) of the laboratory frame [1/nm], 2 pi included."""

    beamline: str
    energy_kev: float
    #: Distance from the sample to the detector [m].
    distance_m: float
    #: Side of a detector pixel [um].
    pixel_um: float
    #: Scattering vector at the peak.
    q: tuple[float, ...]
    #: Its change from frame to frame, row to row and column to column.
    frame_step: tuple[float, ...]
    row_step: tuple[float, ...]
    col_step: tuple[float, ...]
    #: 1 for each axis (frame, row, column) along which `q` is that of the peak, 0 where of the middle of the scan.
    at_peak: tuple[float, ...] = (0.0, 0.0, 0.0)


def q_of_peak(geometry: Geometry | ScanVectors, offset: Floats) -> Floats:
    """Scattering vector (3,) [1/nm] of a peak.

    Parameters
    ----------
    geometry : Geometry or ScanVectors
    offset : (3,) float64
        Frames, rows and columns from the middle of the scan to the peak.
    """
    rest = offset * (1 - np.asarray(geometry.at_peak)) if isinstance(geometry, ScanVectors) else offset
    found: Floats = q_vector(geometry) + rest @ reciprocal_basis(geometry)
    return found


def restored(values: Mapping[str, Any]) -> "Geometry | ScanVectors":
    """Make a geometry of the values of its fields, as files keep them."""
    if "frame_step" not in values:
        return Geometry(**values)
    made: Any = {name: tuple(value) if np.ndim(value) else value for name, value in values.items()}
    return ScanVectors(**made)


def wavelength_nm(geometry: Geometry) -> float:
    """Wavelength [nm].

    Examples
    --------
    >>> round(wavelength_nm(Geometry(9, 0.5, 55, 30, 0, 0, 90, 0, "theta", 0.005)), 5)
    0.13776
    """
    return HC / geometry.energy_kev


def q_vector(geometry: Geometry | ScanVectors) -> Floats:
    """Scattering vector (3,) [1/nm], 2 pi included, laboratory frame; of a `Geometry` to the middle of the detector.

    Raises
    ------
    InputError
        The energy is not positive, or the detector is in the direct beam.
    """
    if isinstance(geometry, ScanVectors):
        return np.asarray(geometry.q)
    if not geometry.energy_kev > 0:
        raise InputError("geometry", f"an energy of {geometry.energy_kev} keV", "more than 0")
    beam = np.array([0.0, 0.0, 1.0])
    q: Floats = 2 * np.pi / wavelength_nm(geometry) * (_arm(geometry).apply(beam) - beam)
    if np.linalg.norm(q) < 1e-6:
        raise InputError("geometry", "delta and gamma of 0", "the angles of a Bragg peak")
    return q


def reciprocal_basis(geometry: Geometry | ScanVectors, *, binning: tuple[int, int, int] = (1, 1, 1)) -> Floats:
    """Change of the scattering vector per step of the scan, per detector row and per detector column.

    The measured region is assumed to be flat; that of a `Geometry` in the middle of the detector.

    Parameters
    ----------
    geometry : Geometry or ScanVectors
    binning : (int, int, int)
        Frames, rows and columns that were binned to one.

    Returns
    -------
    (3, 3) float64
        Rows are the vectors, in the laboratory frame [1/nm], 2 pi included.

    Raises
    ------
    InputError
        The three vectors lie in a plane, as in a rotation about the scattering vector, or a size is 0.
    """
    if isinstance(geometry, ScanVectors):
        vectors = np.array([geometry.frame_step, geometry.row_step, geometry.col_step])
        return vectors * np.asarray(binning, dtype=np.float64)[:, None]
    q, arm = q_vector(geometry), _arm(geometry)
    for name in ("distance_m", "pixel_um"):
        if not getattr(geometry, name) > 0:
            raise InputError("geometry", f"{name} {getattr(geometry, name)}", "more than 0")
    if geometry.rocking_step_deg == 0:
        raise InputError("geometry", "rocking_step_deg 0", "the change of angle from frame to frame")
    # Change of the scattering vector per radian of the scan.
    turned = -np.cross(_rocking_axis(geometry), q)
    if abs(turned @ arm.apply([0, 0, 1])) < FLAT * np.linalg.norm(q):
        found = f"a scan of {geometry.rocking_axis} that does not move the peak out of the detector's plane"
        raise InputError("geometry", found, "another rocking axis")
    per_pixel = 2 * np.pi / wavelength_nm(geometry) * geometry.pixel_um * 1e-6 / geometry.distance_m
    down = -1 if geometry.row_direction == "down" else 1
    out = 1 if geometry.col_direction == "outboard" else -1
    rows, cols = per_pixel * arm.apply([[0, down, 0], [out, 0, 0]])
    step = np.deg2rad(geometry.rocking_step_deg) * turned
    basis: Floats = np.array([step, rows, cols]) * np.asarray(binning, dtype=np.float64)[:, None]
    return basis


def real_basis(basis: Floats, shape: tuple[int, int, int]) -> Floats:
    """Voxel vectors of the object whose discrete Fourier transform has the voxel vectors `basis`.

    They satisfy r . q = 2 pi (k l / n + ...) for voxels k of the object and l of the transform [1]_.

    Parameters
    ----------
    basis : (3, 3)
        Rows are the vectors along the axes of reciprocal space [1/nm], 2 pi included.
    shape : (int, int, int)
        Shape of the transform.

    Returns
    -------
    (3, 3) float64
        Rows are the vectors along the axes of the object [nm].

    References
    ----------
    .. [1] S. Maddali et al., J. Appl. Cryst. 53, 393 (2020)

    Examples
    --------
    >>> real_basis(np.diag([0.1, 0.1, 0.2]), (10, 20, 10)).diagonal().round(3)
    array([6.283, 3.142, 3.142])
    """
    inverse: Floats = 2 * np.pi * np.linalg.inv(basis * np.asarray(shape)[:, None]).T
    return inverse


def to_laboratory(
    volume: NDArray[Any],
    geometry: Geometry | ScanVectors,
    *,
    binning: tuple[int, int, int] = (1, 1, 1),
    voxel_nm: float | None = None,
    within: NDArray[np.bool_] | None = None,
    order: int = 1,
) -> tuple[NDArray[Any], float]:
    """Interpolate an object from the skewed frame of its scan to cubic voxels along the axes of the laboratory.

    Amplitude and phase are interpolated separately, the phase as a complex number: where the phase changes between
    voxels, a complex average would be too small, and an average of wrapped angles would be wrong.

    Parameters
    ----------
    volume : (rocking, row, col) complex or real
        As large as the transform. Its phase should have no ramp: the faster it changes, the less accurately it is
        interpolated.
    geometry : Geometry or ScanVectors
    binning : (int, int, int)
        As in `reciprocal_basis`.
    voxel_nm : float, optional
        Side of the new voxels [nm]. Default: that of cubes with the volume of the old voxels.
    within : (rocking, row, col) bool, optional
        Region that the new volume must contain. Default: all voxels that are not 0.
    order : int
        Order of the splines: 1 for a volume with edges, 3 for a smooth one.

    Returns
    -------
    volume : (z, y, x) of the same type
        Along the axes of the laboratory, with the centre of the object at n // 2, just large enough for `within`.
    voxel_nm : float

    Raises
    ------
    InputError
        The geometry cannot be used, or there is no object.
    """
    basis = real_basis(reciprocal_basis(geometry, binning=binning), volume.shape)
    voxel = abs(np.linalg.det(basis)) ** (1 / 3) if voxel_nm is None else voxel_nm
    centre = np.array(volume.shape) // 2
    filled = np.argwhere(volume if within is None else within)
    if not len(filled):
        raise InputError("object", "0 everywhere", "an object")
    # Corners of its bounding box, extended by a voxel for the interpolation.
    low, high = filled.min(axis=0) - 1 - centre, filled.max(axis=0) + 1 - centre
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True)), axis=-1).reshape(-1, 3) @ basis
    half = np.ceil(np.abs(corners).max(axis=0) / voxel).astype(np.intp)[::-1]
    axes = [voxel * np.arange(-n, n + 1) for n in half]
    inverse = np.linalg.inv(basis)
    new = np.empty([len(axis) for axis in axes], dtype=volume.dtype)
    y, x = np.meshgrid(axes[1], axes[2], indexing="ij")
    for number, z in enumerate(axes[0]):
        places = np.stack([x, y, np.full_like(x, z)], axis=-1) @ inverse + centre
        coordinates = np.moveaxis(places, -1, 0)
        if not np.iscomplexobj(volume):
            new[number] = map_coordinates(volume, coordinates, order=order, output=np.float64)
            continue
        amplitude = map_coordinates(np.abs(volume), coordinates, order=order, output=np.float64)
        phase = np.angle(map_coordinates(volume, coordinates, order=order, output=np.complex128))
        new[number] = amplitude * np.exp(1j * phase)
    return new, float(voxel)


def frequency_scale(
    geometry: Geometry | ScanVectors | None, shape: Sequence[int], binning: tuple[int, int, int]
) -> tuple[Floats, str]:
    """Sizes (3,) whose inverses are the ranges of spatial frequency along the axes of a pattern, and the unit.

    With a geometry in nm, otherwise in voxels: the unit of the frequency is "1/nm" or "1/voxel".
    """
    if geometry is None:
        return np.ones(3), "1/voxel"
    steps = np.linalg.norm(reciprocal_basis(geometry, binning=binning), axis=1)
    sizes: Floats = 2 * np.pi / (steps * np.array(shape))
    return sizes, "1/nm"


def rotation(axis: Floats, degrees: float) -> Floats:
    """Return the rotation matrix (3, 3) about a unit vector, right-handed.

    Examples
    --------
    >>> (rotation(np.array([0.0, 1.0, 0.0]), 90) @ [0, 0, 1]).round(6).tolist()
    [1.0, 0.0, 0.0]
    """
    turned: Floats = Rotation.from_rotvec(np.deg2rad(degrees) * np.asarray(axis)).as_matrix()
    return turned


def _arm(geometry: Geometry) -> Rotation:
    """Rotation of the detector arm from zero angles to its angles."""
    return _turn("y", geometry.delta_deg) * _turn("x", -geometry.gamma_deg)


def _rocking_axis(geometry: Geometry) -> Floats:
    """Return the unit vector (3,) of the axis about which the scan rotates the sample."""
    theta, chi = _turn("y", geometry.theta_deg), _turn("z", -geometry.chi_deg)
    # Each axis rotates with the ones outside it.
    axes = {
        "theta": np.array([0.0, 1.0, 0.0]),
        "chi": theta.apply([0, 0, -1]),
        "phi": (theta * chi).apply([0, 1, 0]),
    }
    if geometry.rocking_axis not in axes:
        raise InputError("geometry", f"rocking axis {geometry.rocking_axis}", f"one of {', '.join(axes)}")
    return axes[geometry.rocking_axis]


def _turn(axis: str, degrees: float) -> Rotation:
    return Rotation.from_euler(axis, degrees, degrees=True)
