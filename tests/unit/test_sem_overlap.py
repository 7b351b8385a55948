import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from cathodeflow.errors import InputError
from cathodeflow.sem.overlap import MIN_SCORE, find_overlap, shared_area, shrink, shrink_factor


def surface(seed, rows=400, cols=500):
    """A large grey surface of blobs, of which images are cut."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((rows, cols)), 2.5)
    return np.clip(128 + 40 * noise / noise.std(), 0, 255)


def cut(area, row, col, rows=120, cols=160):
    return area[row : row + rows, col : col + cols]


def as_taken(image, seed, *, gain=1.0, offset=0.0, gamma=1.0, noise=10.0):
    grey = 255 * (np.clip(image * gain + offset, 0, 255) / 255) ** gamma
    return np.clip(grey + noise * np.random.default_rng(seed).standard_normal(image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shift", [(0, 0), (37, 52), (-60, 12), (5, -100), (-70, -60), (90, 0)])
def test_the_shift_is_found_whatever_brightness_contrast_and_noise(shift):
    area = surface(0)
    a = as_taken(cut(area, 150, 170), 1)
    b = as_taken(cut(area, 150 + shift[0], 170 + shift[1]), 2, gain=0.5, offset=90, gamma=1.4)
    found = find_overlap(a, b)
    assert (found.shift_row, found.shift_col) == shift
    assert MIN_SCORE < found.score <= 1
    back = find_overlap(b, a)
    assert (-back.shift_row, -back.shift_col) == shift and back.score == pytest.approx(found.score, abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_a_chance_match_of_a_corner_does_not_hide_the_overlap(seed):
    # Of small images a corner agrees by chance better than the noise allows the true overlap to.
    area = surface(seed, 120, 120)
    a, b = (as_taken(cut(area, 30 + step, 30, 48, 48), step + seed, noise=60.0) for step in (0, 8))
    assert find_overlap(a, b)[:2] == (8, 0)


def test_a_shared_information_bar_does_not_hide_the_overlap():
    area, bar = surface(0), np.tile(np.random.default_rng(5).choice([0, 255], (10, 40)), (1, 4)).astype(np.uint8)
    a, b = (np.vstack([as_taken(cut(area, 150 + s, 170), s), bar]) for s in (0, 30))
    assert find_overlap(a, b)[:2] == (30, 0)
    other = np.vstack([as_taken(cut(surface(9), 150, 170), 3), bar])
    assert find_overlap(a, other).score < MIN_SCORE


def test_other_particles_do_not_overlap():
    scores = [
        find_overlap(as_taken(cut(surface(i), 10, 10), 1), as_taken(cut(surface(i + 50), 10, 10), 2)).score
        for i in range(15)
    ]
    assert max(scores) < MIN_SCORE - 0.1


def test_large_images_are_compared_small_and_the_shift_is_in_their_own_pixels():
    area = surface(3)
    a, b = (np.kron(cut(area, *at), np.ones((4, 4))) for at in ((100, 100), (120, 70)))
    found = find_overlap(a, b, longest=160)
    assert found[:2] == (80, -120) and found.score > 0.95


def test_images_may_differ_in_size_and_be_flat():
    area = surface(4)
    found = find_overlap(cut(area, 100, 100, 140, 200), cut(area, 130, 90, 80, 100))
    assert found[:2] == (30, -10) and found.score > 0.99
    flat = np.full((120, 160), 7, np.uint8)
    assert find_overlap(flat, cut(area, 0, 0)).score == find_overlap(flat, flat).score == 0


def test_shrinking_takes_means_and_drops_what_is_over():
    image = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7)
    np.testing.assert_allclose(shrink(image, 2), [[4, 6, 8], [18, 20, 22]])
    assert shrink_factor(960, 1280) == 4 and shrink_factor(300, 320) == 1 and shrink_factor(321, 10) == 2


def test_the_share_of_test_area_seen_in_training():
    area, elsewhere = surface(0), surface(1)
    places = {
        "a/train1": (area, 100, 100, "train"),
        "a/train2": (area, 190, 100, "train"),
        "a/left": (area, 130, 100, "left out"),
        "a/validation": (area, 130, 100, "validation"),
        "a/test": (area, 130, 100, "test"),
        "a/new": (elsewhere, 130, 100, "test"),
        "b/train": (elsewhere, 130, 100, "train"),
        "b/test": (area, 250, 300, "test"),
    }
    images = [as_taken(cut(whole, row, col), i) for i, (whole, row, col, _) in enumerate(places.values())]
    table = pd.DataFrame({"name": list(places), "split": [place[3] for place in places.values()]})
    table["label"] = table["name"].str[0]
    found = shared_area(images, table).set_index("name")
    assert list(found.index) == ["a/test", "a/new", "b/test"]
    # 90 of its 120 rows are in the one and 60 in the other, together all of them.
    assert found.loc["a/test", ["shared", "shared_with", "seen"]].tolist() == [0.75, "a/train1", 1.0]
    # What other classes' or other splits' images show does not count.
    for name in ("a/new", "b/test"):
        assert found.loc[name, "shared"] == found.loc[name, "seen"] == 0 and np.isnan(found.loc[name, "score"])
    backwards = shared_area(images[::-1], table[::-1].reset_index(drop=True)).set_index("name")
    pd.testing.assert_frame_equal(backwards.loc[found.index], found)
    with pytest.raises(InputError, match="found 7, expected 8"):
        shared_area(images[:7], table)


def test_no_test_images_give_an_empty_table():
    table = pd.DataFrame({"name": ["x"], "label": ["a"], "split": ["train"]})
    assert shared_area([np.zeros((20, 20))], table).shape == (0, 6)
