import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from cathodeflow.errors import InputError
from cathodeflow.sem.baselines import (
    accuracy_table,
    nearest_scores,
    settings_features,
    trivial_scores,
)
from cathodeflow.sem.intensity import bar_thumbnail, intensity_histogram, match_histogram, reference_quantiles
from cathodeflow.sem.off_particles import alone, off_crop, off_features
from cathodeflow.sem.usable_blocks import UsableBlocks
from cathodeflow.statistics import wilson

CLASSES = ("333", "333_cycled", "811", "811_cycled")


def split_table(per_class=10, n_test=4):
    """Four classes in two sessions: the pristine ones in the first, the cycled ones in the second."""
    rows = []
    for label in CLASSES:
        for i in range(per_class):
            split = "test" if i >= per_class - n_test else "validation" if i == 0 else "train"
            session = "2" if label.endswith("cycled") else "1"
            rows.append({"name": f"{label}/{i}", "label": label, "split": split, "session": session})
    return pd.DataFrame(rows).assign(mean=0.5, deviation=0.1)


def answers(table, given):
    """Scores of a method that answers `given`, a function of the row, and puts the true label second."""
    tests = table[table["split"] == "test"]
    scores = {f"p_{label}": [] for label in CLASSES}
    for row in tests.itertuples():
        for label in CLASSES:
            scores[f"p_{label}"].append(0.6 * (label == given(row)) + 0.3 * (label == row.label))
    return pd.DataFrame({"name": tests["name"], **scores})


def figure(result, method, scope, column="accuracy"):
    found = result[(result["method"] == method) & (result["scope"] == scope)]
    assert len(found) == 1
    return found[column].item()


@pytest.mark.parametrize("bins", [2, 5, 32, 256])
def test_histogram_counts_shares_of_equal_bins(bins):
    image = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    expected = np.histogram(image, np.ceil(np.arange(bins + 1) * 256 / bins))[0] / image.size
    np.testing.assert_allclose(intensity_histogram(image, bins), expected)


def test_histogram_of_another_depth_is_refused():
    with pytest.raises(InputError, match="found uint16, expected uint8"):
        intensity_histogram(np.zeros((3, 3), np.uint16), 8)


def test_bar_thumbnail_sees_the_bar_alone():
    image = np.full((100, 128), 200, np.uint8)
    image[84:, :64], image[84:, 64:] = 10, 50
    found = bar_thumbnail(image[84:], 8)
    assert found.shape == (8, 8)
    np.testing.assert_allclose(found[:, :4], 10)
    np.testing.assert_allclose(found[:, 4:], 50)
    assert not bar_thumbnail(image[100:], 8).any()


def test_matching_gives_the_reference_distribution_and_keeps_the_order():
    random = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(random.standard_normal((120, 150)), 2)
    texture = (texture - texture.min()) / np.ptp(texture)
    dark, bright = (60 * texture).astype(np.uint8), (150 + 105 * texture**2).astype(np.uint8)
    histograms = [intensity_histogram(image, 256) for image in (dark, bright)]
    quantiles = reference_quantiles(histograms)
    matched = [match_histogram(image, quantiles) for image in (dark, bright, dark.astype(np.uint16) * 200)]
    for image in matched:
        assert image.dtype == np.uint8
        # The same distribution, level by level: no gaps tell the one that an image came from.
        difference = np.cumsum(intensity_histogram(image, 256) - np.mean(histograms, axis=0))
        assert np.abs(difference).max() < 0.003
    # What is left is the texture, nearly the same from both.
    assert np.corrcoef(matched[0].ravel(), matched[1].ravel())[0, 1] > 0.98
    np.testing.assert_array_equal(matched[0], matched[2])
    levels = [matched[0][dark == grey] for grey in range(61) if (dark == grey).any()]
    assert all(low.max() <= high.min() for low, high in itertools.pairwise(levels))


def test_an_image_matched_to_itself_stays():
    image = np.random.default_rng(1).normal(120, 30, (80, 80)).clip(0, 255).astype(np.uint8)
    matched = match_histogram(image, reference_quantiles([intensity_histogram(image, 256)]))
    # The few pixels at the ends lie between two quantiles.
    assert np.mean(np.abs(matched.astype(int) - image) <= 1) > 0.998


