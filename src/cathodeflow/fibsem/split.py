"""Split of image-label pairs into training, validation and test set, and folds for cross-fitting.

Copies of a slice and neighbouring slices are nearly equal, so a random split leaks training data into the test set.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.fibsem.slice_options import Augment

TRAIN, VALIDATION, TEST, LEFT_OUT = "train", "validation", "test", "left out"
#: Role of slices without labels that enter a network beside a labelled slice.
NEIGHBOUR = "neighbour"

Numbers = NDArray[np.int64]


def paper(slices: int | Sequence[int] | NDArray[np.integer], options: Augment) -> pd.DataFrame:
    """Split pairs as published: most test pairs are of held-out slices, some are copies of training slices.

    The held-out slices are drawn at random, so their neighbours are in the training set, and the other test pairs are
    nearly equal to training pairs: scores are higher than on an unknown electrode. `grouped` gives unbiased scores.

    Parameters
    ----------
    slices : int or sequence of int
        Number of labelled slices, or their indices in the stack.
    options : Augment
        `copies`; `paper_test` pairs, `paper_unseen` of them of held-out slices; `validation`, the fraction of the
        remaining slices in the validation set, a block of neighbours with all their copies; `seed`.

    Returns
    -------
    DataFrame
        A row for each slice and copy, in order: `slice`, `copy`, `role` (train, validation, test, left out), and
        `seen`: whether any copy of the slice is in the training set.

    Raises
    ------
    InputError
        There are too few slices or copies.
    """
    numbers = _numbers(slices)
    copies, test, unseen = options.copies, options.paper_test, options.paper_unseen
    rng = np.random.default_rng(options.seed or 0)
    n_unseen, seen = -(-unseen // copies), test - unseen
    left = len(numbers) - n_unseen
    n_validation = _fraction_of(options.validation, left)
    n_train = left - n_validation
    # A slice counts as seen if at least one of its copies is in the training set.
    if seen < 0 or n_train < 1 or seen > n_train * (copies - 1):
        expected = (
            f"enough for {test} test pairs, {unseen} of them unseen, {n_validation} validation slices, and training"
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
    drawn = np.concatenate([rng.permutation(n_train) for _ in range(1 + seen // n_train)])[:seen]
    role[trained[drawn], order[np.arange(seen) // n_train, drawn]] = TEST
    return _table(numbers, role)


def grouped(slices: int | Sequence[int] | NDArray[np.integer], options: Augment) -> pd.DataFrame:
    """Split slices by whole blocks of neighbours, so that no test slice resembles a training slice.

    The stack is cut into `blocks` sections; each has its validation slices at one end, its test slices at the other and
    its training slices between, every second section in reverse, so that blocks of the same kind meet.

    Parameters
    ----------
    slices : int or sequence of int
        Number of labelled slices, or their indices in the stack.
    options : Augment
        `copies`, which stay with their slice; `test` and `validation`, fractions of the slices and of the remaining
        slices; `blocks`: more of them test more parts of the stack and lose more slices to gaps; `gap`, slices left out
        of the training set on either side of other blocks. As simulated pores show the third slice below by default,
        the gap of 3 keeps test labels out of the training images.

    Returns
    -------
    DataFrame
        As for `paper`; no test slice is `seen`.

    Raises
    ------
    InputError
        There are too few slices for every part.
    """
    numbers = _numbers(slices)
    copies, blocks, gap = options.copies, options.blocks, options.gap
    role = np.full(len(numbers), TRAIN, dtype=object)
    n_test = _fraction_of(options.test, len(numbers))
    n_validation = _fraction_of(options.validation, len(numbers) - n_test)
    if blocks < 1 or min(n_test, n_validation) < blocks:
        found = f"{n_test} test slices and {n_validation} validation slices"
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
        expected = (
            f"more: {n_test} are in the test set, {n_validation} in the validation set, the others in gaps of {gap}"
        )
        raise InputError("split.grouped", f"{len(numbers)} slices in {blocks} blocks", expected)
    return _table(numbers, np.repeat(role[:, None], copies, axis=1))


def folds(slices: Sequence[int] | NDArray[np.integer], n_folds: int) -> NDArray[np.int64]:
    """Divide slices into folds of neighbours, for out-of-fold predictions.

    Parameters
    ----------
    slices : (n,) sequence of int
        Indices in the stack of the training slices, in any order.
    n_folds : int

    Returns
    -------
    (n,) int
        Fold of each, from 0 along the stack; sizes differ by at most one.

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
        raise InputError("folds", f"{n_folds} folds of {len(numbers)} slices", "at least 2 folds, each with a slice")
    out = np.empty(len(numbers), dtype=np.int64)
    out[np.argsort(numbers)] = np.repeat(np.arange(n_folds), _parts(len(numbers), n_folds))
    return out


def _numbers(slices: int | Sequence[int] | NDArray[np.integer]) -> Numbers:
    if np.ndim(slices) == 0:
        return np.arange(int(np.asarray(slices)), dtype=np.int64)
    numbers = np.sort(np.asarray(slices, dtype=np.int64))
    if (np.diff(numbers) == 0).any():
        raise InputError("slices", f"number {numbers[:-1][np.diff(numbers) == 0][0]} twice", "each number once")
    return numbers


def _fraction_of(fraction: float, count: int) -> int:
    """Return a fraction of a count, rounded; at least one unless the fraction is 0."""
    return max(round(fraction * count), 1) if fraction > 0 else 0


def _parts(count: int, n: int) -> list[int]:
    """Divide a count into n numbers that differ by at most one, larger ones first."""
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
