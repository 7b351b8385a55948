import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from scipy import ndimage

from cathodeflow.fibsem import plots, slice_plots, surface_page
from cathodeflow.fibsem.evaluation import evaluate
from cathodeflow.fibsem.network_options import Curriculum
from cathodeflow.fibsem.options import Metrics
from cathodeflow.io.figures import save_figure

CLASSES = ("pore", "active", "binder")


def phases(n=3, rows=40, cols=50, seed=0):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(n, 3, rows, cols)), (0, 0, 3, 3))
    truth = field.argmax(1).astype(np.uint8)
    return truth, truth / 2 + rng.normal(0, 0.2, truth.shape)


def spoilt(truth, share, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(truth.shape) < share, rng.integers(0, 3, truth.shape), truth).astype(np.uint8)


def table(models=("unet", "ugsm", "my_net"), splits=("grouped", "paper"), seeds=2, originals=None):
    truth, _ = phases(6)
    rows = []
    for split in splits:
        for seed in range(seeds):
            for number, model in enumerate(models):
                found = evaluate(
                    truth, spoilt(truth, 0.1 + 0.1 * number, seed), classes=CLASSES, model=model, seed=seed,
                    split=split, rng=np.random.default_rng(0), options=Metrics(bootstrap_samples=100), originals=originals,
                )  # fmt: skip
                rows.append(found.overall)
    return pd.concat(rows, ignore_index=True)


def figures():
    truth, grey = phases()
    entropy = np.random.default_rng(0).random(truth.shape)
    known = {"truth": truth, "entropy": entropy, "idk": entropy > 0.9, "names": ["1, worst", "2", "3"]}
    two = {"ugsm": spoilt(truth, 0.3), "matphase": spoilt(truth, 0.1)}
    slow = Curriculum(full_at=1.0)
    pacings = {"linear": Curriculum(), "none": Curriculum(pacing="none"), "never full": slow}
    epochs = {"n_epochs": 15, "n_pixels": 5000}
    one = {"unet": truth}
    flat = np.zeros((1, 9, 9), np.uint8)
    unlike = table().query("model != 'unet' or split != 'grouped'")
    return {
        "methods": plots.methods_figure(table()),
        "one split, one original": plots.methods_figure(table(splits=("grouped",), seeds=1, originals=np.zeros(6))),
        "no probabilities, model of one split": plots.methods_figure(unlike, figures=("ece", "false_specks", "f1_pore")),
        "no methods": plots.methods_figure(table().head(0)),
        "fractions": plots.fractions_figure(table(), CLASSES),
        "no fractions": plots.fractions_figure(table().head(0), CLASSES),
        **{f"pacing {name}": plots.pacing_figure(entropy.ravel()[:500], one, **epochs) for name, one in pacings.items()},
        "pacing of one entropy": plots.pacing_figure(np.full(9, 0.5), slow, **epochs),
        "pacing without pixels": plots.pacing_figure([], slow, n_epochs=15, n_pixels=0),
        "slices": slice_plots.segmentation_figure(grey, two, classes=CLASSES, zoom_px=20, pixel_nm=200.0, **known),
        "new slices": slice_plots.segmentation_figure(grey, two, classes=CLASSES, zoom_px=0, entropy=entropy),
        "one model": slice_plots.segmentation_figure(grey, one, classes=CLASSES, truth=truth, zoom_px=26),
        "constant": slice_plots.segmentation_figure(flat, {"unet": flat}, classes=[*"abcdefghij"], idk=flat > 0, zoom_px=56),
        "no slices": slice_plots.segmentation_figure(grey[:0], one, classes=CLASSES, zoom_px=56),
    }  # fmt: skip


def test_all_figures_are_drawn_without_a_warning(tmp_path):
    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, figure in figures().items():
            save_figure(tmp_path / f"{name}.png", figure, dpi=60)
            assert (tmp_path / f"{name}.png").stat().st_size > 1000, name
    assert dict(matplotlib.rcParams) == before


def test_methods_are_drawn_at_their_means_in_their_order():
    rows = table()
    figure = plots.methods_figure(rows, figures=("miu", "specks"))
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["U-Net", "UGSM", "my net"]
    assert left.get_ylim()[0] > left.get_ylim()[1] and left.get_xlabel() == "Mean IoU [%]"
    for axes, name, factor in ((left, "miu", 100), (right, "specks", 1)):
        means = factor * rows.groupby(["split", "model"], sort=False)[name].mean()
        assert [float(text.get_text()) for text in axes.texts] == pytest.approx(means.tolist(), abs=0.051)
    dashed = [line.get_xdata()[0] for line in left.lines if line.get_linestyle() == "--"]
    expected = 100 * rows[rows["model"] == "unet"].groupby("split")["miu"].mean()
    assert dashed == pytest.approx(expected.tolist())


