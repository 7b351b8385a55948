"""Figures of the FIB-SEM stages: methods with intervals, phase fractions against the reference, curriculum."""

import textwrap
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from cathodeflow.fibsem.curriculum import pool_size
from cathodeflow.fibsem.network_options import Curriculum
from cathodeflow.plotting import COLOURS, MAP, TWO_COLUMNS, label, nothing_to_show, styled

Float64 = NDArray[np.float64]

# Characters of a warning per line.
_CHARACTERS = 115

#: Titles of the models.
MODELS = {
    "unet": "U-Net",
    "ugsm": "UGSM",
    "forest": "Random forest",
    "context": "U-Net, context",
    "matphase": "MatPhase",
    "matphase_context": "MatPhase, context",
    "ugsm_prior": "UGSM, prior subtracted",
    "ugsm_mlp": "UGSM and MLP",
    "context_mlp": "U-Net, context, and MLP",
}
#: Titles of the figures of merit, and the factor from fractions to percent.
FIGURES = {
    "miu": ("Mean IoU [%]", 100.0),
    "fiu": ("Weighted IoU [%]", 100.0),
    "accuracy": ("Accuracy [%]", 100.0),
    "boundary_f1": ("Boundary F1 [%]", 100.0),
    "ece": ("Calibration error [%]", 100.0),
    "specks": ("Specks per slice", 1.0),
    "false_specks": ("False specks per slice", 1.0),
}
_MARKERS = "oDs^v"
# Maximum number of colours for the stages of a curriculum.
_MOST_STAGES = 10


def model_title(name: str) -> str:
    """Title of a model.

    Examples
    --------
    >>> model_title("ugsm_mlp"), model_title("my_net")
    ('UGSM and MLP', 'my net')
    """
    return MODELS.get(name, name.replace("_", " "))


