"""Figures of the properties of labelled volumes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from cathodeflow.fibsem.microstructure.property_table import Curve
from cathodeflow.fibsem.surface_page import PHASE_COLOURS
from cathodeflow.plotting import TWO_COLUMNS, label, nothing_to_show, styled

_DIRECTIONS = {"0": "slices", "1": "rows", "2": "columns"}
_SHOWN = (
    ("volume_fraction", "Volume fraction"),
    ("specific_surface_area", "Specific surface area"),
    ("contact_area", "Contact area"),
    ("tortuosity_factor", "Tortuosity factor"),
    ("effective_diffusivity", "Effective diffusivity"),
    ("percolating_fraction", "Percolating fraction"),
)
_MARKERS = "osD^v<>PX"
_BLOCKED, _GREY = "does not percolate", "#777777"
# Largest value of an axis with intervals, in multiples of the largest value drawn.
_FARTHEST = 3.0


@styled
def properties_figure(table: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Draw fractions, surfaces and transport: a panel for each property, with the 95 % intervals where they are known.

    Parameters
    ----------
    table : DataFrame
        Rows of `properties.csv`; with a column `method`, the methods are side by side. Hollow markers at the edge are
        methods by which a phase does not percolate, where it does by others.
    classes : sequence of str
    """
    figure = Figure(figsize=(TWO_COLUMNS, 5.2))
    methods = list(dict.fromkeys(table["method"])) if "method" in table else [""]
    hollow = False
    for axes, (name, title) in zip(figure.subplots(2, 3).ravel(), _SHOWN, strict=True):
        rows = table[table["property"] == name]
        if rows.empty:
            nothing_to_show(axes, "not computed")
            axes.set_title(title)
            continue
        labels = [
            f"{phase}, {_DIRECTIONS[direction]}" if direction else phase
            for phase, direction in zip(rows["phase"], rows["direction"].astype(str), strict=True)
        ]
        places = list(dict.fromkeys(labels))
        absent: dict[tuple[int, str], list[tuple[float, str]]] = {}
        for k, method in enumerate(methods):
            own = (rows["method"] == method).to_numpy() if "method" in rows else np.ones(len(rows), bool)
            part = rows[own]
            at = np.array([places.index(text) for text, is_own in zip(labels, own, strict=True) if is_own])
            at = at + (k - (len(methods) - 1) / 2) * 0.7 / max(len(methods), 1)
            value = part["value"].to_numpy(float)
            colours = [_colour(str(phase), classes) for phase in part["phase"]]
            finite = np.isfinite(value)
            axes.hlines(at, part["low_95"], part["high_95"], color=colours, linewidth=1.2)
            marker = _MARKERS[k % len(_MARKERS)]
            axes.scatter(
                value[finite], at[finite], c=[c for c, ok in zip(colours, finite, strict=True) if ok], marker=marker,
                s=22, label=method or None, zorder=3,
            )  # fmt: skip
            for y, one in zip(at, value, strict=True):
                if not np.isfinite(one):
                    text = _BLOCKED if np.isinf(one) else "unknown"
                    absent.setdefault((round(float(y)), text), []).append((float(y), marker))
        for (_, text), found in absent.items():
            across = axes.get_yaxis_transform()
            if len(found) == len(methods):
                # Once, as a line of text is higher than the distance of two methods.
                middle = float(np.mean([y for y, _ in found]))
                written = axes.text(0.02, middle, text, transform=across, fontsize=7, va="center", color=_GREY)
                written.set_in_layout(False)
            elif text == _BLOCKED:
                hollow = True
                for y, marker in found:
                    axes.scatter(0.04, y, marker=marker, s=22, transform=across, facecolors="none", edgecolors=_GREY)
        axes.set_yticks(range(len(places)), places, fontsize=7)
        axes.set_ylim(len(places) - 0.4, -0.6)
        finite = rows["value"][np.isfinite(rows["value"])]
        # Intervals of small samples may reach so far that the values could not be compared.
        high = min(float(rows["high_95"].max()), _FARTHEST * float(finite.max())) if finite.any() else np.nan
        axes.set_xlim(0, 1.08 * float(np.nanmax([finite.max(), high])) if finite.any() else 1)
        if name == "tortuosity_factor" and finite.max() > 10:
            highest = float(np.nanmax([finite.max(), rows["high_95"].max()]))
            axes.set_xscale("log")
            axes.set_xlim(0.9, 1.2 * highest)
            ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 1000, 10000) if tick <= highest]
            axes.set_xticks(ticks if len(ticks) < 6 else ticks[::3], minor=False)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
        unit = str(rows["unit"].iloc[0]).replace("um", "µm")
        label(axes, x="" if unit == "1" else f"[{unit}]", y="", title=title)
    if len(methods) > 1:
        handles, names = figure.axes[0].get_legend_handles_labels()
        if hollow:
            handles.append(Line2D([], [], marker="o", fillstyle="none", color=_GREY, linestyle=""))
            names.append(_BLOCKED)
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(methods), 5))
    return figure


@styled
def sizes_figure(curves: Sequence[Curve], slices: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Draw the fractions of each slice, the two-point correlations, and the distributions of chords and sizes.

    Parameters
    ----------
    curves : sequence of Curve
    slices : (z, n_classes) int
        Voxels of each class in each slice.
    classes : sequence of str
    """
    figure = Figure(figsize=(TWO_COLUMNS, 5.2))
    grid = figure.subplots(2, 2)
    fractions = slices / np.maximum(slices.sum(1, keepdims=True), 1)
    for index, phase in enumerate(classes):
        few = "o" if len(slices) < 3 else None
        grid[0, 0].plot(100 * fractions[:, index], color=_colour(phase, classes), label=phase, marker=few)
    label(grid[0, 0], x="Slice", y="Fraction [%]", title="Phase fractions of the slices")
    grid[0, 0].legend()
    kinds = (
        (grid[0, 1], ("two_point_correlation",), "Two-point correlation", "Distance", "Probability"),
        (grid[1, 0], ("chord_length",), "Chord lengths", "Length", "Probability"),
        (grid[1, 1], ("particle_diameter", "film_thickness"), "Particle diameter (by volume), film thickness", "Size",
         "Probability"),
    )  # fmt: skip
    for axes, names, title, x, y in kinds:
        own = [curve for curve in curves if curve.name in names]
        if not own:
            nothing_to_show(axes, "not computed")
            axes.set_title(title)
            continue
        for curve in own:
            style = ("-", "--", ":")[curve.direction or 0]
            where = "" if curve.direction is None else f", {_DIRECTIONS[str(curve.direction)]}"
            axes.plot(curve.x, curve.y, style, color=_colour(curve.phase, classes), label=f"{curve.phase}{where}",
                      linewidth=1.1)  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.legend(fontsize=6.5, ncols=2)
        label(axes, x=f"{x} [{own[0].unit.replace('um', 'µm').replace('voxel', 'voxels')}]", y=y, title=title)
    return figure


def _colour(phase: str, classes: Sequence[str]) -> str:
    """Colour of a phase; a pair has that of its first phase that is not the first class."""
    parts = [phase] if phase in classes else [name for name in classes if name in phase.split("-")]
    index = max((list(classes).index(name) for name in parts), default=0)
    return PHASE_COLOURS[index % len(PHASE_COLOURS)]
