"""Distributions of the sizes and shapes of particles for each class, with intervals over images."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.statistics import resampled_limits

Floats = NDArray[np.float64]

#: Quantities whose distributions are computed, of those that the table has.
QUANTITIES = (
    "diameter_um", "diameter_px", "aspect", "roundness", "roughness", "crack_fraction", "brightness",
)  # fmt: skip
#: Columns of `distributions`.
COLUMNS = ("label", "quantity", "statistic", "value", "low", "high", "images", "particles")
_QUANTILES = {"d10": 0.1, "d50": 0.5, "d90": 0.9}


def distributions(table: pd.DataFrame, *, resamples: int, confidence: float, seed: int) -> pd.DataFrame:
    """Compute mean, standard deviation and quantiles of each quantity and class.

    Particles that the edge cuts are left out; the others count by their `weight`, which corrects for that. Intervals
    resample whole images, as particles of one image are alike.

    Parameters
    ----------
    table : DataFrame
        Particles: `name` of the image, `label`, `weight` (0: left out) and the quantities.
    resamples : int
        Number of bootstrap samples.
    confidence : float
        Confidence level of the intervals.
    seed : int

    Returns
    -------
    DataFrame
        Columns `COLUMNS`. Statistics: `mean`, `std`, the quantiles `d10`, `d50`, `d90` by number, and of diameters
        also `volume_d10`, `volume_d50`, `volume_d90`, in which a particle counts by its diameter cubed, as in laser
        diffraction. `low` and `high` are missing of a class with one image.
    """
    records = []
    used = table[table["weight"] > 0]
    for label, same in used.groupby("label", sort=True):
        for quantity in QUANTITIES:
            known = same[same[quantity].notna()]
            if known.empty:
                continue
            images, index = np.unique(known["name"].astype(str), return_inverse=True)
            values, weights = known[quantity].to_numpy(np.float64), known["weight"].to_numpy(np.float64)
            names, compute = _statistics(quantity, values, weights, index)
            exact = compute(np.ones((1, len(images))))[0]
            limits = np.full((len(names), 2), np.nan)
            if len(images) > 1:
                rng = np.random.default_rng([seed, *f"{label} {quantity}".encode()])
                strata = np.zeros(len(images), np.int64)
                limits = resampled_limits(compute, strata, samples=resamples, confidence=confidence, rng=rng)
            for name, value, (low, high) in zip(names, exact, limits, strict=True):
                records.append((label, quantity, name, value, low, high, len(images), len(known)))
    return pd.DataFrame(records, columns=list(COLUMNS))


def _statistics(
    quantity: str, values: Floats, weights: Floats, image: NDArray[np.int64]
) -> tuple[list[str], Callable[[Floats], Floats]]:
    """Names of the statistics, and a function that computes them (s, d) for weights of the images (s, m)."""
    order = np.argsort(values, kind="stable")
    values, weights, image = values[order], weights[order], image[order]
    by_volume = quantity.startswith("diameter")
    names = ["mean", "std", *_QUANTILES, *(f"volume_{name}" for name in _QUANTILES if by_volume)]

    def compute(of_images: Floats) -> Floats:
        found = np.empty((len(of_images), len(names)))
        for row, drawn in zip(found, of_images, strict=True):
            counted = weights * drawn[image]
            mean = np.average(values, weights=counted)
            row[:2] = mean, np.sqrt(np.average((values - mean) ** 2, weights=counted))
            row[2:5] = weighted_quantiles(values, counted, list(_QUANTILES.values()))
            if by_volume:
                row[5:] = weighted_quantiles(values, counted * values**3, list(_QUANTILES.values()))
        return found

    return names, compute


def weighted_quantiles(values: Floats, weights: Floats, levels: list[float]) -> Floats:
    """Return quantiles of sorted values with weights: the values at which the cumulative weight reaches the levels.

    Each value stands at the middle of its weight; between values the quantile is linear.

    Examples
    --------
    >>> weighted_quantiles(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0]), [0.5])
    array([2.33333333])
    """
    cumulated = np.cumsum(weights)
    result: Floats = np.interp(np.asarray(levels) * cumulated[-1], cumulated - weights / 2, values)
    return result
