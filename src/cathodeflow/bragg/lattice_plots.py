"""Figure of the lattice parameters over a series of states of charge."""

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cathodeflow.plotting import COLOURS, TWO_COLUMNS, label, nothing_to_show, styled

# Colour and marker of each phase, and of the reflections in the order of their spacing.
PHASES = {0: (COLOURS[0], "o", "Li-rich"), 1: (COLOURS[1], "s", "Li-poor")}
_SHOWN = 250
_LENGTHS = ("a", "b", "c")
_CHARGE = "State of charge"


@styled
def lattice_figure(summary: pd.DataFrame, particles: pd.DataFrame) -> Figure:
    """Draw lattice parameters, strain, phase fractions and, where known, voltage against the state of charge.

    Parameters
    ----------
    summary : DataFrame
        The columns of summary.csv; `a_true`, `c_true` are drawn where it has them.
    particles : DataFrame
        The columns of lattice.csv.
    """
    names = [name for name in reversed(_LENGTHS) if f"cell_{name}" in summary]
    with_voltage = "voltage" in summary
    figure = Figure(figsize=(TWO_COLUMNS, 5.2))
    above = [*names, "voltage"] if with_voltage else names
    grid = figure.add_gridspec(2, 6)
    step = 6 // len(above)
    axes = {name: figure.add_subplot(grid[0, k * step : (k + 1) * step]) for k, name in enumerate(above)}
    axes |= {"strain": figure.add_subplot(grid[1, :4]), "fraction": figure.add_subplot(grid[1, 4:])}
    span = summary["state_of_charge"].max() - summary["state_of_charge"].min()
    for name in names:
        _draw_parameter(axes[name], name, summary, particles, jitter=0.015 * span)
    if with_voltage:
        voltage = summary.drop_duplicates("sample")
        axes["voltage"].plot(voltage["state_of_charge"], voltage["voltage"], "o-", color=COLOURS[6])
        label(axes["voltage"], x=_CHARGE, y="Voltage [V]")
    _draw_strain(axes["strain"], particles)
    _draw_fractions(axes["fraction"], summary)
    for letter, axis in zip("abcdef", axes.values(), strict=False):
        axis.set_title(letter, fontweight="bold")
        axis.set_xlim(summary["state_of_charge"].min() - 0.06 * span, summary["state_of_charge"].max() + 0.06 * span)
        axis.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def _draw_parameter(axes: Axes, name: str, summary: pd.DataFrame, particles: pd.DataFrame, *, jitter: float) -> None:
    known = particles[np.isfinite(particles[name])]
    if not len(known):
        nothing_to_show(axes, f"no reflection gives {name}")
        return
    for phase, (colour, marker, text) in PHASES.items():
        mine = known[known["phase"] == phase]
        for _, rows in mine.groupby("sample"):
            _draw_particles(axes, rows.iloc[:: max(len(rows) // _SHOWN, 1)], name, colour, jitter)
        found = summary[(summary["phase"] == phase) & summary[f"{name}_median"].notna()]
        charge = found["state_of_charge"]
        for level, thick in ((95, 1.0), (68, 2.6)):
            axes.vlines(
                charge, found[f"{name}_low{level}"], found[f"{name}_high{level}"], color=colour, linewidth=thick
            )
        if len(found):
            axes.plot(charge, found[f"{name}_median"], marker + "-", color=colour, linewidth=1.0, label=text)
    if f"{name}_true" in summary:
        true = summary[summary[f"{name}_true"].notna()]
        axes.plot(
            true["state_of_charge"], true[f"{name}_true"], "_", color="black", markersize=13, markeredgewidth=1.2,
            label="truth",
        )  # fmt: skip
    # A few particles far off must not hide the course of the others.
    low, high = np.percentile(known[name], [1, 99])
    ends = summary[[f"{name}_low95", f"{name}_high95"]].to_numpy()
    low, high = min(low, np.nanmin(ends)), max(high, np.nanmax(ends))
    axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    if name == "c" or "c" not in particles:
        axes.legend(loc="best")
    label(axes, x=_CHARGE, y=f"Lattice parameter {name} [Å]")


def _draw_particles(axes: Axes, rows: pd.DataFrame, name: str, colour: str, jitter: float) -> None:
    """Draw particles as light points side by side, with error bars where these are not far longer than most."""
    place = rows["state_of_charge"].to_numpy() + jitter * np.linspace(-1, 1, len(rows) + 2)[1:-1]
    value, error = rows[name].to_numpy(), rows[f"{name}_err"].to_numpy()
    drawn = error <= 5 * np.median(error)
    bars = np.stack([np.column_stack([place, value - error]), np.column_stack([place, value + error])], axis=1)
    axes.add_collection(LineCollection(list(bars[drawn]), colors=colour, linewidths=0.4, alpha=0.15), autolim=False)
    axes.plot(place, value, ".", color=colour, markersize=1.5, alpha=0.35, markeredgewidth=0, zorder=1)


def _draw_strain(axes: Axes, particles: pd.DataFrame) -> None:
    """Draw the strain of every track as a line, in colours of the reflections, with the median of each."""
    known = particles[particles["strain"].notna() & particles["hkl"].map(lambda hkl: bool(re.match(r"[-\d]", hkl)))]
    # Strain against another state would lie beside the others.
    known = known[known["reference"] == known["reference"].mode().iloc[0]] if len(known) else known
    # The most frequent reflections; more colours are not distinct.
    count = known.groupby("hkl")["track"].nunique().sort_values(ascending=False)
    common = count[count >= min(3, count.max() if len(count) else 0)].index[: len(COLOURS) - 1]
    if not len(common):
        nothing_to_show(axes, "no track with a reflection in two states")
        return
    for hkl, colour in zip(common, COLOURS, strict=False):
        mine = known[known["hkl"] == hkl]
        tracks = mine["track"].unique()
        shown = mine[mine["track"].isin(tracks[:: max(len(tracks) // _SHOWN, 1)])]
        lines = [
            np.column_stack([rows["state_of_charge"], 100 * rows["strain"]])
            for _, rows in shown.sort_values("state_of_charge").groupby(["track", "phase"])
        ]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.4, alpha=0.2))
        for phase, rows in mine.groupby("phase"):
            middle = 100 * rows.groupby("state_of_charge")["strain"].median()
            name = f"{hkl.replace(' ', '')} ({len(tracks)} tracks)" if phase == mine["phase"].min() else None
            axes.plot(middle.index, middle, PHASES[int(phase)][1] + "-", color=colour, linewidth=1.2, label=name)
    axes.autoscale_view()
    axes.legend(loc="lower left", title="median", title_fontsize=8, alignment="left")
    label(axes, x=_CHARGE, y="Strain [%]")


def _draw_fractions(axes: Axes, summary: pd.DataFrame) -> None:
    """Draw the fraction of each phase with its intervals; 0 in states without it."""
    charges = summary.drop_duplicates("sample")[["sample", "state_of_charge"]]
    for phase, (colour, marker, text) in PHASES.items():
        mine = summary[summary["phase"] == phase]
        if not len(mine):
            continue
        found = charges.merge(mine.drop(columns="state_of_charge"), on="sample", how="left")
        axes.plot(
            found["state_of_charge"], 100 * found["phase_fraction"].fillna(0), marker + "-", color=colour, label=text
        )
        axes.vlines(
            mine["state_of_charge"], 100 * mine["phase_fraction_low95"], 100 * mine["phase_fraction_high95"],
            color=colour, linewidth=1.0,
        )  # fmt: skip
    if "phase_fraction_true" in summary:
        axes.plot(
            summary["state_of_charge"], 100 * summary["phase_fraction_true"], "_", color="black", markersize=13,
            markeredgewidth=1.2, label="lever rule",
        )  # fmt: skip
    axes.set_ylim(-4, 104)
    axes.legend(loc="center left")
    label(axes, x=_CHARGE, y="Phase fraction [%]")
