"""JEOL: a text file beside the image, or the description of a TIFF file."""

import re
from collections.abc import Mapping
from typing import Any

from cathodeflow.io.instruments.values import KV, MM, NM, TIMES, parse_time, quantity

MARK = "$CM_"


def keys(text: str) -> dict[str, str]:
    """Return the keys of the text, `$CM_MAG 500` or `$$SM_WD 10`, without their dollar signs."""
    return dict(re.findall(r"^\$+(\w+)[ \t]+(.*?)[ \t\r]*$", text, re.MULTILINE))


def settings(values: Mapping[str, str], shape: tuple[int, int] | None) -> dict[str, Any]:
    """Read the settings from the keys of the text.

    The image without its bar has the size `CM_FULL_SIZE`, in whose pixels `SM_MICRON_BAR`, the length of the scale
    bar, is; `SM_MICRON_MARKER` is the same length with its unit.
    """
    marker = quantity(values.get("SM_MICRON_MARKER"), NM)
    bar = quantity(values.get("SM_MICRON_BAR"), {})
    full = re.fullmatch(r"(\d+)[ ,x]+(\d+)", values.get("CM_FULL_SIZE", ""))
    # An image that was saved smaller or larger than it was scanned.
    scaled = int(full[1]) / shape[1] if full and shape else 1.0
    below = shape[0] - int(full[2]) if full and shape and shape[1] == int(full[1]) else -1
    return {
        "time": parse_time(values.get("CM_DATE"), values.get("CM_TIME")),
        "magnification": quantity(values.get("CM_MAG"), TIMES),
        "voltage_kv": quantity(values.get("CM_ACCEL_VOLT") or values.get("CM_ACCEL_VOLTAGE"), KV, 1.0),
        "detector": values.get("CM_SIGNAL_NAME") or values.get("CM_SIGNAL"),
        "pixel_nm": scaled * marker / bar if marker and bar else None,
        "brightness": quantity(values.get("CM_BRIGHTNESS"), {}),
        "contrast": quantity(values.get("CM_CONTRAST"), {}),
        "focus": quantity(values.get("SM_WD") or values.get("CM_WD"), MM, 1.0),
        "maker": f"JEOL {values.get('CM_INSTRUMENT', '')}".strip(),
        "bar_rows": below if below > 0 else None,
    }