def test_settings_count_alike_and_missing_ones_are_told_apart():
    table = pd.DataFrame(
        {
            "split": ["train"] * 4 + ["test"],
            "focus": [1000.0, 3000.0, 1000.0, 3000.0, 2000.0],
            "brightness": [80.0, 80.0, 82.0, 82.0, np.nan],
            "magnification": np.nan,
            "detector": ["SE", "SE", None, "BSE", None],
        }
    )
    found = settings_features(table)
    assert found is not None
    columns = found.T.tolist()
    assert [-1, 1, -1, 1, 0] in columns and [-1, -1, 1, 1, 0] in columns and [0, 0, 0, 0, 1] in columns
    assert [1, 1, 0, 0, 0] in columns and [0, 0, 0, 1, 0] in columns
    assert settings_features(table[["split"]]) is None


def test_the_nearest_training_image_decides():
    table = split_table()
    features = table["label"].map({label: 10.0 * k for k, label in enumerate(CLASSES)}).to_numpy()
    table.loc[table["split"] == "validation", "label"] = "811"
    found = nearest_scores(features, table)
    assert list(found["name"]) == list(table.loc[table["split"] == "test", "name"])
    best = found.filter(like="p_").idxmax(axis=1).str.removeprefix("p_")
    assert (best.to_numpy() == table.loc[table["split"] == "test", "label"].to_numpy()).all()
    np.testing.assert_allclose(found.filter(like="p_").sum(axis=1), 1)


def test_trivial_methods_see_what_they_are_given():
    table = split_table()
    number = table["label"].map({label: k for k, label in enumerate(CLASSES)}).to_numpy()
    session = (table["session"] == "2").to_numpy()
    random = np.random.default_rng(0)
    noise = 0.01 * random.random(len(table))
    table = table.assign(mean=0.1 * number + noise, focus=np.where(session, 2000.0, 1000.0), voltage_kv=20.0)
    histograms = np.eye(4)[number]
    bars = np.zeros((len(table), 8, 8)) + 255 * session[:, None, None]
    same = np.ones((len(table), 4)) / 4
    result = accuracy_table(trivial_scores(table, histograms, bars=bars, matched=same), table, confidence=0.95)
    expected = {
        "majority class": 0.25,
        "mean and deviation": 1,
        "grey histogram": 1,
        "instrument settings": 0.5,
        "information bar": 0.5,
        "grey histogram, matched": 0.25,
    }
    assert {method: figure(result, method, "all") for method in expected} == expected
    assert set(result["method"]) == set(expected)
    # Settings tell the session and, of the two classes in each, nothing.
    assert figure(result, "instrument settings", "within sessions") == 0.5
    few = trivial_scores(table.drop(columns=["focus", "voltage_kv"]), histograms, bars=np.zeros((len(table), 8, 8)))
    assert list(few) == ["majority class", "mean and deviation", "grey histogram"]


def test_within_a_session_only_its_classes_are_answers():
    table = split_table()
    # It mixes up sessions, never compositions.
    wrong_session = answers(table, lambda row: row.label.split("_")[0] + ("" if "_" in row.label else "_cycled"))
    result = accuracy_table({"network": wrong_session}, table, confidence=0.95)
    assert list(result["scope"]) == [
        "all",
        "within sessions",
        "session 1",
        "session 1, its classes",
        "session 2",
        "session 2, its classes",
    ]
    assert result["accuracy"].tolist() == [0, 1, 0, 1, 0, 1]
    assert result["n"].tolist() == [16, 16, 8, 8, 8, 8]
    assert result["classes"].tolist() == [4, 2, 4, 2, 4, 2]
    assert result["chance"].tolist() == [0.25, 0.5, 0.25, 0.5, 0.25, 0.5]
    assert ((result["low"] <= result["accuracy"]) & (result["accuracy"] <= result["high"])).all()


