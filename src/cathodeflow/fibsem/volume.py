"""Slices and their labels as they come, made one volume: labels to slices, values to classes, alignment."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError

#: Label of slices that are not labelled.
UNLABELLED = 255


def match_labels(names: Sequence[str], label_names: Sequence[str], where: str) -> NDArray[np.int64]:
    """Tell for each slice which label image is its own.

    Parameters
    ----------
    names, label_names : sequence of str
        File names of slices and label images, without suffix.
    where : str
        The labels, for error messages.

    Returns
    -------
    (n,) int
        Number of the label image, -1 for a slice without one. As many labels as slices are taken in order; fewer by
        their names.

    Raises
    ------
    InputError
        Labels of no slice, more labels than slices, or fewer without names of their own.

    Examples
    --------
    >>> match_labels(["s1", "s2", "s3"], ["s3", "s1"], "labels")
    array([ 1, -1,  0])
    """
    if len(label_names) == len(names):
        return np.arange(len(names))
    place = {name: number for number, name in enumerate(label_names) if name}
    strange = [name for name in place if name not in set(names)]
    if len(place) < len(label_names) or strange:
        found = f"{len(label_names)} label images" + (f", '{strange[0]}' among them" if strange else "")
        raise InputError(where, found, f"one for each of the {len(names)} slices, or named as these")
    return np.array([place.get(name, -1) for name in names])


def levelled(slices: NDArray[Any]) -> NDArray[np.float32]:
    """Bring every slice (slice, row, col) to a mean of 0 and a deviation of 1; a slice without contrast to 0.

    Examples
    --------
    >>> levelled(np.array([[[1, 3]], [[40, 20]]])).tolist()
    [[[-1.0, 1.0]], [[1.0, -1.0]]]
    """
    values = np.asarray(slices, np.float64)
    deviation = values.std(axis=(1, 2), keepdims=True)
    centred = values - values.mean(axis=(1, 2), keepdims=True)
    return (centred / np.where(deviation > 0, deviation, 1.0)).astype(np.float32)


def to_classes(labels: NDArray[Any], values: Sequence[int], where: str) -> NDArray[np.uint8]:
    """Turn the values of a label image into the numbers of their classes.

    Raises
    ------
    InputError
        Values that are no class: all of them named.

    Examples
    --------
    >>> to_classes(np.array([[0, 255], [128, 0]]), [0, 128, 255], "labels.tif")
    array([[0, 2],
           [1, 0]], dtype=uint8)
    """
    found = np.unique(labels)
    strange = [value for value in found.tolist() if value not in values]
    if strange:
        names = ", ".join(f"{value:g}" for value in strange[:5]) + (", ..." if len(strange) > 5 else "")
        raise InputError(where, f"the values {names}", "only " + ", ".join(map(str, values)))
    table = {value: number for number, value in enumerate(values)}
    numbers = np.array([table[value] for value in found.tolist()], np.uint8)
    return numbers[np.searchsorted(found, labels)]
