import numpy as np
import pandas as pd
import pytest

from cathodeflow.errors import InputError
from cathodeflow.fibsem import split
from cathodeflow.fibsem.slice_options import Augment
from cathodeflow.fibsem.split import folds


def paper(slices, *, copies=10, test=50, unseen=40, seed):
    """The published split, with a tenth of the remaining slices for validation."""
    options = Augment(copies=copies, paper_test=test, paper_unseen=unseen, validation=0.1, seed=seed)
    return split.paper(slices, options)


def grouped(slices, **options):
    return split.grouped(slices, Augment(**{"copies": 10} | options))


def slices_of(table, role):
    return table.loc[table["role"] == role, "slice"].unique()


def count(table):
    return table["role"].value_counts().to_dict()


def runs(numbers):
    """Lengths of the runs of consecutive numbers."""
    return [len(run) for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)]


def test_the_published_split():
    table = paper(133, seed=1)
    assert list(table.columns) == ["slice", "copy", "role", "seen"] and len(table) == 1330
    assert (table["slice"] * 10 + table["copy"] == np.arange(1330)).all()
    tests = table[table["role"] == "test"]
    assert len(tests) == 50
    assert tests["seen"].value_counts().to_dict() == {False: 40, True: 10}
    # Four slices are kept out with all their copies; ten others lend one copy each.
    unseen, seen = tests[~tests["seen"]], tests[tests["seen"]]
    assert unseen.groupby("slice").size().tolist() == [10] * 4
    assert seen["slice"].nunique() == 10
    assert set(seen["slice"]) <= set(slices_of(table, "train"))
    # 13 of 129 slices validate, one after the other but for those that are tested on.
    assert count(table) == {"train": 1150, "validation": 130, "test": 50}
    validated = slices_of(table, "validation")
    between = np.setdiff1d(np.arange(validated[0], validated[-1] + 1), validated)
    assert set(between) <= set(unseen["slice"]) and set(validated).isdisjoint(slices_of(table, "train"))


@pytest.mark.parametrize(("copies", "test", "unseen"), [(3, 50, 40), (10, 20, 20), (2, 30, 0), (1, 5, 5), (4, 140, 0)])
def test_other_numbers_are_met(copies, test, unseen):
    for seed in range(5):
        table = paper(60, copies=copies, test=test, unseen=unseen, seed=seed)
        tests = table[table["role"] == "test"]
        assert len(tests) == test and (~tests["seen"]).sum() == unseen
        assert tests.groupby(["slice", "copy"]).size().max() == 1
        out = table[table["role"] == "left out"]
        assert len(out) == -unseen % copies and not out["seen"].any()
        assert slices_of(table, "validation").size == round(0.1 * (60 - -(-unseen // copies)))
        # Seen slices lend as few copies as they can.
        lent = tests[tests["seen"]].groupby("slice").size()
        assert lent.empty or lent.max() - lent.min() <= 1


def test_paper_splits_repeat_and_follow_the_seed():
    one, again, other = (paper(133, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert set(slices_of(one, "test")) != set(slices_of(other, "test"))
    tested = np.concatenate(
        [slices_of(paper(20, copies=2, test=8, unseen=8, seed=seed), "test") for seed in range(300)]
    )
    assert np.bincount(tested, minlength=20).min() > 30
    starts = {slices_of(paper(20, copies=2, test=4, unseen=4, seed=seed), "validation")[0] for seed in range(200)}
    assert len(starts) > 12


def test_a_grouped_split_has_blocks_and_gaps():
    table = grouped(133, copies=10)
    assert len(table) == 1330
    expected = ["validation"] * 15 + ["left out"] * 3 + ["train"] * 79 + ["left out"] * 3 + ["test"] * 33
    assert table["role"].tolist() == list(np.repeat(expected, 10))
    assert not table.loc[table["role"] == "test", "seen"].any()


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
@pytest.mark.parametrize("gap", [0, 2, 5])
def test_blocks_keep_their_distance(blocks, gap):
    table = grouped(200, copies=2, test=0.2, validation=0.2, blocks=blocks, gap=gap)
    parts = {role: slices_of(table, role) for role in ("train", "validation", "test")}
    assert len(parts["test"]) == 40 and len(parts["validation"]) == 32
    for role in ("validation", "test"):
        assert np.abs(parts["train"][:, None] - parts[role]).min() == gap + 1
        # Blocks of one kind meet where sections do.
        assert len(runs(parts[role])) <= blocks // 2 + 1
    assert np.abs(parts["test"][:, None] - parts["validation"]).min() > 2 * gap
    assert len(parts["train"]) == 200 - 40 - 32 - 2 * gap * blocks


@pytest.mark.parametrize(
    "divide", [lambda s: paper(s, copies=2, test=6, unseen=4, seed=0), lambda s: grouped(s, copies=2)]
)
def test_numbers_of_slices_in_any_order_or_how_many_there_are(divide):
    whole = divide(40)
    pd.testing.assert_frame_equal(divide(np.random.default_rng(0).permutation(40)), whole)
    pd.testing.assert_frame_equal(divide(list(range(40))), whole)
    pd.testing.assert_frame_equal(divide(np.int64(40)), whole)
    with pytest.raises(InputError, match="slices: found number 3 twice"):
        divide([1, 3, 2, 3])


def test_gaps_are_counted_in_slices_of_the_stack():
    # Every third slice is labelled; what lies between counts for the distance.
    table = grouped(3 * np.arange(20), copies=1, test=0.2, validation=0.1, gap=3)
    assert slices_of(table, "left out").tolist() == [6, 45]
    assert slices_of(table, "validation").tolist() == [0, 3] and slices_of(table, "test").tolist() == [48, 51, 54, 57]


def test_folds_are_blocks_of_neighbours():
    numbers = np.r_[20:31, 50:62]
    found = folds(numbers, 4)
    assert (np.diff(found) >= 0).all() and np.bincount(found).tolist() == [6, 6, 6, 5]
    shuffled = np.random.default_rng(1).permutation(len(numbers))
    np.testing.assert_array_equal(folds(numbers[shuffled], 4), found[shuffled])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paper(4, seed=0), "split.paper: found 4 slices of 10 copies, expected enough for 50 test pairs, 40"),
        (lambda: paper(133, test=30, seed=0), "split.paper: found 133 slices of 10 copies"),
        (lambda: paper(50, copies=1, test=10, unseen=5, seed=0), "split.paper: found 50 slices of 1 copies"),
        (
            lambda: grouped(10, gap=4),
            "split.grouped: found 10 slices in 1 blocks, expected more: 2 are in the test set",
        ),
        (lambda: grouped(8, blocks=3, gap=0), "split.grouped: found 2 test slices and 1 validation slices"),
        (lambda: split.grouped(8, Augment.model_construct(blocks=0, gap=0)), "split.grouped: found"),
        (lambda: folds([1, 2, 3], 4), "folds: found 4 folds of 3 slices"),
        (lambda: folds([1, 2, 3], 1), "folds: found 1 folds of 3 slices"),
    ],
)
def test_splits_that_cannot_be_made_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
