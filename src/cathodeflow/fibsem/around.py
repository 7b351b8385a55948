"""Which images show the neighbours of a slice, among images of slices and their copies."""

import numpy as np
from numpy.typing import NDArray


def neighbours_of(slices: NDArray[np.integer], copies: NDArray[np.integer], context: int) -> NDArray[np.int64]:
    """Tell which images show the neighbouring slices of each image's slice, in the same copy.

    Parameters
    ----------
    slices, copies : (n,) int
        Of each image.
    context : int
        1, 3 or 5.

    Returns
    -------
    (n, context) int
        Where a neighbour is missing, the nearest image in its place that there is.

    Examples
    --------
    >>> neighbours_of(np.array([4, 5, 6]), np.zeros(3, int), 3).tolist()
    [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
    """
    place = {key: number for number, key in enumerate(zip(slices.tolist(), copies.tolist(), strict=True))}
    out = np.empty((len(slices), context), np.int64)
    for (number, copy), row in place.items():
        out[row, context // 2] = row
        for step in (-1, 1):
            nearest = row
            for distance in range(1, context // 2 + 1):
                nearest = place.get((number + step * distance, copy), nearest)
                out[row, context // 2 + step * distance] = nearest
    return out
