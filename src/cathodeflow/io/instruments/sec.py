"""SEC (SNE series, "Nanoeye"): a text file beside the image."""

from collections.abc import Mapping
from typing import Any

from cathodeflow.io.instruments.values import KV, TIMES, parse_time, quantity

MARK = "[Image Info]"


def settings(values: Mapping[str, str], shape: tuple[int, int] | None) -> dict[str, Any]:
    """Read the settings from the keys of the text."""
    # "Pixel Size" has no unit and refers to a frame of another size than the file, so it is not used.
    return {
        "time": parse_time(values.get("Date"), values.get("Time")),
        "magnification": quantity(values.get("Magnification"), TIMES),
        "voltage_kv": quantity(values.get("Acceleated Voltage") or values.get("Accelerated Voltage"), KV),
        "detector": values.get("Detector Mode"),
        "brightness": quantity(values.get("Brightness"), {}),
        "contrast": quantity(values.get("Contrast"), {}),
        "focus": quantity(values.get("Focus"), {}),
        "maker": f"SEC {values.get('Model', '')}".strip(),
    }
