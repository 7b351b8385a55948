import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from cathodeflow.bcdi.ambiguities import shifted
from cathodeflow.bcdi.comparison import against_truth
from cathodeflow.bcdi.figures_of_merit import chi_square, log_likelihood, r_factor, success_rates, support_fraction
from cathodeflow.bcdi.network_options import Evaluate
from cathodeflow.bcdi.operators import fourier, inverse_fourier
from cathodeflow.bcdi.resolution import Curve, fsc, half_bit, prtf
from cathodeflow.errors import InputError
from cathodeflow.statistics import wilson

torch.set_num_threads(1)
N = 24


def twinned(objects):
    """Return conj(o(-r)), inverted about index n // 2: what has the same diffraction pattern."""
    return inverse_fourier(fourier(objects).conj().resolve_conj())


def spectrum(one):
    """Transform with zero frequency in the middle."""
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(one), norm="ortho"))


def image(spectra):
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(spectra), norm="ortho")).to(torch.complex64)


def crystal():
    z, y, x = np.indices((N, N, N)) - N // 2
    inside = (abs(z) < 5) & (abs(y + 0.3 * x) < 6) & (abs(x - 0.4 * z) < 4) & (z + y + x < 9)
    return torch.tensor(inside * np.exp(1j * (0.2 * z**2 / 5 + np.sin(0.4 * y + 0.2 * x))), dtype=torch.complex64)


