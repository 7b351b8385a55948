import math

import pytest
import torch

from cathodeflow.bcdi.operators import (
    amplitude,
    bounding_box,
    fourier,
    inverse_fourier,
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


def test_the_amplitude_keeps_the_precision_and_the_batch():
    objects = random(2, 3, 6, 5, 4, dtype=torch.complex64)
    assert amplitude(objects).dtype == torch.float32
    assert torch.allclose(amplitude(objects), fourier(objects).abs())
    assert torch.allclose(amplitude(objects[1, 2]), amplitude(objects)[1, 2], rtol=1e-5)


def test_voxels_within_phase_limits():
    objects = torch.polar(torch.ones(3), torch.tensor([-1.0, 0.2, 1.5])).reshape(1, 1, 3)
    assert within_phase(objects, (-0.5, 1.0)).flatten().tolist() == [False, True, False]


def test_the_bounding_box_holds_all_supports_of_a_batch():
    supports = torch.zeros(2, 6, 7, 8, dtype=torch.bool)
    assert bounding_box(supports) == (slice(0, 6), slice(0, 7), slice(0, 8))
    supports[0, 1, 2, 3] = supports[1, 4, 2, 5] = True
    assert bounding_box(supports) == (slice(1, 5), slice(2, 3), slice(3, 6))
