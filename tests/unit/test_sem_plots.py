import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest

from cathodeflow.io.figures import save_figure
from cathodeflow.sem import gradcam_plots, plots
from cathodeflow.sem.baselines import accuracy_table
from cathodeflow.sem.calibration import expected_calibration_error, reliability
from cathodeflow.sem.gradcam import choose_crops
from cathodeflow.sem.options import Test as EvaluationOptions
from cathodeflow.sem.predictions import bootstrap, class_numbers, crop_predictions, original_predictions, probabilities

CLASSES = ["333", "333_cycled", "622", "622_cycled"]


def predictions(n=400, skill=2.0, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, n // 10).repeat(10)[:n]
    logits = rng.normal(0, 1, (n, 4)) + skill * np.eye(4)[label]
    name = np.array([f"{CLASSES[one]}/{k // 10:02d}.jpg" for k, one in enumerate(label)])
    table = pd.DataFrame({"crop": np.arange(n), "name": name, "label": np.array(CLASSES)[label]})
    return crop_predictions(logits, table, CLASSES, temperature=1.0)


def diagrams(**predicted):
    """Reliability diagrams as `sem test` writes them."""
    return pd.concat(
        reliability(probabilities(table, CLASSES), class_numbers(table["label"], CLASSES), bins=10).assign(
            kind=kind, temperature=when
        )
        for kind, table in predicted.items()
        for when in ("before", "after")
    )


def ranked(n):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(4, 0.3), n)
    table = pd.DataFrame({"image": [f"/data/a/{k}.tif" for k in range(n)], "problem": None})
    table["strangeness"] = np.sort(rng.gamma(9, 1, n))[::-1]
    table["foreign"] = pd.array(table["strangeness"] > 12, dtype="boolean")
    table["entropy_share"] = -(p * np.log(p)).sum(1) / np.log(4)
    table = table.assign(**{f"p_{name}": p[:, k] for k, name in enumerate(CLASSES)})
    return pd.concat([table, pd.DataFrame([{"image": "/data/bad.jpg", "problem": "text"}])], ignore_index=True)


def figures(skill=2.0):
    crops = predictions(skill=skill)
    images = original_predictions(crops, CLASSES, temperature=1.0)
    options = EvaluationOptions(bins=10, bootstrap_samples=100, confidence=0.95)
    merits = [bootstrap(predicted, CLASSES, options) for predicted in (images, crops)]
    known = images[["name", "label"]].assign(split="test", session="2021-03-04 09:12")
    audit = accuracy_table({"network": images, "grey histogram": images}, known, confidence=0.95)
    chosen = choose_crops(crops, per_class=2, rng=np.random.default_rng(0))
    rng = np.random.default_rng(0)
    grey, maps = rng.integers(0, 256, (len(chosen), 32, 32), dtype=np.uint8), rng.random((len(chosen), 2, 2))
    row = {"name": "333/a.jpg", "prediction": "333", "label": "622", "confidence": 0.7}
    image, heat = rng.integers(0, 256, (70, 90), dtype=np.uint8), rng.random((60, 90)).astype(np.float32)
    return {
        "confusion": plots.confusion_figure(images, CLASSES),
        "calibration": plots.calibration_figure(diagrams(crops=crops, images=images)),
        "classes": plots.class_figure(*merits),
        "audit": plots.audit_figure(audit),
        "predictions": plots.prediction_figure(ranked(9), CLASSES),
        "contact": gradcam_plots.contact_sheet(grey, maps.astype(np.float32), chosen),
        "whole": gradcam_plots.whole_figure(image, heat, row, pixel_nm=24.8),
    }


@pytest.mark.parametrize("skill", [2.0, 30.0, -9.0])
def test_all_figures_are_drawn_without_a_warning_also_where_all_is_right_or_wrong(skill, tmp_path):
    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, figure in figures(skill).items():
            save_figure(tmp_path / f"{name}.png", figure, dpi=60)
            assert (tmp_path / f"{name}.png").stat().st_size > 3000
    assert dict(matplotlib.rcParams) == before


