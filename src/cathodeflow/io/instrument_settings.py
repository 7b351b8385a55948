"""Settings of the instrument, from the text files and TIFF tags in which makers keep them.

All functions return a dict with those of these keys that are known:

- time: datetime, when the image was taken, by the instrument's clock
- magnification, voltage_kv, pixel_nm: float
- detector, maker: str
- brightness, contrast, focus: float in units of the instrument; focus is the working distance [mm] where the instrument
  stores no other number
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

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

_NUMBER = r"([-+]?\d+(?:(?:,\d{3})+(?!\d)|[.,]\d+)?(?:[eE][-+]?\d+)?)"
_NM = {"pm": 1e-3, "nm": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "mm": 1e6, "m": 1e9}
_MM = {unit: factor / 1e6 for unit, factor in _NM.items()}
_KV = {"kv": 1.0, "v": 1e-3, "volt": 1e-3}
_TIMES = {"": 1.0, "x": 1.0, "k": 1e3, "kx": 1e3, "mx": 1e6}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MORNING, _AFTERNOON = ("am", "오전", "午前", "上午"), ("pm", "오후", "午後", "下午")


def parse_sidecar(text: str) -> dict[str, Any]:
    r"""Read the settings from a sidecar of SEC (SNE, "Nanoeye"), Hitachi, TESCAN or JEOL; nothing from other text.

    Examples
    --------
    >>> parse_sidecar("[SemImageFile]\nInstructName=SU8000\nMagnification=500\nPixelSize=198.4\n")
    {'magnification': 500.0, 'pixel_nm': 198.4, 'maker': 'Hitachi SU8000'}
    """
    if "$CM_" in text:
        return _known(_jeol(dict(re.findall(r"^\$+(\w+)[ \t]+(.*?)[ \t\r]*$", text, re.MULTILINE))))
    # The first of equal keys counts, as later sections use the same names for other quantities.
    pairs = re.findall(r"^[ \t]*([^:=\[\]\n]+?)[ \t]*[:=][ \t]*(.*?)[ \t\r]*$", text, re.MULTILINE)
    values = dict(reversed(pairs))
    if "[Image Info]" in text:
        return _known(_sec(values))
    if "[SemImageFile]" in text:
        return _known(_hitachi(values))
    if "[MAIN]" in text:
        return _known(_tescan(values))
    return {}


def parse_fei(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings from the TIFF tag of FEI and Thermo Fisher, sections of keys as returned by tifffile."""

    def get(*places: str) -> str | None:
        for location in places:
            section, key = location.split("/")
            value = (sections.get(section) or {}).get(key) if isinstance(sections.get(section), Mapping) else None
            if value not in (None, ""):
                return str(value)
        return None

    detector = get("Detectors/Name")
    own = detector or "Detectors"
    return _known(
        {
            "time": parse_time(get("PrivateFei/TimeOfCreation")) or parse_time(get("User/Date"), get("User/Time")),
            "magnification": _quantity(get("Image/Magnification", "EScan/Magnification"), _TIMES),
            "voltage_kv": _quantity(get("Beam/HV", "EBeam/HV"), _KV, 1e-3),
            "detector": detector,
            "pixel_nm": _quantity(get("Scan/PixelWidth", "EScan/PixelWidth"), _NM, 1e9),
            "brightness": _quantity(get(f"{own}/BrightnessDB", f"{own}/Brightness"), {}),
            "contrast": _quantity(get(f"{own}/ContrastDB", f"{own}/Contrast"), {}),
            "focus": _quantity(get("EBeam/WD", "Beam/WD", "Stage/WorkingDistance"), _MM, 1e3),
            "maker": f"FEI {get('System/SystemType') or ''}".strip(),
        }
    )