def test_fractions_stand_at_their_error_from_the_truth():
    rows = table(splits=("grouped",))
    figure = plots.fractions_figure(rows, CLASSES)
    for axes, name in zip(figure.axes, CLASSES, strict=True):
        mean = rows.groupby("model", sort=False)[f"fraction_error_{name}"].mean() * 100
        texts = [float(text.get_text().replace("−", "-")) for text in axes.texts]
        assert texts == pytest.approx(mean.tolist(), abs=0.051)
        true = 100 * rows[f"true_fraction_{name}"][0]
        assert axes.get_title(loc="left") == f"{name}, reference {true:.1f} %"
        marks = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
        fractions = 100 * rows.groupby("model", sort=False)[f"fraction_{name}"].mean()
        assert marks == pytest.approx(fractions.tolist())


def test_pixels_come_in_by_entropy_as_the_pool_grows():
    entropy = np.random.default_rng(0).permutation(np.linspace(0, 1, 1000))
    # The fractions of the pool are 0.3, 0.3 and 0.65 in three epochs; it would be full in the fifth.
    options = Curriculum(pacing="step", start_fraction=0.3, full_at=1.0, stages=3)
    figure = plots.pacing_figure(entropy, options, n_epochs=3, n_pixels=1000)
    left, right, bar = figure.axes
    assert [text.get_text() for text in bar.get_yticklabels()] == ["1", "3", "never"]
    heights = [sum(patch.get_height() for patch in bars) for bars in right.containers]
    assert heights == pytest.approx([30, 35, 35])
    reach = [[patch.get_x() for patch in bars if patch.get_height() > 0] for bars in right.containers]
    assert max(reach[0]) < 0.31 < 0.27 + min(reach[1]) and min(reach[2]) > 0.6
    assert "[nat]" in right.get_xlabel() and "[%]" in left.get_ylabel()


def test_slices_are_the_worst_the_median_and_the_best():
    assert slice_plots.choose_slices([0.5, 0.9]) == {"worst": 0, "best": 1}
    assert slice_plots.choose_slices([0.5]) == {"worst": 0}
    assert slice_plots.choose_slices([]) == {}
    accuracy = np.random.default_rng(0).random(9)
    chosen = slice_plots.choose_slices(accuracy)
    assert [accuracy[number] for number in chosen.values()] == [accuracy.min(), np.median(accuracy), accuracy.max()]


def test_a_sheet_has_a_column_for_each_thing_and_says_how_many_pixels_are_right():
    truth, grey = phases(2)
    first, last = spoilt(truth, 0.3), spoilt(truth, 0.1)
    entropy = np.full(truth.shape, 0.25)
    figure = slice_plots.segmentation_figure(
        grey, {"ugsm": first, "matphase": last}, classes=CLASSES, truth=truth, entropy=entropy, idk=entropy < 0, zoom_px=20,
    )  # fmt: skip
    grid = np.array(figure.axes[:28]).reshape(4, 7)
    titles = ["Slice", "Reference", "UGSM", "MatPhase", "Difference", "Entropy", "I don't know"]
    assert [axes.get_title() for axes in grid[0]] == titles
    right = [100 * np.mean(one[1] == truth[1]) for one in (first, last)]
    assert [axes.get_xlabel() for axes in grid[2, 2:]] == [
        f"{right[0]:.1f} % correct", f"{right[1]:.1f} % correct", f"gain {right[1] - right[0]:.1f} %", "mean 0.25 nat", "0.0 %"
    ]  # fmt: skip
    np.testing.assert_allclose(
        grid[2, 1].images[0].get_array(), np.array([to_rgb(one) for one in surface_page.PHASE_COLOURS])[truth[1]]
    )
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*CLASSES, "both correct", "only MatPhase correct", "only UGSM correct", "both wrong"]


@pytest.mark.parametrize("at", [(0, 0), (17, 31), (30, 40)])
def test_what_is_drawn_large_is_where_predictions_differ_most(at):
    labels = np.zeros((1, 40, 50), np.uint8)
    changed = labels.copy()
    changed[0, at[0] : at[0] + 10, at[1] : at[1] + 10] = 1
    changed[0, 5, 25] = changed[0, 35, 2] = 1
    figure = slice_plots.segmentation_figure(labels, {"a": labels, "b": changed}, classes=CLASSES, zoom_px=10)
    upper, lower = figure.axes[0], figure.axes[4]
    assert lower.get_xlim() == (at[1] - 0.5, at[1] + 9.5) and lower.get_ylim() == (at[0] + 9.5, at[0] - 0.5)
    assert upper.patches[0].get_xy() == (at[1] - 0.5, at[0] - 0.5)
