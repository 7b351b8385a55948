"""Phenom: XML in the TIFF tag 34683."""

from typing import Any

from cathodeflow.io.instruments.values import KV, MM, NM, TIMES, known, number, parse_time, quantity
from cathodeflow.io.instruments.xml_text import parse_xml, text_of

TAG = 34683


def settings(text: str | bytes) -> dict[str, Any]:
    """Read the settings from the XML; nothing from other text."""
    root = parse_xml(text)
    if root is None:
        return {}
    # Some write the potential of the cathode, which is negative.
    voltage = quantity(text_of(root, "highVoltage", "accelerationVoltage", "acceleratingVoltage"), KV, 1e-3)
    bar = number(text_of(root, "databarHeight"))
    return known(
        {
            "time": parse_time(text_of(root, "time", "acquisitionTime", "date")),
            "magnification": quantity(text_of(root, "magnification"), TIMES),
            "voltage_kv": abs(voltage) if voltage is not None else None,
            "detector": text_of(root, "detector", "detectorName"),
            "pixel_nm": quantity(text_of(root, "pixelWidth"), NM, 1e9),
            "brightness": number(text_of(root, "brightness")),
            "contrast": number(text_of(root, "contrast")),
            "focus": quantity(text_of(root, "workingDistance"), MM, 1e3),
            "maker": f"Phenom {text_of(root, 'instrument', 'type') or ''}".strip(),
            "bar_rows": int(bar) if bar is not None and bar >= 0 else None,
        }
    )
