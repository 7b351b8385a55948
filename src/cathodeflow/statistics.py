"""Statistics that several techniques use: median, intervals of fractions and of metrics, bins of confidence."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

# Maximum number of weights that the resampling keeps in memory.
_TOGETHER = 2**23


def median(values: ArrayLike) -> float | None:
    """Return the median, or None of nothing.

    Examples
    --------
    >>> median([1.0, 4.0, 2.0]), median([])
    (2.0, None)
    """
    values = np.asarray(values)
    return float(np.median(values)) if values.size else None


def wilson(right: int, count: int, *, confidence: float = 0.95, independent: int | None = None) -> tuple[float, float]:
    """Return the ends of the Wilson interval of a fraction; NaN if `count` is 0.

    With a number of independent units, such as fields of view of several images each, the fraction is taken as if it
    were of that many.

    Examples
    --------
    >>> [round(end, 3) for end in wilson(9, 10)]
    [0.596, 0.982]
    >>> [round(end, 3) for end in wilson(18, 20, independent=10)]
    [0.596, 0.982]
    """
    if not count:
        return float("nan"), float("nan")
    from scipy.special import ndtri  # takes longer to import than most stages that need a median

    n, fraction, z = independent or count, right / count, float(ndtri((1 + confidence) / 2))
    centre = (fraction + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (fraction * (1 - fraction) / n + z**2 / (4 * n**2)) ** 0.5
    # At the ends the limits are 0 and 1, up to rounding.
    low, high = (0.0 if right == 0 else centre - half), (1.0 if right == count else centre + half)
    return max(low, 0.0), min(high, 1.0)


def confidence_bins(confidence: ArrayLike, bins: int) -> NDArray[np.int64]:
    """Return the index of the bin of each confidence, of `bins` equal bins of 0..1; an upper edge belongs to its bin.

    Examples
    --------
    >>> confidence_bins([0.0, 0.5, 0.51, 1.0], 2)
    array([0, 0, 1, 1])
    """
    index = np.searchsorted(np.linspace(0, 1, bins + 1), np.asarray(confidence), side="left") - 1
    return np.clip(index, 0, bins - 1).astype(np.int64)


def resampled_limits(
    figures: Callable[[Float64], Float64],
    strata: NDArray[np.int64],
    *,
    samples: int,
    confidence: float,
    rng: np.random.Generator,
    unbiased: NDArray[np.floating] | None = None,
) -> Float64:
    """Return confidence limits of figures by resampling units within each stratum.

    Of n units n - 1 are drawn and weighted accordingly, which gives the correct variance for small strata [1]_. A
    stratum with a single unit always has it.

    Parameters
    ----------
    figures : callable
        Returns the figures (s, d) for weights (s, m) of the units; NaN where a figure is undefined for these units.
    strata : (m,) int
        Stratum of each unit.
    samples : int
        Number of resamples.
    confidence : float
        Confidence level of the intervals.
    rng : Generator
    unbiased : (d,), optional
        Values of figures that resampling moves, such as calibration errors, which further noise increases: their limits
        are shifted so that the median of the samples has this value. NaN leaves the limits of a figure.

    Returns
    -------
    (d, 2) float64
        Lower and upper limits over the samples in which the figure is defined; NaN if there are none.

    References
    ----------
    .. [1] J. N. K. Rao, C. F. J. Wu, J. Am. Stat. Assoc. 83, 231 (1988)
    """
    drawn, left, chunk = [], samples, max(_TOGETHER // len(strata), 1)
    while left > 0:
        drawn.append(figures(_resampled(strata, min(chunk, left), rng)))
        left -= chunk
    values = np.concatenate(drawn)
    known = np.isfinite(values).any(axis=0)
    limits = np.full((values.shape[1], 2), np.nan)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    limits[known] = np.nanquantile(values[:, known], ends, axis=0).T
    if unbiased is not None:
        moved = known & np.isfinite(unbiased)
        limits[moved] += (np.asarray(unbiased)[moved] - np.nanmedian(values[:, moved], axis=0))[:, None]
    return limits


def _resampled(strata: NDArray[np.int64], samples: int, rng: np.random.Generator) -> Float64:
    """Weights (samples, m) of units drawn within their strata."""
    weights = np.ones((samples, len(strata)))
    for number in np.unique(strata):
        members = np.flatnonzero(strata == number)
        n = len(members)
        if n > 1:
            weights[:, members] = rng.multinomial(n - 1, np.full(n, 1 / n), size=samples) * (n / (n - 1))
    return weights
