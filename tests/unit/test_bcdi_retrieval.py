import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from cathodeflow.bcdi.ambiguities import align
from cathodeflow.bcdi.coherence import Blur
from cathodeflow.bcdi.figures_of_merit import log_likelihood
from cathodeflow.bcdi.free_pixels import free_pixels
from cathodeflow.bcdi.modes import best_of, mode_decomposition
from cathodeflow.bcdi.noise import counting_noise, relaxation
from cathodeflow.bcdi.operators import amplitude, fourier
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.retrieval import retrieve
from cathodeflow.errors import InputError
from cathodeflow.options import from_config

SHORT = "20*ER+30*HIO+10*ER"


def crystal(shape=(32, 32, 32), seed=0, strength=0.6):
    """A polyhedron with a smooth phase, range about 2 rad."""
    random = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*(torch.arange(n) - n // 2 for n in shape), indexing="ij")
    places = torch.stack(axes, -1).float()
    side = min(shape)
    inside = places.abs().amax(-1) < 0.2 * side
    for _ in range(8):
        normal = torch.nn.functional.normalize(torch.randn(3, generator=random), dim=0)
        inside &= places @ normal <= side * (0.12 + 0.08 * torch.rand((), generator=random))
    waves = torch.randn(3, 3, generator=random) * 2 / side
    phase = strength * sum(torch.sin(places @ wave + number) for number, wave in enumerate(waves))
    return inside * torch.polar(torch.ones(shape), phase)


def phased(measured, **given):
    """Retrieve from one start unless `starts` says otherwise, with all pixels."""
    keywords = {
        name: given.pop(name) for name in ("mask", "initial", "first_support", "numbers", "together") if name in given
    }
    options = Phase(**{"starts": 1, "free_fraction": 0, "device": "cpu"} | given)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return retrieve(measured, options, **keywords)
    finally:
        torch.set_num_threads(threads)


def test_a_crystal_is_found_up_to_its_ambiguities():
    true = crystal()
    found = phased(amplitude(true), recipe="2*(20*ER+80*HIO)+20*ER", starts=4, free_fraction=0.03)
    correlations = align(found.objects, true)[1]
    best = best_of(found)[0]
    assert correlations[best] > 0.97 and correlations.median() > 0.9
    assert (found.errors[:, -1] < 0.05).all() and (found.errors[:, 0] > 0.3).all()
    # No bloated support: cut at a tenth of the smoothed maximum it is a layer of about a voxel too large.
    assert found.supports.sum((1, 2, 3)).max() < 2.5 * (true.abs() > 0).sum()
    assert not found.objects[~found.supports].any()


def test_sides_need_not_be_equal_nor_even():
    true = crystal((27, 32, 40))
    found = phased(amplitude(true), recipe="2*(20*ER+80*HIO)+20*ER", starts=3)
    assert found.objects.shape == found.supports.shape == (3, 27, 32, 40) and found.errors.shape == (3, 220)
    assert align(found.objects, true)[1][best_of(found)[0]] > 0.95


def numpy_wave(x):
    return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(x), norm="ortho"))


def textbook(x, support, measured, mask, algorithm, beta, iterations):
    """The algorithms as their papers state them, with numpy alone, in object space and double precision."""

    def onto_modulus(x):
        wave = numpy_wave(x)
        wave = np.where(mask, measured * np.exp(1j * np.angle(wave)), wave)
        return np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(wave), norm="ortho"))

    errors = []
    for _ in range(iterations):
        y = onto_modulus(x)
        if algorithm == "ER":
            x = support * y
        elif algorithm == "HIO":
            x = np.where(support, y, x - beta * y)
        elif algorithm == "RAAR":
            reflected = 2 * y - x
            x = beta / 2 * (2 * support * reflected - reflected + x) + (1 - beta) * y
        else:
            relaxed_m = (1 + 1 / beta) * y - x / beta
            relaxed_s = (1 - 1 / beta) * support * x + x / beta
            x = x + beta * (support * relaxed_m - onto_modulus(relaxed_s))
        errors.append(np.linalg.norm(mask * (abs(numpy_wave(x)) - measured)) / np.linalg.norm(mask * measured))
    return support * y, errors


