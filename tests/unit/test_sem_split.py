import numpy as np
import pandas as pd
import pytest

from cathodeflow.errors import InputError
from cathodeflow.sem.image_options import Split
from cathodeflow.sem.splits import set_sizes, split_originals

CLASSES = {"333": "2019-09-02 00:09", "333_cycled": "2019-12-03 20:00", "811": "2019-09-02 16:20"}


def images(count=20, classes=CLASSES, minutes=1):
    """An index: every class is imaged in one go, an image a minute, numbers counted as the instrument does."""
    parts = [
        pd.DataFrame(
            {
                "name": [f"{label}/sample x500 __{100 + 3 * k}.jpg" for k in range(count)],
                "label": label,
                "time": pd.date_range(start, periods=count, freq=f"{minutes}min"),
                "session": None,
                "duplicate_of": None,
                "split": None,
            }
        )
        for label, start in classes.items()
    ]
    return pd.concat(parts, ignore_index=True)


def divide(index, **options):
    return split_originals(index, Split(**{"seed": 7} | options))


def names(table, label, split):
    return list(table.loc[(table["label"] == label) & (table["split"] == split), "name"])


def sizes(table):
    return {label: group["split"].value_counts().to_dict() for label, group in table.groupby("label")}


def given_sessions(index, blocks):
    """Sessions by the number of each class's images in them, in order."""
    index["session"] = (
        index.groupby("label").cumcount().map(dict(enumerate(np.repeat(list(blocks), [*blocks.values()]))))
    )
    return index


@pytest.mark.parametrize("by", ["time-block", "image"])
@pytest.mark.parametrize(
    ("count", "test", "validation", "expected"),
    [(20, 0.2, 0.2, (13, 3, 4)), (18, 0.25, 0.5, (6, 7, 5)), (40, 0.1, 0.1, (32, 4, 4)), (3, 0.9, 0.9, (1, 1, 1))],
)
def test_every_class_has_the_shares_that_were_asked_for(by, count, test, validation, expected):
    table = divide(images(count), by=by, test=test, validation=validation)
    parts = dict(zip(("train", "validation", "test"), expected, strict=True))
    assert sizes(table) == dict.fromkeys(CLASSES, parts)


@pytest.mark.parametrize("count", range(3, 60))
def test_the_test_is_rounded_and_no_part_is_empty(count):
    for test in (0.01, 0.2, 0.5, 0.99):
        n_test, n_validation = set_sizes(count, test, 0.2)
        assert abs(n_test - test * count) <= 0.5 or n_test in (1, count - 2)
        assert n_test >= 1 and n_validation >= 1 and count - n_test - n_validation >= 1


@pytest.mark.parametrize("by", ["time-block", "session", "image", "given"])
def test_neither_the_order_of_rows_nor_other_classes_change_a_split(by):
    index = given_sessions(images(), {"one": 8, "two": 6, "three": 6})
    index["split"] = np.resize(["test", "train", "validation", "left out"], len(index))
    table = divide(index, by=by)
    shuffled = divide(index.sample(frac=1, random_state=3), by=by)
    pd.testing.assert_frame_equal(shuffled, table)
    alone = divide(index[index["label"] == "811"], by=by)
    assert names(alone, "811", "test") == names(table, "811", "test")
    assert table[["label", "time"]].apply(tuple, axis=1).is_monotonic_increasing


def test_blocks_of_time_follow_each_other_with_gaps_between():
    table = divide(images(20), by="time-block", gap=2)
    for label in CLASSES:
        mine = table[table["label"] == label].sort_values("time")
        expected = ["validation"] * 3 + ["left out"] * 2 + ["train"] * 9 + ["left out"] * 2 + ["test"] * 4
        assert mine["split"].tolist() == expected


