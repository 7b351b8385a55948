"""Cross-fitting: predictions of networks that were trained without the slice, on one common scale."""

from collections.abc import Callable, Sequence
from typing import Any

import dask.array as da
import numpy as np
from dask import delayed
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

# Images on which scales are compared; more images hardly change the scales.
_COMPARED = 16


def matched_scales(
    predict: Callable[[str, int], Tensor], names: Sequence[str], images: Sequence[int]
) -> dict[str, float]:
    """Compute factors that bring the logits of several networks to the scale of the first network.

    A classifier that is trained on logits of several networks, and applied to those of one, must not be able to
    recognise a network by the scale of its logits: the confidence of a network depends on the number of slices and
    steps that it was trained with.

    Parameters
    ----------
    predict : (name, image) -> (1, n_classes, row, col) logits
    names : sequence of str
        Networks; the factor of the first one is 1.
    images : sequence of int
        Images that no network was trained on. Without images, or without contrast in the logits, all factors are 1.

    Returns
    -------
    dict of float
        Ratio of the mean standard deviation of the logits of a pixel over the classes.
    """
    some = images[:: max(1, -(-len(images) // _COMPARED))]
    spread = {name: sum(float(predict(name, image).std(1).mean()) for image in some) for name in names}
    first = spread[names[0]]
    return {name: first / value if first and value else 1.0 for name, value in spread.items()}


def by_image(
    compute: Callable[[int], NDArray[Any]], indices: Sequence[int], shape: Sequence[int], dtype: DTypeLike
) -> da.Array:
    """Array (image, ...) whose images are computed when they are written.

    Parameters
    ----------
    compute : (index) -> (1, *shape) array
    indices : sequence of int
        Of the images, in order.
    shape : sequence of int
        Of one image.
    dtype
        Type of the array.
    """
    image = delayed(lambda index: np.asarray(compute(index)).astype(dtype, copy=False), pure=False)
    return da.concatenate([da.from_delayed(image(index), (1, *shape), dtype=dtype) for index in indices])
