"""Simulated rocking scans: raw detector frames of one strained crystal, with geometry and truth."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from cathodeflow.bcdi.crystals import Vectors, draw_polyhedron
from cathodeflow.bcdi.diffraction import expected_intensity
from cathodeflow.bcdi.displacement import regime_of
from cathodeflow.bcdi.fields import draw_displacement, phase_on, scaled
from cathodeflow.bcdi.geometry import Geometry, q_vector, real_basis, reciprocal_basis
from cathodeflow.bcdi.polyhedra import (
    Floats,
    Grid,
    Polyhedron,
    amplitude,
    bounds,
    grid,
    moved,
    transformed,
    vertices,
    window,
)
from cathodeflow.bcdi.simulation_options import SimulateScan
from cathodeflow.errors import InputError

#: The 111 reflection of gold at a beamline such as 34-ID-C of the Advanced Photon Source.
GEOMETRY = Geometry(
    energy_kev=9.0,
    distance_m=0.5,
    pixel_um=55.0,
    delta_deg=32.2,
    gamma_deg=12.6,
    theta_deg=0.2,
    chi_deg=90.0,
    phi_deg=-5.0,
    rocking_axis="theta",
    rocking_step_deg=0.01,
)

# Counts of a good pixel under uniform illumination.
_WHITE = 15000


class Truth(NamedTuple):
    """The crystal on cubic voxels along the axes of the laboratory, with its centre at n // 2.

    Attributes
    ----------
    amplitude : (z, y, x) float32
        Fraction of each voxel that is crystal.
    displacement : (z, y, x) float32
        Along the scattering vector [nm], with mean 0 over amplitudes of at least 1/2; 0 where the amplitude is 0.
    strain : (z, y, x) float32
        Derivative of the displacement along the scattering vector; positive where the lattice is expanded.
    voxel_nm : float
    phase_range : float
        [rad]
    regime : str
    object : (frame, row, col) complex64
        On the skewed grid of the scan: its centred Fourier transform is the wave on the detector, without the
        shift of the peak. As large as the frames plus the shift.
    """

    amplitude: Floats
    displacement: Floats
    strain: Floats
    voxel_nm: float
    phase_range: float
    regime: str
    object: NDArray[np.complex64]


class RockingScan(NamedTuple):
    """Raw frames and the images and geometry that belong to them.

    Attributes
    ----------
    frames : (frame, row, col) int32
    dark : (row, col) int32
        Mean counts without beam; high in hot pixels.
    whitefield : (row, col) float32
        Counts under uniform illumination; 0 in dead pixels.
    good : (row, col) bool
        Pixels that are neither dead nor hot.
    geometry : Geometry
    centre : (3,) float64
        Position of the peak of the unstrained crystal: frame, row, column.
    truth : Truth
    """

    frames: NDArray[np.int32]
    dark: NDArray[np.int32]
    whitefield: Floats
    good: NDArray[np.bool_]
    geometry: Geometry
    centre: Vectors
    truth: Truth


def rocking_scan(
    options: SimulateScan,
    *,
    geometry: Geometry = GEOMETRY,
    voxel_nm: float | None = None,
    phase_range: float | None = None,
    exposure: int = 0,
) -> RockingScan:
    """Simulate the raw detector frames of a rocking scan.

    The crystal is defined in the laboratory frame and sampled on the skewed grid of the scan. The
    detector is assumed to be flat and the crystal fixed, as usual for rocking angles of fractions of a degree.

    Parameters
    ----------
    options : SimulateScan
    geometry : Geometry
        Its rocking step is replaced by that of the options.
    voxel_nm : float, optional
        Voxel size of the truth [nm]. Default: 1/32 of the size of the crystal.
    phase_range : float, optional
        Range of the phase, to use instead of that of the regime [rad].
    exposure : int
        Number of the exposure: each number has another noise, of the same crystal.

    Returns
    -------
    RockingScan

    Raises
    ------
    InputError
        The peak is outside the frames, or the fringes of the crystal are finer than two voxels.
    """
    shape, size_nm = (options.frames, options.rows, options.cols), options.size_nm
    offset = (options.offset[0], options.offset[1], options.offset[2])
    geometry = geometry._replace(rocking_step_deg=options.rocking_step_deg)
    if any(abs(shift) >= side / 2 for side, shift in zip(shape, offset, strict=True)):
        raise InputError("offset", f"{offset} in frames of {shape}", "the peak inside")
    step = size_nm / 32 if voxel_nm is None else voxel_nm
    if not 0 < 4 * step <= size_nm:
        raise InputError("size_nm", f"{size_nm} nm in voxels of {step} nm", "at least 4 voxels")
    keys = ((0,), (1, exposure) if exposure else (1,))
    rng, noise = (np.random.default_rng(np.random.SeedSequence(options.seed or 0, spawn_key=key)) for key in keys)
    polyhedron = draw_polyhedron(rng, habit=options.habit, aspect=options.aspect, rounding=options.rounding)
    polyhedron = transformed(polyhedron, np.eye(3) * size_nm / np.ptp(bounds(polyhedron), axis=0).max())
    q = q_vector(geometry)
    length = float(np.linalg.norm(q))

    # Vectors are (x, y, z), arrays (z, y, x).
    half = np.ceil(np.abs(bounds(polyhedron)).max(axis=0)[::-1] / step).astype(int) + 1
    depth, height, width = (2 * half + 1).tolist()
    laboratory = grid((depth, height, width), axes=step * np.eye(3)[::-1])
    share = amplitude(polyhedron, laboratory)
    displacement = draw_displacement(
        rng, options.kind, polyhedron=polyhedron, q=q, length=options.correlation * size_nm
    )
    displacement, phase = scaled(
        displacement, laboratory, inside=share >= 0.5, regime=options.regime, phase_range=phase_range, rng=rng
    )
    reach = step / 4 * q / length
    change = phase_on(moved(laboratory, reach), displacement) - phase_on(moved(laboratory, -reach), displacement)
    # At the cut of a dislocation Q . u jumps by 2 pi, but the lattice is continuous.
    change -= np.float32(2 * np.pi) * np.round(change / np.float32(2 * np.pi))

    on = _conjugate(geometry, shape, offset, polyhedron)
    where, part = window(on, polyhedron)
    volume = np.zeros(on.shape, dtype=np.complex64)
    volume[where] = amplitude(polyhedron, part) * np.exp(np.complex64(-1j) * phase_on(part, displacement))
    intensity = _on_detector(volume, shape, offset, photons=options.photons, coherence=options.coherence)
    found = float(np.ptp(phase[share >= 0.5]))
    truth = Truth(
        amplitude=share,
        displacement=np.where(share > 0, phase / np.float32(length), np.float32(0)),
        strain=np.where(share > 0, change / np.float32(step / 2 * length), np.float32(0)),
        voxel_nm=float(step),
        phase_range=found,
        regime=regime_of(found),
        object=volume,
    )
    frames, white, darkness, good = _read_out(intensity + np.float32(options.background), options, noise)
    return RockingScan(frames, darkness, white, good, geometry, np.array(shape) // 2 + np.asarray(offset), truth)


def _conjugate(
    geometry: Geometry, shape: tuple[int, int, int], offset: tuple[float, float, float], polyhedron: Polyhedron
) -> Grid:
    """Grid of the object in the frame of the scan, for a window in which the shifted peak does not wrap around."""
    depth, height, width = (
        next_fast_len(side + 2 * int(np.ceil(abs(shift)))) for side, shift in zip(shape, offset, strict=True)
    )
    on = grid((depth, height, width), axes=real_basis(reciprocal_basis(geometry), (depth, height, width)))
    extent = np.ptp(vertices(polyhedron) @ np.linalg.inv(on.axes), axis=0)
    if (2 * extent > on.shape).any():
        found = ", ".join(f"{n / e:.2f}" for n, e in zip(on.shape, extent, strict=True))
        raise InputError("size_nm", f"a crystal with oversampling {found}", "at least 2: a smaller crystal or step")
    return on


def _on_detector(
    volume: NDArray[np.complex64],
    shape: tuple[int, int, int],
    offset: tuple[float, float, float],
    *,
    photons: float,
    coherence: float,
) -> Floats:
    """Mean counts (frame, row, col) of an object whose peak is shifted, in the region that is read out."""
    phase = np.angle(volume)
    for axis, (side, shift) in enumerate(zip(volume.shape, offset, strict=True)):
        ramp = 2 * np.pi * shift * (np.arange(side) - side // 2) / side
        phase += np.expand_dims(ramp.astype(np.float32), [other for other in range(3) if other != axis])
    intensity = expected_intensity(np.abs(volume), phase, photons=photons, coherence=coherence, background=0)
    starts = [whole // 2 - side // 2 for whole, side in zip(volume.shape, shape, strict=True)]
    return intensity[tuple(slice(start, start + side) for start, side in zip(starts, shape, strict=True))]


def _read_out(
    intensity: Floats, options: SimulateScan, rng: np.random.Generator
) -> tuple[NDArray[np.int32], Floats, NDArray[np.int32], NDArray[np.bool_]]:
    """Frames, whitefield, dark image and mask of a detector with equal numbers of hot and dead pixels."""
    shape = intensity.shape[1:]
    sensitivity = np.maximum(1 + options.unevenness * rng.normal(size=shape), 0.1).astype(np.float32)
    current, good = np.full(shape, options.dark), np.ones(shape, dtype=bool)
    hot, blind = np.split(rng.choice(good.size, 2 * round(options.hot_fraction * good.size), replace=False), 2)
    current.flat[hot] += np.exp(rng.uniform(0, np.log(1000), len(hot)))
    current.flat[blind], sensitivity.flat[blind] = 0, 0
    good.flat[hot], good.flat[blind] = False, False
    frames = rng.poisson(intensity * sensitivity + current).astype(np.int32)
    white = rng.poisson(_WHITE * sensitivity).astype(np.float32)
    return frames, white, np.rint(current).astype(np.int32), good
