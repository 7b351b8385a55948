import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from cathodeflow.sem.augment import augment as augment_with
from cathodeflow.sem.augment import random_windows
from cathodeflow.sem.network_options import Augment

SWITCHES = {"flip": True, "rotate90": True, "rotation": 20.0, "brightness": 0.3, "contrast": 0.5, "gamma": 2.0,
            "noise": 0.2, "blur": 2.0}  # fmt: skip


OFF = {"flip": False, "rotate90": False, "gamma": 1.0, "blur": 0.0}


def augment(batch, generator, **switches):
    """Augment with only these options."""
    return augment_with(batch, generator, Augment(**OFF | switches))


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def crops(count=16, rows=24, cols=24):
    return torch.rand(count, 1, rows, cols, generator=random(9))


def test_with_all_off_nothing_changes_and_nothing_is_drawn():
    x, numbers = crops(), random()
    assert torch.equal(augment(x, numbers), x)
    assert torch.equal(torch.rand(3, generator=numbers), torch.rand(3, generator=random()))


@pytest.mark.parametrize("name", SWITCHES)
def test_each_switch_changes_crops_by_itself_each_in_its_own_way_and_repeatably(name):
    x = crops(64)
    before, state = x.clone(), torch.get_rng_state()
    y = augment(x, random(1), **{name: SWITCHES[name]})
    assert torch.equal(x, before) and torch.equal(torch.get_rng_state(), state)
    assert y.shape == x.shape and float(y.min()) >= 0 and float(y.max()) <= 1
    assert torch.equal(augment(x, random(1), **{name: SWITCHES[name]}), y)
    assert not torch.equal(augment(x, random(2), **{name: SWITCHES[name]}), y)
    changed = [not torch.equal(one, other) for one, other in zip(x, y, strict=True)]
    assert sum(changed) > 20
    # The same crop 64 times over; the least blurs do nothing yet.
    same = augment(x[:1].expand(64, -1, -1, -1), random(1), **{name: SWITCHES[name]})
    different = len({one.numpy().tobytes() for one in same})
    assert different == {"flip": 2, "rotate90": 4}.get(name, different)
    assert different > 50 or name in ("flip", "rotate90")


def test_all_switches_together_keep_the_range():
    y = augment(crops(64), random(), **SWITCHES)
    assert float(y.min()) >= 0 and float(y.max()) <= 1 and torch.isfinite(y).all()


@pytest.mark.parametrize(("switches", "expected"), [(("flip",), 2), (("rotate90",), 4), (("flip", "rotate90"), 8)])
def test_every_symmetry_comes_equally_often_whatever_way_the_crop_lay(switches, expected):
    one = crops(1)[0, 0].numpy()
    ways = [np.rot90(image, k) for image in (one, one[:, ::-1]) for k in range(4)]
    counts = {}
    for start in (0, 5):
        x = torch.from_numpy(ways[start].copy()).expand(1600, 1, -1, -1)
        for image in augment(x, random(start), **dict.fromkeys(switches, True)):
            number = next(i for i, way in enumerate(ways) if np.array_equal(way, image[0].numpy()))
            counts.setdefault(start, []).append(number)
        found = np.unique(counts[start], return_counts=True)[1]
        assert len(found) == expected and chisquare(found).pvalue > 1e-3
    if expected == 8:
        assert set(counts[0]) == set(counts[5])


def test_flips_do_not_need_square_crops():
    x = crops(32, 20, 30)
    y = augment(x, random(), flip=True)
    assert {tuple(one.shape) for one in y} == {(1, 20, 30)}


def centre_of_mass(image):
    r, c = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(r * image).sum(), (c * image).sum()]) / image.sum()


def test_rotation_keeps_distances_and_is_as_large_as_allowed_in_both_directions():
    rows, cols = 61, 101
    r, c = np.mgrid[:rows, :cols]
    blob = np.exp(-((r - 30) ** 2 + (c - 72) ** 2) / 18)
    x = torch.from_numpy(blob).float().expand(200, 1, -1, -1)
    y = augment(x, random(), rotation=40.0)
    places = np.array([centre_of_mass(image[0].numpy()) for image in y]) - [30, 50]
    assert np.hypot(*places.T) == pytest.approx(22, abs=0.15)
    angle = np.rad2deg(np.arctan2(places[:, 0], places[:, 1]))
    assert -40.1 < angle.min() < -37 and 37 < angle.max() < 40.1


def test_what_brightness_contrast_gamma_noise_and_blur_do():
    x = 0.4 + 0.2 * crops(400)
    brighter = augment(x, random(), brightness=0.3) - x
    assert float((brighter - brighter.mean((1, 2, 3), keepdim=True)).abs().max()) < 1e-6
    shifts = brighter.mean((1, 2, 3))
    assert -0.3 <= float(shifts.min()) < -0.29 and 0.29 < float(shifts.max()) <= 0.3
    more = augment(x, random(), contrast=0.5)
    assert torch.allclose(more.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=1e-6)
    ratio = more.std((1, 2, 3)) / x.std((1, 2, 3))
    assert 0.5 <= float(ratio.min()) < 0.51 and 1.49 < float(ratio.max()) <= 1.501
    exponent = (augment(x, random(), gamma=2.0).log() / x.log()).flatten(1)
    assert float((exponent - exponent[:, :1]).abs().max()) < 1e-4
    assert 0.5 <= float(exponent.min()) < 0.51 and 1.97 < float(exponent.max()) <= 2.001
    assert float((exponent[:, 0] > 1).float().mean()) == pytest.approx(0.5, abs=0.08)
    noise = (augment(x, random(), noise=0.1) - x).flatten(1)
    assert float(noise.std(1).min()) < 0.01 and 0.085 < float(noise.std(1).max()) < 0.11
    assert float(noise.mean().abs()) < 1e-3
    assert float(noise[0] @ noise[1] / noise[0].norm() / noise[1].norm()) < 0.2
    point = torch.zeros(200, 1, 41, 41)
    point[:, :, 20, 20] = 1
    spot = augment(point, random(), blur=3.0)[:, 0].numpy()
    assert spot.sum((1, 2)) == pytest.approx(1, abs=1e-4)
    variance = (spot * (np.arange(41)[:, None] - 20) ** 2).sum((1, 2))
    assert variance == pytest.approx((spot * (np.arange(41) - 20) ** 2).sum((1, 2)), abs=1e-3)
    assert np.sqrt(variance.min()) < 0.4 and 2.8 < np.sqrt(variance.max()) < 3.0
    # Wider than the crop allows.
    assert augment(crops(2, 8, 8), random(), blur=9.0).shape == (2, 1, 8, 8)


def test_windows_are_parts_of_their_crops_at_places_of_their_own():
    x = torch.arange(6 * 20 * 30, dtype=torch.float32).view(6, 1, 20, 30).to(torch.float32)
    y = random_windows(x, 12, random())
    assert y.shape == (6, 1, 12, 12)
    corners = set()
    for number, (whole, part) in enumerate(zip(x[:, 0], y[:, 0], strict=True)):
        corner = int(part[0, 0]) - number * 600
        row, col = divmod(corner, 30)
        assert torch.equal(whole[row : row + 12, col : col + 12], part)
        corners.add((row, col))
    assert len(corners) == 6
    assert torch.equal(random_windows(x, 40, random()), x)
    many = random_windows(torch.arange(9.0).view(1, 1, 3, 3).expand(900, 1, 3, 3), 2, random())[:, 0, 0, 0]
    found, counts = many.unique(return_counts=True)
    assert found.tolist() == [0, 1, 3, 4] and chisquare(counts.numpy()).pvalue > 1e-3
