"""Gain and offset that bring the intensities of new slices to those of the training slices.

Means and standard deviations depend on the phase fractions, which may differ between the specimens. So the histogram of
new slices is explained as a mixture of the histograms of the phases in the training slices, with fractions of its own
(maximum a posteriori), and the gain and the offset are those that explain it best.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize

from cathodeflow.errors import InputError

Float64 = NDArray[np.float64]

# Bins of the histograms, the part of the range of intensities that they extend beyond it, and their smoothing [bins].
_BINS, _MARGIN, _SMOOTHING = 256, 0.5, 2.0
# Quantiles that stand for all intensities of new slices.
_QUANTILES = 256
# Part of the pixels that may have any intensity: charging, marks, dirt.
_OUTLIERS = 0.01
# Weight of the fractions of the training slices as a prior, in parts of all pixels; iterations for the fractions.
_PRIOR, _ITERATIONS = 0.05, 30
# Improvement of the log-likelihood [nat/pixel] and change [standard deviations] below which intensities are left as
# they are: differences between parts of a volume, which the augmentation of the training covers.
_NO_GAIN, _NO_CHANGE = 0.01, 0.15
# Differences of quantiles up to which histograms are the same without any fit [standard deviations].
_ALIKE = 0.1
# Largest gain between slices of one data type; a larger one would turn the noise of a single phase into phases.
_MOST = 2.0
# Factors on the standard deviation from which the fit starts.
_STARTS = (0.7, 1.0, 1.4)


class Matching(NamedTuple):
    """Matched intensity: gain * intensity + offset.

    gain, offset : of the intensity; 1 and 0 if slices are used as they are.
    volume : number of the volume in the training set whose intensities are nearest.
    """

    gain: float
    offset: float
    volume: int = 0

    @property
    def identity(self) -> bool:
        """Whether intensities are left as they are."""
        return self.gain == 1 and self.offset == 0


def grey_reference(pairs: Iterable[tuple[NDArray[Any], NDArray[np.uint8]]], n_classes: int) -> dict[str, Any]:
    """Summarise the intensities of the training slices of a volume.

    Parameters
    ----------
    pairs : iterable of (slice, labels), (row, col) each
        Some of the slices; labels other than classes do not count for the histograms of classes.
    n_classes : int

    Returns
    -------
    dict
        JSON data: `mean` and `deviation` of the intensity; `low` and `high` edges of the histograms; `density` of the
        intensity of each class, in each bin; `fractions` of the classes.

    Raises
    ------
    InputError
        The slices have no contrast.
    """
    slices, labels = (np.stack(part) for part in zip(*pairs, strict=True))
    grey = slices.astype(np.float64)
    low, high = np.quantile(grey, (0.001, 0.999))
    if not high > low:
        raise InputError("training slices", f"the intensity {low:g} in nearly every pixel", "some contrast")
    edges = np.linspace(low - _MARGIN * (high - low), high + _MARGIN * (high - low), _BINS + 1)
    width = edges[1] - edges[0]
    density, counts = [], []
    for index in range(n_classes):
        own = grey[labels == index]
        counts.append(len(own))
        histogram = np.histogram(own, edges)[0] / max(len(own), 1) / width
        density.append(np.round(gaussian_filter1d(histogram, _SMOOTHING, mode="constant"), 9).tolist())
    return {
        "mean": float(grey.mean()),
        "deviation": float(grey.std()),
        "low": float(edges[0]),
        "high": float(edges[-1]),
        "density": density,
        "fractions": (np.array(counts) / max(sum(counts), 1)).tolist(),
    }


def gaussian_reference(mean: float, deviation: float) -> dict[str, Any]:
    """Summary of intensities of which only mean and standard deviation are known, in models of earlier versions."""
    low, high = mean - 6 * deviation, mean + 6 * deviation
    centres = np.linspace(low, high, 2 * _BINS + 1)[1::2]
    density = np.exp(-0.5 * ((centres - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    return {"mean": mean, "deviation": deviation, "low": low, "high": high, "density": [density], "fractions": [1.0]}


def match_grey(values: NDArray[Any], references: Sequence[Mapping[str, Any]], *, same_scale: bool) -> Matching:
    """Find the gain and the offset that bring intensities to those of the training slices.

    Parameters
    ----------
    values : array
        Intensities of some of the new slices [grey].
    references : sequence of mapping
        Of `grey_reference`, one for each volume of the training set; the one that fits best is used.
    same_scale : bool
        Whether intensities of both may be the same without matching: not where the data types differ. Then small
        changes, and gains beyond a factor of 2, are left out.

    Raises
    ------
    InputError
        All intensities are the same.
    """
    levels = np.quantile(np.asarray(values, np.float64), (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    if not levels[-1] > levels[0]:
        raise InputError("slices", f"the intensity {levels[0]:g} in every pixel", "some contrast")
    fits = []
    for number, one in enumerate(references):
        mixture = _Mixture(one)
        if same_scale and mixture.resembles(levels):
            return Matching(1.0, 0.0, number)
        unchanged = mixture.loss(levels, 1.0, 0.0) if same_scale else np.inf
        loss, gain, offset = _best(mixture, levels)
        inner = levels[len(levels) // 20 : -len(levels) // 20]
        change = np.abs(gain * inner + offset - inner).max() / mixture.deviation
        likely = not same_scale or 1 / _MOST < gain < _MOST
        if unchanged - loss < _NO_GAIN or (same_scale and change < _NO_CHANGE) or not likely:
            # Preferred to a little better fit to another volume.
            loss, gain, offset = unchanged - _NO_GAIN, 1.0, 0.0
        fits.append((loss, Matching(float(gain), float(offset), number)))
    return min(fits, key=lambda fit: fit[0])[1]


class _Mixture:
    """Mixture of the histograms of the classes, with fractions that fit."""

    def __init__(self, reference: Mapping[str, Any]) -> None:
        self.mean, self.deviation = float(reference["mean"]), float(reference["deviation"])
        self._centres = np.linspace(reference["low"], reference["high"], 2 * _BINS + 1)[1::2]
        self._density = np.array(reference["density"])
        self._fractions = np.array(reference["fractions"])
        # Wide enough for any intensity, so that outliers have some probability wherever they are.
        self._floor = _OUTLIERS / (reference["high"] - reference["low"])

    def quantile(self, level: float) -> float:
        """Intensity below which this part of the training pixels is."""
        cumulative = np.cumsum(self._fractions @ self._density)
        return float(np.interp(level * cumulative[-1], cumulative, self._centres))

    def resembles(self, levels: Float64) -> bool:
        """Whether the quantiles of the intensities are those of the training slices."""
        steps = np.linspace(0.05, 0.95, 10)
        own = np.array([self.quantile(level) for level in steps])
        return bool(np.abs(np.quantile(levels, steps) - own).max() < _ALIKE * self.deviation)

    def loss(self, levels: Float64, gain: float, offset: float) -> float:
        """Mean negative logarithm of the posterior density of the intensities [nat]."""
        if gain <= 0:
            return np.inf
        moved = gain * levels + offset
        likely = np.stack([np.interp(moved, self._centres, one, left=0, right=0) for one in self._density])
        fractions = self._fractions.copy()
        for _ in range(_ITERATIONS):
            parts = fractions[:, None] * likely
            total = (1 - _OUTLIERS) * parts.sum(0) + self._floor
            fractions = ((1 - _OUTLIERS) * parts / total).mean(1) + _PRIOR * self._fractions
            fractions /= fractions.sum()
        total = (1 - _OUTLIERS) * (fractions[:, None] * likely).sum(0) + self._floor
        prior = self._fractions[self._fractions > 0] @ np.log(fractions[self._fractions > 0])
        return float(-np.log(total).mean() - np.log(gain) - _PRIOR * prior)


def _best(mixture: _Mixture, levels: Float64) -> tuple[float, float, float]:
    """Loss, gain and offset of the best fit, from several gains around that of the quartiles."""
    quartiles = np.quantile(levels, (0.25, 0.5, 0.75))
    own = [mixture.quantile(level) for level in (0.25, 0.5, 0.75)]
    usual = (own[2] - own[0]) / max(quartiles[2] - quartiles[0], 1e-9 * np.abs(levels).max(), 1e-300)

    def loss(parameters: Float64) -> float:
        gain = usual * np.exp(parameters[0])
        return mixture.loss(levels, gain, own[1] - gain * quartiles[1] + parameters[1] * mixture.deviation)

    simplex = np.array([[0, 0], [0.2, 0], [0, 0.3]])
    options = {"maxfev": 120, "xatol": 1e-3, "fatol": 1e-5}
    found = []
    for factor in _STARTS:
        start = np.array([np.log(factor), 0.0])
        chosen = options | {"initial_simplex": start + simplex}
        found.append(minimize(loss, start, method="Nelder-Mead", options=chosen))
    best = min(found, key=lambda result: result.fun)
    gain = usual * np.exp(best.x[0])
    return float(best.fun), float(gain), float(own[1] - gain * quartiles[1] + best.x[1] * mixture.deviation)