def test_gaps_that_leave_nothing_to_train_on_name_every_class():
    with pytest.raises(InputError) as caught:
        divide(images(9), gap=3)
    assert [error.where for error in caught.value.errors] == [f"class {label}" for label in sorted(CLASSES)]
    assert "found 9 images, expected more than 9: test 2, validation 1, gaps 3" in str(caught.value)
    divide(images(11), gap=3)


def test_an_image_without_a_time_takes_its_place_by_number():
    index = images(20)
    last, middle = index["name"] == "811/sample x500 __157.jpg", index["name"] == "811/sample x500 __118.jpg"
    complete = divide(index, by="time-block")
    index.loc[last | middle, "time"] = pd.NaT
    table = divide(index, by="time-block")
    for part in ("train", "validation", "test"):
        assert set(names(table, "811", part)) == set(names(complete, "811", part))
    assert table.set_index("name").loc[index.loc[last, "name"], "session"].tolist() == ["2019-09-02 16:20"]


def test_an_image_of_unknown_place_is_left_out_of_blocks_of_time():
    index = images(20)
    index.loc[5, ["time", "name"]] = pd.NaT, "333/no number.jpg"
    table = divide(index, by="time-block")
    assert names(table, "333", "left out") == ["333/no number.jpg"] and len(names(table, "333", "test")) == 4
    # Numbers that do not grow with time, as after the counter was set back, say nothing either.
    index = images(20)
    index["name"] = index["name"].replace("333/sample x500 __100.jpg", "333/sample x500 __900.jpg")
    index.loc[5, "time"] = pd.NaT
    assert names(divide(index), "333", "left out") == ["333/sample x500 __115.jpg"]
    assert set(divide(index, by="image")["split"]) == {"train", "validation", "test"}


def test_a_class_without_any_time_goes_by_the_numbers():
    index = images(20, {"333": "2020-01-01"}).assign(time=pd.NaT)
    index["name"] = [f"333/{number}.tif" for number in range(1, 21)]
    table = divide(index, by="time-block")
    assert set(names(table, "333", "test")) == {f"333/{number}.tif" for number in (17, 18, 19, 20)}
    assert set(names(table, "333", "validation")) == {f"333/{number}.tif" for number in (1, 2, 3)}


def test_pauses_part_sessions_over_all_classes():
    table = divide(images(), session_hours=12)
    found = table.groupby("label")["session"].unique().map(list).to_dict()
    assert found == {"333": ["2019-09-02 00:09"], "811": ["2019-09-02 16:20"], "333_cycled": ["2019-12-03 20:00"]}
    joined = divide(images(), session_hours=17)
    assert joined.loc[joined["label"] == "811", "session"].unique().tolist() == ["2019-09-02 00:09"]


def test_sessions_that_are_given_stay():
    index = images()
    index.loc[index["label"] == "811", "session"] = "afternoon"
    table = divide(index, session_hours=1)
    assert table.loc[table["label"] == "811", "session"].unique().tolist() == ["afternoon"]
    assert table.loc[table["label"] == "333", "session"].unique().tolist() == ["2019-09-02 00:09"]


def test_whole_sessions_are_tested():
    table = divide(given_sessions(images(), {"a": 10, "b": 3, "c": 3, "d": 2, "e": 2}), by="session")
    for _, mine in table.groupby("label"):
        parts = mine.groupby("session")["split"].unique().map(list).to_dict()
        assert parts == {"a": ["train"], "b": ["train"], "c": ["validation"], "d": ["test"], "e": ["test"]}


def test_what_one_session_leaves_is_parted_in_time():
    table = divide(given_sessions(images(), {"a": 12, "b": 8}), by="session", gap=1)
    mine = table[table["label"] == "333"].sort_values("time")
    assert mine["split"].tolist() == ["train"] * 9 + ["left out"] + ["validation"] * 2 + ["test"] * 8