def radius():
    return torch.tensor(np.sqrt(((np.indices((N, N, N)) - N // 2) ** 2).sum(0)))


def signs(seed=0):
    return torch.tensor(np.random.default_rng(seed).choice([-1.0, 1.0], (N, N, N)))


def counted(scale=20.0):
    truth = scale * spectrum(crystal()).abs()
    return truth, torch.tensor(np.sqrt(np.random.default_rng(0).poisson(truth**2)), dtype=torch.float32)


def test_counting_noise_alone_gives_a_chi_square_of_one():
    truth, measured = counted(200)
    assert abs(chi_square(truth, measured, valid=truth**2 > 30).item() - 1) < 0.1
    assert chi_square(1.2 * truth, measured).item() > 50
    both = chi_square(torch.stack([truth, 1.2 * truth]), measured)
    assert both.shape == (2,) and both[0] == chi_square(truth, measured)


def test_the_likelihood_is_that_of_poisson_and_is_highest_for_the_truth():
    truth, measured = counted()
    found = log_likelihood(truth, measured).item()
    counts = np.round(measured.numpy().astype(float) ** 2)
    expected = stats.poisson.logpmf(counts, np.maximum(truth.numpy().astype(float) ** 2, 1e-3)).mean()
    assert found == pytest.approx(expected, rel=1e-4)
    assert found > log_likelihood(0.95 * truth, measured) and found > log_likelihood(1.05 * truth, measured)
    dark = log_likelihood(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 2.0))
    assert dark.item() == pytest.approx(4 * math.log(1e-3) - 1e-3 - math.log(24), rel=1e-5)


def test_only_valid_pixels_count():
    measured = torch.tensor([[[2.0, 5.0, 1.0]]])
    calculated = torch.tensor([[[3.0, 5.0, 77.0]]])
    valid = torch.tensor([[[True, True, False]]])
    assert r_factor(calculated, measured, valid=valid).item() == pytest.approx(1 / 7)
    assert chi_square(calculated, measured, valid=valid).item() == pytest.approx(25 / 4 / 2)
    one = torch.tensor([[[False, True, False]]])
    expected = stats.poisson.logpmf(25, 25)
    assert log_likelihood(calculated, measured, valid=one).item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match="valid: found no pixel, expected some of"):
        r_factor(calculated, measured, valid=valid & one & False)
    with pytest.raises(InputError, match=r"calculated: found shape \(1, 1, 2\), expected \(\.\.\., 1, 1, 3\)"):
        r_factor(calculated[..., :2], measured)


def test_the_phase_error_is_that_in_the_support_whatever_the_ambiguities():
    truth = crystal()
    # As many voxels up as down, so that the mean stays.
    error = 0.1 * (-1.0) ** torch.tensor(np.indices((N, N, N)).sum(0), dtype=torch.float32)
    wrong = truth * torch.polar(torch.ones_like(error), error)
    objects = torch.stack([truth, twinned(truth) * np.exp(2j), wrong])
    found = against_truth(shifted(objects, [3.3, -1.2, 0.5]), truth, threshold=0.1)
    assert found.phase_error[:2].max() < 0.002 and found.phase_error[2].item() == pytest.approx(0.1, rel=0.05)
    assert found.correlation[:2].min() > 0.9999
    assert found.correlation[2].item() == pytest.approx(math.cos(0.1), abs=1e-3)
    assert (found.aligned[0] - truth).abs().max() < 0.02


def test_noise_outside_the_support_is_no_phase_error_and_without_a_support_there_is_none():
    truth = crystal()
    noise = 0.05 * torch.polar(torch.ones(N, N, N), torch.rand(N, N, N, generator=torch.Generator().manual_seed(0)) * 6)
    found = against_truth((truth + noise * (truth == 0))[None], truth, threshold=0.1)
    assert found.phase_error.item() < 0.01 and found.correlation.item() < 0.999
    assert math.isnan(against_truth(torch.zeros_like(truth)[None], truth, threshold=0.1).phase_error.item())


def test_a_support_is_counted_against_the_highest_amplitude():
    one = crystal()
    share = (one != 0).float().mean()
    both = torch.stack([one, 100 * one + 1.0])
    assert support_fraction(both, threshold=0.1).tolist() == pytest.approx([share.item()] * 2)
    assert support_fraction(torch.zeros(2, 2, 2), threshold=0.1).item() == 0


def test_starts_that_agree_have_a_transfer_function_of_one():
    one = crystal()
    starts = torch.stack([one, shifted(twinned(one), [1.5, 0.3, -4]) * 1j, shifted(one, [0.2, 0.7, 9.1])])
    curve = prtf(starts, spectrum(one).abs(), voxel_nm=(10, 10, 10))
    assert curve.value == pytest.approx(1, abs=1e-3) and len(curve.value) == N // 2
    assert curve.frequency == pytest.approx(np.arange(1, 13) / 240)
    assert curve.resolution_nm == pytest.approx(20)
    assert curve.threshold == pytest.approx(math.exp(-1))
    half = prtf(starts, 2 * spectrum(one).abs(), voxel_nm=(10, 10, 10))
    assert half.value == pytest.approx(0.5, abs=1e-3)


def test_phases_that_differ_by_an_angle_are_half_of_it_from_their_mean():
    angle, first = 0.8, spectrum(crystal())
    second = first * torch.polar(torch.ones(N, N, N).double(), angle * signs())
    curve = prtf(torch.stack([image(first), image(second)]), first.abs(), voxel_nm=(1, 1, 1))
    # Their overlap alone sets the global phase, which may turn a little.
    assert curve.value[2:] == pytest.approx(math.cos(angle / 2), abs=0.02)


def test_a_transfer_function_ends_where_the_starts_differ():
    first = spectrum(crystal())
    rng = np.random.default_rng(1)
    starts = []
    for _ in range(20):
        turn = torch.tensor(np.exp(2j * np.pi * rng.random((N, N, N))))
        starts.append(image(torch.where(radius() > 7.5, first * turn, first)))
    curve = prtf(torch.stack(starts), first.abs(), voxel_nm=(5, 5, 5))
    assert curve.value[:7] == pytest.approx(1, abs=0.01)
    assert curve.value[8:].max() < 0.35 and curve.value[8:].mean() == pytest.approx(
        math.sqrt(math.pi / 4 / 20), rel=0.1
    )
    assert N * 5 / 8 < curve.resolution_nm < N * 5 / 7
    # What was not measured does not count.
    outside = prtf(torch.stack(starts), first.abs(), voxel_nm=(5, 5, 5), valid=radius() < 7.5)
    assert outside.value[8:].max() == 0
    with pytest.raises(InputError, match="n at least 2"):
        prtf(image(first)[None], first.abs(), voxel_nm=(5, 5, 5))


def test_a_shell_correlation_is_that_of_its_voxels():
    first = spectrum(crystal())
    kept = torch.where(torch.tensor(np.random.default_rng(2).random((N, N, N))) < 0.2, -1.0, 1.0)
    curve = fsc(image(first), image(first * kept), voxel_nm=(1, 1, 1), threshold=0.1)
    shell = (radius().round() == 6).numpy()
    power = first.abs().numpy()[shell] ** 2
    assert curve.value[5] == pytest.approx((power * kept.numpy()[shell]).sum() / power.sum(), abs=0.01)
    filled = support_fraction(image(first), threshold=0.1).item()
    assert curve.threshold[5] == pytest.approx(half_bit(shell.sum() * filled ** (2 / 3)), rel=1e-6)


def test_the_shell_correlation_finds_where_objects_part():
    first = spectrum(crystal())
    turn = torch.tensor(np.exp(2j * np.pi * np.random.default_rng(3).random((N, N, N))))
    other = shifted(twinned(image(torch.where(radius() > 8.5, first * turn, first))), [0.3, 5.2, -1])
    curve = fsc(image(first), other, voxel_nm=(5, 5, 5), threshold=0.1)
    assert curve.value[:7] == pytest.approx(1, abs=0.01)
    assert N * 5 / 9.2 < curve.resolution_nm < N * 5 / 8
    same = fsc(image(first), image(first), voxel_nm=(5, 5, 5), threshold=0.1)
    assert same.value == pytest.approx(1) and same.resolution_nm == pytest.approx(10)


def test_shells_are_of_frequency_not_of_voxels():
    curve = fsc(crystal(), crystal(), voxel_nm=(20, 10, 10), threshold=0.1)
    # The axes y and x have the coarsest step of frequency, z the nearest edge.
    assert curve.frequency == pytest.approx(np.arange(1, 7) / 240)
    assert curve.resolution_nm == pytest.approx(40)
    with pytest.raises(InputError, match="voxel_nm"):
        fsc(crystal(), crystal(), voxel_nm=(1, 0, 1), threshold=0.1)


def test_the_resolution_is_where_a_curve_first_crosses():
    frequency, third = np.array([0.1, 0.2, 0.3, 0.4]), np.full(4, 0.3)
    assert Curve(frequency, np.array([1.0, 0.5, 0.1, 0.9]), third).resolution_nm == pytest.approx(1 / 0.25)
    assert Curve(frequency, np.array([1.0, 0.6, 0.2, 0.9]), third).resolution_nm == pytest.approx(1 / 0.275)
    assert Curve(frequency, np.array([0.2, 0.5, 0.1, 0.9]), third).resolution_nm == math.inf
    assert Curve(frequency, np.array([1.0, 0.9, 0.8, 0.7]), third).resolution_nm == pytest.approx(2.5)


def test_successes_are_counted_by_start_regime_and_iterations():
    trials = pd.DataFrame(
        [("random", "weak", 50, 0.9), ("random", "weak", 50, 0.96), ("network", "weak", 50, 0.99),
         ("random", "weak", 100, 0.97), ("random", "strong", 50, float("nan"))],
        columns=["start", "regime", "iterations", "correlation"],
    )  # fmt: skip
    found = success_rates(trials, Evaluate())
    assert found[["start", "regime", "iterations", "successes", "count", "share"]].values.tolist() == [
        ["random", "weak", 50, 1, 2, 0.5],
        ["network", "weak", 50, 1, 1, 1.0],
        ["random", "weak", 100, 1, 1, 1.0],
        ["random", "strong", 50, 0, 1, 0.0],
    ]
    assert tuple(found.loc[0, ["low", "high"]]) == pytest.approx(wilson(1, 2))
