"""Training for other sessions: octaves, simulated changes of the instrument, weights of groups, a frozen network."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cathodeflow.sem.instrument_changes import change_instrument, charging_field, curved, magnified
from cathodeflow.sem.losses import crop_losses, group_loss
from cathodeflow.sem.model import build_model
from cathodeflow.sem.octaves import equal_histogram, equal_octaves, join_octaves, scaled_octaves, split_octaves
from cathodeflow.sem.options import Train
from cathodeflow.sem.robust_options import Robust

SWITCHES = {"magnification": 1.5, "octaves": 2.0, "curve": 0.8, "charging": 0.3}


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def textures(count=3, side=96, seed=0):
    """Crops with structures of several sizes, in 0.2..0.8."""
    rng = np.random.default_rng(seed)
    fields = [
        sum(gaussian_filter(rng.normal(size=(side, side)), s, mode="wrap") * s for s in (1, 4)) for _ in range(count)
    ]
    scaled = [0.5 + 0.08 * field / field.std() for field in fields]
    return torch.from_numpy(np.clip(scaled, 0, 1)).float()[:, None]


@pytest.mark.parametrize("shape", [(96, 96), (61, 90), (9, 30)])
def test_octaves_join_to_the_crop_again(shape):
    x = torch.rand(2, 1, *shape, generator=random())
    torch.testing.assert_close(join_octaves(split_octaves(x)), x, atol=1e-5, rtol=0)


def test_a_wave_is_in_the_octave_of_its_frequency():
    cols = torch.arange(128.0)
    for period, band in ((3, 0), (7, 1), (14, 2)):
        wave = torch.sin(2 * torch.pi * cols / period).expand(1, 1, 128, 128)
        energy = [float(part.square().mean()) for part in split_octaves(wave)]
        assert int(np.argmax(energy)) == band


def test_equal_octaves_remove_brightness_contrast_and_focus():
    x = textures()
    plain = equal_octaves(x)
    torch.testing.assert_close(equal_octaves(0.3 + 0.5 * x), plain, atol=1e-3, rtol=0)
    blurred = torch.from_numpy(np.stack([gaussian_filter(image, (0, 0.8, 0.8), mode="wrap") for image in x.numpy()]))

    def likeness(a, b):
        return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])

    def standard(images):
        return (images - images.mean()) / images.std()

    assert likeness(equal_octaves(blurred)[0], plain[0]) > 0.9
    deviations = [[float(band.std()) for band in split_octaves(image)[:3]] for image in (plain, equal_octaves(blurred))]
    before = [[float(band.std()) for band in split_octaves(standard(image))[:3]] for image in (x, blurred)]
    # The finest octave loses most by defocus; normalized, it has what it had.
    assert before[1][0] < 0.7 * before[0][0]
    assert deviations[1] == pytest.approx(deviations[0], rel=0.25)
    assert torch.isfinite(equal_octaves(torch.full((1, 1, 32, 32), 0.4))).all()


def test_equal_histograms_remove_every_increasing_curve():
    x = (textures() * 255).round() / 255
    plain = equal_histogram(x)
    assert float(plain.mean()) == pytest.approx(0, abs=0.01) and float(plain.std()) == pytest.approx(1, abs=0.03)
    # A curve that joins no levels.
    steep = (255 * (0.1 + 1.2 * (x - 0.2) + 0.1 * x**2)).round() / 255
    assert len(steep[0].unique()) == len(x[0].unique())
    torch.testing.assert_close(equal_histogram(steep), plain)
    order = x[0].flatten().argsort()
    assert (plain[0].flatten()[order].diff() >= 0).all()
    assert not equal_histogram(torch.full((1, 1, 32, 32), 0.4)).any()


@pytest.mark.parametrize("normalization", ["histogram", "octaves"])
def test_crops_rounded_by_mixed_precision_are_normalized_with_all_digits(normalization):
    network = build_model(["a", "b"], Train(normalization=normalization))
    rounded = textures().bfloat16()
    found = network.normalized(rounded)
    assert torch.isfinite(found).all() and found.dtype == torch.float32
    torch.testing.assert_close(found, network.normalized(rounded.float()))


def test_scaled_octaves_change_theirs_alone_and_keep_the_mean():
    x = textures()
    changed = scaled_octaves(x, torch.tensor([[2.0, 1.0]]).expand(3, 2))
    before, after = split_octaves(x), split_octaves(changed)
    ratio = [float(b.std() / a.std()) for a, b in zip(before, after, strict=True)]
    # Neighbouring bands of the pyramid overlap.
    assert ratio[0] > 1.6 and ratio[1] < 1.5 and ratio[2:] == pytest.approx([1] * len(ratio[2:]), rel=0.2)
    torch.testing.assert_close(changed.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=1e-6, rtol=0)


def test_magnification_makes_structures_larger():
    cols = torch.arange(128.0)
    wave = (0.5 + 0.4 * torch.sin(2 * torch.pi * cols / 8)).expand(1, 1, 128, 128)
    line = magnified(wave, torch.tensor([2.0]))[0, 0, 64]
    assert int(np.abs(np.fft.rfft(line - line.mean())).argmax()) == 128 // 16


def test_curves_increase_from_black_to_white():
    x = torch.linspace(0, 1, 101).view(1, 1, 1, 101)
    steps = torch.tensor([[0.7, 0.1, 0.2]])
    y = curved(x, steps, torch.ones(1, 1)).flatten()
    assert (y.diff() > 0).all() and float(y[0]) == 0 and float(y[-1]) == pytest.approx(1)
    assert float(curved(torch.full((1, 1, 1, 1), 1 / 3), steps, torch.ones(1, 1))) == pytest.approx(0.7)
    assert torch.allclose(curved(x, steps, torch.zeros(1, 1)), x)


def test_charging_is_a_gradient_and_lines_that_recover():
    field = charging_field(200, 100, 0.2, 400, random())
    assert abs(float(field.mean())) < 0.005 and float(field.abs().max()) < 1
    without = charging_field(200, 100, 0.0, 4, random())
    assert not without.any()
    # A charged line is as bright from edge to edge as the gradient leaves it.
    steps = field[:, 0].diff(dim=1)
    assert float((steps - steps.mean(2, keepdim=True)).abs().max()) < 1e-5


@pytest.mark.parametrize("name", SWITCHES)
def test_each_change_of_the_instrument_acts_alone_in_its_own_way_and_repeatably(name):
    x = textures(8)
    options = Robust(**{name: SWITCHES[name]})
    y = change_instrument(x, random(1), options)
    assert y.shape == x.shape and float(y.min()) >= 0 and float(y.max()) <= 1
    assert all(not torch.allclose(a, b, atol=1e-5) for a, b in zip(x, y, strict=True))
    assert torch.equal(y, change_instrument(x, random(1), options))
    assert not torch.equal(y, change_instrument(x, random(2), options))


def test_without_changes_nothing_is_drawn():
    x, numbers = textures(), random()
    assert change_instrument(x, numbers, Robust()) is x
    assert torch.equal(torch.rand(3, generator=numbers), torch.rand(3, generator=random()))


def test_the_group_loss_is_the_mean_of_groups_or_that_of_the_worst_and_its_gradient_goes_there():
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 1.0]], requires_grad=True)
    labels, groups = torch.tensor([0, 0, 0, 0]), torch.tensor([7, 7, 7, 3])
    each = crop_losses(logits, labels, loss="cross_entropy", label_smoothing=0.0)
    assert float(group_loss(each, groups, 0.0).detach()) == pytest.approx(
        float((each[:3].mean() + each[3]).detach() / 2)
    )
    worst = group_loss(each, groups, 20.0)
    assert float(worst.detach()) == pytest.approx(float(each[3].detach()), rel=1e-4)
    worst.backward()
    assert float(logits.grad[:3].abs().max()) < 1e-4 < float(logits.grad[3].abs().max())