def test_sessions_of_one_class_and_images_without_one_do_not_count_within():
    table = split_table()
    table.loc[table["label"] == "811_cycled", "session"] = "3"
    table.loc[table["label"] == "333_cycled", "session"] = None
    result = accuracy_table({"network": answers(table, lambda row: row.label)}, table, confidence=0.95)
    assert list(result["scope"]) == ["all", "within sessions", "session 1", "session 1, its classes", "session 3"]
    assert result["n"].tolist() == [16, 8, 8, 8, 4]
    # Guessing is right as often as the images have few classes to choose from: half of the images two, half of them four.
    both = split_table().assign(session="1")
    both.loc[both["label"].str.startswith("811") & both["name"].str.endswith(("0", "1", "6", "7")), "session"] = "2"
    both.loc[both["label"].str.startswith("333"), "session"] = "1"
    within = accuracy_table({"network": answers(both, lambda row: row.label)}, both, confidence=0.95).set_index("scope")
    assert within.loc["within sessions", ["n", "classes", "chance"]].tolist() == [16, 3.5, (12 / 4 + 4 / 2) / 16]
    # A class that has only images left out in a session is no answer there.
    table.loc[table["label"] == "811", "split"] = "left out"
    result = accuracy_table({"network": answers(table, lambda row: row.label)}, table, confidence=0.95)
    assert list(result["scope"]) == ["all", "session 1", "session 3"]


def test_images_that_training_shows_are_counted_apart():
    table = split_table()
    tests = table[table["split"] == "test"]
    shown = tests["name"].str.endswith(("6", "7"))
    # Right where the particles are known from training, else always the first class.
    known = set(tests.loc[shown, "name"])
    scores = {"network": answers(table, lambda row: row.label if row.name in known else "333")}
    scores["network"] = scores["network"].sample(frac=1, random_state=0)
    seen = pd.DataFrame({"name": tests["name"], "seen": np.where(shown, 0.4, 0.01)})
    result = accuracy_table(scores, table, confidence=0.95, seen=seen)
    assert figure(result, "network", "seen in training") == 1
    assert figure(result, "network", "not seen in training") == 0.25
    assert figure(result, "network", "not seen in training", "n") == 8


def test_intervals_count_fields_of_view_instead_of_images():
    table = split_table()
    scores = {"network": answers(table, lambda row: row.label)}
    plain = accuracy_table(scores, table, confidence=0.95)
    # The four test images of each class show two places; two classes share the names of theirs.
    fields = table["name"].str.endswith(("8", "9")).map({True: "late", False: "early"})
    found = accuracy_table(scores, table.assign(field=fields), confidence=0.95)
    assert found["n"].equals(plain["n"]) and found["accuracy"].equals(plain["accuracy"])
    assert figure(plain, "network", "all", "low") == pytest.approx(wilson(16, 16)[0])
    assert figure(found, "network", "all", "low") == pytest.approx(wilson(8, 8)[0])
    assert figure(found, "network", "session 1", "low") == pytest.approx(wilson(4, 4)[0])


def test_all_that_is_missing_in_predictions_is_named():
    table = split_table()
    full = answers(table, lambda row: row.label)
    scores = {"one": full.drop(columns="p_811"), "two": full.iloc[1:], "three": pd.concat([full, full[:1]])}
    with pytest.raises(InputError) as error:
        accuracy_table(scores, table, confidence=0.95)
    assert str(error.value).splitlines() == [
        "one: found no column p_811, expected one for each class",
        "two: found no row for 333/6, expected a row for each of the 16 test images",
        "three: found an image in several rows, expected a row for each of the 16 test images",
    ]


def test_a_class_that_alone_has_bare_areas_is_named_and_its_gaps_are_off_the_particles():
    means = pd.DataFrame(
        {"bare": [0.12, 0.001, 0.0], "blurred": 0.05, "saturated": [0.0, 0.0, 0.003]}, index=["a", "b", "c"]
    )
    assert alone(means) == {"a": "12.0 % bare, other classes at most 0.1 %"}
    blocks = UsableBlocks.of_text("..b/..b", (60, 90))
    crop = np.full((30, 30), 200, np.uint8)
    crop[:, :6] = 10
    off = off_crop(crop, blocks, (0, 30), (60, 60))
    # Dark columns, and the right half, which is bare; the edge of the gap is smoothed.
    assert off[:, :5].all() and not off[:, 8:15].any() and off[:, 15:].all()
    table = pd.DataFrame({"blocks": ["..b/..b", ".../..."], "bare": [1 / 3, 0], "blurred": 0.0, "saturated": 0.0})
    features = off_features(table.assign(row0=0, row1=60, col0=0, col1=90))
    np.testing.assert_allclose(features, [[1 / 3, 0, 0, 2 / 7, 1 / 3], [0] * 5], atol=1e-6)