def test_the_calibration_figure_has_the_error_and_the_numbers_of_the_predictions():
    crops = predictions()
    axes = plots.calibration_figure(diagrams(crops=crops)).axes
    error = expected_calibration_error(probabilities(crops, CLASSES), class_numbers(crops["label"], CLASSES), bins=10)
    assert axes[0].get_title(loc="left") == "a  400 crops"
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == [
        f"{when}: {100 * error:.1f} %" for when in ("before", "after")
    ]


def test_axes_have_units():
    for name in ("confusion", "calibration", "classes", "audit", "predictions"):
        figure = figures()[name]
        texts = [axes.get_xlabel() for axes in figure.axes] + [axes.get_ylabel() for axes in figure.axes]
        texts += [figure.get_supxlabel()]
        assert any("[" in text for text in texts), name


def test_the_confusion_matrix_has_classes_in_rows_and_shares_of_rows():
    p = np.full((7, 4), 0.1) + 0.6 * np.eye(4)[[0, 0, 0, 2, 1, 1, 1]]
    label = ["333"] * 4 + ["333_cycled"] * 3
    table = crop_predictions(
        np.log(p), pd.DataFrame({"crop": range(7), "name": "a", "label": label}), CLASSES, temperature=1.0
    )
    figure = plots.confusion_figure(table, CLASSES)
    axes = figure.axes[0]
    cells = {tuple(np.round(text.get_position()).astype(int)): [] for text in axes.texts}
    for text in axes.texts:
        cells[tuple(np.round(text.get_position()).astype(int))].append(text.get_text())
    # Positions are column and row.
    assert cells == {(0, 0): ["75", "3"], (2, 0): ["25", "1"], (1, 1): ["100", "3"]}
    assert [text.get_text() for text in axes.get_yticklabels()][:2] == ["333  (4)", "333 cycled  (3)"]
    assert axes.get_title(loc="left") == "6 of 7 correct: 85.7 %"


def test_only_the_highest_scores_of_many_images_are_drawn_and_the_others_counted():
    figure = plots.prediction_figure(ranked(300), CLASSES)
    assert len(figure.axes[0].get_yticklabels()) == 40
    title = figure.get_suptitle()
    assert title.startswith("The 40 highest OOD scores of 300 images") and title.endswith("1 unusable")
    nothing = plots.prediction_figure(ranked(3).tail(1), CLASSES)
    assert nothing.axes[0].texts[0].get_text() == "no usable image"


def test_images_of_one_name_are_told_apart_by_their_folder():
    table = ranked(2)
    table.loc[:1, "image"] = ["/data/x/1.tif", "/data/y/1.tif"]
    names = [text.get_text() for text in plots.prediction_figure(table, CLASSES).axes[0].get_yticklabels()]
    assert names == ["x/1.tif", "y/1.tif"]


def test_an_overlay_leaves_the_image_where_the_map_is_zero():
    grey = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 7
    found = gradcam_plots.overlaid(grey, heat)
    np.testing.assert_allclose(found[20:, 20:], np.repeat(grey[20:, 20:, None] / 255, 3, axis=2), atol=1e-6)
    assert np.ptp(found[1, 1]) > 0.05 and found.min() >= 0 and found.max() <= 1
    np.testing.assert_allclose(gradcam_plots.overlaid(grey, 0 * heat)[..., 0], grey / 255, atol=1e-6)


def test_a_contact_sheet_without_crops_or_without_wrong_ones():
    empty = choose_crops(predictions().head(0), per_class=2, rng=np.random.default_rng(0))
    nothing = gradcam_plots.contact_sheet(np.zeros((0, 8, 8), np.uint8), np.zeros((0, 2, 2), np.float32), empty)
    assert nothing.axes[0].texts[0].get_text() == "no crops to show"
    chosen = choose_crops(predictions(skill=40), per_class=2, rng=np.random.default_rng(0))
    figure = gradcam_plots.contact_sheet(np.zeros((8, 8, 8), np.uint8), np.zeros((8, 2, 2), np.float32), chosen)
    assert len(figure.axes) == 8
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["333", "333 cycled", "622", "622 cycled"]
