import math

import pytest
import torch

from cathodeflow.bcdi.operators import (
    amplitude,
    bounding_box,
    fourier,
    intensity,
    inverse_fourier,
    project_modulus,
    project_support,
    within_phase,
)

SHAPES = [(8, 8, 8), (7, 10, 9), (1, 6, 5)]


def random(*shape, seed=0, dtype=torch.complex128):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def inner(a, b):
    return (a.conj() * b).sum()


def grids(shape):
    return torch.meshgrid(*(torch.arange(n, dtype=torch.float64) - n // 2 for n in shape), indexing="ij")


@pytest.mark.parametrize("shape", SHAPES)
def test_the_transform_is_unitary_and_its_inverse_is_its_adjoint(shape):
    m, d = random(2, *shape), random(2, *shape, seed=1)
    assert torch.allclose(fourier(m).abs().square().sum((1, 2, 3)), m.abs().square().sum((1, 2, 3)))
    assert torch.allclose(inner(fourier(m), d), inner(m, inverse_fourier(d)))
    assert torch.allclose(inverse_fourier(fourier(m)), m)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shifted_point_is_a_plane_wave_with_the_sign_of_numpy(shape):
    shift = (0, 1, -2)
    point = torch.zeros(shape, dtype=torch.complex128)
    point[tuple(n // 2 + s for n, s in zip(shape, shift, strict=True))] = 1
    turns = sum(q * s / n for q, s, n in zip(grids(shape), shift, shape, strict=True))
    expected = torch.polar(torch.ones(shape, dtype=torch.float64), -2 * math.pi * turns) / math.sqrt(point.numel())
    assert torch.allclose(fourier(point), expected)


def test_a_gauss_function_becomes_one():
    n, sigma = 32, 2.0
    z, y, x = grids((n, n, n))
    squares = z**2 + y**2 + x**2
    width = n / (2 * math.pi * sigma)
    expected = (2 * math.pi * sigma**2 / n) ** 1.5 * torch.exp(-squares / (2 * width**2))
    found = fourier(torch.exp(-squares / (2 * sigma**2)))
    assert torch.allclose(found.real, expected, atol=1e-6) and found.imag.abs().max() < 1e-12


def test_a_box_becomes_dirichlet_kernels():
    n, sides = 16, (3, 5, 7)
    inside = [(grid.abs() <= side // 2).double() for grid, side in zip(grids((n,) * 3), sides, strict=True)]
    expected = torch.ones(n, n, n, dtype=torch.float64) / n**1.5
    for grid, side in zip(grids((n,) * 3), sides, strict=True):
        angle = math.pi * grid / n
        expected = expected * torch.where(grid == 0, side, torch.sin(side * angle) / torch.sin(angle))
    assert torch.allclose(fourier(inside[0] * inside[1] * inside[2]).real, expected)


def test_amplitude_and_intensity_keep_the_precision_and_the_batch():
    objects = random(2, 3, 6, 5, 4, dtype=torch.complex64)
    assert amplitude(objects).dtype == intensity(objects).dtype == torch.float32
    assert torch.allclose(amplitude(objects).square(), intensity(objects), rtol=1e-5)
    assert torch.allclose(intensity(objects[1, 2]), intensity(objects)[1, 2], rtol=1e-5)


def test_the_modulus_projection_gives_the_nearest_object_of_that_amplitude():
    objects, other = random(3, 6, 7, 8), random(6, 7, 8, seed=2)
    measured = amplitude(other)
    projected = project_modulus(objects, measured)
    assert torch.allclose(amplitude(projected), measured.expand(3, 6, 7, 8))
    assert torch.allclose(project_modulus(projected, measured), projected)
    distance = (projected - objects).abs().square().sum((1, 2, 3))
    # The least possible is the distance of the amplitudes; any object with that amplitude is at least as far.
    assert torch.allclose(distance, (amplitude(objects) - measured).square().sum((1, 2, 3)))
    assert (distance < (other - objects).abs().square().sum((1, 2, 3))).all()


def test_unmeasured_pixels_are_free_and_darkness_is_no_nan():
    objects, mask = random(6, 7, 8), torch.rand(6, 7, 8, generator=torch.Generator().manual_seed(0)) > 0.3
    measured = torch.where(mask, torch.ones(6, 7, 8, dtype=torch.float64), math.nan)
    waves = fourier(project_modulus(objects, measured, mask=mask))
    assert torch.allclose(waves[~mask], fourier(objects)[~mask]) and torch.allclose(
        waves[mask].abs(), measured[mask], atol=1e-12
    )
    dark = project_modulus(torch.zeros(4, 4, 4, dtype=torch.complex64), torch.ones(4, 4, 4))
    assert torch.allclose(amplitude(dark), torch.ones(4, 4, 4))


def test_the_support_projection_cuts_and_no_more():
    objects, support = random(2, 5, 5, 5), torch.zeros(5, 5, 5, dtype=torch.bool)
    support[1:3, 2:, 0] = True
    projected = project_support(objects, support)
    assert (projected[:, ~support] == 0).all() and torch.equal(projected[:, support], objects[:, support])
    assert torch.equal(project_support(projected, support), projected)


def test_voxels_within_phase_limits():
    objects = torch.polar(torch.ones(3), torch.tensor([-1.0, 0.2, 1.5])).reshape(1, 1, 3)
    assert within_phase(objects, (-0.5, 1.0)).flatten().tolist() == [False, True, False]


def test_the_bounding_box_holds_all_supports_of_a_batch():
    supports = torch.zeros(2, 6, 7, 8, dtype=torch.bool)
    assert bounding_box(supports) == (slice(0, 6), slice(0, 7), slice(0, 8))
    supports[0, 1, 2, 3] = supports[1, 4, 2, 5] = True
    assert bounding_box(supports) == (slice(1, 5), slice(2, 3), slice(3, 6))
