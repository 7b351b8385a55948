"""The loop for CPUs beside the one of whole batches, which GPUs use: the same objects, errors and supports."""

import pytest
import torch

import cathodeflow.bcdi.cpu_iterations as cpu
from cathodeflow.bcdi.cpu_iterations import covers, iterate_on_cpu
from cathodeflow.bcdi.iterations import Measured, iterate
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.recipe import parse

# z, y, x; no two equal, one odd.
SHAPE = (14, 18, 15)


def problem(seed=0):
    """A start, its support, and an amplitude of which some pixels were not measured."""
    random = torch.Generator().manual_seed(seed)
    support = torch.zeros(SHAPE, dtype=torch.bool)
    support[3:11, 4:13, 2:10] = torch.rand(8, 9, 8, generator=random) > 0.2
    true = support * torch.polar(1 + torch.rand(SHAPE, generator=random), 2 * torch.rand(SHAPE, generator=random))
    weight = (torch.rand(SHAPE[::-1], generator=random) > 0.1).float()
    amplitude = torch.fft.fftn(true.permute(2, 1, 0), norm="ortho").abs() * weight
    start = torch.randn(SHAPE, dtype=torch.complex64, generator=random)
    return start, support, Measured(amplitude.contiguous(), weight, float(amplitude.norm()))


@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        ("6*ER+9*HIO+8*RAAR(beta=0.8)+4*DM(beta=1)+3*ER", {}),
        ("25*HIO", {"shrink_every": 0}),
        ("12*RAAR+6*ER", {"likelihood": "poisson"}),
        ("12*HIO+6*ER", {"phase_limits": (-1.0, 2.0)}),
    ],
)
@pytest.mark.parametrize("part", [10**6, 700])
def test_both_loops_take_the_same_steps(recipe, more, part, monkeypatch):
    start, support, measured = problem()
    options = Phase(**{"recipe": recipe, "shrink_every": 7, "sigma": (0.6, 0.5), "threshold": 0.2} | more)
    wanted = iterate(start[None], support[None], measured, parse(recipe), options, None, usual_beta=0.9)
    monkeypatch.setattr(cpu, "_PART", part)
    monkeypatch.setattr(cpu, "_LARGE", 0)
    for workers in (1, 3):
        found = iterate_on_cpu(start, support, measured, parse(recipe), options, usual_beta=0.9, workers=workers)
        assert torch.equal(found.supports, wanted.supports)
        torch.testing.assert_close(found.errors, wanted.errors, rtol=2e-4, atol=2e-5)
        torch.testing.assert_close(found.objects, wanted.objects, rtol=0, atol=1e-3 * float(wanted.objects.abs().max()))
    # Both did something.
    assert wanted.errors[0, -1] < 0.7 * wanted.errors[0, 0]


def test_a_difference_map_of_two_projections_is_left_to_the_other_loop():
    assert covers(parse("5*HIO+5*DM(beta=1)"), 0.9)
    assert not covers(parse("5*HIO+5*DM(beta=0.7)"), 1.0) and not covers(parse("5*DM"), 0.9)


def test_waves_of_zero_stay_finite():
    start, support, measured = problem()
    dark = measured._replace(amplitude=measured.amplitude * 1e-6, norm=measured.norm * 1e-6)
    found = iterate_on_cpu(start * 0, support, dark, parse("3*HIO+2*ER"), Phase(shrink_every=0), usual_beta=0.9)
    assert found.objects.isfinite().all() and found.errors.isfinite().all()
