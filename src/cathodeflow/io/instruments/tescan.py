"""TESCAN: a text file (.hdr) beside the image, or the TIFF tag 50431."""

import struct
from collections.abc import Mapping
from typing import Any

from cathodeflow.io.instruments.encoding import decode
from cathodeflow.io.instruments.values import KV, MM, NM, TIMES, number, parse_time, quantity

MARK = "[MAIN]"
TAG = 50431
# Larger pieces of the tag are pictures or faults.
_MAX_PIECE = 2**20


def settings(values: Mapping[str, str], shape: tuple[int, int] | None) -> dict[str, Any]:
    """Read the settings from the keys of the text; `ImageStripSize` is the height of the information bar [px]."""
    strip = number(values.get("ImageStripSize"))
    return {
        "time": parse_time(values.get("Date"), values.get("Time")),
        "magnification": quantity(values.get("Magnification"), TIMES),
        "voltage_kv": quantity(values.get("HV"), KV, 1e-3),
        "detector": values.get("Detector") or values.get("Detector0"),
        "pixel_nm": quantity(values.get("PixelSizeX"), NM, 1e9),
        "brightness": quantity(values.get("Detector0Offset"), {}),
        "contrast": quantity(values.get("Detector0Gain"), {}),
        "focus": quantity(values.get("WD"), MM, 1e3),
        "maker": " ".join(dict.fromkeys(f"TESCAN {values.get('Device', '')}".split())),
        "bar_rows": int(strip) if strip is not None and strip.is_integer() and strip >= 0 else None,
    }


def tag_text(tag: bytes) -> str:
    """Return the texts of the tag, a line each.

    It is text, or pieces of `length (uint32) | type (uint16) | content`, little-endian; texts end with a zero byte.
    """
    texts, at = [], 0
    while at + 6 <= len(tag):
        length, _ = struct.unpack_from("<IH", tag, at)
        piece = tag[at + 6 : at + 6 + length]
        if not 0 < length <= _MAX_PIECE or len(piece) < length:
            break
        if piece.endswith(b"\0") and piece.count(0) == 1:
            texts.append(decode(piece[:-1]))
        at += 6 + length
    return "\n".join(texts) if texts else decode(tag)