@pytest.mark.parametrize(("algorithm", "beta"), [("ER", 0.9), ("HIO", 0.9), ("RAAR", 0.8), ("DM", 1.0), ("DM", 0.7)])
def test_the_iterations_are_those_of_the_papers(algorithm, beta):
    shape = (12, 14, 15)
    random = torch.Generator().manual_seed(1)
    support = torch.zeros(shape, dtype=torch.bool)
    support[3:8, 4:10, 6:11] = torch.rand(5, 6, 5, generator=random) > 0.2
    # Of nearly equal modulus, so that without smoothing its support is where it is not 0.
    start = support * torch.polar(1 + torch.rand(shape, generator=random), 6 * torch.rand(shape, generator=random))
    mask = torch.rand(shape, generator=random) > 0.1
    measured = amplitude(crystal(shape, strength=1.0)) + 0.1
    scaled = start * (measured * mask).norm() / start.norm()
    given = [one.numpy() for one in (scaled.to(torch.complex128), support, measured.double(), mask)]
    expected, errors = textbook(*given, algorithm, beta, 7)
    found = phased(
        measured, recipe=f"7*{algorithm}", initial=start, mask=mask, beta=beta, shrink_every=0, sigma=(0.0, 0.0)
    )
    assert torch.equal(found.supports[0], support)
    np.testing.assert_allclose(found.objects[0].numpy(), expected, atol=1e-4 * np.abs(expected).max())
    # The last error is that of the projected object, the others those of the iterates.
    np.testing.assert_allclose(found.errors[0, :-1].numpy(), errors[:-1], rtol=1e-4)
    difference = given[3] * (abs(numpy_wave(found.objects[0].numpy())) - given[2])
    assert found.errors[0, -1] == pytest.approx(
        np.linalg.norm(difference) / np.linalg.norm(given[3] * given[2]), rel=1e-4
    )


@pytest.mark.parametrize("algorithm", ["HIO", "RAAR"])
def test_the_support_is_that_of_the_projected_iterate(algorithm):
    """Shrink-wrap after six of eight iterations: what is cut is the projected object, without the feedback around it."""
    shape = (12, 14, 15)
    true = crystal(shape, strength=1.0)
    random = torch.Generator().manual_seed(2)
    support = torch.zeros(shape, dtype=torch.bool)
    support[2:10, 3:12, 3:12] = torch.rand(8, 9, 9, generator=random) > 0.3
    start = support * torch.polar(1 + torch.rand(shape, generator=random), 6 * torch.rand(shape, generator=random))
    measured, every = amplitude(true) + 0.1, torch.ones(shape, dtype=torch.bool)
    scaled = start * measured.norm() / start.norm()
    given = [one.numpy() for one in (scaled.to(torch.complex128), support, measured.double(), every)]
    projected, _ = textbook(*given, algorithm, 0.9, 6)
    found = phased(
        measured, recipe=f"8*{algorithm}", initial=start, beta=0.9, shrink_every=6, sigma=(0.0, 2.0), threshold=0.3
    )
    # The width goes from 0 to 2, and stands at three quarters of the way.
    expected = ndimage.gaussian_filter(np.abs(projected), 1.5, mode="wrap", truncate=6)
    expected = expected >= 0.3 * expected.max()
    assert 0.1 < expected.mean() < 0.5
    assert (found.supports[0].numpy() ^ expected).sum() <= 0.01 * expected.sum()


def test_one_poisson_step_is_the_published_proximity_operator():
    # Without a support: of modulus m and counts a^2 it gives what minimises (x - m)^2 + x^2 - 2 a^2 ln x.
    shape = (6, 8, 10)
    random = torch.Generator().manual_seed(3)
    start = torch.polar(1 + torch.rand(shape, generator=random), 6 * torch.rand(shape, generator=random))
    measured = 1 + 3 * torch.rand(shape, generator=random)
    found = phased(
        measured, recipe="1*ER", initial=start, likelihood="poisson", shrink_every=0, sigma=(0.0, 0.0), threshold=0.01
    )
    assert found.supports.all()
    wave = numpy_wave((start * measured.norm() / start.norm()).numpy())
    x = np.abs(numpy_wave(found.objects[0].numpy()))
    np.testing.assert_allclose((x - np.abs(wave)) + x, measured.numpy() ** 2 / x, rtol=1e-3, atol=1e-3)


def test_error_reduction_never_makes_the_error_larger():
    found = phased(amplitude(crystal()), recipe="60*ER", starts=2, shrink_every=0, support=0.4)
    assert (found.errors.diff(dim=1) <= 1e-6).all() and (found.errors[:, -1] < 0.5 * found.errors[:, 0]).all()
    assert torch.equal(found.supports[0], found.supports[1])


