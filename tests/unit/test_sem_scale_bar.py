"""Printed scale bars: lines, labels, and what the index says of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cathodeflow.io.text_recognition import recognizer
from cathodeflow.sem.classes import ImageRow
from cathodeflow.sem.image_options import Index
from cathodeflow.sem.image_predictions import _cut
from cathodeflow.sem.image_table import build_index, odd_images
from cathodeflow.sem.options import Predict
from cathodeflow.sem.printed_pixel import printed_columns, read_printed
from cathodeflow.sem.scale_bar import ScaleBar, find_lines, parse_label
from cathodeflow.sem.usable_area import UsableArea

COLS, LENGTH = 1024, 200
needs_ocr = pytest.mark.skipif(recognizer() is None, reason="needs the extra ocr")


def printed(layout: str, text: str = "10 um", rows: int = 64) -> NDArray[np.uint8]:
    """Draw an information bar with a scale bar of 200 px, beside settings that look like labels."""
    image = Image.new("L", (COLS, rows), 0)
    pen = ImageDraw.Draw(image)
    pen.text((20, 8), "5.00 kV", 255, font_size=20)
    pen.text((20, 34), "WD 5 mm", 255, font_size=20)
    left, right = 700, 700 + LENGTH - 1
    if layout == "plain":
        pen.rectangle((left, 12, right, 16), fill=255)
        pen.text((left + 100, 28), text, 255, font_size=22, anchor="mt")
    elif layout == "ticks":
        pen.rectangle((left, 14, right, 15), fill=255)
        for at in (left, right - 1):
            pen.rectangle((at, 8, at + 1, 21), fill=255)
        pen.text((left + 100, 30), text, 255, font_size=22, anchor="mt")
    elif layout == "interrupted":
        pen.text((left + 100, 32), text, 255, font_size=20, anchor="mm")
        pen.rectangle((left, 31, left + 60, 32), fill=255)
        pen.rectangle((right - 60, 31, right, 32), fill=255)
    else:
        for at in np.linspace(left, left + LENGTH, 11).round().astype(int).tolist():
            pen.rectangle((at - 1, 8, at + 1, 22), fill=255)
        pen.text((left + LENGTH, 34), text, 255, font_size=22, anchor="rt")
    return np.asarray(image)


LAYOUTS = ("plain", "ticks", "interrupted", "comb")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_longest_line_is_the_scale_bar_of_every_layout(layout: str) -> None:
    line = find_lines(printed(layout) > 100)[0]
    assert line.col1 - line.col0 == pytest.approx(LENGTH, abs=1) and (line.gap is not None) == (layout == "interrupted")
    # By the width of the ticks, instruments may measure less.
    assert line.error == (2 if layout == "ticks" else 1)


def test_frames_tables_and_letters_are_no_scale_bars() -> None:
    image = printed("plain")
    image = np.where(np.arange(COLS) < 600, image, 0).astype(np.uint8)
    image[[0, 1, 30, 31, 62, 63]] = 255
    assert find_lines(image > 100) == []


@pytest.mark.parametrize(
    ("text", "nm"),
    [
        ("10 um", 1e4), ("500nm", 500), ("1.00um", 1e3), ("2,5 µm", 2500), ("50.0um", 5e4), ("3 mm", 3e6),
        # As letters that look alike are read.
        ("10 pm", 1e4), ("1O0 μm", 1e5), ("l um", 1e3), ("|5 um|", 5e3),
        ("x500", None), ("207 um", None), ("20 kV", None), ("4.1 mm", None), ("0 um", None), ("um", None), ("WD 5 mm", None),
    ],
)  # fmt: skip
def test_labels(text: str, nm: float | None) -> None:
    assert parse_label(text) == nm


def test_what_the_index_says_of_pixel_sizes() -> None:
    bar = ScaleBar("10 um", 10_000, 200, 1)
    assert (bar.pixel_nm, bar.error_nm) == (50, 0.25)
    for from_file, given, source, check in (
        (51.0, None, "instrument", "agrees"),
        (100.0, None, "instrument", "differs"),
        (None, 51.0, "option", "agrees"),
        (None, None, "printed bar", "alone"),
    ):
        found = printed_columns(bar, from_file, given)
        assert (found["pixel_source"], found["printed_check"]) == (source, check)
        assert found["pixel_nm"] == (from_file or given or 50)
    nothing = printed_columns(None, None, None)
    assert nothing["pixel_nm"] is None and nothing["printed_check"].startswith("not read")
    assert printed_columns(None, 5.0, None, wanted=False)["printed_check"] == "not read: scale_bar is off"


def micrograph(layout: str, text: str) -> NDArray[np.uint8]:
    grey = np.random.default_rng(len(layout)).integers(40, 200, (300, COLS), dtype=np.uint8)
    return np.concatenate([grey, printed(layout, text)])


@needs_ocr
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("text", "nm"), [("10 um", 1e4), ("500 nm", 500), ("2.00um", 2e3)])
def test_scale_bars_are_read(layout: str, text: str, nm: float) -> None:
    image = micrograph(layout, text)
    for stored in (image, image.astype(np.uint16) * 257):
        found = read_printed(stored, UsableArea(0, 300, 0, COLS))
        assert found is not None and found.pixel_nm == pytest.approx(nm / LENGTH, rel=0.01)


@needs_ocr
def test_a_scale_bar_that_was_burnt_into_the_picture_is_read() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(20, 120, (400, COLS), dtype=np.uint8))
    pen = ImageDraw.Draw(image)
    pen.rectangle((760, 360, 760 + LENGTH - 1, 365), fill=255)
    pen.text((860, 330), "20 um", 255, font_size=26, anchor="mt")
    found = read_printed(np.asarray(image), UsableArea(0, 400, 0, COLS))
    assert found is not None and found.pixel_nm == 100


@needs_ocr
def test_a_pixel_size_that_the_scale_bar_contradicts_is_told(tmp_path: Path) -> None:
    rows = []
    for number, layout in enumerate(LAYOUTS):
        path = tmp_path / f"{number}.png"
        Image.fromarray(micrograph(layout, "10 um")).save(path)
        size = 50 if number else 25
        Path(f"{path}.txt").write_text(f"[SemImageFile]\nInstructName=SU8000\nPixelSize={size}\n")
        rows.append(ImageRow(str(path), path.name, "a", "", "a"))
    table = build_index(rows, Index(bar_rows=64)).set_index("name")
    checks = ["differs", "agrees", "agrees", "agrees"]
    assert table["printed_check"].sort_index().tolist() == checks and (table["pixel_source"] == "instrument").all()
    odd = odd_images(table)
    # Noise shows no particles either.
    told = odd[odd.str.contains("printed bar")]
    assert told.index.tolist() == ["0.png"] and "50 nm per pixel by the printed bar of 10 um, 25 by the" in told.iloc[0]
    assert pd.isna(build_index(rows, Index(bar_rows=64, scale_bar=False))["printed_nm"]).all()


@needs_ocr
@pytest.mark.parametrize(("settings", "pixel_nm"), [({}, 50), ({"pixel_nm": 40.0}, 40)])
def test_a_network_that_needs_the_pixel_size_takes_that_of_the_scale_bar(
    settings: dict[str, float], pixel_nm: float
) -> None:
    geometry = {"pixels": 64, "side": 32, "margin": 1, "pixel_nm": 60.0}
    options = Predict(bar_rows=64)
    cut = _cut("a", lambda name: (micrograph("ticks", "10 um"), settings), options, geometry)
    assert cut.pixel_nm == pixel_nm
