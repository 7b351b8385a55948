"""Choice of the method of `auto`: on the validation set, or by cross-validation where labels are few."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cathodeflow.fibsem.methods import Method
from cathodeflow.fibsem.slice_counts import mean_iou


def selection_scores(
    methods: Sequence[Method],
    validation: Mapping[str, NDArray[np.float64]],
    out_of_fold: Mapping[str, NDArray[np.float64]],
) -> dict[str, float]:
    """Compute the mIoU by which `auto` chooses a method.

    Parameters
    ----------
    methods : sequence of Method
    validation : mapping
        Confusion matrix (class, class) of each method on the validation images.
    out_of_fold : mapping
        Confusion matrix of each global network on the training images, each predicted by the network of a fold that was
        trained without it; empty where labels are not few.

    Returns
    -------
    dict of float
        By method. Without cross-validation, the mIoU on the validation images. With it, of a method without pixel
        networks that on training and validation images together. Pixel networks (IDK classifier, LCGAR) are trained on
        the out-of-fold predictions themselves, so the score of such a method is that of its global network plus what
        it gains on the validation images.
    """
    plain = {name: float(mean_iou(counts)) for name, counts in validation.items()}
    if not out_of_fold:
        return plain
    scores = {name: float(mean_iou(counts + validation[name])) for name, counts in out_of_fold.items()}
    for method in methods:
        if method.name not in scores:
            scores[method.name] = scores[method.network] + plain[method.name] - plain[method.network]
    return {method.name: scores[method.name] for method in methods}
