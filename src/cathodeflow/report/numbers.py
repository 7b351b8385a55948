"""Numbers as text: as many digits as the interval supports, with units."""

import math
from typing import Any, TypeGuard

import numpy as np

#: 97.5 % quantile of the normal distribution: half the width of a 95 % interval in standard errors.
Z95 = 1.959964


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number, and not a logical value."""
    return (
        not isinstance(value, bool)
        and isinstance(value, int | float | np.integer | np.floating)
        and math.isfinite(value)
    )


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
    >>> percent(0.958333), percent(0.82), percent(1.0), percent(0.0063), percent(None)
    ('95.8 %', '82.0 %', '100 %', '0.63 %', 'not known')
    """
    return f"{_hundredths(value)} %" if is_number(value) else "not known"


def percent_limits(value: Any, low: Any, high: Any) -> str:
    """Write a fraction and its interval in percent, for a cell of a table.

    Examples
    --------
    >>> percent_limits(0.666, 0.625, 0.711), percent_limits(1.0, 1.0, 1.0)
    ('66.6 % (62.5 to 71.1)', '100 %')
    """
    known = is_number(value) and is_number(low) and is_number(high) and low < high
    return percent(value) + (f" ({_hundredths(low)} to {_hundredths(high)})" if known else "")


def _hundredths(value: float) -> str:
    if value in (0, 1):
        return f"{100 * value:.0f}"
    return f"{100 * value:.1f}" if abs(value) >= 0.01 else f"{100 * value:.2g}"


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


def change(value: float, low: float, high: float, unit: str = "") -> str:
    """Write a change with its sign, to two digits of its interval.

    Examples
    --------
    >>> change(2.5973, 2.5553, 2.6577, "%"), change(-0.02, -0.02, -0.02)
    ('+2.60 %', '-0.02')
    """
    width = high - low
    places = max(0, 1 - math.floor(math.log10(width))) if is_number(width) and width > 0 else None
    return (f"{value:+.{places}f}" if places is not None else f"{value:+.3g}") + _after(unit)


def with_error(value: Any, error: Any, unit: str = "") -> str:
    """Write a value with its standard error, both to two digits of the error.

    Examples
    --------
    >>> with_error(14.26062, 0.0135974, "Å"), with_error(-0.0272528, 0.000122), with_error(2.5, None)
    ('14.261 ± 0.014 Å', '-0.02725 ± 0.00012', '2.50')
    >>> with_error(2.33193365, 1.93417581e-07)
    '2.33193365 ± 1.9e-7'
    """
    if not is_number(value):
        return "not known"
    if not is_number(error) or error <= 0:
        return number(value) + _after(unit)
    places = max(0, 1 - math.floor(math.log10(error)))
    shown = f"{error:,.{places}f}" if places < 6 else f"{error:.1e}".replace("e-0", "e-")
    return f"{value:,.{places}f} ± {shown}{_after(unit)}"


def setting(value: Any) -> str:
    """Write a value as somebody set it, without further digits; empty if it is not known.

    Examples
    --------
    >>> setting(0.1), setting(3.68), setting(math.nan)
    ('0.1', '3.68', '')
    """
    return f"{value:g}" if is_number(value) else value if isinstance(value, str) else ""


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
