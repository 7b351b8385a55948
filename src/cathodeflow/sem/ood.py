"""Out-of-distribution (OOD) score of an image: the distance of its features from those of the training classes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cathodeflow.errors import InputError

Floats = NDArray[np.float32]


class FeatureStatistics(NamedTuple):
    """Distribution of the features of known images.

    means : (k, c) float32, of each class.
    whitening : (c, c) float32, scales differences of features to standard deviations within a class.
    reference : (m,) float32, OOD scores of known originals, ascending.
    """

    means: Floats
    whitening: Floats
    reference: Floats

    def threshold(self, quantile: float) -> float:
        """OOD threshold: this quantile of the scores of the reference originals."""
        return float(np.quantile(self.reference, quantile))


def feature_statistics(features: ArrayLike, labels: ArrayLike, groups: ArrayLike) -> FeatureStatistics:
    """Measure mean and covariance of the features (Lee et al., NeurIPS 2018: one covariance for all classes).

    The covariance is shrunk towards a multiple of the identity as Ledoit and Wolf (J. Multivar. Anal. 88, 365, 2004)
    recommend, with the number of originals as the number of samples: crops of one original are not independent.

    Parameters
    ----------
    features : (n, c) float
        Features of training crops.
    labels : (n,) int
        Class of each crop, 0..k-1; every class has crops.
    groups : (n,)
        Original of each crop.

    Returns
    -------
    FeatureStatistics
        With the scores of these originals as reference; `with_reference` replaces them by those of other originals.

    Raises
    ------
    InputError
        A class is missing, or features are not finite.
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
    """Set the originals whose scores define the threshold; not training images, whose scores are too low."""
    return statistics._replace(reference=np.sort(ood_score(group_means(features, groups), statistics)))


def ood_score(features: ArrayLike, statistics: FeatureStatistics) -> Floats:
    """Compute the OOD score: the Mahalanobis distance to the nearest class.

    Parameters
    ----------
    features : (n, c) float
        For an original, the mean over its crops.
    statistics : FeatureStatistics

    Returns
    -------
    (n,) float32
        In standard deviations within a class, to which each of the c features contributes.
    """
    # Differences from the centre of the classes are small enough for float32, in which nothing has to be converted.
    centre = statistics.means.mean(0, dtype=np.float64)
    values = (np.asarray(features, np.float64) - centre).astype(np.float32) @ statistics.whitening
    means = (statistics.means - centre).astype(np.float32) @ statistics.whitening
    squares = [((values - mean).astype(np.float64) ** 2).sum(1) for mean in means]
    return np.sqrt(np.min(squares, axis=0)).astype(np.float32)


def group_means(features: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
    """Average the features of each group.

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
    """Shrunk covariance of centred samples."""
    n, c = inside.shape
    sample = inside.T @ inside / n
    mean = max(float(np.trace(sample)) / c, np.finfo(np.float32).tiny)
    square = float((sample**2).sum())
    distance = square - c * mean**2
    noise = (float(((inside**2).sum(1) ** 2).mean()) - square) / independent
    weight = float(np.clip(noise / distance, 0, 1)) if distance > 0 else 1.0
    # Never zero: constant features must not make the distance of every other image infinite.
    weight = max(weight, 1e-3)
    shrunk: NDArray[np.float64] = (1 - weight) * sample + weight * mean * np.eye(c)
    return shrunk
