"""Style of all figures, made without pyplot so that no global state changes, and the figure of training curves."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

#: Colours that are distinct for all common types of colour blindness (M. Okabe, K. Ito, 2008), darkest first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#4D4D4D")

#: Colour map of images and other quantities, with uniform lightness steps.
MAP = "magma"

#: Widths of one and two columns of a journal [inch].
ONE_COLUMN, TWO_COLUMNS = 3.5, 7.2

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#333333",
    "axes.labelcolor": "#222222",
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "image.cmap": MAP,
    "image.interpolation": "nearest",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "xtick.color": "#333333",
    "xtick.labelsize": 8,
    "ytick.color": "#333333",
    "ytick.labelsize": 8,
}

Arguments = ParamSpec("Arguments")


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Draw a figure in the project's style, which is only active inside the decorated function."""

    @wraps(draw)
    def in_style(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return in_style


def label(axes: Axes, *, x: str, y: str, title: str | None = None, grid: bool = True) -> None:
    """Name both axes, with units in brackets, and draw a light grid."""
    axes.set(xlabel=x, ylabel=y)
    if title:
        axes.set_title(title)
    axes.grid(grid)


# Values of a decade that are labelled on an axis, by the ratio that it spans.
_LOG_TICKS = ((6, (1, 1.5, 2, 3, 5, 7)), (30, (1, 2, 5)), (300, (1, 3)), (np.inf, (1,)))


def nothing_to_show(axes: Axes, text: str) -> None:
    """Write in the middle of empty axes why they are empty."""
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#777777")


def plain_log(*axes: Axis) -> None:
    """Label round values of each decade as plain numbers, with more labels on fewer decades."""
    for axis in axes:
        low, high = axis.get_view_interval()
        subs = next(values for span, values in _LOG_TICKS if high < span * low)
        axis.set_major_locator(LogLocator(10, subs))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(NullFormatter())


def scale_bar(axes: Axes, rows: int, cols: int, pixel_nm: float) -> None:
    """Draw a bar of a round length, about a fifth of the image, at the lower left."""
    most = 0.25 * cols * pixel_nm
    power = 10.0 ** np.floor(np.log10(most))
    length = max(step * power for step in (1, 2, 5) if step * power <= most)
    text = f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm"
    x, y, thick = 0.03 * cols, 0.95 * rows, max(0.012 * rows, 1)
    effects = [withStroke(linewidth=1.5, foreground="black")]
    axes.add_patch(Rectangle((x, y - thick), length / pixel_nm, thick, color="white", path_effects=effects))
    # From the left, since in a small image the text is longer than the bar.
    axes.text(x, y - 2.2 * thick, text, color="white", ha="left", va="bottom", fontsize=8, path_effects=effects)


@styled
def training_curves(history: Sequence[Mapping[str, Any]], *, unit: str, kept: int | None = None) -> Figure:
    """Draw the losses of training and validation, with a mark at the epoch whose weights were kept.

    Parameters
    ----------
    history : sequence of mapping
        One row per epoch: `epoch` and losses, whose keys end in `_loss`; other keys are ignored.
    unit : str
        Unit of the losses.
    kept : int, optional
        Epoch to mark. Default: that with the lowest validation loss.
    """
    figure = Figure(figsize=(ONE_COLUMN * 1.25, 2.9))
    axes = figure.subplots()
    table = pd.DataFrame([dict(row) for row in history])
    losses = [name for name in table.columns if str(name).endswith("_loss")]
    if not losses:
        nothing_to_show(axes, "no epochs were trained")
        return figure
    for name, colour, marker in zip(losses, COLOURS, "osD^v<>", strict=False):
        curve = table[["epoch", name]].dropna()
        few = marker if len(curve) < 3 else None
        axes.plot(curve["epoch"], curve[name], color=colour, marker=few, label=str(name).removesuffix("_loss"))
    if "validation_loss" in table and table["validation_loss"].notna().any():
        best = table.iloc[int(np.nanargmin(table["validation_loss"])) if kept is None else kept - 1]
        axes.plot(
            best["epoch"],
            best["validation_loss"],
            "o",
            color="black",
            markersize=5,
            label=f"kept: epoch {best['epoch']:g}",
        )
    if (table[losses].min().min()) > 0:
        axes.set_yscale("log")
        plain_log(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.legend()
    label(axes, x="Epoch", y=f"Loss [{unit}]")
    return figure