def test_classes_of_one_session_cannot_be_tested_across_sessions():
    index = images()
    index.loc[(index["label"] == "811") & (index.groupby("label").cumcount() > 9), "time"] += pd.Timedelta(days=3)
    with pytest.raises(InputError) as caught:
        divide(index, by="session")
    message = "split.by: found one session, or none known, of 333, 333_cycled, expected at least 2 of each class"
    assert str(caught.value).startswith(message) and "time-block" in str(caught.value)


def test_random_splits_repeat_and_follow_the_seed():
    one, again, other = (divide(images(40), by="image", seed=seed) for seed in (1, 1, 2))
    assert names(one, "333", "test") == names(again, "333", "test") != names(other, "333", "test")
    # Each image is as likely as any other.
    tested = [name for seed in range(200) for name in names(divide(images(10), by="image", seed=seed), "333", "test")]
    counts = pd.Series(tested).value_counts()
    assert len(counts) == 10 and counts.between(20, 60).all()


@pytest.mark.parametrize("by", ["time-block", "session", "image", "given"])
def test_duplicates_are_used_nowhere_and_not_counted(by):
    index = given_sessions(images(11), {"a": 5, "b": 3, "c": 3})
    index["split"] = np.resize(["test", "train", "validation"], len(index))
    index.loc[index["name"].str.contains("_10[03]"), "duplicate_of"] = "333/other.jpg"
    table = divide(index, by=by)
    assert (table["split"] == "left out").sum() == 6
    assert (table["duplicate_of"].notna() == (table["split"] == "left out")).all()
    if by != "given":
        assert len(names(table, "333", "test")) == (3 if by == "session" else 2)


def test_two_images_are_no_class():
    index = images(4, {"333": "2020-01-01"})
    index.loc[:1, "duplicate_of"] = "333/first.jpg"
    with pytest.raises(InputError, match="class 333: found 2 images, expected at least 3 that differ"):
        divide(index)


def test_a_given_split_is_kept_and_checked():
    index = images(6)
    index["split"] = np.resize(["train", "train", "validation", "test", "left out", "test"], len(index))
    table = divide(index, by="given").set_index("name")
    assert table.loc[index["name"], "split"].tolist() == index["split"].tolist()

    index.loc[1, "split"], index.loc[8, "split"] = "training", None
    with pytest.raises(InputError) as caught:
        divide(index, by="given")
    errors = {error.where: error.found for error in caught.value.errors}
    assert errors == {index["name"][1]: "split training", index["name"][8]: "no split"}

    index["split"] = "train"
    with pytest.raises(InputError, match="class 333: found no image for validation, test") as caught:
        divide(index, by="given")
    assert len(caught.value.errors) == 3


def two_sessions():
    """Two classes that were imaged in two sessions, and one that was imaged in the first only."""
    index = images(10, {"333": "2019-09-02 00:09", "622": "2019-09-02 08:00", "811": "2019-09-02 16:20"})
    late = images(6, {"333": "2019-12-03 20:00", "622": "2019-12-03 21:00"})
    return pd.concat([index, late.assign(name=late["name"] + "late")], ignore_index=True)


def test_named_sessions_are_the_test_set_of_the_classes_that_were_imaged_in_them():
    table = divide(two_sessions(), by="session", test_sessions=["2019-12"], validation=0.2)
    late = table["time"] > pd.Timestamp("2019-10-01")
    assert (table.loc[late, "split"] == "test").all()
    assert set(table.loc[~late, "split"]) == {"train", "validation"}
    # The other classes are trained on, but not tested.
    assert sizes(table)["811"] == {"train": 8, "validation": 2}


def test_sessions_that_leave_nothing_to_train_on_and_unknown_ones_are_refused():
    with pytest.raises(InputError, match="class 811: found no image outside the test sessions"):
        divide(two_sessions(), by="session", test_sessions=["2019-09"])
    with pytest.raises(InputError, match=r"split.test_sessions: found 2020, expected one of 2019-09-02 00:09, 2019-12"):
        divide(two_sessions(), by="session", test_sessions=["2020", "2019-12"])
