"""Classes from label images: label values or colours to class indices."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Label of pixels without a label.
UNLABELLED = 255


def to_classes(
    labels: NDArray[Any], values: Sequence[int], ignore: int | None
) -> tuple[NDArray[np.uint8], list[float]]:
    """Convert the values of a label image to class indices.

    Parameters
    ----------
    labels : (row, col)
    values : sequence of int
        Values of the classes.
    ignore : int, optional
        Value of pixels without a label.

    Returns
    -------
    classes : (row, col) uint8
        `UNLABELLED` for pixels without a label.
    unknown : list of float
        Values that belong to no class.

    Examples
    --------
    >>> to_classes(np.array([[0, 255], [128, 7]]), [0, 128], 255)
    (array([[  0, 255],
           [  1, 255]], dtype=uint8), [7])
    """
    found, inverse = np.unique(labels, return_inverse=True)
    table = {value: number for number, value in enumerate(values)}
    if ignore is not None:
        table[ignore] = UNLABELLED
    unknown = [value for value in found.tolist() if value not in table]
    numbers = np.array([table.get(value, UNLABELLED) for value in found.tolist()], np.uint8)
    return numbers[inverse.reshape(labels.shape)], unknown


def colour_values(image: NDArray[Any]) -> NDArray[np.int64]:
    """Return the colours (row, col, 3) of an image as one number each, red first; grey values as their colour.

    Examples
    --------
    >>> [hex(value) for value in colour_values(np.array([[[255, 0, 128]]], np.uint8)).ravel()]
    ['0xff0080']
    """
    wide = np.asarray(image, np.int64)
    red, green, blue = (wide[..., k] for k in range(3)) if wide.ndim == 3 else (wide, wide, wide)
    return (red << 16) | (green << 8) | blue


def colour_name(value: float) -> str:
    """Write the number of a colour.

    Examples
    --------
    >>> colour_name(0xff0080)
    '#ff0080'
    """
    return f"#{int(value):06x}"
