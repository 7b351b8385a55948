"""How strange an image is to a network: the distance of its features from those of every known class."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cathodeflow.errors import InputError

Floats = NDArray[np.float32]


class FeatureStatistics(NamedTuple):
    """Where features of known images lie.

    means : (k, c) float32, of each class.
    whitening : (c, c) float32, turns differences of features into distances in deviations within a class.
    reference : (m,) float32, strangeness of known originals, ascending.
    """

    means: Floats
    whitening: Floats
    reference: Floats

    def limit(self, quantile: float) -> float:
        """Strangeness that this share of the reference originals stays below."""
        return float(np.quantile(self.reference, quantile))


def feature_statistics(features: ArrayLike, labels: ArrayLike, groups: ArrayLike) -> FeatureStatistics:
    """Measure where the features of each class lie (Lee et al., NeurIPS 2018: one covariance for all classes).

    The covariance is shrunk towards a multiple of the identity as far as Ledoit and Wolf (J. Multivar. Anal. 88, 365,
    2004) advise for as many samples as there are originals: crops of one are no independent samples.

    Parameters
    ----------
    features : (n, c) float
        Of crops to learn from.
    labels : (n,) int
        Class of each, 0..k-1, none without crops.
    groups : (n,)
        Original that each comes from.

    Returns
    -------
    FeatureStatistics
        With the strangeness of these originals as reference; `with_reference` sets that of others.

    Raises
    ------
    InputError
        When a class is missing or features are not finite.
    """
    values, numbers = np.asarray(features, np.float64), np.asarray(labels)
    if not np.isfinite(values).all():
        raise InputError("features", "values that are not finite", "finite ones")
    counts = np.bincount(numbers)
    if len(values) == 0 or (counts == 0).any():
        raise InputError("features", f"crops of {np.count_nonzero(counts)} classes", f"crops of all {len(counts)}")
    means = np.stack([values[numbers == label].mean(0) for label in range(len(counts))])
    inside = values - means[numbers]
    covariance = _shrunk(inside, len(np.unique(np.asarray(groups))))
    variances, axes = np.linalg.eigh(covariance)
    whitening = axes / np.sqrt(variances)
    known = FeatureStatistics(means.astype(np.float32), whitening.astype(np.float32), np.zeros(0, np.float32))
    return with_reference(known, values, groups)


def with_reference(statistics: FeatureStatistics, features: ArrayLike, groups: ArrayLike) -> FeatureStatistics:
    """Set the originals that strangeness is compared with; not those trained on, which a network knows too well."""
    return statistics._replace(reference=np.sort(strangeness(group_means(features, groups), statistics)))


def strangeness(features: ArrayLike, statistics: FeatureStatistics) -> Floats:
    """Mahalanobis distance to the nearest class.

    Parameters
    ----------
    features : (n, c) float
        Of an original the mean over its crops.
    statistics : FeatureStatistics

    Returns
    -------
    (n,) float32
        In deviations within a class, of which each of the c features adds its own.
    """
    values = np.asarray(features, np.float64) @ statistics.whitening
    means = statistics.means.astype(np.float64) @ statistics.whitening
    squares = (values**2).sum(1)[:, None] + (means**2).sum(1) - 2 * values @ means.T
    return np.sqrt(np.maximum(squares.min(1), 0)).astype(np.float32)


def group_means(features: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
    """Mean features of each group.

    Returns
    -------
    (m, c) float64
        In the order of the sorted groups.
    """
    values = np.asarray(features, np.float64)
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    totals = np.zeros((len(names), values.shape[1]))
    np.add.at(totals, number, values)
    return totals / np.bincount(number)[:, None]


def _shrunk(inside: NDArray[np.float64], independent: int) -> NDArray[np.float64]:
    """Covariance of centred samples, shrunk."""
    n, c = inside.shape
    sample = inside.T @ inside / n
    mean = max(float(np.trace(sample)) / c, np.finfo(np.float32).tiny)
    square = float((sample**2).sum())
    distance = square - c * mean**2
    noise = (float(((inside**2).sum(1) ** 2).mean()) - square) / independent
    share = float(np.clip(noise / distance, 0, 1)) if distance > 0 else 1.0
    # Never none at all: features that never vary must not make every other image infinitely far.
    share = max(share, 1e-3)
    shrunk: NDArray[np.float64] = (1 - share) * sample + share * mean * np.eye(c)
    return shrunk
