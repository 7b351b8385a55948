"""Figures of the Bragg stages: patches with positions, distances, errors against intensity, frames."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from cathodeflow.bragg.comparison import PERCENTILES, summary
from cathodeflow.plotting import COLOURS, MAP, ONE_COLUMN, TWO_COLUMNS, label, nothing_to_show, plain_log, styled

# Marker, size [pt] and colour of each kind of position; the sizes keep all visible where they coincide.
POSITIONS = {"truth": ("o", 11.0, COLOURS[2]), "fit": ("+", 9.0, COLOURS[0]), "network": ("x", 6.0, COLOURS[1])}
NAMES = {"network_fit": "network to fit", "network_truth": "network to truth", "fit_truth": "fit to truth"}
PAIR_COLOURS = dict(zip(NAMES, COLOURS, strict=False))
CASES = ("nearest", "median", "furthest")


def choose_cases(distance: Sequence[float] | NDArray[np.float64] | pd.Series, *, columns: int = 7) -> NDArray[np.int64]:
    """Choose the peaks of `patch_sheet`, (case, column): smallest, median and largest distances.

    With fewer than 3 * `columns` finite distances there are fewer columns, so that no peak is shown twice.

    Examples
    --------
    >>> choose_cases([0.5, 0.1, 0.2, 0.9, 0.3, 0.4], columns=2)
    array([[1, 2],
           [4, 5],
           [3, 0]])
    """
    distance = np.asarray(distance, dtype=np.float64)
    order = np.argsort(distance, kind="stable")[: int(np.isfinite(distance).sum())]
    columns = min(columns, len(order) // 3)
    middle = (len(order) - columns) // 2
    return np.stack([order[:columns], order[middle : middle + columns], order[::-1][:columns]]).astype(np.int64)


@styled
def patch_sheet(
    patches: NDArray[np.floating], corners: NDArray[np.integer], peaks: pd.DataFrame, *, distance: str = "network_fit"
) -> Figure:
    """Draw patches with the positions in them: rows with the smallest, the median and the largest distances.

    Parameters
    ----------
    patches : (3 * columns, row, col)
        In the order of `choose_cases`, flattened.
    corners : (3 * columns, 2) int
        Row and column of each patch's pixel (0, 0) in the frame [px].
    peaks : DataFrame
        The rows of `matching.compare_peaks` for these patches.
    distance : str
        Column written under each patch [px].
    """
    columns = len(patches) // 3
    figure = Figure(figsize=(TWO_COLUMNS, 0.65 + 3 * 1.14))
    if not columns:
        nothing_to_show(figure.subplots(), "fewer than three peaks to show")
        return figure
    axes = figure.subplots(3, columns, squeeze=False)
    shown = [name for name in POSITIONS if f"{name}_row" in peaks]
    for index, (axis, patch, corner) in enumerate(zip(axes.flat, patches, corners, strict=True)):
        # The darkest grey level is two thirds, so that the marks are also visible on the brightest pixels.
        axis.imshow(patch, cmap="gray_r", vmin=patch.min(), vmax=patch.min() + 1.5 * max(float(np.ptp(patch)), 1e-9))
        for name in shown:
            row, col = peaks[f"{name}_row"].iloc[index] - corner[0], peaks[f"{name}_col"].iloc[index] - corner[1]
            axis.add_line(_position(name, col, row))
        axis.set(xticks=[], yticks=[], xlim=(-0.5, patch.shape[1] - 0.5), ylim=(patch.shape[0] - 0.5, -0.5))
        axis.spines[:].set(visible=True, color="#BBBBBB")
        axis.set_xlabel(f"{peaks[distance].iloc[index]:.3f} px", labelpad=2, fontsize=8)
    for axis, case in zip(axes[:, 0], CASES, strict=True):
        axis.set_ylabel(case, fontsize=9)
    handles = [_position(name, 0, 0) for name in shown]
    figure.legend(handles, shown, loc="outside upper center", ncols=len(shown))
    figure.supxlabel(
        f"Distance {NAMES[distance]}; patches of {patches.shape[1]} x {patches.shape[2]} px, each on its own scale",
        fontsize=8,
    )
    return figure


@styled
def distances(peaks: pd.DataFrame) -> Figure:
    """Draw the histogram of the distance between network and fit, and cumulative distributions of all distances.

    Parameters
    ----------
    peaks : DataFrame
        As `matching.compare_peaks` returns it.
    """
    figure = Figure(figsize=(TWO_COLUMNS, 2.9))
    left, right = figure.subplots(1, 2)
    values = {name: np.sort(peaks[name].dropna().to_numpy()) for name in NAMES if name in peaks}
    values = {name: found for name, found in values.items() if found.size}
    if "network_fit" not in values:
        for axis in (left, right):
            nothing_to_show(axis, "no peaks to compare")
        return figure
    main, facts = values["network_fit"], summary(values["network_fit"])
    least = max(min(float(np.quantile(found, 0.002)) for found in values.values()), 1e-4)
    greatest = max(1.1 * max(float(found[-1]) for found in values.values()), 10 * least)
    left.hist(
        np.maximum(main, least), bins=np.geomspace(least, greatest, 51), color=PAIR_COLOURS["network_fit"], alpha=0.8
    )
    left.set(xscale="log", xlim=(least, greatest), ylim=(0, 1.35 * left.get_ylim()[1]))
    for height, (name, percent) in zip((0.75, 0.83, 0.91, 0.99), PERCENTILES.items(), strict=True):
        at = float(facts[name] or 0)
        left.axvline(at, ymax=height, color="#333333", linewidth=0.8, linestyle=(0, (4, 2)))
        left.annotate(
            f"{percent:g} %: {at:.3f} px",
            (at, height),
            (-3, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
        )
    label(left, x="Distance network to fit [px]", y="Peaks", title=f"a  {main.size:,} peaks", grid=False)
    for name, found in values.items():
        steps = np.arange(1, found.size + 1) / found.size
        right.step(
            found, 100 * steps, where="post", color=PAIR_COLOURS[name], label=f"{NAMES[name]}: {np.median(found):.3f}"
        )
    right.set(xscale="log", xlim=(least, greatest), ylim=(0, 100.5))
    right.axhline(50, color="#333333", linewidth=0.8, linestyle=(0, (4, 2)))
    right.legend(loc="lower right", title="median [px]", title_fontsize=8, alignment="left", handlelength=1.0)
    for axis in (left, right):
        plain_log(axis.xaxis)
    label(right, x="Distance [px]", y="Peaks within the distance [%]", title="b")
    return figure


@styled
def error_against_intensity(series: Mapping[str, pd.DataFrame], found: pd.DataFrame | None = None) -> Figure:
    """Draw the median distance against intensity, a line for each of `series`; with a truth also recall and precision.

    Parameters
    ----------
    series : mapping
        Tables of `comparison.error_by_intensity` by the name of their distance, such as `network_fit`.
    found : DataFrame, optional
        As `comparison.detection` returns it: recall against true amplitude, precision against measured intensity.
    """
    figure = Figure(figsize=(ONE_COLUMN * 1.25 if found is None else TWO_COLUMNS, 3.1))
    axes = figure.subplots(1, 1 if found is None else 2, squeeze=False)[0]
    _draw_errors(axes[0], {name: table for name, table in series.items() if len(table)})
    if found is not None:
        _draw_found(axes[1], found)
    return figure


def _draw_errors(axes: Axes, series: Mapping[str, pd.DataFrame]) -> None:
    if not series:
        nothing_to_show(axes, "no peaks to compare")
        return
    for (name, table), marker in zip(series.items(), "osD", strict=False):
        colour = PAIR_COLOURS[name]
        axes.fill_between(table["intensity"], table["low"], table["high"], color=colour, alpha=0.2, linewidth=0)
        axes.plot(table["intensity"], table["median"], marker=marker, color=colour, label=NAMES[name])
    axes.set(xscale="log", yscale="log")
    plain_log(axes.xaxis, axes.yaxis)
    axes.legend(title="median, 95 % interval", title_fontsize=8, alignment="left")
    label(axes, x="Intensity of the peak [counts]", y="Distance [px]")


def _draw_found(axes: Axes, table: pd.DataFrame) -> None:
    if not len(table):
        nothing_to_show(axes, "no peaks to count")
        return
    kinds = (("recall", "true", "o"), ("precision", "found", "s"))
    for (name, whole, marker), colour in zip(kinds, COLOURS, strict=False):
        use = table[table[whole] > 0]
        centre = np.sqrt(use["low"] * use["high"])
        axes.fill_between(
            centre, 100 * use[f"{name}_low"], 100 * use[f"{name}_high"], color=colour, alpha=0.2, linewidth=0
        )
        axes.plot(centre, 100 * use[name], marker=marker, color=colour, label=f"{name} ({use[whole].sum():,} peaks)")
    axes.set(xscale="log", ylim=(0, 103))
    plain_log(axes.xaxis)
    axes.legend(loc="lower right", title="95 % Wilson interval", title_fontsize=8, alignment="left")
    label(axes, x="Amplitude or, for precision, intensity [counts]", y="Fraction of the peaks [%]")


@styled
def frame_with_peaks(
    frame: NDArray[np.floating],
    peaks: pd.DataFrame,
    others: pd.DataFrame | None = None,
    flagged: pd.DataFrame | None = None,
    *,
    title: str | None = None,
    persistence: str = "intensity",
) -> Figure:
    """Draw a frame on a logarithmic scale, with a cross at every peak whose size increases with persistence.

    Parameters
    ----------
    frame : (row, col)
        [counts], 0 at bad pixels.
    peaks : DataFrame
        Peaks of the frame: network_row, network_col [px] and the column named by `persistence` [counts].
    others : DataFrame, optional
        Peaks that are only fitted: row, col [px]; shown as dots.
    flagged : DataFrame, optional
        Peaks with a flag, or without a fit: row, col [px]; shown as squares.
    title : str, optional
    persistence : str
    """
    rows, cols = frame.shape
    # Long frames stay legible; square frames are one and a half columns wide.
    width = ONE_COLUMN * 1.45
    figure = Figure(figsize=(width, float(np.clip((width - 1.0) * rows / cols + 0.7, 2.0, 8.0))))
    axes = figure.subplots()
    positive = frame[frame > 0]
    low, high = np.percentile(positive, [5, 99.95]) if positive.size else (1.0, 10.0)
    norm = LogNorm(max(low, high / 1e4, 1e-3), max(high, 1.001 * low, 2e-3))
    image = axes.imshow(np.clip(frame, norm.vmin, None), cmap=MAP, norm=norm)
    figure.colorbar(image, ax=axes, label="Intensity [counts]", shrink=0.9, pad=0.02, extend="both")
    strength = peaks[persistence].to_numpy(np.float64)
    axes.scatter(
        peaks["network_col"],
        peaks["network_row"],
        s=_area(strength),
        marker="x",
        linewidths=0.9,
        color=COLOURS[4],
        path_effects=[withStroke(linewidth=1.9, foreground="black", alpha=0.6)],
    )
    if others is not None:
        axes.scatter(
            others["col"], others["row"], s=9, marker="o", color=COLOURS[2], edgecolors="black", linewidths=0.4
        )
    if flagged is not None:
        edge = COLOURS[1]
        axes.scatter(
            flagged["col"], flagged["row"], s=30, marker="s", facecolors="none", edgecolors=edge, linewidths=0.6
        )
    axes.set(xlim=(-0.5, cols - 0.5), ylim=(rows - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    if len(strength):
        ticks = [tick for tick in 10.0 ** np.arange(0, 8) if 0.7 * strength.min() <= tick <= 1.5 * strength.max()]
        handles = [
            Line2D(
                [],
                [],
                linestyle="",
                marker="x",
                markersize=float(np.sqrt(_area(tick))),
                color=COLOURS[4],
                label=f"{tick:,.0f}",
            )
            for tick in ticks
        ]
        if others is not None and len(others):
            style: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 3, "markeredgecolor": "black"}
            handles.append(Line2D([], [], color=COLOURS[2], label="only fitted", **style))
        if flagged is not None and len(flagged):
            square: dict[str, Any] = {"linestyle": "", "marker": "s", "markersize": 5, "markerfacecolor": "none"}
            handles.append(Line2D([], [], markeredgecolor=COLOURS[1], label="flagged", **square))
        axes.legend(
            handles=handles,
            title="Persistence [counts]",
            title_fontsize=8,
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=min(max(len(handles), 1), 4),
        )
    label(axes, x="Column [px]", y="Row [px]", grid=False)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure


def _position(name: str, x: float, y: float) -> Line2D:
    marker, size, colour = POSITIONS[name]
    return Line2D(
        [x],
        [y],
        linestyle="",
        marker=marker,
        markersize=size,
        color=colour,
        markerfacecolor="none",
        markeredgewidth=1.3,
    )


def _area(strength: float | NDArray[np.float64]) -> Any:
    """Return the area of a cross [pt^2]: its arms grow with the logarithm of the persistence [counts]."""
    return (2.0 + 2.0 * np.log10(np.maximum(strength, 1.0))) ** 2