def parse_zeiss(tags: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings from the TIFF tag of Zeiss: name -> (title, value, unit) as returned by tifffile."""

    def get(*names: str) -> str | None:
        for name in names:
            entry = tags.get(name)
            if isinstance(entry, tuple | list) and len(entry) > 1:
                return " ".join(str(part) for part in entry[1:])
        return None

    return _known(
        {
            "time": parse_time(get("ap_date"), get("ap_time")),
            "magnification": _quantity(get("ap_mag"), _TIMES),
            "voltage_kv": _quantity(get("ap_actualkv", "ap_manualkv"), _KV),
            "detector": get("dp_detector_channel", "dp_detector_type"),
            "pixel_nm": _quantity(get("ap_image_pixel_size", "ap_pixel_size"), _NM),
            "brightness": _quantity(get("ap_brightness"), {}),
            "contrast": _quantity(get("ap_contrast"), {}),
            "focus": _quantity(get("ap_wd"), _MM),
            "maker": "Zeiss",
        }
    )


def parse_time(date: str | None, clock: str | None = None) -> datetime | None:
    """Read a date and a time of day from one text or two; None if there is no valid date.

    Dates with slashes and the year last are read as month/day/year, as written by the instruments, unless
    the month would be above 12; dates with dots as day.month.year. The time of day may have AM or PM, also in Korean,
    Japanese and Chinese.

    Examples
    --------
    >>> parse_time("2019-09-02 오후 1:09:57")
    datetime.datetime(2019, 9, 2, 13, 9, 57)
    >>> parse_time("9/2/2019", "12:09:57 AM")
    datetime.datetime(2019, 9, 2, 0, 9, 57)
    >>> parse_time("Date: 2 Sep 2019")
    datetime.datetime(2019, 9, 2, 0, 0)
    """
    day = _parse_day(date or "")
    hours = _parse_clock(clock or "") or _parse_clock(date or "") or (0, 0, 0, 0)
    try:
        return datetime(*day, *hours) if day else None
    except ValueError:
        return None


def as_text(value: Any) -> str:
    """Return a tag of a file as text; empty if there is none."""
    return bytes(value).decode("latin-1") if isinstance(value, bytes | bytearray) else str(value or "")


def _parse_day(text: str) -> tuple[int, int, int] | None:
    if found := re.search(r"\b(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})\b", text):
        return int(found[1]), int(found[2]), int(found[3])
    if found := re.search(r"\b(\d{1,2})([-/.])(\d{1,2})\2(\d{4})\b", text):
        first, second, year = int(found[1]), int(found[3]), int(found[4])
        day_first = found[2] == "." or first > 12
        return (year, second, first) if day_first else (year, first, second)
    found = re.search(r"\b(\d{1,2})[ -]([A-Za-z]{3})[a-z]*\.?[ -](\d{4})\b", text)
    if found and found[2].lower() in _MONTHS:
        return int(found[3]), _MONTHS.index(found[2].lower()) + 1, int(found[1])
    return None


def _parse_clock(text: str) -> tuple[int, int, int, int] | None:
    found = re.search(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?", text)
    if not found:
        return None
    hour, lower = int(found[1]), text.lower()
    if any(word in lower for word in _MORNING) and hour == 12:
        hour = 0
    elif any(word in lower for word in _AFTERNOON) and hour < 12:
        hour += 12
    return hour, int(found[2]), int(found[3] or 0), int((found[4] or "0").ljust(6, "0")[:6])


def _sec(values: Mapping[str, str]) -> dict[str, Any]:
    # "Pixel Size" has no unit and refers to a frame of another size than the file, so it is not used.
    return {
        "time": parse_time(values.get("Date"), values.get("Time")),
        "magnification": _quantity(values.get("Magnification"), _TIMES),
        "voltage_kv": _quantity(values.get("Acceleated Voltage") or values.get("Accelerated Voltage"), _KV),
        "detector": values.get("Detector Mode"),
        "brightness": _quantity(values.get("Brightness"), {}),
        "contrast": _quantity(values.get("Contrast"), {}),
        "focus": _quantity(values.get("Focus"), {}),
        "maker": f"SEC {values.get('Model', '')}".strip(),
    }


def _hitachi(values: Mapping[str, str]) -> dict[str, Any]:
    return {
        "time": parse_time(values.get("Date"), values.get("Time")),
        "magnification": _quantity(values.get("Magnification"), _TIMES),
        "voltage_kv": _quantity(values.get("AcceleratingVoltage"), _KV, 1e-3),
        "detector": values.get("SignalName"),
        "pixel_nm": _quantity(values.get("PixelSize"), _NM, 1.0),
        "brightness": _quantity(values.get("Brightness"), {}),
        "contrast": _quantity(values.get("Contrast"), {}),
        "focus": _quantity(values.get("WorkingDistance"), _MM, 1e-3),
        "maker": f"Hitachi {values.get('InstructName', '')}".strip(),
    }


def _tescan(values: Mapping[str, str]) -> dict[str, Any]:
    return {
        "time": parse_time(values.get("Date"), values.get("Time")),
        "magnification": _quantity(values.get("Magnification"), _TIMES),
        "voltage_kv": _quantity(values.get("HV"), _KV, 1e-3),
        "detector": values.get("Detector") or values.get("Detector0"),
        "pixel_nm": _quantity(values.get("PixelSizeX"), _NM, 1e9),
        "brightness": _quantity(values.get("Detector0Offset"), {}),
        "contrast": _quantity(values.get("Detector0Gain"), {}),
        "focus": _quantity(values.get("WD"), _MM, 1e3),
        "maker": " ".join(dict.fromkeys(f"TESCAN {values.get('Device', '')}".split())),
    }


def _jeol(values: Mapping[str, str]) -> dict[str, Any]:
    marker = _quantity(values.get("SM_MICRON_MARKER"), _NM)
    bar = _quantity(values.get("SM_MICRON_BAR"), {})
    return {
        "time": parse_time(values.get("CM_DATE"), values.get("CM_TIME")),
        "magnification": _quantity(values.get("CM_MAG"), _TIMES),
        "voltage_kv": _quantity(values.get("CM_ACCEL_VOLT"), _KV, 1.0),
        "detector": values.get("CM_SIGNAL_NAME") or values.get("CM_SIGNAL"),
        "pixel_nm": marker / bar if marker and bar else None,
        "brightness": _quantity(values.get("CM_BRIGHTNESS"), {}),
        "contrast": _quantity(values.get("CM_CONTRAST"), {}),
        "focus": _quantity(values.get("SM_WD"), _MM, 1.0),
        "maker": f"JEOL {values.get('CM_INSTRUMENT', '')}".strip(),
    }


def _quantity(text: str | None, units: Mapping[str, float], plain: float | None = 1.0) -> float | None:
    """Read a number with a unit, or without one (factor `plain`); None for anything else."""
    found = re.fullmatch(rf"\s*[xX×]?\s*{_NUMBER}\s*(\D*)", text or "")
    if not found:
        return None
    unit = re.sub(r"\s", "", found[2]).lower()
    factor = units.get(unit, plain if not unit or not units else None)
    # In magnifications a comma before three digits separates thousands, as in x1,000; otherwise it is a decimal comma.
    thousands = units is _TIMES and re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+", found[1])
    number = found[1].replace(",", "" if thousands else ".")
    return float(number) * factor if factor is not None else None


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value not in (None, "")}
