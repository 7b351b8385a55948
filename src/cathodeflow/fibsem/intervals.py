"""Scales of properties on which errors are symmetric, and intervals with Student's t."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit, stdtrit

#: Properties between 0 and 1, whose errors are symmetric as log-odds; those of all others as logarithms.
FRACTIONS = ("volume_fraction", "effective_diffusivity")
#: Properties that are 1 in most volumes: neither scale makes their errors symmetric, so they have no interval.
WITHOUT_SCALE = ("connected_fraction", "percolating_fraction")
#: Levels of the intervals, and the names of their columns.
LEVELS = {"68": 0.6827, "95": 0.95}
#: Columns of an error.
COLUMNS = ("standard_error", "low_68", "high_68", "low_95", "high_95")


class ScaledError(NamedTuple):
    """A standard error on the scale of a property, with the degrees of freedom that it is known with.

    Adding two of them follows Welch and Satterthwaite: B. L. Welch, Biometrika 34, 28 (1947).
    """

    error: float
    freedom: float

    def plus(self, other: "ScaledError") -> "ScaledError":
        """Add an independent error.

        Examples
        --------
        >>> ScaledError(3.0, 10.0).plus(ScaledError(4.0, 10.0)).error
        5.0
        """
        squares = self.error**2, other.error**2
        total = sum(squares)
        below = squares[0] ** 2 / self.freedom + squares[1] ** 2 / other.freedom
        return ScaledError(float(np.sqrt(total)), total**2 / below if below > 0 else max(self.freedom, other.freedom))


def scaled(name: str, value: float) -> float:
    """Return the value of a property on the scale of its errors; NaN where that is not finite.

    Examples
    --------
    >>> scaled("volume_fraction", 0.5), scaled("tortuosity_factor", 1.0)
    (0.0, 0.0)
    """
    possible = 0 < value < 1 if name in FRACTIONS else 0 < value < np.inf
    return float(logit(value) if name in FRACTIONS else np.log(value)) if possible else float("nan")


def unscaled(name: str, value: float) -> float:
    """Return the value of a property from that on the scale of its errors."""
    return float(expit(value) if name in FRACTIONS else np.exp(value))


def slope(name: str, value: float) -> float:
    """Return the derivative of a property by its scaled value, which brings an error to the unit of the property."""
    return value * (1 - value) if name in FRACTIONS else value


def interval(name: str, value: float, error: ScaledError | None) -> dict[str, Any]:
    """Return standard error and intervals of a value, in its unit.

    Parameters
    ----------
    name : str
        Of the property.
    value : float
    error : ScaledError, optional
        Without one, or of a value without a scale such as an infinite tortuosity, all are NaN.

    Returns
    -------
    dict
        `standard_error`, `low_68`, `high_68`, `low_95`, `high_95`.

    Examples
    --------
    >>> found = interval("volume_fraction", 0.4, ScaledError(0.1, 1e6))
    >>> [round(found[name], 3) for name in ("standard_error", "low_68", "high_68", "low_95", "high_95")]
    [0.024, 0.376, 0.424, 0.354, 0.448]
    """
    middle = scaled(name, value)
    if error is None or not np.isfinite(middle) or not np.isfinite(error.error):
        return dict.fromkeys(COLUMNS, float("nan"))
    found = {"standard_error": slope(name, value) * error.error}
    for level, fraction in LEVELS.items():
        half = float(stdtrit(error.freedom, 0.5 + fraction / 2)) * error.error
        low, high = (unscaled(name, middle + sign * half) for sign in (-1, 1))
        # No path is shorter than the straight one.
        found[f"low_{level}"] = max(low, min(value, 1.0)) if name == "tortuosity_factor" else low
        found[f"high_{level}"] = high
    return found
