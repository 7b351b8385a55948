"""Figure of the facets of a particle: normals about the scattering vector, strain, line profiles, and resolution."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from cathodeflow.bcdi.plots import DIVERGING
from cathodeflow.bcdi.resolution import Curve
from cathodeflow.plotting import COLOURS, TWO_COLUMNS, label, nothing_to_show, styled

Floats = NDArray[np.float64]

_MARKERS = {"x": "o", "y": "s", "z": "D", "Q": "^", "all": "v"}
# Area of the marker of the largest facet [point^2].
_LARGEST = 260.0


@styled
def facets_figure(
    facets: pd.DataFrame,
    profiles: pd.DataFrame,
    directions: pd.DataFrame,
    q: Floats,
    *,
    strain_limit: float | None = None,
) -> Figure:
    """Draw normals and strain of the facets, profiles along lines, and the PRTF by direction.

    Parameters
    ----------
    facets, profiles, directions : DataFrame
        As `cathodeflow bcdi facets` writes them.
    q : (3,)
        Scattering vector.
    strain_limit : float, optional
        Limit of the colour scale. Default: from the facets.
    """
    figure = Figure(figsize=(TWO_COLUMNS, 7.4))
    grid = figure.subplots(3, 2, height_ratios=[3.4, 2.2, 2.2])
    known = np.abs(facets["strain_mean"].dropna())
    limit = strain_limit or (float(known.max()) if len(known) else 0.0) or 1e-6
    norm = CenteredNorm(0, 1e4 * limit)
    for axes, side, title in ((grid[0, 0], 1, "a  facets towards Q"), (grid[0, 1], -1, "b  facets away from Q")):
        _hemisphere(axes, facets, q, side, norm)
        axes.set_title(title)
    bar = figure.colorbar(ScalarMappable(norm, DIVERGING), ax=list(grid[0]), shrink=0.8, pad=0.01)
    bar.set_label("Mean strain below the facet [$10^{-4}$]")
    _strains(grid[1, 0], facets)
    _lines(grid[1, 1], profiles, "strain", 1e4, "Strain [$10^{-4}$]", "d  strain along lines")
    _lines(grid[2, 0], profiles, "amplitude", 1.0, "Amplitude / median", "e  amplitude along lines")
    grid[2, 0].set_ylim(0, None)
    _resolution(grid[2, 1], directions)
    return figure


def _hemisphere(axes: Axes, facets: pd.DataFrame, q: Floats, side: int, norm: CenteredNorm) -> None:
    """Equal-area projection of the normals on one side of the plane across the scattering vector."""
    third = q / np.linalg.norm(q)
    # Up in the projection is up in the laboratory, as far as that is across the scattering vector.
    up = np.eye(3)[1] if abs(third[1]) < 0.9 else np.eye(3)[2]
    up = up - (up @ third) * third
    up /= np.linalg.norm(up)
    right = np.cross(up, third)
    axes.set(xlim=(-1.22, 1.22), ylim=(-1.15, 1.15), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    for angle in (30, 60, 90):
        radius = np.sqrt(2) * np.sin(np.deg2rad(angle) / 2)
        axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor="#BBBBBB", linewidth=0.6))
        axes.text(0, -radius, f"{angle}°", fontsize=6, color="#777777", ha="center", va="bottom")
    axes.plot(0, 0, "+", color="#777777", markersize=6)
    shown = facets[np.sign(facets["angle_to_q_deg"] - 90.0) * side <= 0]
    if not len(shown):
        return
    normals = shown[["normal_x", "normal_y", "normal_z"]].to_numpy(np.float64)
    height = side * normals @ third
    x, y = (normals @ axis / np.sqrt(1 + np.abs(height)) for axis in (right, up))
    areas = shown["area_nm2"].fillna(shown["flat_area_nm2"]).to_numpy(np.float64)
    largest = float(facets["area_nm2"].fillna(facets["flat_area_nm2"]).max())
    colours = 1e4 * shown["strain_mean"].to_numpy(np.float64)
    axes.scatter(x, y, s=_LARGEST * areas / largest, c=colours, cmap=DIVERGING, norm=norm, edgecolors="#333333",
                 linewidths=0.6, zorder=3, plotnonfinite=True)  # fmt: skip
    for at_x, at_y, row, area in zip(x, y, _rows(shown), areas, strict=True):
        axes.annotate(_name(row), (at_x, at_y), xytext=(0, 3 + 0.5 * np.sqrt(_LARGEST * area / largest)),
                      textcoords="offset points", ha="center", fontsize=6.5)  # fmt: skip


def _strains(axes: Axes, facets: pd.DataFrame) -> None:
    shown = facets.dropna(subset=["strain_mean"]).sort_values("angle_to_q_deg")
    if not len(shown):
        nothing_to_show(axes, "no strain below a facet")
        return
    at = np.arange(len(shown))
    axes.axhline(0, color="#777777", linewidth=0.6)
    axes.errorbar(at, 1e4 * shown["strain_mean"], 1e4 * shown["strain_deviation"], fmt="o", capsize=2, linewidth=1.0)
    axes.set_xticks(at, [_name(row) for row in _rows(shown)], rotation=90, fontsize=6.5)
    label(axes, x="Facet, by its angle to Q", y="Strain [$10^{-4}$]", title="c  mean and deviation below each facet")


def _rows(facets: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in facets.to_dict("records")]


def _name(row: dict[str, Any]) -> str:
    """Write indices with bars over negative ones, or the number of a facet without indices."""
    text = row["hkl"] if isinstance(row["hkl"], str) else ""
    if not text:
        return f"no. {row['facet']}"
    return "".join(f"{index[1:]}\u0305" if index.startswith("-") else index for index in text.split())


def _lines(axes: Axes, profiles: pd.DataFrame, column: str, scale: float, unit: str, title: str) -> None:
    for (name, rows), colour in zip(profiles.groupby("direction", sort=False), COLOURS, strict=False):
        axes.plot(rows["position_nm"], scale * rows[column], color=colour, linewidth=1.1, label=str(name))
    axes.legend(fontsize=7, ncols=4, loc="lower center" if column == "amplitude" else "best")
    label(axes, x="Distance from the centre [nm]", y=unit, title=title)


def _resolution(axes: Axes, directions: pd.DataFrame) -> None:
    shown = directions[directions["curve"] == "PRTF"]
    if not len(shown):
        nothing_to_show(axes, "no PRTF: a single start")
        return
    for (name, rows), colour in zip(shown.groupby("direction", sort=False), COLOURS, strict=False):
        curve = Curve(*(rows[column].to_numpy(np.float64) for column in Curve._fields))
        nm = curve.resolution_nm
        ends = not (curve.value <= curve.threshold).any()
        text = f"{name}: {nm:.3g} nm{' or better' if ends else ''}" if np.isfinite(nm) else f"{name}: not resolved"
        axes.plot(curve.frequency, curve.value, color=colour, marker=_MARKERS.get(str(name)), markersize=2.5,
                  linewidth=1.0, label=text)  # fmt: skip
    axes.axhline(1 / np.e, color="#777777", linestyle="--", linewidth=0.8)
    # Above 1 where hardly anything was counted: the objects have more amplitude there than the measurement.
    axes.set(ylim=(0, min(max(1.05, 1.05 * float(shown["value"].max())), 2.0)))
    axes.set_xlim(left=0)
    axes.legend(fontsize=6.5, loc="lower left")
    label(axes, x="Spatial frequency [1/nm]", y="PRTF", title="f  PRTF by direction")