def test_starts_in_a_batch_are_those_of_separate_runs_and_repeat():
    measured = amplitude(crystal((16, 20, 18)))
    options = {"recipe": SHORT, "seed": 5, "shrink_every": 20}
    together = phased(measured, starts=3, **options)
    again, chunked = phased(measured, starts=3, **options), phased(measured, starts=3, together=1, **options)
    assert all(torch.equal(a, b) for a, b in zip(together[:3], again[:3], strict=True))
    scale = together.objects.abs().max().item()
    for number in range(3):
        alone = phased(measured, numbers=[number], **options)
        assert torch.equal(alone.objects[0], chunked.objects[number])
        assert torch.allclose(alone.objects[0], together.objects[number], atol=1e-2 * scale)
        assert torch.allclose(alone.errors[0], together.errors[number], atol=1e-3)
    other = phased(measured, starts=1, **options | {"seed": 6})
    assert not torch.allclose(other.objects[0], together.objects[0], atol=0.1 * scale)
    assert not torch.allclose(together.objects[1], together.objects[0], atol=0.1 * scale)


@pytest.mark.parametrize("garbage", [7.0, -3.0, math.nan, math.inf])
def test_what_stands_in_masked_pixels_changes_nothing(garbage):
    measured = amplitude(crystal((16, 16, 16)))
    mask = torch.ones(16, 16, 16, dtype=torch.bool)
    mask[:, 5:7], mask[7:9, 8, 8] = False, False
    clean = phased(measured, mask=mask, recipe=SHORT, free_fraction=0.05)
    dirty = phased(torch.where(mask, measured, garbage), mask=mask, recipe=SHORT, free_fraction=0.05)
    assert torch.equal(clean.objects, dirty.objects) and torch.equal(clean.errors, dirty.errors)
    assert torch.equal(clean.free_log_likelihood, dirty.free_log_likelihood)
    # The same number as a measurement does.
    assert garbage != 7.0 or not torch.equal(
        clean.objects, phased(torch.where(mask, measured, garbage), recipe=SHORT).objects
    )


def test_a_gap_in_the_detector_does_not_keep_the_crystal_from_being_found():
    true = crystal()
    mask = torch.ones(true.shape, dtype=torch.bool)
    mask[:, 10:12] = False
    options = {"recipe": "2*(20*ER+80*HIO)+20*ER", "starts": 3}
    found = phased(amplitude(true) * mask, mask=mask, **options)
    unaware = phased(amplitude(true) * mask, **options)
    assert align(found.objects, true)[1].max() > 0.95
    assert found.errors[:, -1].max() < unaware.errors[:, -1].min()


