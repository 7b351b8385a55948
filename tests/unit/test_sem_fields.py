"""Images that overlap: mosaics, fields of view, the gap of a split, and intervals that hold."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from cathodeflow.sem.fields_of_view import mosaics, overlapping, thumbnail
from cathodeflow.sem.image_options import Split
from cathodeflow.sem.options import Test as TestOptions
from cathodeflow.sem.predictions import bootstrap
from cathodeflow.sem.splits import split_originals

ROWS, COLS = 96, 128


@pytest.fixture(scope="module")
def specimen():
    rng = np.random.default_rng(1)
    return np.clip(ndimage.gaussian_filter(rng.normal(size=(400, 900)), 1.5) * 250 + 120, 0, 255).astype(np.uint8)


def walk(specimen, places):
    return [thumbnail(specimen[row : row + ROWS, col : col + COLS]) for row, col in places]


def test_positions_in_a_mosaic_are_found_and_fields_begin_where_nothing_is_shared(specimen):
    places = [(10, 10 + 50 * step) for step in range(6)] + [(250, 20), (290, 60)]
    found = mosaics(walk(specimen, places), [f"i{n}" for n in range(8)])
    assert found["mosaic"].tolist() == ["i0"] * 6 + ["i6"] * 2
    expected = np.array(places[:6]) - places[0]
    np.testing.assert_allclose(found[["mosaic_row", "mosaic_col"]][:6], expected, atol=1.5)
    # 50 of 128 px a step: the third image after the first shows nothing of it any more.
    assert found["field"].tolist() == ["i0", "i0", "i0", "i3", "i3", "i3", "i6", "i6"]


def test_images_of_different_places_do_not_overlap_by_chance():
    rng = np.random.default_rng(3)
    fields = ndimage.gaussian_filter(rng.normal(size=(30, 120, 160)), (0, 1.5, 1.5))
    found = mosaics(
        [thumbnail(np.clip(field * 250 + 120, 0, 255).astype(np.uint8)) for field in fields], list(range(30))
    )
    assert found["mosaic"].nunique() == 30


def images(count=20, step=50):
    table = pd.DataFrame({"name": [f"a/{n:02d}.tif" for n in range(count)], "label": "a"})
    table["time"] = pd.date_range("2024-01-01", periods=count, freq="min")
    table["mosaic"], table["mosaic_row"], table["mosaic_col"] = "a/00.tif", 0.0, np.arange(count) * float(step)
    return table.assign(row0=0, row1=ROWS, col0=0, col1=COLS, duplicate_of=None, session=None)


def test_the_split_leaves_out_training_images_that_overlap_others(caplog):
    table = images()
    split = split_originals(table, Split())
    train, held_out = (split[split["split"].isin(kinds)] for kinds in (["train"], ["validation", "test"]))
    assert len(train) and not overlapping(train, held_out).any()
    # Two images between each two sets, as 3 * 50 is more than 128.
    assert (
        split["split"].tolist()
        == ["validation"] * 3 + ["left out"] * 2 + ["train"] * 9 + ["left out"] * 2 + ["test"] * 4
    )
    assert (split_originals(table, Split(gap=0))["split"] == "train").sum() == 13
    dense = split_originals(images(count=6, step=5), Split())
    assert (dense["split"] == "train").sum() == 4 and "all training images overlap" in caplog.text


def test_within_the_only_training_session_no_image_overlaps_the_validation_images():
    table = images(30).assign(session=["first"] * 20 + ["second"] * 10)
    table.loc[20:, "mosaic"] = "a/20.tif"
    split = split_originals(table, Split(by="session"))
    train, held_out = (split[split["split"].isin(kinds)] for kinds in (["train"], ["validation", "test"]))
    assert not overlapping(train, held_out).any()
    assert split["split"].value_counts().to_dict() == {"train": 14, "test": 10, "validation": 4, "left out": 2}


@pytest.mark.parametrize("kind", ["image", "crop"])
def test_intervals_over_fields_hold_where_those_over_images_are_too_narrow(kind):
    """Five overlapping images of each of 12 fields are right or wrong together, of a class of 70 % accuracy."""
    rng, truth, fields, each = np.random.default_rng(2), 0.7, 12, 5
    held, width = {"field": 0, "image": 0}, {"field": [], "image": []}
    trials = 25
    for trial in range(trials):
        right = np.repeat(rng.random(fields) < truth, each)
        noise = np.where(rng.random(len(right)) < 0.9, right, rng.random(len(right)) < truth)
        table = pd.DataFrame({"name": [f"i{n:03d}" for n in range(len(noise))], "label": "a"})
        table["field"] = np.repeat([f"f{n:02d}" for n in range(fields)], each)
        table["p_a"] = np.where(noise, 0.9, 0.1)
        table["p_b"] = 1 - table["p_a"]
        table["prediction"] = np.where(noise, "a", "b")
        if kind == "crop":
            table = table.loc[table.index.repeat(2)].reset_index(drop=True)
        for resample in held:
            options = TestOptions(bins=5, bootstrap_samples=100, resample=resample, seed=trial)
            row = bootstrap(table, ["a", "b"], options).iloc[0]
            assert row["figure"] == "accuracy" and row["fields"] == (fields if resample == "field" else 60)
            held[resample] += row["low"] <= truth <= row["high"]
            width[resample].append(row["high"] - row["low"])
    assert held["field"] >= 0.85 * trials and held["image"] < 0.75 * trials
    assert np.mean(width["field"]) > 1.6 * np.mean(width["image"])
