"""Settings of the instrument that took a micrograph, from the texts and TIFF tags in which makers keep them.

All functions return a dict with those of these keys that are known:

- time: datetime, when the image was taken, by the instrument's clock
- magnification, voltage_kv, pixel_nm: float
- detector, maker: str
- brightness, contrast, focus: float in units of the instrument; focus is the working distance [mm] where the instrument
  stores no other number
- bar_rows: int, rows of the information bar at the bottom of the image
"""

import re
from collections.abc import Mapping
from typing import Any

from cathodeflow.io.instruments import fei, hitachi, jeol, phenom, sec, tescan, zeiss
from cathodeflow.io.instruments.encoding import decode
from cathodeflow.io.instruments.values import as_text, known, parse_time

#: Names of the settings of an image; columns of the index.
SETTINGS = (
    "time",
    "magnification",
    "voltage_kv",
    "detector",
    "pixel_nm",
    "brightness",
    "contrast",
    "focus",
    "maker",
)
# Bytes at the end of a file in which a text of the instrument may stand.
END_BYTES = 2**16


def parse_sidecar(text: str, shape: tuple[int, int] | None = None) -> dict[str, Any]:
    r"""Read the settings from a text of SEC (SNE, "Nanoeye"), Hitachi, TESCAN or JEOL; nothing from other text.

    Parameters
    ----------
    text : str
        The file beside the image, or a text inside it.
    shape : (int, int), optional
        Rows and columns of the image, without which some sizes are not known.

    Examples
    --------
    >>> parse_sidecar("[SemImageFile]\nInstructName=SU8000\nMagnification=500\nPixelSize=198.4\n")
    {'magnification': 500.0, 'pixel_nm': 198.4, 'maker': 'Hitachi SU8000'}
    """
    if jeol.MARK in text:
        return known(jeol.settings(jeol.keys(text), shape))
    # The first of equal keys counts, as later sections use the same names for other quantities.
    pairs = re.findall(r"^[ \t]*([^:=\[\]\n]+?)[ \t]*[:=][ \t]*(.*?)[ \t\r]*$", text, re.MULTILINE)
    values = dict(reversed(pairs))
    maker = next((maker for maker in (sec, hitachi, tescan) if maker.MARK in text), None)
    return known(maker.settings(values, shape)) if maker else {}


def parse_tags(tags: Mapping[int, Any], shape: tuple[int, int]) -> dict[str, Any]:
    """Read the settings from the tags of a TIFF file.

    Parameters
    ----------
    tags : mapping of int to Any
        Values by number, as tifffile returns them; bytes or text where it knows no better.
    shape : (int, int)
        Rows and columns of the image.
    """
    settings: dict[str, Any] = {"time": parse_time(as_text(tags.get(306)).replace(":", "-", 2))}
    settings |= parse_sidecar(as_text(tags.get(270)), shape)
    if tag := tags.get(tescan.TAG):
        settings |= parse_sidecar(
            tescan.tag_text(tag if isinstance(tag, bytes) else as_text(tag).encode("latin-1")), shape
        )
    if isinstance(tag := tags.get(34118), Mapping):
        settings |= zeiss.settings(tag, shape)
    for number in fei.TAGS:
        tag = tags.get(number)
        if isinstance(tag, Mapping):
            settings |= fei.settings(tag, shape)
        elif tag:
            settings |= fei.xml_settings(tag, shape)
    if isinstance(tag := tags.get(phenom.TAG), str | bytes):
        settings |= phenom.settings(tag)
    return known(settings)


def parse_end(data: bytes, shape: tuple[int, int]) -> dict[str, Any]:
    """Read the settings from a text that the instrument wrote behind the image, at the end of the file.

    Parameters
    ----------
    data : bytes
        The last `END_BYTES` of the file.
    shape : (int, int)
        Rows and columns of the image.
    """
    texts = (fei.MARK, jeol.MARK, sec.MARK, hitachi.MARK, tescan.MARK)
    marks = [mark.encode(encoding) for mark in texts for encoding in ("ascii", "utf-16-le", "utf-16-be")]
    starts = [start for mark in marks if (start := data.find(mark)) >= 0]
    if not starts:
        return {}
    text = decode(data[min(starts) :]).rstrip("\0\ufffd")
    return fei.settings(fei.sections(text), shape) if text.startswith(fei.MARK) else parse_sidecar(text, shape)
