"""Numbers with units, dates and times of day as instruments write them."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any

_NUMBER = r"([-+]?\d+(?:(?:,\d{3})+(?!\d)|[.,]\d+)?(?:[eE][-+]?\d+)?)"
NM = {"pm": 1e-3, "nm": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "mm": 1e6, "m": 1e9}
MM = {unit: factor / 1e6 for unit, factor in NM.items()}
KV = {"kv": 1.0, "v": 1e-3, "volt": 1e-3}
TIMES = {"": 1.0, "x": 1.0, "k": 1e3, "kx": 1e3, "mx": 1e6}
# First letters of the months in English, German, French, Spanish, Italian, Portuguese, Dutch, the Nordic languages,
# Polish, Czech, Hungarian, Romanian, Turkish and Russian; of several that fit, the longest counts.
_MONTHS = (
    "jan ene gen sty led ian oca янв tammi", "feb fev fév lut úno şub фев helmi", "mar mär mrz mrt maa bře már мар",
    "apr avr abr kwi dub ápr nis апр huhti", "may mai maj mag mei kvě máj май мая touko",
    "jun juin giu cze červen jún iun haz июн kesä", "jul juil lug lip července červenec júl iul tem июл heinä",
    "aug aou aoû ago sie srp ağu авг elo", "sep set wrz zář szep eyl сен syys",
    "oct okt ott out paź paz říj eki окт loka", "nov lis noi noe kas ноя marras",
    "dec déc dez dic gru pro des ara дек joulu",
)  # fmt: skip
_MORNING, _AFTERNOON = ("am", "오전", "午前", "上午"), ("pm", "오후", "午後", "下午")


def quantity(text: str | None, units: Mapping[str, float], plain: float | None = 1.0) -> float | None:
    """Read a number with a unit, or without one (factor `plain`); None for anything else."""
    found = re.fullmatch(rf"\s*[xX×]?\s*{_NUMBER}\s*(\D*)", text or "")
    if not found:
        return None
    # Micro signs, and letters of full width, have several characters.
    unit = unicodedata.normalize("NFKC", re.sub(r"\s", "", found[2])).lower()
    factor = units.get(unit, plain if not unit or not units else None)
    # In magnifications a comma before three digits separates thousands, as in x1,000; otherwise it is a decimal comma.
    thousands = units is TIMES and re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+", found[1])
    number = found[1].replace(",", "" if thousands else ".")
    return float(number) * factor if factor is not None else None


def number(value: Any) -> float | None:
    """Read a number as a text or value of a file; None for anything else."""
    return quantity(str(value), {}) if value not in (None, "") else None


def known(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that are known."""
    return {key: value for key, value in settings.items() if value not in (None, "")}


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
    if found := re.search(r"\b(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)", text):
        return int(found[1]), int(found[2]), int(found[3])
    if found := re.search(r"\b(\d{1,2})([-/.])(\d{1,2})\2(\d{4})\b", text):
        first, second, year = int(found[1]), int(found[3]), int(found[4])
        day_first = found[2] == "." or first > 12
        return (year, second, first) if day_first else (year, first, second)
    if found := re.search(r"(\d{4})\s*[年년]\s*(\d{1,2})\s*[月월]\s*(\d{1,2})\s*[日일]", text):
        return int(found[1]), int(found[2]), int(found[3])
    if found := re.fullmatch(r"\s*((?:19|20)\d\d)(\d\d)(\d\d)\s*", text):
        return int(found[1]), int(found[2]), int(found[3])
    if found := re.search(r"\b(\d{1,2})\.?[ ./-](?:de )?([^\W\d_]{3,})\.?[ ./-](?:de )?(\d{4})\b", text):
        name, date = found[2], (found[3], found[1])
    # Also as `Thu Sep 12 16:17:18 2019`.
    elif found := re.search(r"\b([^\W\d_]{3,})\.?[ -](\d{1,2}),?[ -](?:[\d:.]+ )?(\d{4})\b", text):
        name, date = found[1], (found[3], found[2])
    elif found := re.search(r"\b(\d{4})\.?[ -]([^\W\d_]{3,})\.?[ -](\d{1,2})\b", text):
        name, date = found[2], (found[1], found[3])
    else:
        return None
    month = _month(name)
    return (int(date[0]), month, int(date[1])) if month else None


def _month(name: str) -> int | None:
    fits = [
        (len(start), month)
        for month, starts in enumerate(_MONTHS, start=1)
        for start in starts.split()
        if unicodedata.normalize("NFC", name).lower().startswith(start)
    ]
    return max(fits)[1] if fits else None


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
