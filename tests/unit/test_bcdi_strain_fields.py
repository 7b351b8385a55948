"""Crystals with known displacement, in the skewed frame of a scan, and what is found of it in the laboratory."""

import numpy as np
import pytest

from cathodeflow.bcdi.geometry import Geometry, q_vector, real_basis, reciprocal_basis
from cathodeflow.bcdi.options import Strain
from cathodeflow.bcdi.strain_fields import Field, depth, depth_statistics, displacement, particle, strain
from cathodeflow.errors import InputError

GEOMETRY = Geometry(9.0, 0.5, 440.0, 32.174, 12.6346, 0.22, 90.0, -5.0, "theta", 0.06)
SHAPE = (32, 32, 32)
BASIS = real_basis(reciprocal_basis(GEOMETRY), SHAPE)
Q = q_vector(GEOMETRY)
ALONG = Q / np.linalg.norm(Q)
RADIUS = 50.0


def laboratory_basis(voxel_nm):
    """Voxel vectors of a volume (z, y, x) in the laboratory's axes x, y, z."""
    return voxel_nm * np.eye(3)[::-1]


def centred_places(shape, basis):
    index = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij"), axis=-1)
    return index @ basis


PLACES = centred_places(SHAPE, BASIS)
SUPPORT = np.linalg.norm(PLACES, axis=-1) < RADIUS


def crystal(u):
    """Object of a ball whose atoms are displaced by u [nm] along Q."""
    return np.where(SUPPORT, np.exp(-1j * np.linalg.norm(Q) * u), 0).astype(np.complex64)


def linear(places):
    """Displacement [nm] and strain that grows along Q, to 1 % at the ends."""
    along = places @ ALONG
    return 1e-4 * along**2, 2e-4 * along


def wave(places):
    direction = 0.04 * ALONG + np.array([0.01, -0.02, 0.01])
    return 0.05 * np.sin(places @ direction), 0.05 * (direction @ ALONG) * np.cos(places @ direction)


def relative(found, true):
    return np.sqrt(np.mean((found - true) ** 2)) / true.std()


def test_atoms_moved_along_q_give_the_phase_that_the_sign_convention_says():
    # A line of atoms, summed one by one with exp(-i Q . r): the object whose transform this is has the phase -Q u.
    atoms = np.arange(-32, 32) * 0.25
    u = 0.01 * np.sin(atoms)
    bragg = 2 * np.pi / 0.25
    steps = 2 * np.pi / (64 * 0.25) * (np.arange(64) - 32)
    scattered = np.array([np.exp(-1j * (bragg + step) * (atoms + u)).sum() for step in steps])
    found = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(scattered)))
    np.testing.assert_allclose(-np.angle(found) / bragg, u, atol=1e-3)


def test_a_larger_lattice_spacing_puts_the_peak_at_smaller_q_and_is_positive_strain():
    spread = 0.002
    volume = crystal(spread * (PLACES @ ALONG))
    intensity = np.abs(np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(volume)))) ** 2
    peak = centred_places(SHAPE, reciprocal_basis(GEOMETRY))
    moved = (intensity[..., None] * peak).sum((0, 1, 2)) / intensity.sum()
    np.testing.assert_allclose(moved, -spread * Q, atol=0.05 * spread * np.linalg.norm(Q))
    found = strain(volume, SUPPORT, BASIS, Q, erosion=1).values
    np.testing.assert_allclose(found[np.isfinite(found)], spread, rtol=1e-4)


def test_linear_strain_with_a_phase_that_wraps_is_exact_in_the_frame_of_the_scan():
    u, true = linear(PLACES)
    assert np.ptp(np.linalg.norm(Q) * u[SUPPORT]) > np.pi
    found = strain(crystal(u), SUPPORT, BASIS, Q, erosion=1).values
    known = np.isfinite(found)
    assert relative(found[known], true[known]) < 1e-3


def test_strain_of_the_twin_is_the_same_at_the_inverted_place():
    u, _ = wave(PLACES)
    found = strain(crystal(u), SUPPORT, BASIS, Q, erosion=1).values
    inverted = np.conj(np.roll(crystal(u)[::-1, ::-1, ::-1], 1, axis=(0, 1, 2)))
    support = np.roll(SUPPORT[::-1, ::-1, ::-1], 1, axis=(0, 1, 2))
    twin = strain(inverted, support, BASIS, Q, erosion=1).values
    np.testing.assert_allclose(np.roll(twin[::-1, ::-1, ::-1], 1, axis=(0, 1, 2)), found, atol=1e-7)


def test_erosion_leaves_out_layers_of_the_surface():
    volume = crystal(linear(PLACES)[0])
    counts = [np.isfinite(strain(volume, SUPPORT, BASIS, Q, erosion=n).values).sum() for n in (0, 1, 2, 3)]
    assert SUPPORT.sum() > counts[0] == counts[1] > counts[2] > counts[3] > 0


