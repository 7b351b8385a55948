"""Volumes that are computed image by image, while they are written."""

from collections.abc import Callable, Sequence
from typing import Any

import dask.array as da
import numpy as np
from dask import delayed
from numpy.typing import DTypeLike, NDArray


def by_image(
    compute: Callable[[int], NDArray[Any]], numbers: Sequence[int], shape: Sequence[int], dtype: DTypeLike
) -> da.Array:
    """Array (image, ...) of which each image is computed when it is written.

    Parameters
    ----------
    compute : (number) -> (1, *shape) array
    numbers : sequence of int
        Of the images, in order.
    shape : sequence of int
        Of one image.
    dtype
        That the values are brought to.
    """
    one = delayed(lambda number: np.asarray(compute(number)).astype(dtype, copy=False), pure=False)
    return da.concatenate([da.from_delayed(one(number), (1, *shape), dtype=dtype) for number in numbers])
