"""How training slices look, stored with a model; and how new slices look compared with them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.fibsem.global_network import GlobalNetwork
from cathodeflow.fibsem.grey_matching import Matching, gaussian_reference, grey_reference, match_grey
from cathodeflow.fibsem.image_features import FEATURES, feature_distances, feature_reference, slice_features
from cathodeflow.fibsem.patch_features import patch_distances, patch_features, patch_reference

# Slices of a volume that are summarised, and of new slices that are compared.
_TRAINING, _NEW = 32, 16
# Change of the mean [standard deviations], and ratio of the standard deviations, from which on there is a warning.
_BRIGHTNESS, _CONTRAST = 1.0, 1.5
# Part of the slices that are unlike the training, from which on there is a warning.
_UNLIKE = 0.5

ReadSlice = Callable[[int], NDArray[Any]]


class Comparison(NamedTuple):
    """New slices compared with the training slices.

    record : figures for the record.
    warnings : lines for the log and the figures; none if the slices are like the training slices.
    """

    record: dict[str, float]
    warnings: list[str]


def training_appearance(
    slices: ReadSlice, labels: ReadSlice, volumes: Sequence[Sequence[int]], n_classes: int
) -> list[dict[str, Any]]:
    """Summarise the training slices of each volume.

    Parameters
    ----------
    slices, labels : callable
        From the number of an image to its intensities and labels, (row, col) each.
    volumes : sequence of sequence of int
        Numbers of the training images of each volume.
    n_classes : int

    Returns
    -------
    list of dict
        JSON data for each volume: `grey` of `grey_matching.grey_reference`, `features` of
        `image_features.feature_reference`, and `patches` of `patch_features.patch_reference`.
    """
    found = []
    for numbers in volumes:
        some = [numbers[k] for k in _spread(len(numbers), _TRAINING)]
        images = [np.asarray(slices(number)) for number in some]
        grey = grey_reference(zip(images, map(labels, some), strict=True), n_classes)
        features = [slice_features(image, grey["mean"], grey["deviation"]) for image in images]
        patches = [patch_features(image, grey["mean"], grey["deviation"]) for image in images]
        found.append({"grey": grey, "features": feature_reference(features), "patches": patch_reference(patches)})
    return found


def compared_slices(slices: ReadSlice, numbers: Sequence[int]) -> list[NDArray[Any]]:
    """Read the slices of a volume that are compared with the training slices: some of the numbers, evenly spread."""
    return [np.asarray(slices(numbers[k])) for k in (_spread(len(numbers), _NEW) if numbers else ())]


def matching_of(
    images: Sequence[NDArray[Any]],
    network: GlobalNetwork,
    metadata: Mapping[str, Any],
    *,
    how: str,
    dtype: Any,
) -> Matching:
    """Find the gain and the offset with which slices enter a network.

    Parameters
    ----------
    images : sequence of (row, col) array
        Of `compared_slices` [grey].
    network : GlobalNetwork
    metadata : mapping
        Of its model file: `appearance` (of `training_appearance`; models of earlier versions have none), `grey`, the
        data type of the training slices, and `levelled`: whether each slice is normalised by itself.
    how : {"auto", "always", "never"}
        `predict.match_intensity`.
    dtype : dtype
        Of the slices.
    """
    if metadata["levelled"] or how == "never":
        return Matching(1.0, 0.0)
    references = [one["grey"] for one in metadata.get("appearance", [])]
    references = references or [gaussian_reference(float(network.grey_mean), float(network.grey_deviation))]
    values = np.concatenate([image.ravel() for image in images])
    same = how == "auto" and str(np.dtype(dtype)) == metadata["grey"]
    return match_grey(values, references, same_scale=same)


def compare_slices(
    images: Sequence[NDArray[Any]], matching: Matching, appearance: Sequence[Mapping[str, Any]], *, same_scale: bool
) -> Comparison:
    """Compare new slices with the training slices.

    Parameters
    ----------
    images : sequence of (row, col) array
        Of `compared_slices`; normalised, where the training was.
    matching : Matching
        Gain and offset with which they enter the network.
    appearance : sequence of mapping
        Of `training_appearance`.
    same_scale : bool
        Whether the intensities have the data type of the training slices.

    Returns
    -------
    Comparison
        `brightness_change`: difference of the means before matching [standard deviations of the training];
        `contrast_ratio`: ratio of the standard deviations; `intensity_gain` and `intensity_offset`;
        `feature_distance`, the median over the slices, and its usual limit `feature_limit`; `patch_distance` and
        `patch_limit`; and `unlike_fraction`, the fraction of slices with a distance above its limit.
    """
    grey = appearance[matching.volume]["grey"]
    values = np.stack(images).astype(np.float64)
    brightness = (float(values.mean()) - grey["mean"]) / grey["deviation"]
    contrast = float(values.std()) / grey["deviation"]
    matched = [matching.gain * image + matching.offset for image in values]
    features = [slice_features(image, grey["mean"], grey["deviation"]) for image in matched]
    distances = feature_distances(features, [one["features"] for one in appearance])
    median = sorted(distances, key=lambda one: one.value)[len(distances) // 2]
    record = {
        "brightness_change": brightness, "contrast_ratio": contrast, "intensity_gain": matching.gain,
        "intensity_offset": matching.offset, "feature_distance": median.value, "feature_limit": median.limit,
    }  # fmt: skip
    unlike = [one.far for one in distances]
    patchy = ""
    # Models of earlier versions have no patches.
    if all("patches" in one for one in appearance):
        tables = [patch_features(image, grey["mean"], grey["deviation"]) for image in matched]
        near = patch_distances(tables, [one["patches"] for one in appearance])
        unlike = [first or second.far for first, second in zip(unlike, near, strict=True)]
        middle = sorted(near)[len(near) // 2]
        record |= {"patch_distance": middle.value, "patch_limit": middle.limit}
        patchy = f"; of patches {middle.value:.2g}, usual up to {middle.limit:.2g}"
    record["unlike_fraction"] = sum(unlike) / len(unlike)
    warnings = []
    if same_scale and (abs(brightness) > _BRIGHTNESS or not 1 / _CONTRAST < contrast < _CONTRAST):
        used = "used as it is" if matching.identity else "matched to the training"
        warnings.append(
            f"the intensity differs from that of the training slices: mean {values.mean():.4g} instead of "
            f"{grey['mean']:.4g}, standard deviation {values.std():.4g} instead of {grey['deviation']:.4g}; {used}"
        )
    if sum(unlike) >= _UNLIKE * len(unlike):
        named = [one.feature for one in distances]
        most = max(FEATURES, key=named.count)
        warnings.append(
            f"the images are unlike the training images in {sum(unlike)} of {len(unlike)} compared slices (distance of "
            f"features {median.value:.2g}, usual up to {median.limit:.2g}, mainly {most}{patchy}): check the phases, "
            "or add labelled slices of this kind to the training"
        )
    return Comparison(record, warnings)


def _spread(n: int, count: int) -> list[int]:
    """Return at most `count` numbers of 0 to n - 1, evenly spread; none of none."""
    return np.unique(np.linspace(0, n - 1, min(n, count)).astype(int)).tolist()
