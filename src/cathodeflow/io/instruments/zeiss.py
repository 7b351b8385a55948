"""Zeiss: TIFF tag 34118."""

from collections.abc import Mapping
from typing import Any

from cathodeflow.io.instruments.values import KV, MM, NM, TIMES, known, parse_time, quantity

# Columns of the frame that `ap_pixel_size` is for; frames are 4:3.
_FRAME = 1024


def settings(tags: Mapping[str, Any], shape: tuple[int, int] | None = None) -> dict[str, Any]:
    """Read the settings from the tag: name -> (title, value, unit) as returned by tifffile.

    The width of the field over the columns of the image is its pixel size, if the file has all columns of the frame;
    `ap_pixel_size` is that of a frame of 1024 columns, whatever the file has. Files that were cropped to other shapes
    have the pixel size `ap_image_pixel_size`, or an unknown one.
    """

    def get(*names: str) -> str | None:
        for name in names:
            entry = tags.get(name)
            if isinstance(entry, tuple | list) and len(entry) > 1:
                return " ".join(str(part) for part in entry[1:])
        return None

    stated = quantity(get("ap_image_pixel_size"), NM)
    width = quantity(get("ap_width"), NM)
    width = width or _FRAME * (quantity(get("ap_pixel_size"), NM) or 0)
    of_field = width / shape[1] if width and shape and _is_whole(shape) else None
    return known(
        {
            "time": parse_time(get("ap_date"), get("ap_time")),
            "magnification": quantity(get("ap_mag"), TIMES),
            "voltage_kv": quantity(get("ap_actualkv", "ap_manualkv"), KV),
            "detector": get("dp_detector_channel", "dp_detector_type"),
            "pixel_nm": _of_file(stated, width, of_field),
            "brightness": quantity(get("ap_brightness"), {}),
            "contrast": quantity(get("ap_contrast"), {}),
            "focus": quantity(get("ap_wd"), MM),
            "maker": "Zeiss",
        }
    )


def _of_file(stated: float | None, width: float | None, of_field: float | None) -> float | None:
    """Choose between the pixel size in the tag and that of the field: the latter if the file was scaled later."""
    if not stated or not of_field or not width:
        return stated or of_field
    frames = width / stated / (_FRAME // 2)
    return of_field if round(frames) > 0 and abs(frames - round(frames)) <= 0.02 else stated


def _is_whole(shape: tuple[int, int]) -> bool:
    """Whether a file has all columns of the frame: all rows too, scaled or not, or columns as frames have them."""
    rows, cols = shape
    return abs(rows - 0.75 * cols) <= 1.5 or (cols % (_FRAME // 2) == 0 and 0.6 * cols <= rows < 0.75 * cols)
