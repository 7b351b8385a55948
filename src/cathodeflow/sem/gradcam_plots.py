"""Figures of class activation maps: a contact sheet of crops, and whole images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cathodeflow.plotting import MAP, ONE_COLUMN, TWO_COLUMNS, nothing_to_show, scale_bar, styled
from cathodeflow.sem.plots import RIGHT, WRONG, class_title, short_names

Float32 = NDArray[np.float32]


@styled
def contact_sheet(crops: NDArray[np.uint8], maps: Float32, table: pd.DataFrame) -> Figure:
    """Draw correctly and incorrectly classified crops, coloured by their evidence for the predicted class.

    Parameters
    ----------
    crops : (n, side, side) uint8
    maps : (n, h, w) float32
        Of `gradcam.activation_maps` for the predictions; each is drawn relative to its own maximum.
    table : DataFrame
        Of `gradcam.choose_crops`: the row of each crop.
    """
    classes = sorted(set(table["label"]))
    numbers = table.groupby(["label", "correct"]).cumcount().to_numpy()
    width = {case: int(numbers[table["correct"] == case].max(initial=-1)) + 1 for case in (True, False)}
    columns = sum(width.values())
    if not columns:
        figure = Figure(figsize=(TWO_COLUMNS, 2.0))
        nothing_to_show(figure.subplots(), "no crops to show")
        return figure
    cell = min((TWO_COLUMNS - 0.6) / columns, 1.6)
    figure = Figure(figsize=(max(0.6 + cell * columns, ONE_COLUMN), 0.45 + (cell + 0.2) * len(classes)))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    # A narrow empty column separates correct from incorrect crops.
    gap = int(min(width.values()) > 0)
    ratios = [1.0] * width[True] + [0.12] * gap + [1.0] * width[False]
    grid = figure.subplots(len(classes), len(ratios), squeeze=False, width_ratios=ratios)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for index, (crop, heat) in enumerate(zip(crops, maps, strict=True)):
        row = table.iloc[index]
        start = 0 if row["correct"] else width[True] + gap
        axes = grid[classes.index(row["label"]), start + numbers[index]]
        axes.imshow(overlaid(crop, heat), interpolation="antialiased")
        axes.spines[:].set(visible=True, color=RIGHT if row["correct"] else WRONG, linewidth=1.2)
        text = "" if row["correct"] else f"{class_title(row['prediction'])}, "
        axes.set_xlabel(f"{text}{100 * row['confidence']:.0f} %", fontsize=7, labelpad=1.5)
    for line, name in enumerate(classes):
        grid[line, 0].set_ylabel(class_title(name), fontsize=8)
        if width[False] and not (~table["correct"].astype(bool) & (table["label"] == name)).any():
            grid[line, width[True] + gap].text(0.5, 0.5, "none", transform=grid[line, width[True] + gap].transAxes,
                                               ha="center", va="center", color="#999999", fontsize=8)  # fmt: skip
    for case, text, start in ((True, "correct", 0), (False, "incorrect, predicted as", width[True] + gap)):
        if width[case]:
            grid[0, start].set_title(text, fontsize=9, color=RIGHT if case else WRONG, pad=4)
    return figure


@styled
def whole_figure(
    image: NDArray[np.uint8], heat: Float32, row: Mapping[Any, Any], *, pixel_nm: float | None = None
) -> Figure:
    """Draw an image, and beside it the same image coloured by its evidence for the predicted class.

    Parameters
    ----------
    image : (row, col) uint8
        At least as large as `heat`; it may have an information bar.
    heat : (row, col) float32
        Of `gradcam.whole_map`.
    row : mapping
        name, prediction, confidence, and label (None if it is unknown).
    pixel_nm : float, optional
        For a scale bar.
    """
    rows, cols = heat.shape
    grey = image[:rows, :cols]
    height = (TWO_COLUMNS - 0.75) / 2 * rows / cols
    figure = Figure(figsize=(TWO_COLUMNS, float(np.clip(height + 0.3, 1.4, 9.0))))
    left, right = figure.subplots(1, 2)
    left.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    right.imshow(overlaid(grey, heat), interpolation="antialiased")
    for axes in (left, right):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    if pixel_nm:
        scale_bar(left, rows, cols, pixel_nm)
    predicted = f"{class_title(row['prediction'])}, {100 * row['confidence']:.0f} %"
    truth = row.get("label")
    wrong = truth is not None and truth != row["prediction"]
    left.set_title(short_names([row["name"]], 46)[0], fontsize=8)
    right.set_title(predicted + (f"; is {class_title(truth)}" if wrong and truth else ""), fontsize=8,
                    color=WRONG if wrong else RIGHT)  # fmt: skip
    mappable = colormaps[MAP]
    bar = figure.colorbar(
        right.imshow(np.array([[0.0, 1.0]]), cmap=mappable, visible=False, extent=(0, cols, rows, 0)),
        ax=right, shrink=0.85, pad=0.02, ticks=[0, 0.5, 1], label="Fraction of the maximum",
    )  # fmt: skip
    bar.ax.tick_params(labelsize=7)
    return figure


@styled
def no_image_figure(text: str) -> Figure:
    """Draw a placeholder with the reason why there is no image."""
    figure = Figure(figsize=(TWO_COLUMNS, 2.0))
    nothing_to_show(figure.subplots(), text)
    return figure


def overlaid(grey: NDArray[np.uint8], heat: Float32) -> Float32:
    """Overlay a greyscale image with a map relative to its maximum: (row, col, 3) in 0..1.

    Where the map is low, the image stays as it is.
    """
    from cathodeflow.sem.gradcam import enlarged  # it imports torch, which other figures do not need

    whole = enlarged(heat[None], (grey.shape[0], grey.shape[1]))[0]
    level = np.clip(whole / max(float(heat.max()), 1e-12), 0, 1)[..., None]
    base = (grey / 255.0)[..., None]
    colour = colormaps[MAP](level[..., 0])[..., :3]
    cover = 0.6 * level**0.8
    return ((1 - cover) * base + cover * colour).astype(np.float32)
