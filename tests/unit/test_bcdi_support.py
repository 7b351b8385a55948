import math

import numpy as np
import pytest
import torch

from cathodeflow.bcdi.coherence import Blur
from cathodeflow.bcdi.comparison import against_truth
from cathodeflow.bcdi.free_pixels import free_pixels
from cathodeflow.bcdi.operators import amplitude
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.retrieval import retrieve
from cathodeflow.bcdi.simulation import crystal
from cathodeflow.bcdi.support import box_support, shrink_wrap, smooth
from cathodeflow.errors import InputError


def ball(shape, radius, centre=(0, 0, 0)):
    axes = (torch.arange(n) - n // 2 - c for n, c in zip(shape, centre, strict=True))
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return (z**2 + y**2 + x**2).sqrt() <= radius


def test_smoothing_keeps_the_sum_and_widens_by_sigma():
    values = torch.zeros(24, 25, 26, dtype=torch.float64)
    values[12, 12, 13] = 5
    smoothed = smooth(values, 1.5)
    assert smoothed.sum() == pytest.approx(5)
    for axis, n in enumerate(values.shape):
        place = torch.arange(n) - n // 2
        others = tuple(other for other in range(3) if other != axis)
        assert (smoothed.sum(others) * place**2).sum() / 5 == pytest.approx(1.5**2, rel=1e-3)
    assert torch.allclose(smooth(values, 0), values)


def test_shrink_wrap_finds_a_ball_and_drops_what_is_weak():
    shape = (24, 24, 24)
    true = ball(shape, 6)
    objects = true * (1 + 1j) + 0.05 * ball(shape, 2, (8, 8, 8))
    found = shrink_wrap(objects, sigma=1.0, threshold=0.5)
    assert (found ^ true).sum() < 0.1 * true.sum()
    # Each object is measured by its own maximum.
    both = shrink_wrap(torch.stack([objects, 1e-3 * objects]), sigma=1.0, threshold=0.5)
    assert torch.equal(both[0], found) and torch.equal(both[1], found)
    assert shrink_wrap(objects, sigma=1.0, threshold=0.1).sum() > found.sum()


def test_a_box_is_centred_in_any_size():
    box = box_support((8, 9, 1), 0.5)
    filled = [box.amax(tuple({0, 1, 2} - {axis})).nonzero().flatten().tolist() for axis in range(3)]
    assert filled == [[2, 3, 4, 5], [2, 3, 4, 5], [0]]
    assert box_support((4, 4, 4), 1.0).all()


@pytest.mark.parametrize(("shape", "share"), [((64, 64, 64), 0.05), ((32, 48, 40), 0.2), ((48, 48, 48), 0.4)])
def test_free_pixels_are_the_wanted_share_in_islands_away_from_the_centre(shape, share):
    free = free_pixels(shape, share, seed=3)
    assert free.float().mean() == pytest.approx(share, rel=0.15)
    places = torch.meshgrid(*(torch.arange(n) - n // 2 for n in shape), indexing="ij")
    near = sum((place / (0.05 * n)) ** 2 for place, n in zip(places, shape, strict=True)) <= 1
    assert near.sum() > 20 and not free[near].any()
    # Nearly every free pixel has free neighbours, so that it cannot be interpolated from those next to it.
    alone = free & ~(free.roll(1, 2) & free.roll(-1, 2)) & ~(free.roll(1, 1) & free.roll(-1, 1))
    assert alone.sum() < 0.25 * free.sum()
    assert torch.equal(free, free_pixels(shape, share, seed=3))
    assert not torch.equal(free, free_pixels(shape, share, seed=4))
    assert not free_pixels(shape, 0.0, seed=0).any()


def blurred(intensity, widths):
    return Blur((len(intensity), *intensity.shape[1:]), torch.tensor([widths] * len(intensity)))(intensity)


def test_the_blur_is_a_gauss_function_in_the_order_of_the_axes():
    point = torch.zeros(1, 16, 24, 20)  # start, x, y, z
    point[0, 0, 0, 0] = 3
    found = blurred(point, (1.2, 1.5, 1.8))[0]
    assert found.sum() == pytest.approx(3, rel=1e-3) and found.min() >= 0
    for axis, width in ((0, 1.8), (1, 1.5), (2, 1.2)):
        n = found.shape[axis]
        place = (torch.arange(n) + n // 2) % n - n // 2
        others = tuple(other for other in range(3) if other != axis)
        assert (found.sum(others) * place**2).sum() / 3 == pytest.approx(width**2, rel=2e-2)


def test_the_widths_are_fitted_in_a_few_steps():
    objects = torch.randn(2, 12, 12, 12, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    intensity = torch.fft.fftn(objects, (32, 30, 28), dim=(1, 2, 3), norm="ortho").abs().square()
    true = torch.tensor([0.9, 0.5, 0.7])
    measured = blurred(intensity[:1], true.tolist())[0].sqrt()
    weight = (torch.rand(measured.shape, generator=torch.Generator().manual_seed(1)) > 0.2).float()
    blur = Blur(tuple(intensity.shape), torch.full((2, 3), 0.4))
    for _ in range(8):
        blur.fit(intensity, measured * weight, weight)
    assert torch.allclose(blur.widths[0], true, atol=0.02)
    assert blur.widths.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: box_support((4, 4, 4), 0.0), "support: found 0.0"),
        (lambda: shrink_wrap(torch.ones(4, 4, 4), sigma=1.0, threshold=1.0), "threshold: found 1.0"),
        (lambda: shrink_wrap(torch.ones(4, 4, 4), sigma=-1.0, threshold=0.1), "sigma: found -1.0 voxel"),
        (lambda: shrink_wrap(torch.ones(4, 4, 4), sigma=1.0, threshold=math.nan), "threshold"),
        (lambda: free_pixels((8, 8, 8), 0.6, seed=0), "free_fraction: found 0.6"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_default_support_keeps_all_of_a_strongly_strained_crystal_in_a_large_volume():
    one = crystal(np.random.default_rng(7), size=64, habit="polyhedron", kind="smooth", regime="strong",
                  phase_range=5.5, oversampling=3.0, aspect=1.5, rounding=0.2, correlation=0.4)  # fmt: skip
    true = torch.from_numpy(one.amplitude * np.exp(1j * one.phase)).to(torch.complex64)
    true *= 1e7**0.5 / true.norm()
    measured = torch.poisson(amplitude(true).square(), generator=torch.Generator().manual_seed(1)).sqrt()
    found = retrieve(measured, Phase(starts=1, seed=0, device="cpu", threads=1))
    # With a first sigma of 1 voxel, which suits 32^3, a quarter of the crystal leaves the support: .8.
    assert against_truth(found.objects, true, threshold=0.1).correlation[0] > 0.98
    assert found.supports[0].sum() > 0.9 * (true.abs() > 0.5 * true.abs().max()).sum()
