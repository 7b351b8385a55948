"""Figure of the comparison of search settings."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cathodeflow.plotting import TWO_COLUMNS, nothing_to_show, styled

# Column, title, factor, format, and whether a high value is good.
_PANELS = (
    ("found_fraction", "Found [%]", 100.0, "{:.0f}", True),
    ("false_fraction", "False [%]", 100.0, "{:.1f}", False),
    ("error", "Median error [px]", 1.0, "{:.3f}", False),
)


@styled
def search_settings(table: pd.DataFrame) -> Figure:
    """Draw maps of the fraction found, the false fraction and the error against threshold and persistence.

    A column of maps for each binning; the recommended setting has a frame.

    Parameters
    ----------
    table : DataFrame
        As `search_study.summarise` returns it.
    """
    binnings = sorted(table["binning"].unique())
    rows = table["min_value"].nunique()
    figure = Figure(figsize=(TWO_COLUMNS, 0.7 + len(_PANELS) * (0.55 + 0.24 * rows)))
    grid = figure.subplots(len(_PANELS), len(binnings), squeeze=False)
    for line, (name, title, factor, text, high_is_good) in zip(grid, _PANELS, strict=True):
        values = factor * table[name].dropna()
        limits = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        colours = "viridis" if high_is_good else "viridis_r"
        for axes, binning in zip(line, binnings, strict=True):
            here = table[table["binning"] == binning]
            _draw_map(axes, here, name, factor, text, limits, colours)
            axes.set_title(f"{title}, binning {binning}" if axes is line[0] else f"binning {binning}")
    figure.supxlabel("Minimum persistence [counts]", fontsize=9)
    figure.supylabel("Minimum value [counts]", fontsize=9)
    return figure


def _draw_map(
    axes: Axes, table: pd.DataFrame, name: str, factor: float, text: str, limits: tuple[float, float], colours: str
) -> None:
    values = factor * table.pivot(index="min_value", columns="min_persistence", values=name)
    if not len(values):
        nothing_to_show(axes, "nothing found")
        return
    image = axes.imshow(values, origin="lower", aspect="auto", cmap=colours, vmin=limits[0], vmax=limits[1])
    axes.set_xticks(range(values.shape[1]), [f"{value:g}" for value in values.columns])
    axes.set_yticks(range(values.shape[0]), [f"{value:g}" for value in values.index])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, col), value in np.ndenumerate(values.to_numpy(np.float64)):
        # Dark text on light cells.
        light = np.isfinite(value) and sum(image.to_rgba(value)[:3]) > 1.5
        shown = text.format(value) if np.isfinite(value) else "-"
        axes.text(col, row, shown, ha="center", va="center", fontsize=7.5, color="black" if light else "white")
    chosen = table[table["recommended"]]
    for value, persistence in chosen[["min_value", "min_persistence"]].itertuples(index=False):
        row, col = list(values.index).index(value), list(values.columns).index(persistence)
        axes.add_patch(Rectangle((col - 0.48, row - 0.48), 0.96, 0.96, fill=False, edgecolor="#D55E00", linewidth=2))
