"""Figures of the SEM stages: confusion matrix, calibration, accuracy of classes, audit, predictions."""

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from textwrap import fill as wrapped

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from cathodeflow.plotting import COLOURS, ONE_COLUMN, TWO_COLUMNS, label, nothing_to_show, styled
from cathodeflow.sem.calibration import calibration_error
from cathodeflow.sem.predictions import class_numbers, probabilities

Float32 = NDArray[np.float32]
RIGHT, WRONG, OTHER = COLOURS[0], COLOURS[1], "#B8B8B8"
_MOST_IMAGES = 40
_MOST_PANELS = 8
_MAIN_SCOPES = ("all", "within sessions", "not seen in training", "seen in training")


def class_title(name: str) -> str:
    """Name of a class in figures.

    Examples
    --------
    >>> class_title("811_formation")
    '811 formation'
    """
    return name.replace("_", " ")


@styled
def confusion_figure(table: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Draw the confusion matrix: the fraction of each class (row) that is predicted as each class, and the number.

    Parameters
    ----------
    table : DataFrame
        Of `predictions.crop_predictions` or `predictions.original_predictions`.
    classes : sequence of str
        Sorted, so that those of one composition are adjacent.
    """
    k = len(classes)
    numbers = np.zeros((k, k), dtype=np.int64)
    np.add.at(numbers, tuple(class_numbers(table[name], classes) for name in ("label", "prediction")), 1)
    total = numbers.sum(1)
    fraction = numbers / np.maximum(total, 1)[:, None]
    side = float(np.clip(0.46 * k, 2.0, 12.0))
    figure = Figure(figsize=(side + 1.75, side + 1.35))
    axes = figure.subplots()
    # The root makes one error in twenty visible.
    depth = np.sqrt(fraction)[..., None] * 0.85
    hue = np.where(np.eye(k, dtype=bool)[..., None], to_rgb(RIGHT), to_rgb(WRONG))
    axes.imshow(1 - depth * (1 - hue))
    for row, col in zip(*np.nonzero(numbers), strict=True):
        dark = fraction[row, col] > 0.35
        percent = f"{100 * fraction[row, col]:.0f}" if fraction[row, col] >= 0.005 else "<1"
        axes.text(col, row - 0.1, percent, ha="center", va="center", fontsize=9,
                  color="white" if dark else "#222222")  # fmt: skip
        axes.text(col, row + 0.28, f"{numbers[row, col]:,}", ha="center", va="center", fontsize=5.5,
                  color="white" if dark else "#555555")  # fmt: skip
    axes.set_xticks(range(k), [class_title(name) for name in classes], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(k), [f"{class_title(name)}  ({n:,})" for name, n in zip(classes, total, strict=True)])
    axes.set_xticks(np.arange(k - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(k - 1) + 0.5, minor=True)
    axes.tick_params(which="both", length=0)
    axes.grid(which="minor", color="#E4E4E4", linewidth=0.5)
    for edge in _borders(classes):
        axes.axhline(edge - 0.5, color="#333333", linewidth=0.8)
        axes.axvline(edge - 0.5, color="#333333", linewidth=0.8)
    axes.spines[:].set(visible=True, color="#333333")
    right = int(np.trace(numbers))
    title = f"{right:,} of {len(table):,} correct: {100 * right / max(len(table), 1):.1f} %"
    label(axes, x="Prediction", y="Class (number)", title=title, grid=False)
    figure.supxlabel("In each cell: fraction of the row [%], and the number", fontsize=7.5, color="#555555")
    return figure


@styled
def calibration_figure(table: pd.DataFrame) -> Figure:
    """Draw reliability diagrams: accuracy against confidence, before and after temperature scaling.

    Parameters
    ----------
    table : DataFrame
        Rows of `calibration.reliability`, with the columns kind (crops, images) and temperature (before, after).
    """
    kinds = list(table["kind"].unique())
    figure = Figure(figsize=(TWO_COLUMNS if len(kinds) > 1 else ONE_COLUMN * 1.2, 3.9))
    grid = figure.subplots(2, len(kinds), squeeze=False, sharex=True, height_ratios=(3.2, 1))
    for column, kind in enumerate(kinds):
        upper, lower = grid[:, column]
        upper.plot([0, 100], [0, 100], color="#777777", linewidth=0.8, linestyle=(0, (4, 2)))
        for when, fill, line, marker in (("before", OTHER, "#777777", "s"), ("after", RIGHT, RIGHT, "o")):
            diagram = table[(table["kind"] == kind) & (table["temperature"] == when)]
            used, total = diagram[diagram["count"] > 0], diagram["count"].sum()
            upper.plot(100 * used["confidence"], 100 * used["accuracy"], color=line, linewidth=0.9, alpha=0.7)
            upper.scatter(
                100 * used["confidence"], 100 * used["accuracy"], s=8 + 60 * np.sqrt(used["count"] / total),
                color=fill, edgecolors=line, linewidths=0.7, marker=marker, zorder=3,
                label=f"{when}: {100 * calibration_error(diagram):.1f} %",
            )  # fmt: skip
            lower.stairs(diagram["count"], 100 * np.linspace(0, 1, len(diagram) + 1), color=line, fill=when == "after",
                         facecolor=(*to_rgb(RIGHT), 0.35), linewidth=1.0)  # fmt: skip
        upper.set(ylim=(-3, 103))
        legend = upper.legend(loc="lower right", title="calibration error", title_fontsize=8, alignment="left")
        for handle in legend.legend_handles:
            handle.set_sizes([26.0])
        lower.set_yscale("log")
        lower.yaxis.set_major_locator(LogLocator(10, numticks=4))
        lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        lower.yaxis.set_minor_locator(NullLocator())
        lower.set(xlim=(0, 101), ylim=(0.7, None))
        label(upper, x="", y="Accuracy [%]" if column == 0 else "", title=f"{'abcdef'[column]}  {total:,} {kind}")
        label(lower, x="Confidence [%]", y=kind.capitalize())
    return figure


@styled
def class_figure(images: pd.DataFrame, crops: pd.DataFrame) -> Figure:
    """Draw the accuracy of each class with its interval, of images and of crops.

    Parameters
    ----------
    images, crops : DataFrame
        Of `predictions.bootstrap`.
    """
    classes = list(images["label"].dropna())
    order = [None, *classes]
    edges = _borders(classes)
    # All classes on top, then each class, with gaps between compositions.
    height = {name: -(n + 0.6 * (n > 0) + 0.5 * sum(n > edge for edge in edges)) for n, name in enumerate(order)}
    figure = Figure(figsize=(ONE_COLUMN * 1.45, 1.2 + 0.25 * -min(height.values())))
    axes = figure.subplots()
    for table, colour, marker, offset, what in (
        (images, RIGHT, "o", 0.16, "images"), (crops, WRONG, "D", -0.16, "crops")
    ):  # fmt: skip
        rows = table[table["figure"] == "accuracy"]
        at = np.array([height[None if pd.isna(name) else name] for name in rows["label"]]) + offset
        axes.hlines(at, 100 * rows["low"], 100 * rows["high"], color=colour, linewidth=1.3, alpha=0.75)
        axes.plot(100 * rows["value"], at, marker, color=colour, markersize=4.2, label=what, markeredgecolor="white",
                  markeredgewidth=0.5)  # fmt: skip
    counts = images[images["figure"] == "accuracy"]["originals"].tolist()
    names = [f"{class_title(name) if name else 'all'}  ({n:,})" for name, n in zip(order, counts, strict=True)]
    axes.set_yticks(list(height.values()), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(right=101)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    label(axes, x="Accuracy [%]", y="")
    axes.grid(False, axis="y")
    return figure


@styled
def audit_figure(table: pd.DataFrame) -> Figure:
    """Draw the accuracy of the network and of trivial features in each scope, with the chance level.

    Parameters
    ----------
    table : DataFrame
        Of `baselines.accuracy_table`. Methods whose name begins with "network" are drawn as those of the network.
    """
    scopes = _audit_scopes(table["scope"].unique())
    methods = list(table["method"].unique())
    columns = min(len(scopes), 4)
    lines = -(-len(scopes) // max(columns, 1))
    figure = Figure(figsize=(TWO_COLUMNS, 0.55 + lines * (0.85 + 0.24 * len(methods))))
    if not scopes:
        nothing_to_show(figure.subplots(), "nothing to compare")
        return figure
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(scopes) :]:
        axes.set_visible(False)
    for axes, scope in zip(grid.flat, scopes, strict=False):
        part = table[table["scope"] == scope].set_index("method").reindex(methods)
        colours = [RIGHT if name.startswith("network") else OTHER for name in methods]
        value, low, high = (100 * part[name].to_numpy(float) for name in ("accuracy", "low", "high"))
        # A gap between the network and the trivial features.
        at = np.arange(len(methods)) + 0.35 * np.array([not name.startswith("network") for name in methods])
        axes.barh(at, value, height=0.62, color=colours)
        axes.hlines(at, low, high, color="#222222", linewidth=0.9)
        for row, percent, end in zip(at, value, high, strict=True):
            if np.isfinite(percent):
                text = f"{percent:.0f}" if percent in (0, 100) else f"{percent:.1f}"
                axes.text(end + 3, row, text, va="center", fontsize=7.5)
        chance = 100 * float(part["chance"].mean())
        axes.axvline(chance, color=WRONG, linewidth=1.0, linestyle=(0, (3, 2)))
        axes.set(xlim=(0, 126), xticks=(0, 50, 100), ylim=(at[-1] + 0.55, -0.55))
        axes.set_yticks(at, methods)
        axes.tick_params(axis="y", length=0)
        label(axes, x="", y="", title=f"{wrapped(scope, 22)}\n{int(part['n'].max()):,} images")
        axes.title.set_fontsize(7.5)
        axes.grid(False, axis="y")
    figure.supxlabel("Accuracy [%], with intervals; dashed: chance level", fontsize=9)
    return figure


@styled
def prediction_figure(table: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Draw the probabilities of images without labels, their entropy and OOD score, the highest score first.

    Parameters
    ----------
    table : DataFrame
        Of `image_predictions.predict_images`; of more than 40 images those with the highest OOD score are shown.
    classes : sequence of str
    """
    good = table[table["problem"].isna()]
    shown = good.head(_MOST_IMAGES)
    n, k = len(shown), len(classes)
    figure = Figure(figsize=(TWO_COLUMNS, float(max(1.55 + 0.19 * n, 2.2))))
    if not n:
        nothing_to_show(figure.subplots(), "no usable image")
        return figure
    heat, entropy, score = figure.subplots(1, 3, sharey=True, width_ratios=(max(3.0, 0.3 * k), 1, 1))
    values = probabilities(shown, classes)
    image = heat.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, best in enumerate(values.argmax(1)):
        heat.text(best, row, f"{100 * values[row, best]:.0f}", ha="center", va="center", fontsize=6.5,
                  color="white" if values[row, best] > 0.55 else "#222222")  # fmt: skip
    heat.set_xticks(range(k), [class_title(name) for name in classes], rotation=45, ha="right", rotation_mode="anchor")
    heat.set_yticks(range(n), short_names(shown["image"].astype(str), 34), fontsize=7)
    heat.set_yticks(np.arange(n - 1) + 0.5, minor=True)
    heat.tick_params(which="both", length=0)
    heat.grid(which="minor", axis="y", color="white", linewidth=1.5)
    for edge in _borders(classes):
        heat.axvline(edge - 0.5, color="#999999", linewidth=0.6)
    figure.colorbar(image, ax=heat, location="top", label="Probability", shrink=0.5, aspect=30, pad=0.01)
    colours = np.where(shown["foreign"].astype(bool), WRONG, RIGHT)
    at = np.arange(n)
    entropy.barh(at, 100 * shown["entropy_share"], height=0.6, color=COLOURS[4])
    entropy.set(xlim=(0, 100), xticks=(0, 50, 100))
    score.hlines(at, 0, shown["strangeness"], color=colours, linewidth=1.0)
    score.scatter(shown["strangeness"], at, color=colours, s=14, zorder=3)
    score.set_xlim(0, 1.12 * float(shown["strangeness"].max()) or 1.0)
    score.xaxis.set_major_locator(MaxNLocator(3))
    label(entropy, x="Entropy\n[% of maximum]", y="")
    label(score, x="OOD score\n[sigma]", y="")
    for axes in (entropy, score):
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", which="both", length=0)
    notes = [f"The {n} highest OOD scores of {len(good):,} images" if n < len(good) else f"{n} images",
             f"{int(good['foreign'].astype(bool).sum()):,} out of distribution (orange)"]  # fmt: skip
    notes += [f"{len(table) - len(good):,} unusable"] if len(good) < len(table) else []
    figure.suptitle("; ".join(notes), fontsize=8, x=0.01, ha="left")
    return figure


def _borders(classes: Sequence[str]) -> list[int]:
    """Positions at which another composition begins."""
    parts = [name.partition("_")[0] for name in classes]
    return [index for index in range(1, len(parts)) if parts[index] != parts[index - 1]]


def _audit_scopes(found: Iterable[str]) -> list[str]:
    """Scopes to draw: the main ones, then the sessions, restricted to their own classes if there are several."""
    names = list(found)
    sessions = [name for name in names if name.startswith("session ")]
    alone = [name for name in sessions if name.endswith(", its classes") or f"{name}, its classes" not in sessions]
    return [*(name for name in _MAIN_SCOPES if name in names), *alone][:_MOST_PANELS]


def short_names(names: Iterable[str], most: int = 30) -> list[str]:
    """Shorten paths to the folders that distinguish them, and long names by their middle."""
    paths = [PurePath(name) for name in names]
    plain = [path.name for path in paths]
    if len(set(plain)) < len(plain):
        plain = ["/".join(path.parts[-2:]) for path in paths]
    return [name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}" for name in plain]
