"""Statistics over the particles of a state: medians with bootstrap intervals, width of the distribution, fractions."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import chdtr, chdtrc

Floats = NDArray[np.float64]

#: Confidence levels of the intervals [%].
LEVELS = (68, 95)
# Squared deviations count up to this many variances, so that outliers do not make a distribution wide.
_CUT = 4.0


def width(values: Floats, errors: Floats) -> float:
    """Estimate the standard deviation of the distribution of values, without their errors of measurement.

    The width w solves mean(min((x - median)^2 / (w^2 + error^2), 4)) = its expectation for normal variables.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> round(width(rng.normal(0, 5, 4000), np.full(4000, 3.0)), 1)
    4.0
    """
    if len(values) < 3:
        return float("nan")
    squares = np.square(values - np.median(values))
    expected = float(chdtr(3, _CUT) + _CUT * chdtrc(1, _CUT)) * (1 - 1 / len(values))

    def excess(candidate: float) -> float:
        with np.errstate(divide="ignore"):
            standard = squares / (candidate**2 + np.square(errors))
        return float(np.minimum(standard, _CUT).mean()) - expected

    high = float(np.sqrt(squares.max())) * 2
    if high == 0 or excess(1e-6 * high) <= 0:
        return 0.0
    return float(brentq(excess, 1e-6 * high, high, xtol=1e-5 * high))


def draws(units: NDArray[np.int64], samples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each row is drawn, (samples, n), if particles are drawn with replacement.

    Parameters
    ----------
    units : (n,) int64
        Particle of each row, numbered from 0.
    samples : int
    rng : Generator
    """
    count = int(units.max()) + 1 if len(units) else 0
    drawn = rng.multinomial(count, np.full(count, 1 / max(count, 1)), size=samples) if count else np.zeros((samples, 0))
    return np.asarray(drawn[:, units] if count else drawn, np.int64)


def limits(samples: Floats) -> dict[str, float]:
    """Limits of the intervals of `LEVELS` of resampled figures (s,): `low68`, `high68`, `low95`, `high95`."""
    known = samples[np.isfinite(samples)]
    found: dict[str, float] = {}
    for level in LEVELS:
        low, high = np.percentile(known, [50 - level / 2, 50 + level / 2]) if len(known) else (np.nan, np.nan)
        found |= {f"low{level}": float(low), f"high{level}": float(high)}
    return found


def resampled_medians(values: Floats, times: NDArray[np.int64], shifts: Floats | None = None) -> Floats:
    """Medians (s,) of resampled values.

    Parameters
    ----------
    values : (n,) float64
    times : (s, n) int64
        How often each value is drawn.
    shifts : (s, n) float64, optional
        Change of each value in each sample.
    """
    found = np.full(len(times), np.nan)
    for number, count in enumerate(times):
        if count.any():
            moved = values if shifts is None else values + shifts[number]
            found[number] = np.median(np.repeat(moved, count))
    return found


def phase_fraction(intensity: Floats, second: NDArray[np.bool_], times: NDArray[np.int64]) -> tuple[float, Floats]:
    """Fraction of the integrated intensity in the second phase, and that of each resample (s,).

    It is the fraction of the diffracting volume if both phases have the same structure factors.
    """
    total = intensity.sum()
    value = float(intensity[second].sum() / total) if total > 0 else float("nan")
    with np.errstate(invalid="ignore", divide="ignore"):
        return value, (times @ np.where(second, intensity, 0.0)) / (times @ intensity)