@pytest.mark.parametrize(("field", "limit"), [(linear, 0.03), (wave, 0.06)])
def test_strain_and_displacement_in_the_laboratory_are_those_of_the_crystal(field, limit):
    found = particle(crystal(field(PLACES)[0]), SUPPORT, GEOMETRY, Strain())
    places = centred_places(found.support.shape, laboratory_basis(found.voxel_nm))
    u, true = field(places)
    known = np.isfinite(found.strain.values)
    assert known.sum() > 0.6 * found.support.sum()
    assert relative(found.strain.values[known], true[known]) < limit
    slope, offset = np.polyfit(true[known], found.strain.values[known], 1)
    assert slope == pytest.approx(1, abs=0.02) and abs(offset) < 0.02 * true[known].std()
    moved = found.displacement.values[found.support]
    assert relative(moved - moved.mean(), u[found.support] - u[found.support].mean()) < 0.06
    assert found.support.sum() * found.voxel_nm**3 == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.03)
    assert np.isnan(found.displacement.values[~found.support]).all() and not found.volume[~found.support].any()
    assert not (known & ~found.support).any()


def test_in_the_laboratory_frame_strain_is_found_as_well():
    shape, basis = (24, 24, 24), laboratory_basis(5.0)
    places = centred_places(shape, basis)
    support = np.linalg.norm(places, axis=-1) < RADIUS
    found = strain(np.exp(-1j * np.linalg.norm(Q) * linear(places)[0]), support, basis, Q, erosion=1).values
    known = np.isfinite(found)
    np.testing.assert_allclose(found[known], linear(places)[1][known], atol=1e-7)


def test_displacement_is_minus_phase_over_q_about_its_mean():
    phase = np.where(SUPPORT, 3.0 - np.linalg.norm(Q) * linear(PLACES)[0], 0)
    found = displacement(phase, SUPPORT, Q)
    u = linear(PLACES)[0][SUPPORT]
    np.testing.assert_allclose(found.values[SUPPORT], u - u.mean(), atol=1e-6)
    assert found.unit == "nm" and np.isnan(found.values[~SUPPORT]).all()


def test_statistics_tell_the_shells_apart():
    n, voxel = 41, 2.0
    radius = np.linalg.norm(centred_places((n, n, n), np.eye(3)), axis=-1) * voxel
    support = radius < 36
    below = 36 - radius
    values = np.where(below < 10, 2e-3, np.where(below < 20, 1e-3, 0)).astype(np.float32)
    values[~support] = np.nan
    rows = {
        row["region"]: row
        for row in depth_statistics([Field("strain along Q", "1", values)], support, voxel, shells=(10.0, 20.0))
    }
    surface, shell, core = rows["surface, 0 to 10 nm"], rows["shell, 10 to 20 nm"], list(rows.values())[-1]
    assert surface["q50"] == pytest.approx(2e-3) and surface["mean"] == pytest.approx(2e-3, rel=0.05)
    assert shell["q50"] == pytest.approx(1e-3) and core["q50"] == 0 and core["region"].startswith("core")
    assert surface["voxels"] + shell["voxels"] + core["voxels"] == rows["whole"]["voxels"] == support.sum()
    inside = values[support].astype(np.float64)
    assert rows["whole"]["mean"] == pytest.approx(inside.mean())
    assert rows["whole"]["deviation"] == pytest.approx(inside.std())
    assert {row["unit"] for row in rows.values()} == {"1"}


def test_depth_is_the_distance_of_voxels_from_the_surface():
    radius = np.linalg.norm(centred_places((33, 33, 33), np.eye(3)), axis=-1)
    found = depth(radius < 14, 3.0)
    assert np.abs(found - 3.0 * np.clip(14 - radius, 0, None)).max() < 3.0
    assert not found[radius >= 14].any()
    # Of a slab the middle of the outermost voxels is half a voxel deep.
    slab = np.zeros((9, 30, 30), bool)
    slab[1:8] = True
    assert depth(slab, 2.0)[:, 15, 15].tolist() == [0, 1, 3, 5, 7, 5, 3, 1, 0]
    rows = depth_statistics([Field("strain along Q", "1", np.ones(slab.shape))], slab, 2.0, shells=(3.0, 5.0))
    # A depth at the limit of two shells belongs to the outer one.
    assert [row["voxels"] for row in rows] == [6300, 3600, 1800, 900]


def test_a_shell_without_known_voxels_has_no_figures():
    support = np.zeros((7, 7, 7), bool)
    support[1:6, 1:6, 1:6] = True
    values = np.full(support.shape, np.nan, np.float32)
    values[3, 3, 3] = 1.0
    rows = depth_statistics([Field("strain along Q", "1", values)], support, 4.0, shells=(3.0,))
    assert [row["voxels"] for row in rows] == [1, 0, 1] and np.isnan(rows[1]["mean"])


def test_a_particle_smaller_than_the_shells_is_all_surface():
    rows = depth_statistics(
        [Field("strain along Q", "1", np.zeros((3, 3, 3)))], np.ones((3, 3, 3), bool), 1.0, shells=(10.0, 20.0)
    )
    assert [row["region"].split(",")[0] for row in rows] == ["whole", "surface"]


def test_what_cannot_have_strain_is_refused():
    thin = np.zeros(SHAPE, bool)
    thin[10:12] = True
    with pytest.raises(InputError, match="found no voxel, expected a support of more than 2 voxels along each axis"):
        strain(np.ones(SHAPE, complex), thin, BASIS, Q, erosion=1)
    with pytest.raises(InputError, match="support: found no voxel"):
        displacement(np.zeros(SHAPE), np.zeros(SHAPE, bool), Q)
    with pytest.raises(ValueError, match="ascend"):
        Strain(shells=(20.0, 10.0))
