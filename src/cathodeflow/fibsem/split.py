"""Pairs of image and labels divided into training, validation and test, and folds for cross-fitting.

Copies of a slice and slices next to each other show nearly the same, so what is trained on tells about both.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.errors import InputError

TRAIN, VALIDATION, TEST, LEFT_OUT = "train", "validation", "test", "left out"

Numbers = NDArray[np.int64]


def paper(
    slices: int | Sequence[int] | NDArray[np.integer],
    *,
    copies: int = 10,
    test: int = 50,
    unseen: int = 40,
    validation: float = 0.1,
    seed: int,
) -> pd.DataFrame:
    """Divide pairs as published: most tests on slices whose copies are all kept out, some on copies of slices seen.

    The slices kept out are drawn at random, so their neighbours are trained on, and test pairs of seen slices are all
    but trained on: scores are higher than on an electrode never seen. `grouped` tells how much.

    Parameters
    ----------
    slices : int or sequence of int
        How many labelled slices there are, or their numbers in the stack.
    copies : int
        Images of each slice.
    test : int
        Pairs to test on.
    unseen : int
        Those among them whose slice is kept out as a whole.
    validation : float
        Share of the remaining slices to validate on, a block of neighbours with all their copies.
    seed : int
        Of all choices.

    Returns
    -------
    DataFrame
        A row for each slice and copy, in order: `slice`, `copy`, `role` (train, validation, test, left out), and
        `seen`: whether any copy of the slice is trained on.

    Raises
    ------
    InputError
        There are too few slices or copies.
    """
    numbers = _numbers(slices)
    rng = np.random.default_rng(seed)
    n_unseen, seen = -(-unseen // copies), test - unseen
    left = len(numbers) - n_unseen
    n_validation = _share(validation, left)
    n_train = left - n_validation
    # A slice is seen as long as one copy of it is trained on.
    if seen < 0 or n_train < 1 or seen > n_train * (copies - 1):
        expected = (
            f"enough for {test} test pairs, {unseen} of them unseen, {n_validation} slices to validate, and training"
        )
        raise InputError("split.paper", f"{len(numbers)} slices of {copies} copies", expected)

    role = np.full((len(numbers), copies), TRAIN, dtype=object)
    tested = np.sort(rng.permutation(len(numbers))[:n_unseen])
    rest = np.setdiff1d(np.arange(len(numbers)), tested)
    start = rng.integers(n_train + 1) if n_validation else 0
    role[rest[start : start + n_validation]] = VALIDATION
    role[tested] = LEFT_OUT
    pairs = rng.permutation(n_unseen * copies)[:unseen]
    role[tested[pairs // copies], pairs % copies] = TEST
    trained = np.delete(rest, np.s_[start : start + n_validation])
    # One copy of every slice before a second one of any.
    order = np.array([rng.permutation(copies) for _ in trained]).T
    turns = np.concatenate([rng.permutation(n_train) for _ in range(1 + seen // n_train)])[:seen]
    role[trained[turns], order[np.arange(seen) // n_train, turns]] = TEST
    return _table(numbers, role)


def grouped(
    slices: int | Sequence[int] | NDArray[np.integer],
    *,
    copies: int = 10,
    test: float = 0.25,
    validation: float = 0.15,
    blocks: int = 1,
    gap: int = 3,
) -> pd.DataFrame:
    """Divide slices by whole blocks of neighbours, so that nothing tested on resembles what is trained on.

    The stack is cut into `blocks` sections; each has its validation at one end, its test at the other and its training
    between, every second section the other way round, so that blocks of the same kind meet.

    Parameters
    ----------
    slices : int or sequence of int
        How many labelled slices there are, or their numbers in the stack.
    copies : int
        Images of each slice; all go with it.
    test : float
        Share of the slices to test on.
    validation : float
        Share of the others to validate on.
    blocks : int
        Sections. More of them test more places of the stack, and lose more slices to gaps.
    gap : int
        Slices left out of the training on either side of other blocks [slices of the stack]. As pores show what is
        three slices below by default, this keeps tested labels out of the images trained on.

    Returns
    -------
    DataFrame
        As of `paper`; no tested slice is seen.

    Raises
    ------
    InputError
        There are too few slices for every part.
    """
    numbers = _numbers(slices)
    role = np.full(len(numbers), TRAIN, dtype=object)
    n_test = _share(test, len(numbers))
    n_validation = _share(validation, len(numbers) - n_test)
    if blocks < 1 or min(n_test, n_validation) < blocks:
        found = f"{n_test} slices to test on and {n_validation} to validate on"
        raise InputError(
            "split.grouped", found, f"at least one each for all of {blocks} blocks, of {len(numbers)} slices"
        )
    parts = (_parts(size, blocks) for size in (len(numbers), n_test, n_validation))
    start = 0
    for section, (size, tested, validated) in enumerate(zip(*parts, strict=True)):
        places = np.arange(start, start + size)
        if section % 2:
            places = places[::-1]
        role[places[:validated]], role[places[size - tested :]] = VALIDATION, TEST
        start += size
    other = numbers[role != TRAIN]
    near = np.abs(numbers[:, None] - other).min(axis=1) <= gap
    role[near & (role == TRAIN)] = LEFT_OUT
    if not (role == TRAIN).any():
        expected = f"more: {n_test} are for the test, {n_validation} for the validation, the others in gaps of {gap}"
        raise InputError("split.grouped", f"{len(numbers)} slices in {blocks} blocks", expected)
    return _table(numbers, np.repeat(role[:, None], copies, axis=1))


def folds(slices: Sequence[int] | NDArray[np.integer], n_folds: int) -> NDArray[np.int64]:
    """Divide slices into folds of neighbours, for outputs of networks that were not trained on the slice.

    Parameters
    ----------
    slices : (n,) sequence of int
        Numbers in the stack of the slices to train on, in any order.
    n_folds : int

    Returns
    -------
    (n,) int
        Fold of each, from 0 along the stack; sizes differ by one at most.

    Raises
    ------
    InputError
        There are fewer slices than folds, or fewer than two folds.

    Examples
    --------
    >>> folds([3, 4, 5, 9, 10], 2)
    array([0, 0, 0, 1, 1])
    """
    numbers = np.asarray(slices, dtype=np.int64)
    if not 2 <= n_folds <= len(numbers):
        raise InputError("folds", f"{n_folds} folds of {len(numbers)} slices", "at least 2, none without a slice")
    out = np.empty(len(numbers), dtype=np.int64)
    out[np.argsort(numbers)] = np.repeat(np.arange(n_folds), _parts(len(numbers), n_folds))
    return out


def _numbers(slices: int | Sequence[int] | NDArray[np.integer]) -> Numbers:
    if np.ndim(slices) == 0:
        return np.arange(int(np.asarray(slices)), dtype=np.int64)
    numbers = np.sort(np.asarray(slices, dtype=np.int64))
    if (np.diff(numbers) == 0).any():
        raise InputError("slices", f"number {numbers[:-1][np.diff(numbers) == 0][0]} twice", "every number once")
    return numbers


def _share(share: float, count: int) -> int:
    """Return a share of a count, rounded; at least one unless the share is 0."""
    return max(round(share * count), 1) if share > 0 else 0


def _parts(count: int, n: int) -> list[int]:
    """Divide a count into n numbers that differ by one at most, larger ones first."""
    return [count // n + (part < count % n) for part in range(n)]


def _table(numbers: Numbers, role: NDArray[np.object_]) -> pd.DataFrame:
    """Make the table of roles (slice, copy)."""
    copies = role.shape[1]
    seen = np.repeat((role == TRAIN).any(axis=1), copies)
    table = {
        "slice": np.repeat(numbers, copies),
        "copy": np.tile(np.arange(copies), len(numbers)),
        "role": role.reshape(-1),
        "seen": seen,
    }
    return pd.DataFrame(table)
