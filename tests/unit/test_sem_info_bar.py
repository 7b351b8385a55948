import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from cathodeflow.errors import InputError
from cathodeflow.sem.info_bar import bar_of, find_info_bar

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


SIDES = {
    "bottom": lambda image: image,
    "top": lambda image: image[::-1],
    "left": lambda image: np.rot90(image, -1),
    "right": np.rot90,
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("ground", [0, 255, 110])
def test_a_bar_is_found_at_any_side_and_the_rest_is_usable(side: str, ground: int) -> None:
    image = SIDES[side](with_bar(particles(), 48, ground, 255 - ground))
    found = bar_of(image, {}, None, "auto")
    assert found == (48, side, "image")
    area = found.area(image.shape)
    assert np.array_equal(area.of(image), SIDES[side](particles()[:-48]))
    assert area.bar(image).size == 48 * COLS and area.bar(image).shape[0] == 48


@pytest.mark.parametrize("quality", [90, 75, 50])
@pytest.mark.parametrize("side", SIDES)
def test_small_text_that_jpeg_smears_over_the_bar_does_not_hide_it(side: str, quality: int) -> None:
    """Bar of 32 rows with two lines of small text, as in images shrunk to 640 x 480."""
    found = bar_of(jpeg(SIDES[side](with_bar(particles(), 32, 0, 255)), quality), {}, None, "auto")
    assert found.side == side and abs(found.rows - 32) <= 1


@pytest.mark.parametrize(("along", "across"), [(30, 0), (-60, 0), (0, 12), (40, 12)])
def test_the_background_of_a_bar_may_have_a_gradient(along: int, across: int) -> None:
    image = with_bar(particles(), 60, 60, 255)
    ramp = along * np.linspace(0, 1, COLS) + across * np.linspace(0, 1, 60)[:, None] + max(0, -along) * 0.9
    image[-60:] = np.clip(image[-60:] + ramp, 0, 255)
    assert find_info_bar(image) == 60


def test_a_table_with_lines_that_do_not_span_the_bar_is_one_bar() -> None:
    """As of TESCAN: three rows of text of 40 px with lines between them, beside a logo."""
    image = with_bar(particles(), 120, 0, 255)
    image[-120:] = 0
    for top in (120, 80, 40):
        image[-top : -top + 2, : 3 * COLS // 4] = 255
        image[-top + 12 : -top + 26, 10:300:3] = 220
    assert find_info_bar(image) == 120 and find_info_bar(jpeg(image, 75)) in (119, 120, 121)


@pytest.mark.parametrize("side", SIDES)
def test_text_and_scale_bar_in_the_picture_are_no_bar(side: str) -> None:
    image = Image.fromarray(particles())
    draw = ImageDraw.Draw(image)
    draw.text((8, ROWS - 20), "SU8000 5.0kV x500 SE", 255)
    draw.rectangle((400, ROWS - 30, 600, ROWS - 22), fill=255)
    assert bar_of(SIDES[side](np.asarray(image)), {}, None, "auto") == (0, "none", "image")


def test_particles_beside_an_empty_margin_are_no_bar() -> None:
    """Single particles on black never make a straight edge; only where the picture itself ends is one."""
    row, col = np.mgrid[:ROWS, :COLS]
    for seed in range(6):
        generator, image = np.random.default_rng(seed), np.zeros((ROWS, COLS), np.uint8)
        for _ in range(60):
            centre, radius = generator.uniform(40, (ROWS - 40, COLS - 40)), generator.uniform(5, 30)
            image[(row - centre[0]) ** 2 + (col - centre[1]) ** 2 < radius**2] = 150
        assert [find_info_bar(image, side) for side in ("top", "left", "right")] == [0, 0, 0]


def test_the_user_counts_before_the_instrument_and_that_before_the_image() -> None:
    image = with_bar(particles(), 48, 0, 255)
    assert bar_of(image, {"bar_rows": 40}, None, "auto") == (40, "bottom", "instrument")
    # A black lower part of the picture, where the instrument says that there is no bar.
    assert bar_of(image, {"bar_rows": 0}, None, "auto") == (0, "none", "instrument")
    assert bar_of(image, {"bar_rows": 40}, 30, "auto") == (30, "bottom", "option")
    assert bar_of(image, {"bar_rows": 40}, 30, "left") == (30, "left", "option")
    assert bar_of(image, {"bar_rows": 40}, None, "none") == (0, "none", "option")
    assert bar_of(image, {"bar_rows": 40}, None, "top") == (0, "none", "image")
    with pytest.raises(InputError, match=r"found 640, expected 0 to 639 of 640 columns"):
        bar_of(image, {}, 640, "right")


def test_a_table_that_was_shrunk_and_compressed_is_one_bar() -> None:
    """Lines of a table of 120 px, blurred over several rows, which belong neither to it nor to its background."""
    large = Image.fromarray(np.kron(particles(3), np.ones((2, 2), np.uint8)))
    draw = ImageDraw.Draw(large)
    draw.rectangle((0, 840, 1279, 959), fill=0)
    for row in (840, 880, 920):
        draw.line((0, row, 920, row), 255, 2)
        for col in (8, 315, 622):
            draw.text((col, row + 8), "SEM HV: 20.0 kV", 255, font_size=20)
    for col in (0, 307, 614, 920):
        draw.line((col, 840, col, 959), 255, 2)
    for cols in (640, 512, 320):
        small = np.asarray(large.resize((cols, cols * 3 // 4), Image.Resampling.BICUBIC))
        assert abs(find_info_bar(jpeg(small, 75)) - 120 * cols / 1280) <= 1


def test_the_background_of_a_bar_may_be_brightest_in_the_middle() -> None:
    image = with_bar(particles(), 60, 30, 255)
    image[-60:] = np.clip(image[-60:] + 60 * np.sin(np.linspace(0, np.pi, COLS)), 0, 255)
    assert find_info_bar(image) == 60
