"""Figure of the properties of segmentations against those of the labels, with error bars."""

from collections.abc import Sequence

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
# Names of errors.
_SOURCES = {"both": "both errors", "segmentation": "segmentation error", "sampling": "sampling error"}


@styled
def properties_figure(table: pd.DataFrame, *, best: str | None = None, phases: Sequence[str] | None = None) -> Figure:
    """Draw the properties of the test slices by method: as segmented, corrected with intervals, and of the labels.

    Parameters
    ----------
    table : DataFrame
        Of the stage `compare_properties`. Directions of a property are drawn as one panel each; the first direction,
        across a few slices only, is left out.
    best : str, optional
        Method that is marked as the best one.
    phases : sequence of str, optional
        Phases that are drawn. Default: all.
    """
    directions = table["direction"].fillna("").astype(str).str.removesuffix(".0")
    table = table.assign(direction=directions)
    shown = table[table["property"].isin(_DRAWN) & (table["direction"] != "0") & np.isfinite(table["truth"])]
    shown = shown if phases is None else shown[shown["phase"].isin(phases)]
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


@styled
def discharge_figure(table: pd.DataFrame) -> Figure:
    """Draw discharge curves of the measured cell and of cells drawn from the error bars, one panel for each current.

    Parameters
    ----------
    table : DataFrame
        Curves of the stage `cell`: `error` is `none` for the measured cell.
    """
    rates = list(dict.fromkeys(table["c_rate"])) if len(table) else []
    figure = Figure(figsize=(TWO_COLUMNS, 2.7))
    if not rates:
        nothing_to_show(figure.subplots(), "no discharge curves: PyBaMM is not installed")
        return figure
    kinds = [kind for kind in dict.fromkeys(table["error"]) if kind != "none"]
    colours = dict(zip(kinds, (COLOURS[0], COLOURS[1], COLOURS[2]), strict=False))
    for axes, rate in zip(figure.subplots(1, len(rates), sharey=True, squeeze=False)[0], rates, strict=True):
        own = table[table["c_rate"] == rate]
        spread = []
        for kind in kinds:
            cells = own[own["error"] == kind].groupby("cell")
            for _, curve in cells:
                axes.plot(curve["capacity_ah"], curve["voltage"], color=colours[kind], linewidth=0.7, alpha=0.45)
            ends = cells["capacity_ah"].max().to_numpy()
            if len(ends) > 1:
                spread.append(f"{_SOURCES[kind]}: ± {ends.std(ddof=1):.2g} A h")
        middle = own[own["error"] == "none"]
        axes.plot(middle["capacity_ah"], middle["voltage"], color="#222222", linewidth=1.4, zorder=4)
        end = f"{middle['capacity_ah'].max():.2f} A h" if len(middle) else "no discharge"
        axes.text(0.04, 0.05, "\n".join([end, *spread]), transform=axes.transAxes, fontsize=7.5, va="bottom")
        label(axes, x="Charge [A h]", y="Voltage [V]" if rate == rates[0] else "", title=f"{rate:g}C")
    handles = [Line2D([], [], color="#222222", linewidth=1.4, label="as measured")]
    handles += [Line2D([], [], color=colours[kind], linewidth=1.2, label=_SOURCES[kind]) for kind in kinds]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=7.5)
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
    along = f", axis {direction}" if direction else ""
    title = f"{TITLES.get(name, name.replace('_', ' '))}, {phase}{along}"
    label(axes, x="" if unit == "1" else f"[{unit}]", y="", title=title)
    axes.title.set_fontsize(7.5)
    if name == "tortuosity_factor":
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.margins(x=0.08)