def test_a_start_near_the_crystal_is_kept_on_any_scale():
    true = crystal(strength=1.5)
    noise = torch.randn(true.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    initial = 1e-3 * (true + 0.3 * (true.abs() > 0) * noise)
    found = phased(amplitude(true), recipe="10*ER+20*HIO+10*ER", initial=initial)
    assert align(found.objects, true, twin=False)[1] > 0.99
    # The scale of a start is that of the measurement, whatever it comes with.
    gap = torch.ones(true.shape, dtype=torch.bool)
    gap[:, 12:14] = False
    options = {"recipe": "3*HIO", "shrink_every": 0, "mask": gap}
    one, large = (phased(amplitude(true), initial=scale * initial, **options).objects for scale in (1, 1e5))
    assert torch.allclose(one, large, atol=1e-4 * float(one.abs().max()))
    both = phased(amplitude(true), recipe="5*ER", initial=torch.stack([initial, true]))
    assert both.errors[1, 0] < 1e-4 < both.errors[0, 0]


def counted(true, photons, widths=None):
    intensity = amplitude(true).square()
    if widths is not None:
        turned = intensity.permute(2, 1, 0)[None]
        intensity = Blur(tuple(turned.shape), torch.tensor([widths]))(turned)[0].permute(2, 1, 0)
    intensity = intensity * photons / intensity.sum()
    return torch.poisson(intensity, generator=torch.Generator().manual_seed(2)).sqrt()


def test_the_poisson_likelihood_is_higher_where_it_is_the_aim():
    true = crystal()
    measured = counted(true, 2e4)
    likelihoods = {}
    for aim in ("amplitude", "poisson"):
        options = {"recipe": "80*ER", "initial": true, "shrink_every": 0, "likelihood": aim}
        model = amplitude(phased(measured, **options).objects[0]).double().square().clamp_min(1e-6)
        likelihoods[aim] = (measured.square() * model.log() - model).mean().item()
    assert likelihoods["poisson"] > likelihoods["amplitude"] + 1e-3


@pytest.mark.parametrize("photons", [1e5, 1e6, 1e7, 1e8])
def test_the_counting_noise_is_the_distance_to_the_true_amplitude(photons):
    true = crystal(strength=2.0)
    measured = counted(true, photons)
    exact = amplitude(true) * photons**0.5 / torch.linalg.vector_norm(amplitude(true))
    distance = (torch.linalg.vector_norm(measured - exact) / torch.linalg.vector_norm(exact)).item()
    assert counting_noise(measured) == pytest.approx(distance, rel=0.15)
    # A bright pixel that was not measured would hide the noise of the others.
    spoilt, mask = measured.clone(), torch.ones_like(measured, dtype=torch.bool)
    spoilt[0, 0, 0], spoilt[0, 0, 1], mask[0, 0, :2] = 1e6, math.nan, False
    for valid in (mask, 255 * mask.to(torch.uint8)):
        assert counting_noise(spoilt, valid=valid) == pytest.approx(distance, rel=0.15)


def test_of_a_few_photons_the_truth_is_kept_by_a_relaxation_that_the_noise_sets():
    correlations = {None: [], 0.97: []}
    for seed in (0, 1, 3):
        true = crystal(seed=seed, strength=8.0)
        measured = counted(true, 1.5e5)
        options = {"recipe": "180*RAAR+20*ER", "initial": true, "shrink_every": 10, "sigma": (1.0, 0.5)}
        for beta, values in correlations.items():
            values.append(align(phased(measured, beta=beta, **options).objects, true)[1].item())
    assert min(correlations[None]) > 0.94 and np.mean(correlations[0.97]) < 0.85
    assert 0.7 < relaxation(measured) < 0.85
    # No roots of counts, and next to nothing but noise.
    assert relaxation(measured / measured.max()) == 1
    assert relaxation(torch.cat([ONES, 4 * ONES[:1]])) == 0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_the_default_recipe_finds_a_strained_crystal_of_few_photons(seed):
    true = crystal(seed=seed, strength=6.0)
    measured = counted(true, 3e5)
    # Each start by itself: ranking is not what this is about.
    ours, hybrid = (
        align(phased(measured, starts=4, seed=1, **options).objects, true)[1]
        for options in ({}, {"recipe": "3*(20*ER+180*HIO)+20*ER"})
    )
    assert ours.min() > 0.93 and ours.min() > hybrid.mean() + 0.05


def test_the_free_log_likelihood_tells_an_object_from_a_bloated_support():
    true = crystal()
    measured = counted(true, 3e5)
    options = {"recipe": "40*ER+40*HIO+40*ER", "shrink_every": 0, "free_fraction": 0.05}
    tight = phased(measured, initial=true, sigma=(0.5, 0.5), **options)
    loose = phased(measured, support=0.9, **options)
    # More voxels fit better to what they are fitted to, and predict worse.
    assert loose.errors[0, -1] < tight.errors[0, -1]
    assert tight.free_log_likelihood[0] > loose.free_log_likelihood[0] + 0.1


def test_free_pixels_do_not_act_on_the_object():
    measured = amplitude(crystal((16, 16, 16)))
    plain, held_out = (phased(measured, recipe=SHORT, free_fraction=share) for share in (0.0, 0.1))
    assert plain.free_log_likelihood.isnan().all() and held_out.free_log_likelihood.isfinite().all()
    assert not torch.equal(plain.objects, held_out.objects)
    # They alone judge it.
    free = free_pixels((16, 16, 16), 0.1, seed=0)
    expected = log_likelihood(amplitude(held_out.objects), measured, valid=free)
    assert held_out.free_log_likelihood.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_partial_coherence_is_taken_into_account_and_its_width_found():
    true, widths, even = crystal(), (0.4, 0.6, 0.8), (0.6, 0.6, 0.6)
    measured = counted(true, 8e5, widths)
    options = {"recipe": "20*ER+130*HIO+50*ER", "starts": 2}
    ignored, fitted = phased(measured, **options), phased(measured, coherence="fit", **options)
    assert align(fitted.objects, true)[1].max() > align(ignored.objects, true)[1].max() + 0.03
    assert fitted.errors[:, -1].max() < ignored.errors[:, -1].min()
    assert torch.allclose(fitted.coherence, torch.tensor([widths]).expand(2, 3), atol=0.12)
    assert not ignored.coherence.any()
    # The truth, with the true widths, is where it should be.
    exact = counted(true, 1e12, even)
    stays = phased(exact, recipe="10*HIO+5*ER", initial=true, coherence="fixed", coherence_px=0.6, sigma=(0.5, 0.5))
    assert stays.errors.max() < 1e-3 and align(stays.objects, true)[1] > 0.999


def test_phase_limits_hold():
    found = phased(amplitude(crystal(strength=0.2)), recipe=SHORT, phase_limits=(-1.0, 1.5))
    phases = found.objects[found.objects != 0].angle()
    assert phases.min() >= -1.0 and phases.max() <= 1.5


def test_modes_are_orthogonal_and_the_first_is_what_the_objects_share():
    true = crystal((20, 20, 20))
    turned = torch.polar(torch.tensor(1.0), torch.tensor(2.0))
    same = mode_decomposition(torch.stack([true, turned * true.roll((2, -1, 3), (0, 1, 2))]))
    assert same.fractions[0] > 0.999 and torch.allclose(same.modes[0], true, atol=2e-3)
    noise = torch.randn(3, 20, 20, 20, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    noisy = true + 0.4 * (true.abs() > 0) * noise
    found = mode_decomposition(noisy)
    products = torch.einsum("izyx,jzyx->ij", found.modes.conj(), found.modes)
    power = products.diagonal().real
    assert (products - products.diagonal().diag()).abs().max() < 1e-3 * power[0]
    assert torch.allclose(found.fractions, power / power.sum(), atol=1e-4) and found.fractions.sum() == pytest.approx(1)
    assert (align(found.modes[:1], true)[1] > align(noisy, true)[1]).all()
    assert torch.allclose(power.sum(), noisy.abs().square().sum() / 3, rtol=1e-3)


def test_the_best_are_ranked_by_free_pixels_else_by_error():
    found = phased(amplitude(crystal((16, 16, 16))), recipe="15*ER", starts=3)
    by_error = found._replace(errors=torch.tensor([[0.3], [0.1], [0.2]]))
    assert best_of(by_error) == [1] and best_of(by_error, 3) == [1, 2, 0]
    assert best_of(by_error._replace(free_log_likelihood=torch.tensor([-3.0, -9.0, -1.0])), 2) == [2, 0]
    with pytest.raises(InputError, match="4 of 3 starts"):
        best_of(found, 4)


ONES = torch.ones(8, 8, 8)


@pytest.mark.parametrize(
    ("measured", "options", "message"),
    [
        (0 * ONES, {}, "amplitude: found 0 in every measured pixel"),
        (ONES - 2, {}, "amplitude: found -1, expected at least 0"),
        (ONES * math.nan, {}, "amplitude: found 512 pixels not finite"),
        (ONES[0], {}, r"amplitude: found shape \(8, 8\)"),
        (ONES, {"mask": torch.ones(8, 8, 7, dtype=torch.bool)}, r"mask: found shape \(8, 8, 7\)"),
        (ONES, {"mask": torch.zeros(8, 8, 8, dtype=torch.bool)}, "0 in every measured pixel"),
        (ONES, {"initial": ONES[:7]}, r"initial: found shape \(1, 7, 8, 8\), expected \(n, 8, 8, 8\)"),
        (ONES, {"initial": 0 * ONES}, "initial: found an object that is 0"),
        (ONES, {"numbers": [-1]}, r"numbers: found \[-1\]"),
        (ONES, {"first_support": torch.zeros(8, 8, 8, dtype=torch.bool)}, "first_support: .* 0 voxels"),
        (ONES, {"coherence": "fit", "shrink_every": 0}, "coherence: found fit"),
    ],
)
def test_bad_input_is_named_in_one_line(measured, options, message):
    with pytest.raises(InputError, match=message) as caught:
        phased(measured, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"starts": 0},
        {"beta": 1.2},
        {"shrink_every": -1},
        {"sigma": (1.0, -1.0)},
        {"threshold": 0.0},
        {"phase_limits": (1.0, 0.0)},
        {"phase_limits": (0.0, 4.0)},
        {"recipe": "20*XX"},
        {"free_fraction": 0.9},
    ],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=f"bcdi.phase: {next(iter(wrong))}"):
        from_config(Phase, wrong, "bcdi.phase")


def test_the_wave_of_the_object_is_the_measured_one_in_amplitude():
    true = crystal((24, 24, 24))
    found = phased(amplitude(true), recipe="20*ER", initial=true, sigma=(0.5, 0.5))
    assert torch.allclose(fourier(found.objects[0]).abs(), amplitude(true), atol=1e-3)
