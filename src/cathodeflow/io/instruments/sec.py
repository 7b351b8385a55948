"""SEC (SNE series, "Nanoeye"): a text file beside the image."""

import re
from collections.abc import Mapping
from typing import Any

from cathodeflow.io.instruments.values import KV, TIMES, parse_time, quantity

MARK = "[Image Info]"
# Width of the field of view times the magnification [um], and the relative error by which it may differ.
_DISPLAY, _TOLERANCE = 168e3, 0.1


def settings(values: Mapping[str, str], shape: tuple[int, int] | None) -> dict[str, Any]:
    """Read the settings from the keys of the text."""
    magnification = quantity(values.get("Magnification"), TIMES)
    return {
        "time": parse_time(values.get("Date"), values.get("Time")),
        "magnification": magnification,
        "voltage_kv": quantity(values.get("Acceleated Voltage") or values.get("Accelerated Voltage"), KV),
        "detector": values.get("Detector Mode"),
        "pixel_nm": _pixel_nm(values, magnification, shape),
        "brightness": quantity(values.get("Brightness"), {}),
        "contrast": quantity(values.get("Contrast"), {}),
        "focus": quantity(values.get("Focus"), {}),
        "maker": f"SEC {values.get('Model', '')}".strip(),
    }


def _pixel_nm(
    values: Mapping[str, str], magnification: float | None, shape: tuple[int, int] | None
) -> float | None:  # fmt: skip
    """Pixel size of the saved image [nm].

    "Pixel Size" has no unit: it is in um, and that of the scan, whose "Frame Size" differs from the size of the file.
    At x500 a file of 1280 columns so has 262.5 nm, and its printed scale bar 265 nm. As it has one digit after the
    point, and only one magnification could be compared, it must agree with the magnification.
    """
    scanned = quantity(values.get("Pixel Size"), {})
    frame = re.match(r"(\d+)\s*,", values.get("Frame Size", ""))
    whole = re.match(r"0\s*,\s*0\s*,\s*1\s*(,|$)", values.get("Image Area", "0,0,1"))
    if not (scanned and magnification and frame and whole and shape):
        return None
    width = scanned * int(frame[1])
    return 1e3 * width / shape[1] if abs(width * magnification / _DISPLAY - 1) <= _TOLERANCE else None
