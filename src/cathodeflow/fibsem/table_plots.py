"""Figure of a table of the MatPhase paper."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cathodeflow.plotting import COLOURS, TWO_COLUMNS, label, nothing_to_show, styled


@styled
def table_figure(table: pd.DataFrame, title: str) -> Figure:
    """Draw mIoU and frequency-weighted IoU of the rows of a table, with the standard deviation over the seeds.

    Parameters
    ----------
    table : DataFrame
        Of `paper_tables.paper_table`.
    title : str
    """
    rows = list(dict.fromkeys(table["model"]))
    figure = Figure(figsize=(TWO_COLUMNS, 1.1 + 0.22 * max(len(rows), 2)))
    if not rows:
        nothing_to_show(figure.subplots(), "none of the rows of this table was run")
        return figure
    grid = figure.subplots(1, 2, sharey=True)
    for axes, (name, text) in zip(grid, (("miu", "Mean IoU [%]"), ("fiu", "Weighted IoU [%]")), strict=True):
        for number, split in enumerate(table["split"].unique()):
            part = table[table["split"] == split]
            place = [rows.index(model) for model in part["model"]]
            spread = 100 * part[f"{name}_seed_deviation"].to_numpy(float)
            axes.errorbar(
                100 * part[name].to_numpy(float), place, xerr=np.nan_to_num(spread), fmt="o", color=COLOURS[number],
                linewidth=1, label=split,
            )  # fmt: skip
        label(axes, x=text, y="")
        axes.margins(x=0.08)
    grid[0].set_yticks(range(len(rows)), rows)
    grid[0].set_ylim(len(rows) - 0.5, -0.5)
    if table["split"].nunique() > 1:
        grid[1].legend(loc="best")
    figure.suptitle(title, fontsize=9)
    several = "; line: standard deviation over seeds" if (table["seeds"] > 1).any() else ""
    figure.supxlabel(f"Dot: mean{several}", fontsize=7.5, color="#555555")
    return figure
