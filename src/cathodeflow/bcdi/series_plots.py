"""Figure of a series of scans of one particle: quantities against the condition, and strain maps on one scale."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm, ListedColormap
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from cathodeflow.bcdi.plots import DIVERGING
from cathodeflow.plotting import COLOURS, TWO_COLUMNS, label, scale_bar, styled

#: Axis labels of the conditions.
LABELS = {
    "state_of_charge": "State of charge",
    "time": "Time",
    "temperature": "Temperature [°C]",
    "voltage": "Voltage [V]",
}
_SHORT = {"state_of_charge": "SOC {:g}", "time": "time {:g}", "temperature": "{:g} °C", "voltage": "{:g} V"}
_AXES = "zyx"
_OUTSIDE, _RIM = "#FFFFFF", "#B8B8B8"
# Quantile of the magnitudes of the strain at the end of the colour scale.
_SHOWN = 0.99


@styled
def series_figure(
    table: pd.DataFrame,
    strain: NDArray[np.floating],
    support: NDArray[np.bool_],
    *,
    against: str,
    voxel_nm: float,
    columns: int,
    strain_limit: float | None = None,
) -> Figure:
    """Draw lattice spacing, strain, volume and shape of all scans, and their strain in one slice.

    Parameters
    ----------
    table : DataFrame
        One row per scan, as `cathodeflow bcdi series` writes it.
    strain : (scan, z, y, x)
        NaN where it is unknown.
    support : (scan, z, y, x) bool
    against : str
        Column on the horizontal axes.
    voxel_nm : float
    columns : int
        Maximum number of maps beside each other.
    strain_limit : float, optional
        Limit of the colour scale. Default: from the strain of all scans.
    """
    rows = -(-len(table) // columns)
    maps, aspect = _slices(support)
    per_map = (TWO_COLUMNS - 0.9) / min(columns, len(table))
    height = rows * (per_map * aspect + 0.28) + 0.3
    figure = Figure(figsize=(TWO_COLUMNS, 4.2 + height))
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[4.2, height])[:, 0]
    _quantities(upper, table, against)
    known = np.abs(strain[np.isfinite(strain)])
    limit = strain_limit or (float(np.quantile(known, _SHOWN)) if known.size else 1e-4)
    _maps(lower, table, strain, support, against, columns, maps, limit or 1e-12, voxel_nm)
    return figure


def _quantities(figure: SubFigure, table: pd.DataFrame, against: str) -> None:
    spacing, spread, volume, lengths = np.ravel(figure.subplots(2, 2))
    x, name = table[against].to_numpy(np.float64), LABELS[against]

    def points(
        axes: Axes, column: str, *, scale: float = 1.0, colour: str = COLOURS[0], text: str | None = None
    ) -> None:
        values, errors = (scale * table[key].to_numpy(np.float64) for key in (column, f"{column}_err"))
        # Errors of scans without other starts are not known.
        axes.errorbar(x, values, np.nan_to_num(errors), fmt="o-", color=colour, capsize=2, linewidth=1.0, label=text)

    points(spacing, "d_spacing")
    spacing.ticklabel_format(axis="y", useOffset=False)
    label(spacing, x=name, y="Lattice spacing d [Å]", title="a  mean lattice spacing")
    for low, high, alpha, text in (("q05", "q95", 0.18, "5 to 95 %"), ("q25", "q75", 0.35, "25 to 75 %")):
        ends = (1e4 * table[f"strain_{end}"].to_numpy(np.float64) for end in (low, high))
        spread.fill_between(x, *ends, color=COLOURS[0], alpha=alpha, linewidth=0, label=text)
    points(spread, "strain_q50", scale=1e4, text="median")
    points(spread, "strain_deviation", scale=1e4, colour=COLOURS[1], text="standard deviation")
    spread.axhline(0, color="#777777", linewidth=0.6)
    spread.margins(y=0.25)
    spread.legend(fontsize=7, ncols=2, loc="upper center")
    low, high = spread.get_ylim()
    spread.set_ylim(low, high + 0.35 * (high - low))
    label(spread, x=name, y="Strain [$10^{-4}$]", title="b  strain in the particle, relative to its mean")
    points(volume, "volume_nm3", scale=1e-9)
    volume.set_ylim(0, 1.15e-9 * float(table["volume_nm3"].max()))
    label(volume, x=name, y="Volume [µm³]", title="c  volume")
    for number, colour in zip((1, 2, 3), COLOURS, strict=False):
        points(lengths, f"length_{number}_nm", colour=colour, text=("longest", "middle", "shortest")[number - 1])
    lengths.set_ylim(0, 1.3 * float(table["length_1_nm"].max()))
    lengths.legend(fontsize=7, ncols=3, loc="upper center")
    label(lengths, x=name, y="Length [nm]", title="d  principal axes")


def _slices(support: NDArray[np.bool_]) -> tuple[tuple[int, int, tuple[slice, slice]], float]:
    """Axis and index of the slice that is shown, the part of it with a particle, and its rows per column."""
    inside = support.any(axis=0)
    places = np.argwhere(inside)
    axis = int(np.argmin(np.ptp(places, axis=0)))
    at = int(np.round(np.argwhere(support[0])[:, axis].mean()))
    rows, cols = (other for other in range(3) if other != axis)
    low, high = np.maximum(places.min(axis=0) - 1, 0), places.max(axis=0) + 2
    # Room for the scale bar below.
    low[rows] = max(low[rows] - 2, 0)
    part = slice(low[rows], high[rows]), slice(low[cols], high[cols])
    return (axis, at, part), float((high[rows] - low[rows]) / (high[cols] - low[cols]))


def _maps(
    figure: SubFigure,
    table: pd.DataFrame,
    strain: NDArray[np.floating],
    support: NDArray[np.bool_],
    against: str,
    columns: int,
    shown: tuple[int, int, tuple[slice, slice]],
    limit: float,
    voxel_nm: float,
) -> None:
    axis, at, part = shown
    columns = min(columns, len(table))
    grid = figure.subplots(-(-len(table) // columns), columns, squeeze=False)
    norm = CenteredNorm(0, 1e4 * limit)
    rows, cols = (_AXES[other] for other in range(3) if other != axis)
    for number, axes in enumerate(grid.ravel()):
        if number >= len(table):
            axes.set_axis_off()
            continue
        # Flipped, so that the axes point up.
        values = (1e4 * strain[number]).take(at, axis)[part][::-1]
        inside = support[number].take(at, axis)[part][::-1]
        axes.set_facecolor(_OUTSIDE)
        axes.imshow(np.where(inside, 0.0, np.nan), cmap=ListedColormap([_RIM]), vmin=-1, vmax=1)
        axes.imshow(values, cmap=DIVERGING, norm=norm)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(_SHORT[against].format(table[against].iloc[number]), loc="center", fontsize=8)
    first = grid[0, 0]
    first.set_ylabel(f"{cols} →  {rows} ↑", fontsize=7.5)
    scale_bar(first, inside.shape[0], inside.shape[1], voxel_nm)
    bar = figure.colorbar(ScalarMappable(norm, DIVERGING), ax=list(grid.ravel()), shrink=0.8, pad=0.01)
    bar.set_label("Strain [$10^{-4}$]")
