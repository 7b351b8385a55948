"""Features of slices, and their distance from those of the training slices, which is large for unlike images."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Float64 = NDArray[np.float64]

#: Standard deviations of the Gaussian filters whose differences are the bands [px].
SCALES = (0.0, 0.7, 1.4, 2.8, 5.6, 11.2)
#: Names of the features, in order.
FEATURES = (
    *(f"quantile {level}" for level in (0.05, 0.25, 0.5, 0.75, 0.95)),
    *(f"band {first:g} to {second:g} px" for first, second in pairwise(SCALES)),
    *(f"skewness of band {first:g} to {second:g} px" for first, second in pairwise(SCALES)),
    *(f"kurtosis of band {first:g} to {second:g} px" for first, second in pairwise(SCALES)),
)
# Standard deviation of each kind of feature that slices of one material may have anyway.
_FLOOR = (0.3, 0.15, 0.15, 0.15)
# Distances up to this multiple of those of nearly all training slices from the others are usual.
_MARGIN, _NEARLY_ALL = 1.5, 0.9
# Blocks of training slices for this comparison.
_BLOCKS = 4
# Standard deviation of a Gaussian distribution, as a multiple of its median absolute deviation.
_GAUSSIAN = 1.4826
# Side of the part of a slice from which features are computed [px].
_SIDE = 512


class Distance(NamedTuple):
    """Distance of an image from the training slices.

    value : root mean square of the differences of the features, in standard deviations between training slices.
    limit : distance above which the images are unlike the training.
    feature : name of the feature that differs most.
    """

    value: float
    limit: float
    feature: str

    @property
    def far(self) -> bool:
        """Whether the image is unlike the training."""
        return self.value > self.limit


def slice_features(image: NDArray[Any], mean: float, deviation: float) -> Float64:
    """Compute the features of one slice, whose intensity is matched to that of the training.

    Parameters
    ----------
    image : (row, col) real
        Intensity [grey]; of large slices the middle is used.
    mean, deviation : float
        Of the intensity of the training slices [grey].

    Returns
    -------
    (feature,) float64
        Quantiles of the normalised intensity; for each band of a difference of Gaussians the logarithm of its standard
        deviation relative to that of the slice, which shows the size of structures, noise and blur; its skewness, which
        changes its sign if bright and dark are exchanged; and the logarithm of its kurtosis, which shows whether edges
        are sharp.
    """
    middle = tuple(slice(max(0, (side - _SIDE) // 2), (side + _SIDE) // 2) for side in image.shape)
    z = (np.asarray(image[middle], np.float64) - mean) / deviation
    # Outliers, such as hot pixels and marks, would decide the bands.
    low, high = np.quantile(z, (0.002, 0.998))
    clipped = np.clip(z, low, high)
    spread = max(float(clipped.std()), 1e-9)
    smooth = [gaussian_filter(clipped, scale, mode="reflect") for scale in SCALES]
    bands, skews, shapes = [], [], []
    for fine, coarse in pairwise(smooth):
        band = fine - coarse
        power = max(float((band**2).mean()), 1e-12)
        bands.append(0.5 * np.log(power) - np.log(spread))
        skews.append(float((band**3).mean()) / power**1.5)
        shapes.append(np.log(max(float((band**4).mean()) / power**2, 1e-12)))
    return np.array([*np.quantile(z, (0.05, 0.25, 0.5, 0.75, 0.95)), *bands, *skews, *shapes])


def feature_reference(features: Sequence[Float64]) -> dict[str, Any]:
    """Summarise the features of training slices.

    Parameters
    ----------
    features : sequence of (feature,)
        Of `slice_features`, one per slice, in the order of the stack.

    Returns
    -------
    dict
        JSON data: `centre` and `deviation` of each feature (median, and standard deviation from the median of the
        differences, so that single slices do not decide), and the `limit` of the distance, from the distances of
        the slices of each of four blocks from those of the other blocks.
    """
    table = np.stack(features)
    centre, deviation = _centre(table)
    usual = []
    if len(table) > 1:
        # Neighbouring slices resemble each other, so whole blocks of them are compared with the rest.
        for block in np.array_split(np.arange(len(table)), min(_BLOCKS, len(table))):
            rest = _centre(np.delete(table, block, axis=0))
            usual += [_distance(table[number], *rest)[0] for number in block]
    limit = max(1.0, _MARGIN * float(np.quantile(usual, _NEARLY_ALL))) if usual else 1.0
    return {"centre": centre.tolist(), "deviation": deviation.tolist(), "limit": limit}


def feature_distances(features: Iterable[Float64], references: Sequence[Mapping[str, Any]]) -> list[Distance]:
    """Compute the distance of each image from the training slices.

    Parameters
    ----------
    features : iterable of (feature,)
        Of `slice_features`.
    references : sequence of mapping
        Of `feature_reference`, one for each volume; the nearest one counts.
    """
    found = []
    for own in features:
        distances = []
        for one in references:
            value, index = _distance(own, np.array(one["centre"]), np.array(one["deviation"]))
            distances.append(Distance(value, float(one["limit"]), FEATURES[index]))
        found.append(min(distances, key=lambda distance: distance.value / distance.limit))
    return found


def _centre(table: Float64) -> tuple[Float64, Float64]:
    centre = np.median(table, axis=0)
    return centre, _GAUSSIAN * np.median(np.abs(table - centre), axis=0)


def _distance(own: Float64, centre: Float64, deviation: Float64) -> tuple[float, int]:
    bands = len(SCALES) - 1
    floor = np.repeat(_FLOOR, (len(FEATURES) - 3 * bands, bands, bands, bands))
    score = np.abs(own - centre) / np.hypot(deviation, floor)
    return float(np.sqrt((score**2).mean())), int(score.argmax())
