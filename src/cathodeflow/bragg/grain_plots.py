"""Figure of the grains of a rotation scan: positions, cells, and how far their spots are from where they should be."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cathodeflow.plotting import COLOURS, TWO_COLUMNS, label, nothing_to_show, styled

# With more grains their numbers and single colours would hide each other.
_FEW = len(COLOURS)


@styled
def grain_figure(grains: pd.DataFrame, spots: pd.DataFrame, *, shown: float) -> Figure:
    """Draw the positions and cells of grains, and the residuals of their spots.

    Parameters
    ----------
    grains : DataFrame
        `grain_tables.GRAIN_COLUMNS`.
    spots : DataFrame
        `grain_tables.SPOT_COLUMNS`.
    shown : float
        Range of the residuals, in multiples of their root mean square.
    """
    figure = Figure(figsize=(TWO_COLUMNS, 5.2))
    panels = figure.subplots(2, 2)
    if grains.empty:
        for axes in panels.flat:
            nothing_to_show(axes, "no grain found")
        return figure
    colours = [COLOURS[number % _FEW] if len(grains) <= _FEW else COLOURS[0] for number in range(len(grains))]
    _positions(panels[0, 0], grains, colours)
    _cells(panels[0, 1], grains, colours)
    for axes, (x, y) in zip(panels[1], (("col_residual", "row_residual"), ("omega", "omega_residual")), strict=True):
        for number, colour in zip(grains["grain"], colours, strict=True):
            of = spots[spots["grain"] == number]
            axes.plot(of[x], of[y], ".", color=colour, markersize=2.5, alpha=0.6)
        axes.axhline(0, color="#777777", linewidth=0.7, zorder=1)
        axes.set_ylim(*_limits(spots[y], shown))
        if x == "col_residual":
            axes.set_xlim(*_limits(spots[x], shown))
            axes.axvline(0, color="#777777", linewidth=0.7, zorder=1)
            rms = " and ".join(f"{np.sqrt(np.mean(spots[name] ** 2)):.2f}" for name in (y, x))
            label(axes, x="Residual of the column [px]", y="Residual of the row [px]")
            axes.set_title(f"{len(spots)} spots, rms {rms} px")
        else:
            label(axes, x="Angle of the sample [deg]", y="Residual of the angle [deg]")
            axes.set_title(f"rms {np.sqrt(np.mean(spots[y] ** 2)):.3f} deg")
    return figure


def _positions(axes: Axes, grains: pd.DataFrame, colours: list[str]) -> None:
    """Draw the positions across the axis of rotation."""
    for row, colour in zip(grains.to_dict("records"), colours, strict=True):
        at = row["x"], row["z"]
        axes.errorbar(*at, xerr=row["x_err"], yerr=row["z_err"], fmt="o", color=colour)
        if len(grains) <= _FEW:
            axes.annotate(f"{row['grain']}", at, xytext=(6, 4), textcoords="offset points", color=colour)
    label(axes, x="x [mm]", y="z, along the beam [mm]", title=f"{len(grains)} grains")
    axes.plot(0, 0, "+", color="#777777", markersize=9)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.15)


def _cells(axes: Axes, grains: pd.DataFrame, colours: list[str]) -> None:
    """Draw the lattice parameters that are free, the first against the last."""
    names = [name for name in ("a", "b", "c") if grains[f"{name}_err"].notna().any()]
    first, last = names[0], names[-1] if (grains[names[0]] != grains[names[-1]]).any() else "completeness"
    for row, colour in zip(grains.to_dict("records"), colours, strict=True):
        axes.errorbar(
            row[first], row[last], xerr=row[f"{first}_err"], yerr=row.get(f"{last}_err"), fmt="o", color=colour
        )
        if len(grains) <= _FEW:
            at = (row[first], row[last])
            axes.annotate(f"{row['grain']}", at, xytext=(6, 4), textcoords="offset points", color=colour)
    axes.ticklabel_format(useOffset=False)
    axes.locator_params(nbins=5)
    unit = "" if last == "completeness" else " [Angstrom]"
    label(axes, x=f"{first} [Angstrom]", y=f"{last}{unit}", title="Cells with standard errors")
    axes.margins(0.15)


def _limits(values: pd.Series, shown: float) -> tuple[float, float]:
    spread = shown * max(float(np.sqrt(np.mean(values**2))), 1e-6)
    return -spread, spread
