"""Which label image belongs to which slice, by their names and the numbers in them."""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.slices import some

_RENAME = "numbers in the names that agree with those of the slices, or `pairing: order`"


class Pairing(NamedTuple):
    """Label images of slices.

    own : (n,) int
        Index of the label image of each slice, -1 for a slice without labels.
    unused : tuple of str
        Names of the label images without a slice.
    """

    own: NDArray[np.int64]
    unused: tuple[str, ...]


def match_labels(
    names: Sequence[str], label_names: Sequence[str], where: str, *, by: Literal["name", "order"]
) -> Pairing:
    """Match label images to slices: by equal names, else by the number in the name, else by a name in the other.

    Parameters
    ----------
    names, label_names : sequence of str
        File names of slices and label images, without suffix; empty strings if one file has all of them.
    where : str
        Source of the labels, for error messages.
    by : {"name", "order"}
        With `order` names do not count: as many labels as slices, in the same order.

    Raises
    ------
    InputError
        A label image fits no slice or several, the numbers of both begin at different values, or there are no names and
        not as many labels as slices.

    Examples
    --------
    >>> match_labels(["s1", "s2", "s3"], ["s3_seg", "s1_seg"], "labels", by="name").own
    array([ 1, -1,  0])
    >>> match_labels(["s1", "s2", "s4"], ["s1", "s3", "s4"], "labels", by="name")
    Pairing(own=array([ 0, -1,  2]), unused=('s3',))
    """
    equal = len(label_names) == len(names)
    if by == "order" or not all(names) or not all(label_names):
        if not equal:
            found = f"{len(label_names)} label images for {len(names)} slices"
            raise InputError(where, found, f"one for each of the {len(names)} slices, or files named like their slices")
        numbers = None if by == "order" else _numbers([*names] if all(names) else [*label_names])
        if numbers is not None and not _consecutive(numbers):
            raise InputError(where, f"numbers with gaps ({_ranges(numbers)}) beside a stack without names", _RENAME)
        return Pairing(np.arange(len(names)), ())
    if equal and len(names) == 1:
        return Pairing(np.zeros(1, np.int64), ())
    if set(label_names) <= set(names) and len(set(label_names)) == len(label_names):
        index = {name: number for number, name in enumerate(label_names)}
        return Pairing(np.array([index.get(name, -1) for name in names]), ())
    own, of_labels = _numbers(names), _numbers(label_names)
    if own is None or of_labels is None:
        return _by_parts(names, label_names, where)
    for kind, numbers, given in (("slices", own, names), ("label images", of_labels, label_names)):
        double = next((number for number in numbers if numbers.count(number) > 1), None)
        if double is not None:
            both = [name for name, number in zip(given, numbers, strict=True) if number == double]
            raise InputError(where, f"{kind} with the same number: {', '.join(both[:3])}", _RENAME)
    outside = [number for number in of_labels if not min(own) <= number <= max(own)]
    if outside:
        # Such as slices from 0 and labels from 1: by number, all labels would belong to the next slice.
        found = f"label images with the numbers {_ranges(of_labels)}, slices with {_ranges(own)}"
        raise InputError(where, found, _RENAME)
    index_of = {number: position for position, number in enumerate(of_labels)}
    unused = tuple(name for name, number in zip(label_names, of_labels, strict=True) if number not in set(own))
    return Pairing(np.array([index_of.get(number, -1) for number in own]), unused)


def _numbers(names: Sequence[str]) -> list[int] | None:
    """Return the number of each name: the one that varies; None if there is none in a name, or several could be it."""
    groups = [[int(digits) for digits in re.findall(r"\d+", name)] for name in names]
    if not all(groups):
        return None
    if len({len(group) for group in groups}) > 1:
        return [group[-1] for group in groups]
    columns = list(zip(*groups, strict=True))
    varying = [column for column in columns if len(set(column)) > 1]
    distinct = [column for column in varying if len(set(column)) == len(names)]
    return list((distinct or varying or columns)[-1])


def _by_parts(names: Sequence[str], label_names: Sequence[str], where: str) -> Pairing:
    """Match a label image to the slice whose name its own contains, the longest if there are several."""
    own = np.full(len(names), -1)
    lost = []
    for position, label in enumerate(label_names):
        fitting = sorted((name for name in names if name in label), key=len)
        if not fitting or own[names.index(fitting[-1])] >= 0:
            lost.append(f"'{label}'")
        else:
            own[names.index(fitting[-1])] = position
    if lost:
        raise InputError(where, f"label images of no slice: {some(lost)}", f"the name of a slice in each, {_RENAME}")
    return Pairing(own, ())


def _consecutive(numbers: Sequence[int]) -> bool:
    return sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers)))


def _ranges(numbers: Sequence[int]) -> str:
    """Write numbers as ranges.

    Examples
    --------
    >>> _ranges([1, 2, 3, 7])
    '1-3, 7'
    """
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return some(["-".join(map(str, part)) for part in parts])
