"""Printed scale bars: how many are read, and how many of them right, in measured and in rendered micrographs.

Measured: all images of shared/data/sem_ncm, whose sidecars give the pixel size. Rendered: layouts as five makers print
them, on measured pictures, at three sizes, as PNG and as JPEG. Needs the extra `ocr`.

    python benchmarks/sem_scale_bars.py ../shared/data/sem_ncm --every 1
"""

import argparse
import io
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cathodeflow.io.micrographs import instrument_settings, read_micrograph
from cathodeflow.sem.info_bar import bar_of
from cathodeflow.sem.printed_pixel import read_printed

Grey = NDArray[np.uint8]
LAYOUTS = ("fei", "zeiss", "tescan", "jeol", "hitachi", "burnt in white", "burnt in box")
FONTS = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif")
LABELS = (("500 nm", 500.0), ("1 µm", 1e3), ("2.00um", 2e3), ("10 µm", 1e4), ("50.0um", 5e4), ("100 um", 1e5))


def draw(picture: NDArray[Any], layout: str, text: str, length: int, font_name: str) -> Grey:
    """Print a scale bar of `length` px as a maker does."""
    rows, cols = picture.shape

    def font(size: int) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/{font_name}.ttf", size)

    if layout.startswith("burnt"):
        image = Image.fromarray(picture)
        pen = ImageDraw.Draw(image)
        left, top = cols - length - 40, rows - 60
        if layout.endswith("box"):
            pen.rectangle((left - 20, top - 10, cols - 10, rows - 8), fill=0)
        pen.text((left + length // 2, top), text, 255, font=font(24), anchor="mt")
        pen.rectangle((left, top + 32, left + length - 1, top + 37), fill=255)
        return np.asarray(image)
    high = {"fei": 60, "zeiss": 64, "tescan": 120, "jeol": 64, "hitachi": 80}[layout]
    bar = Image.new("L", (cols, high), 0)
    pen = ImageDraw.Draw(bar)
    left = cols - length - 60
    if layout == "fei":
        # The label interrupts the line, whose ends have ticks.
        pen.text((8, 6), "HV    mag  WD", 255, font=font(14))
        pen.text((8, 32), "5.00 kV  1 000 x  4.1 mm", 255, font=font(16))
        box = pen.textbbox((left + length // 2, 30), text, font=font(20), anchor="mm")
        pen.rectangle((left, 29, box[0] - 6, 30), fill=255)
        pen.rectangle((box[2] + 6, 29, left + length - 1, 30), fill=255)
        pen.rectangle((left, 22, left + 1, 38), fill=255)
        pen.rectangle((left + length - 2, 22, left + length - 1, 38), fill=255)
        pen.text((left + length // 2, 30), text, 255, font=font(20), anchor="mm")
    elif layout == "zeiss":
        left = 30
        pen.text((left + length // 2, 6), text, 255, font=font(18), anchor="mt")
        pen.rectangle((left, 40, left + length - 1, 41), fill=255)
        pen.rectangle((left, 34, left + 1, 47), fill=255)
        pen.rectangle((left + length - 2, 34, left + length - 1, 47), fill=255)
        pen.text((left + length + 40, 8), "EHT = 5.00 kV   WD = 4.0 mm", 255, font=font(15))
        pen.text((left + length + 40, 36), "Signal A = InLens", 255, font=font(15))
        pen.rectangle((0, 0, cols - 1, high - 1), outline=255)
    elif layout == "tescan":
        for row in (0, 40, 80):
            pen.rectangle((0, row, cols - length - 100, row + 1), fill=255)
            pen.text(
                (8, row + 9), ("SEM HV: 20.0 kV", "View field: 207 µm", "WD: 10.02 mm")[row // 40], 255, font=font(20)
            )
        pen.rectangle((left, 58, left + length - 1, 61), fill=255)
        pen.rectangle((left, 50, left + 2, 69), fill=255)
        pen.rectangle((left + length - 3, 50, left + length - 1, 69), fill=255)
        pen.text((left + length // 2, 72), text, 255, font=font(22), anchor="mt")
    elif layout == "jeol":
        pen.text((20, 20), "SEI  15.0kV  X5,000  WD 10.1mm", 255, font=font(20))
        pen.rectangle((left, 14, left + length - 1, 18), fill=255)
        pen.text((left + length // 2, 28), text, 255, font=font(22), anchor="mt")
    else:
        pen.text((20, 24), "SU8000 5.0kV 8.0mm x5.00k", 255, font=font(22))
        for tick in np.linspace(left, left + length, 11).round().astype(int).tolist():
            pen.rectangle((tick - 1, 14, tick + 1, 30), fill=255)
        pen.text((left + length, 42), text, 255, font=font(22), anchor="rt")
    return np.concatenate([picture, np.asarray(bar)])


def stored(image: Grey, scale: float, quality: int | None) -> Grey:
    """Shrink an image, and compress it."""
    size = (round(scale * image.shape[1]), round(scale * image.shape[0]))
    small = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC) if scale != 1 else Image.fromarray(image)
    if quality:
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=quality)
        return np.asarray(Image.open(stream))
    return np.asarray(small)


def measured(paths: list[Path]) -> None:
    """Read the bars of measured images, and compare them with the pixel sizes of the sidecars, where there are some."""
    result: Counter[str] = Counter()
    ratios, seconds = [], 0.0
    for path in paths:
        image, settings = read_micrograph(str(path)), instrument_settings(str(path))
        area = bar_of(image, settings, None, "auto").area(image.shape)
        start = time.process_time()
        found = read_printed(image, area)
        seconds += time.process_time() - start
        result["read" if found else "not read"] += 1
        if found and settings.get("pixel_nm"):
            ratios.append(found.pixel_nm / settings["pixel_nm"])
        elif found:
            result["without a sidecar"] += 1
            result["of these 264 to 266 nm"] += 264 <= found.pixel_nm <= 266
    deviations = np.abs(np.array(ratios) - 1)
    right = int((deviations <= 0.03).sum())
    print(f"measured: {len(paths)} images, {dict(result)}, {right} of {len(ratios)} within 3 % of the sidecar")
    print(f"  deviation: median {np.median(deviations):.4f}, maximum {deviations.max():.4f}")
    print(f"  {1e3 * seconds / len(paths):.1f} ms of processor time an image")


def rendered(paths: list[Path]) -> None:
    """Read the bars of all layouts, labels, fonts and sizes."""
    rng = np.random.default_rng(0)
    for layout in LAYOUTS:
        result: Counter[str] = Counter()
        seconds = 0.0
        for number, (text, nm) in enumerate(LABELS):
            for scale, quality in ((1.0, None), (1.0, 75), (0.625, 75), (0.5, None)):
                picture = read_micrograph(str(paths[int(rng.integers(len(paths)))]))[:890]
                length = int(rng.integers(120, 400))
                whole = draw(picture, layout, text, length, FONTS[number % len(FONTS)])
                image = stored(whole, scale, quality)
                area = bar_of(image, {}, None, "auto").area(image.shape)
                start = time.process_time()
                found = read_printed(image, area)
                seconds += time.process_time() - start
                right = found is not None and abs(found.pixel_nm * scale * length / nm - 1) <= 0.03
                result["right" if right else "wrong" if found else "not read"] += 1
        print(f"rendered {layout}: {dict(result)}, {1e3 * seconds / result.total():.0f} ms an image", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--every", type=int, default=1, help="use every n-th measured image")
    options = parser.parse_args()
    paths = sorted(options.images.glob("*/*.jpg"))
    rendered(paths)
    measured(paths[:: options.every])


if __name__ == "__main__":
    main()
