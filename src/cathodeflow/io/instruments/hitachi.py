"""Hitachi: a text file beside the image, or the description of a TIFF file."""

import re
from collections.abc import Mapping
from typing import Any

from cathodeflow.io.instruments.values import KV, MM, NM, TIMES, parse_time, quantity

MARK = "[SemImageFile]"


def settings(values: Mapping[str, str], shape: tuple[int, int] | None) -> dict[str, Any]:
    """Read the settings from the keys of the text."""
    pixel = quantity(values.get("PixelSize"), NM, 1.0)
    size = re.fullmatch(r"(\d+)\s*[xX×]\s*(\d+)", values.get("DataSize", ""))
    if pixel and size and shape:
        scaled = int(size[1]) / shape[1]
        # Images that were scaled later show all rows; cropped ones keep their pixels.
        pixel *= scaled if abs(shape[0] * scaled - int(size[2])) <= max(1.5, scaled) else 1.0
    return {
        "time": parse_time(values.get("Date"), values.get("Time")),
        "magnification": quantity(values.get("Magnification"), TIMES),
        "voltage_kv": quantity(values.get("AcceleratingVoltage"), KV, 1e-3),
        "detector": values.get("SignalName"),
        "pixel_nm": pixel,
        "brightness": quantity(values.get("Brightness"), {}),
        "contrast": quantity(values.get("Contrast"), {}),
        "focus": quantity(values.get("WorkingDistance"), MM, 1e-3),
        "maker": f"Hitachi {values.get('InstructName', '')}".strip(),
    }
