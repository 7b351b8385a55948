"""Figures of the particles in micrographs: contact sheet with outlines, and distributions of each class."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cathodeflow.plotting import COLOURS, TWO_COLUMNS, label, nothing_to_show, scale_bar, styled
from cathodeflow.sem.particle_distributions import weighted_quantiles

MEASURED, CUT = COLOURS[5], COLOURS[4]
# Classes that are drawn: more would not be readable.
_MOST_CLASSES = 12
_STYLES = ("-", "--", ":")
# Quantities of the small panels, and how each is named; as [%] if below 1 throughout.
_PANELS = {
    "aspect": "Aspect ratio",
    "roundness": "Roundness",
    "roughness": "Roughness [%]",
    "crack_fraction": "Crack fraction [%]",
    "brightness": "Brightness [%]",
}


class Shown(NamedTuple):
    """Part of an image on the contact sheet.

    image : (row, col) uint8
    outlines : list of (n, 2), corners (row, col) of each particle, counted from the first pixel of the part.
    cut : list of bool, whether the edge of the whole image cuts each particle.
    title : str
    pixel_nm : float, optional
    """

    image: NDArray[np.uint8]
    outlines: list[NDArray[np.float64]]
    cut: list[bool]
    title: str
    pixel_nm: float | None


@styled
def outlines_figure(parts: Sequence[Shown]) -> Figure:
    """Draw parts of images with the outlines of their particles: orange those measured, blue those cut by the edge."""
    parts = parts[:_MOST_CLASSES]
    columns = min(3, len(parts))
    lines = -(-len(parts) // columns)
    width = TWO_COLUMNS / columns
    height = width * max(part.image.shape[0] / part.image.shape[1] for part in parts) + 0.25
    figure = Figure(figsize=(TWO_COLUMNS, lines * height))
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, part in zip(grid.flat, parts, strict=False):
        rows, cols = part.image.shape
        axes.imshow(part.image, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
        colours = [CUT if cut else MEASURED for cut in part.cut]
        corners = [outline[:, ::-1] for outline in part.outlines]
        axes.add_collection(PolyCollection(corners, facecolors="none", edgecolors=colours, linewidths=0.7))
        axes.set(xlim=(-0.5, cols - 0.5), ylim=(rows - 0.5, -0.5))
        axes.set_title(part.title, fontsize=7.5)
        if part.pixel_nm:
            scale_bar(axes, rows, cols, part.pixel_nm)
    return figure


@styled
def distributions_figure(table: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Draw the cumulative distribution of the diameters of each class, and mean and interval of the other quantities.

    Parameters
    ----------
    table : DataFrame
        Particles that `particles` wrote.
    summary : DataFrame
        Of `particle_distributions.distributions`.
    """
    used = table[table["weight"] > 0]
    unit = "um" if used["diameter_um"].notna().all() else "px"
    classes = list(dict.fromkeys(used["label"]))[:_MOST_CLASSES]
    if not classes:
        figure = Figure(figsize=(TWO_COLUMNS, 2))
        nothing_to_show(figure.subplots(), "no particles")
        return figure
    figure = Figure(figsize=(TWO_COLUMNS, 3.1 + 0.16 * len(classes)))
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.0, 1.1 + 0.16 * len(classes)))[:, 0]
    number, volume = upper.subplots(1, 2, sharey=True)
    shown = "µm" if unit == "um" else "px"
    for axes, power, by in ((number, 0, "number"), (volume, 3, "volume (diameter cubed)")):
        for index, name in enumerate(classes):
            same = used[used["label"] == name].sort_values(f"diameter_{unit}")
            _cumulative(axes, same, f"diameter_{unit}", power, index, name.replace("_", " "))
        label(axes, x=f"Equivalent diameter [{shown}]", y="", title=f"By {by}")
    number.set_ylabel("Cumulative fraction [%]")
    volume.legend(fontsize=7, loc="lower right", handlelength=1.6)
    panels = lower.subplots(1, 1 + len(_PANELS), sharey=True)
    quantities = {f"diameter_{unit}": f"Median diameter\n[{shown}]", **_PANELS}
    for axes, (quantity, title) in zip(panels, quantities.items(), strict=True):
        statistic = "d50" if quantity.startswith("diameter") else "mean"
        rows = summary[(summary["quantity"] == quantity) & (summary["statistic"] == statistic)].set_index("label")
        factor = 100 if title.endswith("%]") else 1
        for index, name in enumerate(classes):
            if name not in rows.index:
                continue
            value, low, high = factor * rows.loc[name, ["value", "low", "high"]].to_numpy(np.float64)
            axes.hlines(index, low, high, color=COLOURS[index % len(COLOURS)], linewidth=1.2)
            axes.plot(value, index, "o", color=COLOURS[index % len(COLOURS)], markersize=3.5)
        label(axes, x=title.replace(" [", "\n["), y="")
        axes.set_ylim(len(classes) - 0.5, -0.5)
        axes.margins(x=0.15)
        axes.xaxis.label.set_size(7.5)
        axes.tick_params(axis="x", labelsize=7)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(classes)), [name.replace("_", " ") for name in classes])
    return figure


def _cumulative(axes: Axes, same: pd.DataFrame, column: str, power: int, index: int, name: str) -> None:
    values = same[column].to_numpy(np.float64)
    levels = np.linspace(0, 1, 201)
    quantiles = weighted_quantiles(values, same["weight"].to_numpy(np.float64) * values**power, levels.tolist())
    style = _STYLES[index // len(COLOURS) % len(_STYLES)]
    axes.plot(quantiles, 100 * levels, style, color=COLOURS[index % len(COLOURS)], label=name)
