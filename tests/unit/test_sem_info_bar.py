import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from cathodeflow.errors import InputError
from cathodeflow.sem.info_bar import crop_bar, find_info_bar

Grey = NDArray[np.uint8]
ROWS, COLS = 480, 640


def particles(seed: int = 0, *, rows: int = ROWS, gain: float = 1.0) -> Grey:
    """Bright blobs on a dark ground with noise, as a micrograph has them."""
    generator = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(generator.normal(size=(rows, COLS)), 8)
    grey = np.clip(90 + 60 * blobs / blobs.std(), 0, None) + generator.normal(0, 8, blobs.shape)
    return np.clip(gain * grey, 0, 255).astype(np.uint8)


def with_bar(image: Grey, rows: int, ground: int, ink: int, *, framed: bool = False) -> Grey:
    """Overwrite the bottom with a bar of two lines of text, as instruments do."""
    bar = Image.new("L", (COLS, rows), ground)
    draw = ImageDraw.Draw(bar)
    size = rows // 4
    for line in range(2):
        draw.text(
            (12, size // 2 + line * 2 * size), "ETRI  20 kV  SE  x500   WD 5 mm  2019.09.02 00:09", ink, font_size=size
        )
    draw.line((400, rows // 2, 600, rows // 2), ink, 2)
    if framed:
        draw.rectangle((0, 0, COLS - 1, rows - 1), outline=ink, width=2)
        draw.line((300, 0, 300, rows), ink, 2)
    return np.concatenate([image[:-rows], np.asarray(bar)])


def jpeg(image: Grey, quality: int) -> Grey:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize(("ground", "ink"), [(0, 255), (255, 0), (110, 255)])
@pytest.mark.parametrize("rows", [16, 37, 64, 130])
def test_the_bar_is_found_to_the_row_whatever_its_height_and_grey(
    rows: int, ground: int, ink: int, framed: bool
) -> None:
    assert find_info_bar(with_bar(particles(), rows, ground, ink, framed=framed)) == rows


@pytest.mark.parametrize("quality", [90, 60, 40])
@pytest.mark.parametrize("rows", [37, 64])
def test_ringing_of_jpeg_blocks_does_not_hide_the_edge(rows: int, quality: int) -> None:
    assert abs(find_info_bar(jpeg(with_bar(particles(), rows, 0, 255), quality)) - rows) <= 1


@pytest.mark.parametrize("gain", [0.25, 0.5, 2.5])
def test_dark_and_saturated_images_keep_their_bar(gain: float) -> None:
    assert find_info_bar(with_bar(particles(gain=gain), 48, 0, 255)) == 48


def test_16_bits_and_a_bar_without_text() -> None:
    image = particles().astype(np.uint16) * 16
    image[-40:] = 4000
    assert find_info_bar(image) == 40


def test_text_may_be_far_brighter_than_the_image() -> None:
    """12 bits in a file of 16 whose text is white."""
    image = particles().astype(np.uint16) * 16
    image[-40:] = 0
    image[-30:-20, 20:90] = 65535
    assert find_info_bar(image) == 40


@pytest.mark.parametrize("gain", [0.2, 1.0, 3.0])
def test_images_without_a_bar_have_none(gain: float) -> None:
    assert [find_info_bar(particles(seed, gain=gain)) for seed in range(5)] == [0] * 5


def test_particles_on_clipped_black_are_no_bar() -> None:
    generator, (row, col) = np.random.default_rng(1), np.mgrid[:ROWS, :COLS]
    image = np.zeros((ROWS, COLS), np.uint8)
    for _ in range(60):
        centre, radius = generator.uniform(0, (ROWS, COLS)), generator.uniform(5, 30)
        image[(row - centre[0]) ** 2 + (col - centre[1]) ** 2 < radius**2] = 150
    assert find_info_bar(image) == 0


@pytest.mark.parametrize("shape", [(1, 1), (4, 9), (12, 12), (300, 1)])
def test_tiny_and_even_images_have_no_bar(shape: tuple[int, int]) -> None:
    assert find_info_bar(np.full(shape, 7, np.uint8)) == 0


def test_the_bar_is_cut_off_and_something_must_be_left() -> None:
    image = particles(rows=20)
    assert np.array_equal(crop_bar(image, 5), image[:15])
    assert np.array_equal(crop_bar(image, 0), image)
    with pytest.raises(InputError, match="found 20"):
        crop_bar(image, 20)
