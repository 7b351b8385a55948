"""Angles against cases that can be told by thought, bases against the diffraction they stand for."""

import numpy as np
import pytest

from cathodeflow.bcdi.geometry import Geometry, q_vector, real_basis, reciprocal_basis, to_laboratory, wavelength_nm
from cathodeflow.errors import InputError

MEASURED = Geometry(9.0, 0.5, 55.0, 32.174, 12.6346, 0.22, 90.0, -5.0, "theta", 0.005)


def turn(axis, degrees):
    """Rotation matrix by Rodrigues' formula, apart from the library that the module uses."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def test_the_wavelength_is_that_of_the_energy():
    assert wavelength_nm(MEASURED) == pytest.approx(0.13776022, abs=1e-8)


def test_the_detector_moves_outboard_with_delta_and_up_with_gamma():
    x, y, z = q_vector(MEASURED._replace(gamma_deg=0.0))
    assert x > 0 and y == pytest.approx(0, abs=1e-12) and z < 0
    x, y, z = q_vector(MEASURED._replace(delta_deg=0.0))
    assert x == pytest.approx(0, abs=1e-12) and y > 0 and z < 0


def test_braggs_law_gives_the_spacing_of_gold_111_on_the_measured_peak():
    cosine = np.cos(np.deg2rad(32.174)) * np.cos(np.deg2rad(12.6346))
    q = np.linalg.norm(q_vector(MEASURED))
    assert q == pytest.approx(4 * np.pi / 0.13776 * np.sin(np.arccos(cosine) / 2), rel=1e-5)
    # Gold has 0.23545 nm; the middle of the detector is not exactly on the peak.
    assert 2 * np.pi / q == pytest.approx(0.2354, rel=0.015)


@pytest.mark.parametrize(
    ("axis", "inner"),
    [
        ("theta", [(0, 1, 0)]),
        ("chi", [(0, 1, 0), (0, 0, -1)]),
        ("phi", [(0, 1, 0), (0, 0, -1), (0, 1, 0)]),
    ],
)
def test_a_step_of_the_scan_is_what_the_crystal_lattice_passes_through(axis, inner):
    geometry = MEASURED._replace(theta_deg=17.0, chi_deg=74.0, phi_deg=-5.0, rocking_axis=axis)
    angles = [17.0, 74.0, -5.0]

    def crystal(step):
        turned = angles.copy()
        turned[len(inner) - 1] += step
        rotation = np.eye(3)
        for about, angle in zip([(0, 1, 0), (0, 0, -1), (0, 1, 0)], turned, strict=True):
            rotation = rotation @ turn(about, angle)
        return rotation

    # What the middle of the detector sees in the frame of the crystal, one step on, brought back to the laboratory.
    seen = crystal(0) @ crystal(0.005).T @ q_vector(geometry) - q_vector(geometry)
    np.testing.assert_allclose(reciprocal_basis(geometry)[0], seen, rtol=0, atol=1e-4 * np.linalg.norm(seen))


def test_pixels_lie_across_the_diffracted_beam_and_count_down_and_outboard():
    _, row, col = reciprocal_basis(MEASURED)
    beam = q_vector(MEASURED) + np.array([0, 0, 2 * np.pi / wavelength_nm(MEASURED)])
    size = 2 * np.pi / wavelength_nm(MEASURED) * 55e-6 / 0.5
    assert np.linalg.norm(row) == pytest.approx(size) and np.linalg.norm(col) == pytest.approx(size)
    assert row @ col == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose([row @ beam, col @ beam], 0, atol=1e-10)
    assert row[1] < 0 and col[0] > 0
    other = MEASURED._replace(row_direction="up", col_direction="inboard")
    np.testing.assert_allclose(reciprocal_basis(other)[1:], [-row, -col])


def test_a_pixel_to_the_side_sees_the_scattering_vector_of_its_own_direction():
    delta = np.rad2deg(np.arctan(55e-6 / 0.5))
    flat = MEASURED._replace(gamma_deg=0.0)
    moved = q_vector(flat._replace(delta_deg=flat.delta_deg + delta)) - q_vector(flat)
    np.testing.assert_allclose(reciprocal_basis(flat)[2], moved, atol=2e-4 * np.linalg.norm(moved))


def test_binning_makes_steps_longer_and_the_real_voxels_of_a_smaller_grid_stay():
    full, binned = reciprocal_basis(MEASURED), reciprocal_basis(MEASURED, binning=(3, 2, 1))
    np.testing.assert_allclose(binned, full * [[3], [2], [1]])
    np.testing.assert_allclose(real_basis(full, (60, 40, 20)), real_basis(binned, (20, 20, 20)))


def test_a_plane_wave_on_the_object_grid_is_one_voxel_of_the_transform():
    shape = (8, 12, 10)
    reciprocal = reciprocal_basis(MEASURED)
    voxels = real_basis(reciprocal, shape)
    index = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij"), axis=-1)
    q = np.array([2, -3, 1]) @ reciprocal
    wave = np.exp(1j * (index @ voxels) @ q)
    peak = np.abs(np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(wave), norm="ortho")))
    assert np.unravel_index(peak.argmax(), shape) == (4 + 2, 6 - 3, 5 + 1)
    assert peak.max() == pytest.approx(np.sqrt(np.prod(shape)))


def ball(geometry, shape, *, centre, radius):
    """Ball in the laboratory, in the frame of the scan, and the places of its voxels [nm]."""
    index = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij"), axis=-1)
    places = index @ real_basis(reciprocal_basis(geometry), shape)
    return (np.linalg.norm(places - centre, axis=-1) < radius).astype(np.complex64), places


def laboratory_places(shape, voxel):
    z, y, x = (voxel * (np.arange(n) - n // 2) for n in shape)
    return np.stack(np.broadcast_arrays(x, y[:, None], z[:, None, None]), axis=-1)


# A coarse detector: a grid of 32 holds a particle of 100 nm.
COARSE = MEASURED._replace(pixel_um=440.0, rocking_step_deg=0.06)


@pytest.mark.parametrize("voxel_nm", [None, 4.0])
def test_a_ball_is_a_ball_in_the_laboratory_at_its_place_and_size(voxel_nm):
    centre, radius = np.array([12.0, -8.0, 20.0]), 45.0
    volume, _ = ball(COARSE, (32, 32, 32), centre=centre, radius=radius)
    cubic, voxel = to_laboratory(volume, COARSE, voxel_nm=voxel_nm)
    amplitude, places = np.abs(cubic), laboratory_places(cubic.shape, voxel)
    np.testing.assert_allclose((amplitude[..., None] * places).sum((0, 1, 2)) / amplitude.sum(), centre, atol=0.5)
    skewed = abs(np.linalg.det(real_basis(reciprocal_basis(COARSE), volume.shape)))
    assert amplitude.sum() * voxel**3 == pytest.approx(np.abs(volume).sum() * skewed, rel=0.01)
    assert amplitude.sum() * voxel**3 == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.02)
    wrong = (amplitude > 0.5) != (np.linalg.norm(places - centre, axis=-1) < radius)
    assert wrong.sum() < 0.12 * (amplitude > 0.5).sum()
    if voxel_nm is None:
        assert voxel**3 == pytest.approx(skewed)
    else:
        assert voxel == voxel_nm


def test_a_phase_that_changes_fast_and_wraps_keeps_its_value_and_the_amplitude():
    volume, places = ball(COARSE, (32, 32, 32), centre=np.zeros(3), radius=45.0)
    slope = np.array([0.06, -0.05, 0.04])
    cubic, voxel = to_laboratory(volume * np.exp(1j * (places @ slope + 2)), COARSE)
    assert cubic.dtype == np.complex64 or cubic.dtype == np.complex128
    inside = np.linalg.norm(laboratory_places(cubic.shape, voxel), axis=-1) < 30
    np.testing.assert_allclose(np.abs(cubic)[inside], 1, atol=1e-3)
    off = np.angle(cubic * np.exp(-1j * (laboratory_places(cubic.shape, voxel) @ slope + 2)))
    assert np.abs(off[inside]).max() < 0.05
    # The phase goes beyond pi, so an average of angles would have failed.
    assert (laboratory_places(cubic.shape, voxel)[inside] @ slope + 2).max() > 4


def test_real_volumes_stay_real_and_linear_fields_exact():
    _, places = ball(COARSE, (16, 16, 16), centre=np.zeros(3), radius=1.0)
    field = (100 + places @ [0.1, 0.2, -0.3]).astype(np.float32)
    cubic, voxel = to_laboratory(field, COARSE)
    assert cubic.dtype == np.float32
    inside = np.linalg.norm(laboratory_places(cubic.shape, voxel), axis=-1) < 25
    np.testing.assert_allclose(
        cubic[inside], 100 + laboratory_places(cubic.shape, voxel)[inside] @ [0.1, 0.2, -0.3], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"energy_kev": 0.0}, "geometry: found an energy of 0.0 keV, expected more than 0"),
        ({"distance_m": 0.0}, "geometry: found distance_m 0.0, expected more than 0"),
        ({"pixel_um": -1.0}, "geometry: found pixel_um -1.0, expected more than 0"),
        (
            {"delta_deg": 0.0, "gamma_deg": 0.0},
            "geometry: found delta and gamma of 0, expected the angles of a Bragg peak",
        ),
        ({"rocking_step_deg": 0.0}, "expected the change of angle from frame to frame"),
        ({"rocking_axis": "mu"}, "geometry: found rocking axis mu, expected one of theta, chi, phi"),
        ({"delta_deg": 0.0}, "found a scan of theta that does not move the peak out of the detector's plane"),
    ],
)
def test_a_geometry_that_cannot_be_is_one_line(change, line):
    with pytest.raises(InputError) as caught:
        reciprocal_basis(MEASURED._replace(**change))
    assert line in str(caught.value)


def test_an_empty_object_is_refused():
    with pytest.raises(InputError, match="found 0 everywhere"):
        to_laboratory(np.zeros((4, 4, 4), np.complex64), MEASURED)
