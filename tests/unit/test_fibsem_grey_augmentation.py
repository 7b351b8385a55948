"""Brightness, contrast, noise and blur of training images are varied within their limits."""

import pytest
import torch
from scipy.ndimage import gaussian_filter

from cathodeflow.checkpoints import generator
from cathodeflow.fibsem.appearance_options import ImageChanges, WindowChanges
from cathodeflow.fibsem.grey_augmentation import _blurred, changed_grey

NONE = {"brightness": 0.0, "contrast": 0.0, "noise": 0.0, "blur": 0.0}


def images(n: int = 400, context: int = 2, side: int = 24) -> torch.Tensor:
    return 100 + 10 * torch.randn(n, context, side, side, generator=generator(0))


def changed(x: torch.Tensor, **options: float) -> torch.Tensor:
    return changed_grey(x, ImageChanges(**{**NONE, **options}), 10.0, generator(1))


def test_nothing_is_changed_without_limits() -> None:
    x = images(3)
    assert torch.equal(changed(x), x)


def test_brightness_and_contrast_fill_their_limits_alike_for_neighbours() -> None:
    x = images()
    brighter = (changed(x, brightness=0.5) - x) / 10
    shift = brighter.mean((2, 3))
    assert torch.allclose(shift[:, 0], shift[:, 1], atol=1e-3) and float(brighter.std((2, 3)).max()) < 1e-4
    assert 0.45 < float(shift.max()) <= 0.5 and -0.5 <= float(shift.min()) < -0.45 and abs(float(shift.mean())) < 0.05
    stronger = changed(x, contrast=0.3)
    ratio = stronger.std((1, 2, 3)) / x.std((1, 2, 3))
    assert 0.7 <= float(ratio.min()) < 0.75 and 1.25 < float(ratio.max()) <= 1.3001
    # The mean stays, so that contrast is no change of brightness.
    assert torch.allclose(stronger.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=1e-3)


def test_noise_is_white_and_of_random_strength() -> None:
    x = images()
    noise = (changed(x, noise=0.6) - x) / 10
    strength = noise.std((1, 2, 3))
    assert 0 <= float(strength.min()) < 0.05 and 0.55 < float(strength.max()) < 0.65
    assert abs(float((noise[:, 0] * noise[:, 1]).mean())) < 0.01
    assert abs(float((noise[..., 1:] * noise[..., :-1]).mean())) < 0.01


def test_blur_is_gaussian_with_a_deviation_for_each_image() -> None:
    x = images(3, side=40)
    sigma = torch.tensor([0.0, 1.0, 2.0])
    found = _blurred(x, sigma)
    for image, expected, own in zip(found, x, sigma.tolist(), strict=True):
        for one, plain in zip(image, expected, strict=True):
            reference = gaussian_filter(plain.numpy(), own, mode="mirror", truncate=6 / own if own else 4)
            assert torch.allclose(one, torch.from_numpy(reference), atol=0.15)
    # An image without blur stays as it is, also beside blurred ones.
    assert torch.allclose(found[0], x[0], atol=1e-4)
    assert float(changed(x, blur=2.0).std()) < 0.9 * float(x.std())


def test_windows_are_neither_blurred_nor_noisy() -> None:
    x = images(50)
    found = changed_grey(x, WindowChanges(brightness=0.5, contrast=0.0), 10.0, generator(2))
    assert float((found - x).std((1, 2, 3)).max()) < 1e-4


@pytest.mark.parametrize("seed", [0, 1])
def test_changes_depend_on_the_seed_alone(seed: int) -> None:
    x, options = images(4), ImageChanges()
    first, again, other = (changed_grey(x, options, 10.0, generator(number)) for number in (seed, seed, seed + 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