@styled
def methods_figure(
    table: pd.DataFrame,
    *,
    figures: Sequence[str] = ("miu", "fiu", "accuracy", "boundary_f1"),
    reference: str = "unet",
) -> Figure:
    """Draw figures of merit of all models: mean over the seeds with its interval, each seed as a small dot.

    Dots, not bars, as differences of a few percent are not visible on axes that begin at 0.

    Parameters
    ----------
    table : DataFrame
        Rows of `evaluation.evaluate` (`overall`) for models, seeds and splits; models are drawn in this order.
    figures : sequence of str
        Figures of merit, one panel each.
    reference : str
        Model whose mean is drawn as a dashed line, for each split.
    """
    models, splits = _unique(table, "model"), _unique(table, "split")
    figure = Figure(figsize=(TWO_COLUMNS, max(1.8, 0.95 + len(models) * (0.14 + 0.14 * len(splits)))))
    if not models:
        nothing_to_show(figure.subplots(), "no models to compare")
        return figure
    grid = figure.subplots(1, len(figures), sharey=True, squeeze=False)[0]
    for axes, name in zip(grid, figures, strict=True):
        title, factor = FIGURES.get(name, (f"{name.replace('_', ' ')} [%]", 100.0))
        for number, split in enumerate(splits):
            part = table[table["split"] == split]
            columns = [factor * part[column].to_numpy(float) for column in (name, f"{name}_low", f"{name}_high")]
            rows = pd.DataFrame(dict(zip(("value", "low", "high"), columns, strict=True))).assign(
                model=part["model"].to_numpy()
            )
            _dots(axes, rows, models, number, len(splits), number="{:.1f}")
            base = rows.loc[rows["model"] == reference, "value"].mean()
            if np.isfinite(base):
                axes.axvline(base, color=COLOURS[number], linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
        label(axes, x=title, y="")
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.margins(x=0.08)
    _finish(figure, grid, models, splits)
    several = "mean of seeds; small dots: seeds" if table.groupby(["model", "split"]).size().max() > 1 else "value"
    dashed = f"; dashed: {model_title(reference)}" if reference in models else ""
    figure.supxlabel(f"Dot: {several}; line: interval over originals{dashed}", fontsize=7.5, color="#555555")
    return figure


def add_warnings(figure: Figure, lines: Sequence[str]) -> None:
    """Write warnings above a figure, three at most."""
    more = [f"and {len(lines) - 3} more"] if len(lines) > 3 else []
    if lines:
        wrapped = [textwrap.fill(text, _CHARACTERS) for text in [*lines[:3], *more]]
        figure.suptitle("\n".join(wrapped), fontsize=7.5, color="#B00020")


@styled
def fractions_figure(table: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Draw predicted and reference phase fractions, with confidence intervals of the error.

    Parameters
    ----------
    table : DataFrame
        Rows of `evaluation.evaluate` (`overall`) for models, seeds and splits.
    classes : sequence of str
    """
    models, splits = _unique(table, "model"), _unique(table, "split")
    figure = Figure(figsize=(TWO_COLUMNS, max(1.8, 0.35 + len(splits) * (0.6 + 0.24 * len(models)))))
    if not models:
        nothing_to_show(figure.subplots(), "no models to compare")
        return figure
    grid = figure.subplots(len(splits), len(classes), sharey=True, squeeze=False)
    for line, split in zip(grid, splits, strict=True):
        part = table[table["split"] == split]
        for axes, name in zip(line, classes, strict=True):
            true = 100 * part[f"true_fraction_{name}"].to_numpy(float)
            columns = [100 * part[f"fraction_error_{name}{end}"].to_numpy(float) for end in ("", "_low", "_high")]
            rows = pd.DataFrame({"value": true + columns[0], "low": true + columns[1], "high": true + columns[2]})
            rows = rows.assign(model=part["model"].to_numpy())
            _dots(axes, rows, models, 0, 1, number="{:+.1f}", less=float(true.mean()))
            axes.axvline(true.mean(), color="#222222", linewidth=1.0, zorder=1)
            beside = split if len(splits) > 1 and name == classes[0] else ""
            label(axes, x="", y=beside, title=f"{name}, reference {true.mean():.1f} %")
            axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        _finish(figure, line, models, [])
    figure.supxlabel("Fraction [%]; line: reference; right: error [percentage points]", fontsize=8.5)
    return figure


@styled
def pacing_figure(entropy: ArrayLike, options: Curriculum, *, n_epochs: int, n_pixels: int) -> Figure:
    """Draw the fraction of the pixels that a curriculum trains on in each epoch, and the entropy of new pixels.

    Parameters
    ----------
    entropy : (pixels,)
        Entropies of the training pixels, or of a sample of them [nat].
    options : Curriculum
        The curriculum that was used; the other pacing functions are drawn with the same options.
    n_epochs : int
    n_pixels : int
        Number of training pixels.
    """
    chosen = options.pacing
    fractions = {
        kind: [
            pool_size(index, n_epochs, n_pixels, options.model_copy(update={"pacing": kind})) / n_pixels
            for index in range(n_epochs)
        ]
        for kind in get_args(Curriculum.model_fields["pacing"].annotation)
        if n_pixels
    }
    figure = Figure(figsize=(TWO_COLUMNS, 2.7))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    values = np.sort(np.asarray(entropy, dtype=np.float64))
    if not values.size:
        for axes in (left, right):
            nothing_to_show(axes, "no training pixels")
        return figure
    for number, (name, pool) in enumerate(fractions.items()):
        steps = 100 * np.asarray(pool, dtype=np.float64)
        own = name == chosen
        left.stairs(steps, np.arange(len(steps) + 1) + 0.5, baseline=None, label=name, zorder=3 if own else 2,
                    color=COLOURS[0] if own else "#9A9A9A", linewidth=2.0 if own else 1.1,
                    linestyle="-" if own else [(0, (4, 2)), (0, (1, 1.5)), (0, (5, 1, 1, 1))][number % 3])  # fmt: skip
    left.set(xlim=(0.5, n_epochs + 0.5), ylim=(0, 104))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(loc="lower right")
    label(left, x="Epoch", y="Pixels in the pool [%]", title=f"Pacing: {chosen}")
    _entropy_stages(figure, right, values, np.asarray(fractions[chosen]))
    return figure


def _entropy_stages(figure: Figure, axes: Axes, entropy: Float64, pool: Float64) -> None:
    """Draw a histogram of sorted entropies, coloured by the epoch in which pixels enter the pool."""
    reached = np.maximum.accumulate(pool)
    epochs = 1 + np.searchsorted(reached, (np.arange(entropy.size) + 0.5) / entropy.size)
    used = np.unique(epochs[epochs <= len(pool)])
    groups = np.array_split(used, min(len(used), _MOST_STAGES))
    names = [f"{group[0]}" if len(group) == 1 else f"{group[0]}–{group[-1]}" for group in groups]
    colours = [tuple(colour) for colour in colormaps[MAP](np.linspace(0.85, 0.2, len(groups)))]
    if (epochs > len(pool)).any():
        groups, names, colours = (
            [*groups, np.array([len(pool) + 1])],
            [*names, "never"],
            [*colours, (0.8, 0.8, 0.8, 1)],
        )
    parts = [entropy[np.isin(epochs, group)] for group in groups]
    edges = np.linspace(entropy[0], max(entropy[-1], entropy[0] + 1e-3), 46).tolist()
    weights = [np.full(part.size, 100 / entropy.size) for part in parts]
    axes.hist(parts, edges, stacked=True, color=colours, weights=weights)
    axes.set_xlim(edges[0], edges[-1])
    label(axes, x="Entropy [nat]", y="Pixels [%]", title="Epoch in which pixels enter the pool")
    norm = BoundaryNorm(np.arange(len(groups) + 1) - 0.5, len(groups))
    bar = figure.colorbar(ScalarMappable(norm, ListedColormap(colours)), ax=axes, ticks=range(len(groups)), pad=0.02)
    bar.set_ticklabels(names, fontsize=7)
    bar.ax.tick_params(which="both", length=0)
    bar.set_label("Epoch")


def _dots(
    axes: Axes, rows: pd.DataFrame, models: Sequence[str], index: int, count: int,
    *, number: str, less: float = 0.0,
) -> None:  # fmt: skip
    """Draw for each model the mean of its rows with the mean interval, the rows as small dots, and the value."""
    colour, marker = COLOURS[index % len(COLOURS)], _MARKERS[index % len(_MARKERS)]
    for line, model in enumerate(models):
        own = rows[rows["model"] == model]
        if own["value"].notna().sum() == 0:
            continue
        at = line + (index - (count - 1) / 2) * 0.36
        mean = own[["value", "low", "high"]].mean()
        axes.hlines(at, mean["low"], mean["high"], color=colour, linewidth=1.5, alpha=0.55)
        if len(own) > 1:
            axes.plot(own["value"], np.full(len(own), at), ".", color=colour, markersize=3, alpha=0.8, zorder=4)
        axes.plot(mean["value"], at, marker, color=colour, markersize=5, markeredgecolor="white", zorder=3,
                  markeredgewidth=0.6)  # fmt: skip
        text = number.format(mean["value"] - less).replace("-", "−")
        axes.text(1.02, at, text, transform=axes.get_yaxis_transform(), fontsize=7, va="center", color=colour)


def _finish(
    figure: Figure, grid: Sequence[Axes] | NDArray[np.object_], models: Sequence[str], splits: Sequence[str]
) -> None:
    grid[0].set_yticks(range(len(models)), [model_title(name) for name in models])
    grid[0].set_ylim(len(models) - 0.45, -0.55)
    for axes in grid:
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(False, axis="y")
    if len(splits) > 1:
        handles = [Line2D([], [], color=colour, marker=marker, linestyle="none", label=split)
                   for split, colour, marker in zip(splits, COLOURS, _MARKERS, strict=False)]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper center", ncols=len(splits))


def _unique(table: pd.DataFrame, column: str) -> list[str]:
    return [str(name) for name in table[column].unique()] if len(table) else []
