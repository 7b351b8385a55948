"""Numbers as text: as many digits as the interval supports, with units."""

import math
from typing import Any

#: 97.5 % quantile of the normal distribution: half the width of a 95 % interval in standard errors.
Z95 = 1.959964


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and not a logical value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, digits: int = 3) -> str:
    """Write a number with some significant digits, integers in full, others as text.

    Examples
    --------
    >>> number(0.00123456), number(2807), number(1234567.8), number(-7.7e-5), number(None)
    ('0.00123', '2,807', '1,230,000', '-7.70e-5', 'not known')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not is_number(value):
        return value if isinstance(value, str) else "not known"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) < 1e-3 or abs(value) >= 1e15:
        base, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{base}e{int(exponent)}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(places, 0)}f}"


def percent(value: Any) -> str:
    """Write a fraction in percent.

    Examples
    --------
    >>> percent(0.958333), percent(1.0), percent(0.0063), percent(None)
    ('95.8 %', '100 %', '0.63 %', 'not known')
    """
    if not is_number(value):
        return "not known"
    text = f"{100 * value:.1f}" if abs(value) >= 0.01 else f"{100 * value:.2g}"
    return f"{text.removesuffix('.0')} %"


def between(low: Any, high: Any, *, as_percent: bool = False, unit: str = "", digits: int = 3) -> str:
    """Write a 95 % interval; empty if it is not known.

    Examples
    --------
    >>> between(0.797582, 0.992607, as_percent=True)
    '95 % interval 79.8 % to 99.3 %'
    >>> between(math.nan, 1.0)
    ''
    """
    if not (is_number(low) and is_number(high)):
        return ""
    if as_percent:
        return f"95 % interval {percent(low)} to {percent(high)}"
    # Both limits need the digits that distinguish them.
    width = high - low
    if width > 0 and max(abs(low), abs(high)) >= 1e-3:
        places = max(0, 1 - math.floor(math.log10(width)))
        return f"95 % interval {low:,.{places}f} to {high:,.{places}f}{_after(unit)}"
    return f"95 % interval {number(low, digits)} to {number(high, digits)}{_after(unit)}"


def with_error(value: Any, error: Any, unit: str = "") -> str:
    """Write a value with its standard error, both to two digits of the error.

    Examples
    --------
    >>> with_error(14.26062, 0.0135974, "Å"), with_error(-0.0272528, 0.000122), with_error(2.5, None)
    ('14.261 ± 0.014 Å', '-0.02725 ± 0.00012', '2.50')
    """
    if not is_number(value):
        return "not known"
    if not is_number(error) or error <= 0:
        return number(value) + _after(unit)
    places = max(0, 1 - math.floor(math.log10(error)))
    if places > 5:
        power = math.floor(math.log10(abs(value) or error))
        places = max(0, places + power)
        return f"({value / 10**power:.{places}f} ± {error / 10**power:.{places}f})e{power}{_after(unit)}"
    return f"{value:,.{places}f} ± {error:,.{places}f}{_after(unit)}"


def size(n_bytes: int) -> str:
    """Write the size of a file.

    Examples
    --------
    >>> size(812), size(16_884_000)
    ('1 kB', '16.9 MB')
    """
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e6 else f"{max(1, round(n_bytes / 1e3))} kB"


def _after(unit: str) -> str:
    return f" {unit}" if unit else ""
