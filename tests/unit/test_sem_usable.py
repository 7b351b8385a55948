"""Bare, blurred and saturated parts of a micrograph are found whatever its grey levels are."""

import numpy as np
import pytest
from scipy import ndimage

from cathodeflow.sem.tiles import cut_tiles
from cathodeflow.sem.usable_area import UsableArea
from cathodeflow.sem.usable_blocks import UsableBlocks, usable_blocks

SHAPE = (240, 360)


def particles(rng):
    """Discs of 10 px on dark ground, with texture, in 0..1."""
    image = np.full(SHAPE, 0.2)
    rows, cols = np.ogrid[: SHAPE[0], : SHAPE[1]]
    for row, col in rng.uniform(0, SHAPE, (1500, 2)):
        image[(rows - row) ** 2 + (cols - col) ** 2 < 25] = rng.uniform(0.5, 0.9)
    return image + ndimage.gaussian_filter(rng.normal(size=SHAPE), 1) * 0.06


@pytest.mark.parametrize("gain", [30, 200])
@pytest.mark.parametrize("level", [5, 40])
@pytest.mark.parametrize("noise", [0.5, 8])
@pytest.mark.parametrize("kind", ["foil", "gap", "blurred", "saturated"])
def test_areas_without_particles_in_focus_are_found_at_any_gain_brightness_and_noise(gain, level, noise, kind):
    rng = np.random.default_rng(3)
    image = particles(rng)
    off = np.s_[:, 200:]
    if kind == "foil":
        # As bright as particles, with a shade across it and the marks of rolling.
        image[off] = 0.6 + np.linspace(-0.1, 0.1, 160) + 0.01 * rng.normal(size=(240, 1))
    elif kind == "gap":
        image[off] = 0.15
    elif kind == "blurred":
        image[off] = ndimage.gaussian_filter(image[off], 5)
    elif kind == "saturated":
        image[off] = np.where(rng.random(image[off].shape) < 0.8, 9.0, image[off])
    image = np.clip(np.rint(gain * image + level + noise * rng.normal(size=SHAPE)), 0, 255).astype(np.uint8)
    blocks = usable_blocks(image)
    centres = (blocks.col_edges[1:] + blocks.col_edges[:-1]) / 2
    inside, outside = blocks.usable[:, centres < 185], blocks.usable[:, centres > 215]
    assert inside.mean() > (0.98 if gain > noise * 4 else 0.95)
    if gain == 30 and noise == 8:
        # Noise is stronger than the particles: nothing is found that is not there.
        return
    assert outside.mean() < 0.02
    found = {
        "foil": blocks.bare,
        "gap": blocks.bare,
        "blurred": blocks.blurred | blocks.bare,
        "saturated": blocks.saturated,
    }[kind]
    assert found[:, centres > 215].mean() > 0.9
    assert blocks.fractions([(0, 0), (0, 240), (0, 140)], (240, 120)) == pytest.approx([1, 0, 0.5], abs=0.15)


def test_an_image_of_particles_is_usable_with_sixteen_bits_too():
    rng = np.random.default_rng(4)
    image = (particles(rng) * 20000 + 1000).astype(np.uint16)
    blocks = usable_blocks(image)
    assert blocks.usable.all() and blocks.edges == 0
    # Whatever the image shows, something is left to compare it with.
    assert usable_blocks(np.full(SHAPE, 7, np.uint8)).usable.all()
    assert usable_blocks(np.full(SHAPE, 255, np.uint8)).saturated.all()


def test_blocks_survive_a_table():
    text = "..b/.fs"
    blocks = UsableBlocks.of_text(text, (20, 61))
    assert blocks.as_text() == text and blocks.usable.tolist() == [[True, True, False], [True, False, False]]
    assert blocks.row_edges.tolist() == [0, 10, 20] and blocks.col_edges.tolist() == [0, 20, 41, 61]
    assert blocks.edges == pytest.approx(3 / 7)


def test_tiles_without_particles_are_left_out_unless_all_are():
    rng = np.random.default_rng(5)
    image = particles(rng)
    image[:, 180:] = 0.6
    grey = np.rint(200 * image.clip(0, 1.2)).astype(np.uint8)
    given = {"pixels": 120, "side": 60, "overlap": 0.0, "margin": 0, "area": UsableArea(0, *SHAPE[:1], 0, SHAPE[1])}
    assert cut_tiles(grey, **given).places.tolist() == [[0, 0], [0, 120], [0, 240], [120, 0], [120, 120], [120, 240]]
    assert cut_tiles(grey, least=0.9, **given).places.tolist() == [[0, 0], [120, 0]]
    bare = np.full(SHAPE, 100, np.uint8)
    assert len(cut_tiles(bare, least=0.9, **given).places) == 6
