"""Figure of the properties of segmentations against those of the labels, with error bars."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cathodeflow.fibsem.plots import model_title
from cathodeflow.plotting import COLOURS, TWO_COLUMNS, label, nothing_to_show, styled

#: Titles of properties.
TITLES = {
    "volume_fraction": "Volume fraction",
    "specific_surface_area": "Specific surface area",
    "contact_area": "Contact area",
    "tortuosity_factor": "Tortuosity factor",
    "effective_diffusivity": "Effective diffusivity",
}
# Properties that are drawn, and panels in a row.
_DRAWN = ("volume_fraction", "specific_surface_area", "contact_area", "tortuosity_factor")
_PER_ROW = 3


@styled
def properties_figure(table: pd.DataFrame, *, best: str | None = None) -> Figure:
    """Draw the properties of the test slices by method: as segmented, corrected with intervals, and of the labels.

    Parameters
    ----------
    table : DataFrame
        Of the stage `compare_properties`. Directions of a property are drawn as one panel each; the first direction,
        across a few slices only, is left out.
    best : str, optional
        Method that is marked as the best one.
    """
    directions = table["direction"].fillna("").astype(str).str.removesuffix(".0")
    table = table.assign(direction=directions)
    shown = table[table["property"].isin(_DRAWN) & (table["direction"] != "0") & np.isfinite(table["truth"])]
    groups = list(shown.groupby(["property", "phase", "direction"], sort=False))
    groups = sorted(groups, key=lambda group: _DRAWN.index(group[0][0]))
    figure = Figure(figsize=(TWO_COLUMNS, 1.8))
    if not groups:
        nothing_to_show(figure.subplots(), "no property to compare")
        return figure
    models = list(dict.fromkeys(shown["model"]))
    lines = -(-len(groups) // _PER_ROW)
    figure.set_size_inches(TWO_COLUMNS, lines * (0.75 + 0.26 * len(models)) + 0.4)
    grid = figure.subplots(lines, _PER_ROW, sharey=True, squeeze=False).ravel()
    for axes, (key, rows) in zip(grid, groups, strict=False):
        _panel(axes, rows, models, *key)
    for axes in grid[len(groups) :]:
        axes.set_visible(False)
    names = [f"{model_title(name)} (best)" if name == best else model_title(name) for name in models]
    grid[0].set_yticks(range(len(models)), names)
    grid[0].set_ylim(len(models) - 0.4, -0.6)
    handles = [
        Line2D([], [], marker="o", color=COLOURS[0], linewidth=2.2, markersize=4.5, label="corrected, 68 % and 95 %"),
        Line2D([], [], marker="o", color="none", markeredgecolor="#777777", markersize=4.5, label="as segmented"),
        Line2D([], [], color="#222222", linewidth=1.0, label="labels of the same slices"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=7.5)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, models: list[str], name: str, phase: str, direction: str) -> None:
    for number, model in enumerate(models):
        for row in rows[rows["model"] == model].to_dict("records"):
            axes.plot(row["as_segmented"], number, "o", markersize=4.5, markerfacecolor="none",
                      markeredgecolor="#777777", zorder=4)  # fmt: skip
            if np.isfinite(row["standard_error"]):
                axes.plot([row["low_95"], row["high_95"]], [number] * 2, color=COLOURS[0], linewidth=0.9, zorder=2)
                axes.plot([row["low_68"], row["high_68"]], [number] * 2, color=COLOURS[0], linewidth=2.2, zorder=2)
                axes.plot(row["value"], number, "o", markersize=4.5, color=COLOURS[0], zorder=3)
    axes.axvline(float(rows["truth"].iloc[0]), color="#222222", linewidth=1.0, zorder=1)
    unit = str(rows["unit"].iloc[0])
    along = f", direction {direction}" if direction else ""
    title = f"{TITLES.get(name, name.replace('_', ' '))}, {phase}{along}"
    label(axes, x="" if unit == "1" else f"[{unit}]", y="", title=title)
    axes.title.set_fontsize(7.5)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.margins(x=0.08)
