import numpy as np
import pytest
import torch
from scipy import ndimage

from cathodeflow.bcdi.ambiguities import align, centred, correlation, shifted, unwrapped, wrapped
from cathodeflow.bcdi.operators import fourier, inverse_fourier
from cathodeflow.errors import InputError

torch.set_num_threads(1)


def twinned(objects):
    """Return conj(o(-r)), inverted about index n // 2: what has the same diffraction pattern."""
    return inverse_fourier(fourier(objects).conj().resolve_conj())


def polyhedron(n=24, faces=14, seed=0):
    """Voxels between random planes about the centre, the edges one voxel soft."""
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(faces, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    places = np.stack(np.meshgrid(*[np.arange(n) - n // 2] * 3, indexing="ij"), -1)
    depth = (rng.uniform(0.18, 0.28, faces) * n - places @ normals.T).min(-1)
    return np.clip(depth + 0.5, 0, 1), places / n


def crystal(n=24, strength=3.0, seed=0):
    amplitude, (z, y, x) = polyhedron(n, seed=seed)[0], np.moveaxis(polyhedron(n, seed=seed)[1], -1, 0)
    phase = strength * (np.sin(5 * z + 2 * y) + np.cos(4 * x - y + 1))
    return torch.tensor(amplitude * np.exp(1j * phase), dtype=torch.complex64)


def diffraction(objects):
    return torch.fft.fftn(objects, dim=(-3, -2, -1)).abs()


@pytest.mark.parametrize("n", [24, 25])
@pytest.mark.parametrize("strength", [0.5, 4.0])
def test_what_differs_by_shift_phase_and_twin_comes_back(n, strength):
    rng = np.random.default_rng(1)
    reference = crystal(n, strength)
    objects = []
    for number in range(8):
        one = twinned(reference) if number % 2 else reference
        one = shifted(one, rng.uniform(-n, n, 3).tolist())
        objects.append(one * rng.uniform(0.5, 2) * np.exp(1j * rng.uniform(-4, 4)))
    before = torch.stack(objects)
    aligned, found = align(before, reference)
    assert found.min() > 0.9999
    scale = (aligned.abs() ** 2).sum((1, 2, 3)).sqrt() / (reference.abs() ** 2).sum().sqrt()
    assert (aligned / scale[:, None, None, None] - reference).abs().max() < 0.02
    assert torch.allclose((aligned.abs() ** 2).sum(), (before.abs() ** 2).sum(), rtol=1e-4)


def test_ambiguities_do_not_change_the_diffraction():
    one = crystal(25)
    np.testing.assert_allclose(diffraction(shifted(one, [1.3, -2.7, 0.4])), diffraction(one), atol=1e-3)
    np.testing.assert_allclose(diffraction(twinned(one)), diffraction(one), atol=1e-3)


@pytest.mark.parametrize("n", [6, 7])
def test_a_twin_is_inverted_about_the_centre(n):
    one = torch.zeros(n, n, n, dtype=torch.complex64)
    one[n // 2 + 2, n // 2 - 1, n // 2] = 1 + 2j
    twin = twinned(one)
    assert torch.isclose(twin[n // 2 - 2, n // 2 + 1, n // 2], torch.tensor(1 - 2j))
    assert torch.allclose(twinned(twin), one, atol=1e-6)


def test_a_shift_by_whole_voxels_is_a_roll():
    one = crystal(16)
    rolled = one.roll((3, -2, 5), (0, 1, 2))
    assert torch.allclose(shifted(one, [3, -2, 5]), rolled, atol=1e-5)
    each = shifted(one.expand(2, -1, -1, -1), torch.tensor([[0.0, 0, 0], [3, -2, 5]]))
    assert torch.allclose(each[1], rolled, atol=1e-5) and torch.allclose(each[0], one, atol=1e-5)


def test_without_the_twin_only_shift_and_phase_are_resolved():
    reference = crystal(strength=4.0)
    aligned, found = align(twinned(reference)[None], reference, twin=False)
    assert found[0] < 0.9
    assert torch.isclose(correlation(aligned, reference)[0], found[0])
    assert align(twinned(reference)[None], reference)[1][0] > 0.9999


def test_alignment_beats_whole_voxels():
    reference = crystal()
    moved = shifted(reference, [0.5, 0.5, 0.5])
    assert correlation(moved, reference) < 0.97
    assert align(moved[None], reference)[1][0] > 0.9999


def test_other_crystals_do_not_correlate_and_nothing_is_nothing():
    reference, other = crystal(seed=0), crystal(seed=5, strength=1.0)
    found = align(torch.stack([other, torch.zeros_like(other)]), reference)
    assert 0.1 < found[1][0] < 0.95 and found[1][1] == 0
    assert torch.isfinite(found[0].abs()).all()
    with pytest.raises(InputError, match=r"objects: found shape \(24, 24, 24\), expected \(n, 24, 24, 24\)"):
        align(reference, reference)


@pytest.mark.parametrize("n", [24, 25])
def test_centred_is_the_same_for_all_shifts_ramps_and_phases(n):
    rng = np.random.default_rng(3)
    # Without frequencies near the highest, which a ramp would fold over.
    one = torch.fft.ifftn(torch.fft.fftn(crystal(n, 1.0)) * ndimage.fourier_gaussian(np.ones((n, n, n)), 1.0))
    one = one.to(torch.complex64)
    places = torch.tensor(np.moveaxis(polyhedron(n)[1], -1, 0), dtype=torch.float32)
    copies = []
    for _ in range(6):
        ramp = (places * torch.tensor(rng.uniform(-3, 3, 3), dtype=torch.float32)[:, None, None, None]).sum(0)
        copies.append(shifted(one * torch.polar(torch.ones_like(ramp), ramp), rng.uniform(-n, n, 3).tolist()))
    found = centred(torch.stack(copies))
    assert (found - centred(one)).abs().max() < 0.01
    mass = found.abs() ** 2
    for axis in (1, 2, 3):
        profile = mass.sum([other for other in (1, 2, 3) if other != axis])
        mean = (profile * (torch.arange(n) - n // 2)).sum(1) / profile.sum(1)
        assert mean.abs().max() < 0.02
    inside = found[0].abs() > 0.3
    assert abs(found[0].angle()[inside].mean()) < 0.1
    intensity = torch.fft.fftshift(diffraction(found[0])) ** 2
    for axis in range(3):
        profile = intensity.sum([other for other in range(3) if other != axis])
        assert abs((profile * (torch.arange(n) - n // 2)).sum() / profile.sum()) < 0.2


@pytest.mark.parametrize("spread", [3.0, 15.0, 40.0])
def test_a_smooth_phase_is_unwrapped_exactly_whatever_its_range(spread):
    amplitude, places = polyhedron(32)
    support = amplitude > 0.5
    z, y, x = np.moveaxis(places, -1, 0)
    phase = np.sin(3 * z + y) + 2 * x**2 + y - 0.5 * z
    phase *= spread / np.ptp(phase[support])
    found = unwrapped(wrapped(phase).astype(np.float32), support)
    assert np.ptp((found - phase)[support]) < 1e-4
    assert np.all(found[~support] == 0) and found.dtype == np.float32
    assert abs(np.median(found[support])) <= np.pi


def test_unwrapping_leads_around_noise():
    support = np.ones((12, 12, 12), bool)
    phase = np.linspace(0, 20, 12)[:, None, None] + np.zeros((12, 12, 12))
    broken = phase.copy()
    broken[4:8, 3:9, 3:9] = np.random.default_rng(0).uniform(-np.pi, np.pi, (4, 6, 6))
    found = unwrapped(wrapped(broken), support)
    sound = broken == phase
    assert np.ptp((found - phase)[sound]) < 1e-4


def test_parts_that_do_not_touch_are_unwrapped_each_for_itself():
    z, y, x = np.indices((10, 10, 20))
    support = (x < 8) | (x > 11)
    phase = 1.2 * y + 0.3 * z + np.where(x > 11, 17.0, 0)
    found = unwrapped(wrapped(phase), support)
    for part in (x < 8, x > 11):
        assert np.ptp((found - phase)[part]) < 1e-4
        assert abs(np.median(found[part])) <= np.pi
    assert not unwrapped(phase, np.zeros(phase.shape, bool)).any()
    with pytest.raises(InputError, match="support"):
        unwrapped(phase, support[0])
