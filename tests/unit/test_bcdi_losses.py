import math

import numpy as np
import pytest
import torch

from cathodeflow.bcdi.losses import LOSSES, best, diffraction_loss, overlap_loss, residuals
from cathodeflow.bcdi.operators import amplitude as amplitude_of
from cathodeflow.bcdi.operators import fourier, inverse_fourier
from cathodeflow.errors import InputError


def crystal(seed=0, side=16):
    """A box with a smooth phase, without symmetry, that gives some 1e4 photons."""
    place = torch.arange(side) - side // 2
    z, y, x = torch.meshgrid(place, place, place, indexing="ij")
    shape = (z.abs() <= 3) & (y.abs() <= 2) & (x.abs() <= 3) & (z + y + 2 * x <= 4)
    a, b, c = torch.randn(3, generator=torch.Generator().manual_seed(seed)).tolist()
    phase = 0.3 * a * z * y + 0.2 * b * x + 0.1 * c * z**2
    return 8 * torch.polar(shape.float(), phase)


@pytest.mark.parametrize("loss", LOSSES)
def test_what_diffraction_cannot_tell_the_loss_cannot(loss):
    truth = crystal()
    measured = amplitude_of(truth)[None]
    twin = inverse_fourier(fourier(truth).conj())
    same = torch.stack(
        [truth, truth.roll((2, -3, 1), (0, 1, 2)), twin, truth * torch.polar(torch.tensor(3.0), torch.tensor(1.0))]
    )
    found = diffraction_loss(same[None], measured, loss)
    assert found.shape == (1, 4) and found.abs().max() < 1e-4
    others = torch.stack([crystal(1), truth.abs().to(torch.complex64), truth.roll(1, 0) + truth])
    assert diffraction_loss(others[None], measured, loss).min() > 0.01
    assert residuals(same[None], measured).max() < 1e-4 < 0.1 < residuals(others[None], measured).min()


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_leads_to_the_truth_and_is_finite_where_nothing_is(loss):
    truth = crystal()
    measured = amplitude_of(truth)[None]
    start = (truth * 0.7 + 0.3 * crystal(2)).requires_grad_()
    value = diffraction_loss(start[None, None], measured, loss)
    value.sum().backward()
    with torch.no_grad():
        step = 1e-3 * start.norm() / start.grad.norm()
        assert diffraction_loss((start - step * start.grad)[None, None], measured, loss) < value
    for empty in (torch.zeros_like(truth), torch.zeros_like(truth).index_fill(0, torch.tensor([8]), 1)):
        one = empty.requires_grad_()
        diffraction_loss(one[None, None], measured, loss).sum().backward()
        assert one.grad.isfinite().all()


def test_poisson_is_the_likelihood_of_the_counts():
    expected, counts = amplitude_of(crystal(1)) ** 2, torch.poisson(amplitude_of(crystal()) ** 2)
    scaled = (expected * counts.sum() / expected.sum() + 0.01).double()
    shifted = (counts + 0.01).double()
    by_hand = torch.distributions.Poisson(scaled, validate_args=False).log_prob(shifted)
    perfect = torch.distributions.Poisson(shifted, validate_args=False).log_prob(shifted)
    found = LOSSES["poisson"](expected.sqrt(), counts.sqrt())
    assert float(found) == pytest.approx(float((perfect - by_hand).sum() / counts.sum()), rel=1e-3)


def test_l1_is_the_published_loss_but_for_a_factor_of_the_pattern():
    one, other = amplitude_of(crystal()), amplitude_of(crystal(1))
    published = (one / one.max() - other / other.max()).abs().mean()
    assert float(LOSSES["l1"](one, other)) == pytest.approx(float(published / (other / other.max()).mean()), rel=1e-4)


def test_pearson_is_one_minus_the_correlation_of_numpy():
    one, other = 5 + amplitude_of(crystal()), 5 + amplitude_of(crystal(1))
    expected = 1 - np.corrcoef(one.flatten(), other.flatten())[0, 1]
    assert float(LOSSES["pearson"](one, other)) == pytest.approx(expected, rel=1e-3)


def test_pixels_that_were_not_measured_do_not_count():
    truth = crystal()
    mask = torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.2
    spoilt = torch.where(mask, amplitude_of(truth), 100.0)[None]
    for loss in LOSSES:
        assert diffraction_loss(truth[None, None], spoilt, loss) > 0.05
        assert diffraction_loss(truth[None, None], spoilt, loss, mask=mask).abs() < 1e-4
    assert residuals(truth[None, None], spoilt, mask=mask[None]) < 1e-4


def test_overlap_resolves_shift_phase_and_twin():
    truth = crystal()
    twin = inverse_fourier(fourier(truth).conj()).roll((1, 0, -4), (0, 1, 2)) * torch.polar(
        torch.tensor(0.2), torch.tensor(2.0)
    )
    found = overlap_loss(torch.stack([truth.roll(3, 2) * 1j, twin, crystal(1)])[None], truth[None])[0]
    assert found[:2].abs().max() < 1e-5 and found[2] > 0.05
    # By hand, for the untwinned object at all shifts of a few voxels.
    other = truth.abs().to(torch.complex64)
    shifts = [(z, y, x) for z in range(-2, 3) for y in range(-2, 3) for x in range(-2, 3)]
    highest = max(float((other.roll(shift, (0, 1, 2)).conj() * truth).sum().abs()) for shift in shifts)
    highest /= float(other.norm() * truth.norm())
    assert 1 - float(overlap_loss(other[None, None], truth[None])) == pytest.approx(highest, rel=1e-4)


def test_the_best_candidate_is_trained_and_the_others_follow():
    losses = torch.tensor([[3.0, 1.0], [2.0, 6.0]], requires_grad=True)
    assert best(losses, mean_fraction=0).tolist() == [1.0, 2.0]
    best(losses, mean_fraction=0.1).sum().backward()
    torch.testing.assert_close(losses.grad, torch.tensor([[0.05, 0.95], [0.95, 0.05]]))


def test_bad_input_is_named():
    truth = crystal()[None, None]
    with pytest.raises(InputError, match="loss: found mse"):
        diffraction_loss(truth, truth.abs()[0], "mse")
    with pytest.raises(InputError, match="objects: found"):
        diffraction_loss(truth, truth.abs(), "l1")
    assert math.isclose(float(residuals(torch.zeros_like(truth), amplitude_of(truth)[0])), 1, rel_tol=1e-5)
