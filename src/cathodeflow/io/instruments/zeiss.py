"""Zeiss: TIFF tag 34118."""

from collections.abc import Mapping
from typing import Any

from cathodeflow.io.instruments.values import KV, MM, NM, TIMES, known, parse_time, quantity


def settings(tags: Mapping[str, Any], shape: tuple[int, int] | None = None) -> dict[str, Any]:
    """Read the settings from the tag: name -> (title, value, unit) as returned by tifffile.

    The width of the field over the columns of the image is its pixel size; `ap_pixel_size` is that of a frame of 1024
    columns, whatever the file has.
    """

    def get(*names: str) -> str | None:
        for name in names:
            entry = tags.get(name)
            if isinstance(entry, tuple | list) and len(entry) > 1:
                return " ".join(str(part) for part in entry[1:])
        return None

    stated = quantity(get("ap_image_pixel_size"), NM)
    width = quantity(get("ap_width"), NM)
    of_field = width / shape[1] if width and shape else None
    return known(
        {
            "time": parse_time(get("ap_date"), get("ap_time")),
            "magnification": quantity(get("ap_mag"), TIMES),
            "voltage_kv": quantity(get("ap_actualkv", "ap_manualkv"), KV),
            "detector": get("dp_detector_channel", "dp_detector_type"),
            "pixel_nm": stated or of_field or quantity(get("ap_pixel_size"), NM),
            "brightness": quantity(get("ap_brightness"), {}),
            "contrast": quantity(get("ap_contrast"), {}),
            "focus": quantity(get("ap_wd"), MM),
            "maker": "Zeiss",
        }
    )
