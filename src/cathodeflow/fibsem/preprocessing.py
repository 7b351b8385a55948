"""Preprocessing of slices and labels: labels matched to slices, label values to classes, normalisation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError

#: Label of all pixels of a slice without labels.
UNLABELLED = 255


def match_labels(names: Sequence[str], label_names: Sequence[str], where: str) -> NDArray[np.int64]:
    """Match label images to slices.

    Parameters
    ----------
    names, label_names : sequence of str
        File names of slices and label images, without suffix.
    where : str
        Source of the labels, for error messages.

    Returns
    -------
    (n,) int
        Index of the label image of each slice, -1 for a slice without labels. If there are as many labels as slices,
        they are matched in order, otherwise by name.

    Raises
    ------
    InputError
        Labels without a slice, more labels than slices, or fewer labels without names.

    Examples
    --------
    >>> match_labels(["s1", "s2", "s3"], ["s3", "s1"], "labels")
    array([ 1, -1,  0])
    """
    if len(label_names) == len(names):
        return np.arange(len(names))
    index = {name: number for number, name in enumerate(label_names) if name}
    unknown = [name for name in index if name not in set(names)]
    if len(index) < len(label_names) or unknown:
        found = f"{len(label_names)} label images" + (f", including '{unknown[0]}'" if unknown else "")
        raise InputError(where, found, f"one for each of the {len(names)} slices, or names equal to those of slices")
    return np.array([index.get(name, -1) for name in names])


def normalize_slices(slices: NDArray[Any]) -> NDArray[np.float32]:
    """Normalise every slice (slice, row, col) to mean 0 and standard deviation 1; a slice without contrast to 0.

    Examples
    --------
    >>> normalize_slices(np.array([[[1, 3]], [[40, 20]]])).tolist()
    [[[-1.0, 1.0]], [[1.0, -1.0]]]
    """
    values = np.asarray(slices, np.float64)
    deviation = values.std(axis=(1, 2), keepdims=True)
    centred = values - values.mean(axis=(1, 2), keepdims=True)
    return (centred / np.where(deviation > 0, deviation, 1.0)).astype(np.float32)


def to_classes(labels: NDArray[Any], values: Sequence[int], where: str) -> NDArray[np.uint8]:
    """Convert the values of a label image to class indices.

    Raises
    ------
    InputError
        Values that belong to no class; all of them are listed.

    Examples
    --------
    >>> to_classes(np.array([[0, 255], [128, 0]]), [0, 128, 255], "labels.tif")
    array([[0, 2],
           [1, 0]], dtype=uint8)
    """
    found = np.unique(labels)
    unknown = [value for value in found.tolist() if value not in values]
    if unknown:
        names = ", ".join(f"{value:g}" for value in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise InputError(where, f"the values {names}", "only " + ", ".join(map(str, values)))
    table = {value: number for number, value in enumerate(values)}
    numbers = np.array([table[value] for value in found.tolist()], np.uint8)
    return numbers[np.searchsorted(found, labels)]
