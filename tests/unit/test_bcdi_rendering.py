"""Crystals made by torch in batches are those that are made one by one."""

import itertools

import numpy as np
import pytest
import torch

from cathodeflow.bcdi.diffraction import expected_intensity
from cathodeflow.bcdi.fields import KINDS
from cathodeflow.bcdi.outlines import draw_outlines, drawing_pool, outline_stream
from cathodeflow.bcdi.rendering import render, render_crystals, render_intensity
from cathodeflow.bcdi.simulation import block
from cathodeflow.bcdi.simulation_options import Simulate
from cathodeflow.errors import InputError

SIZE = 32


def populations():
    for kind in KINDS:
        yield kind, Simulate(size=SIZE, seed=3, kinds=(kind,), regimes=("extreme",))
    yield "weak", Simulate(size=SIZE, seed=3, regimes=("weak",), kinds=("smooth", "surface"))


@pytest.mark.parametrize(("name", "options"), populations(), ids=lambda one: one if isinstance(one, str) else "")
def test_a_batch_is_made_of_the_crystals_made_one_by_one(name, options):
    numbers = range(4)
    one_by_one = block(numbers, options)
    amplitude, phase = render_crystals(draw_outlines(numbers, options), size=SIZE, device="cpu")
    before = SIZE // 2 - amplitude.shape[-1] // 2
    window = np.s_[:, *[slice(before, before + amplitude.shape[-1])] * 3]
    outside = one_by_one.amplitude.copy()
    outside[window] = 0
    assert not outside.any(), "a crystal does not fit into what is made of it"
    np.testing.assert_allclose(amplitude.numpy(), one_by_one.amplitude[window], atol=2e-5)
    # On the two sides of a fault or of a dislocation's cut the phase jumps, and rounding decides for voxels on them.
    apart = np.abs(phase.numpy() - one_by_one.phase[window])
    assert np.mean(apart > 2e-3) < 1e-3
    inside = amplitude.numpy() >= 0.5
    ranges = [np.ptp(one[there]) for one, there in zip(phase.numpy(), inside, strict=True)]
    np.testing.assert_allclose(ranges, one_by_one.phase_range, rtol=1e-3)


def test_intensities_are_those_of_the_same_objects():
    options = Simulate(size=SIZE, seed=1, photons=(1e5, 1e7), coherence=(0.1, 0.9), background=(0.0, 0.5))
    outlines = draw_outlines(range(5), options)
    outlines.coherence[0] = 0.0
    amplitude, phase = render_crystals(outlines, size=SIZE, device="cpu")
    found = render_intensity(outlines, torch.polar(amplitude, phase), size=SIZE).numpy()
    before = SIZE // 2 - amplitude.shape[-1] // 2
    pads = [(before, SIZE - before - amplitude.shape[-1])] * 3
    for row in range(5):
        exposure = {name: float(getattr(outlines, name)[row]) for name in ("photons", "coherence", "background")}
        wanted = expected_intensity(np.pad(amplitude[row], pads), np.pad(phase[row], pads), **exposure)
        np.testing.assert_allclose(found[row], wanted, rtol=1e-3, atol=1e-5 * wanted.max())


def test_counts_have_the_noise_of_counting_and_repeat_with_their_seed():
    outlines = draw_outlines(range(2), Simulate(size=SIZE, seed=1))
    first, again = (
        render(outlines, size=SIZE, device="cpu", generator=torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first.amplitudes, again.amplitudes)
    counts = first.amplitudes.double().square()
    np.testing.assert_allclose(counts, counts.round(), atol=1e-2, rtol=1e-6)
    objects = torch.polar(*render_crystals(outlines, size=SIZE, device="cpu"))
    mean = render_intensity(outlines, objects, size=SIZE).double()
    bright = mean > 20
    # Of a Poisson distribution the variance is the mean.
    ratio = ((counts - mean).square() / mean)[bright].mean()
    assert abs(ratio - 1) < 5 * (2 / bright.sum()) ** 0.5
    power = first.objects.abs().square().sum()
    assert power > 0 and first.objects.shape == first.amplitudes.shape
    centre = SIZE // 2
    assert first.objects.abs()[:, centre, centre, centre].min() > 0.99


def test_other_processes_draw_the_same_in_order_and_without_end():
    batches = [range(0, 3), range(3, 6), range(6, 7)]
    options = Simulate(size=SIZE, seed=2)
    here = list(outline_stream(batches, options))
    with drawing_pool(2) as pool:
        there = list(outline_stream(batches, options, pool=pool, ahead=2))
        endless = outline_stream(((number,) for number in itertools.count()), options, pool=pool, ahead=2)
        first = next(endless)
        endless.close()
    assert len(here) == len(there) == 3
    for one, other in zip(here, there, strict=True):
        for mine, others in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, others)
    np.testing.assert_array_equal(first.phases[0], here[0].phases[0])


def test_masked_pixels_are_refused():
    with pytest.raises(InputError, match="gap"):
        draw_outlines([0], Simulate(size=SIZE, gap=2))
