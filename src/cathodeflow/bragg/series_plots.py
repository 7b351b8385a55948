"""Figures of a series of scans: tracks of particles over the states of charge."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cathodeflow.plotting import TWO_COLUMNS, label, nothing_to_show, styled

# From discharged to charged; the lightest part of the map is hard to see on white.
_MAP, _RANGE = "viridis", (0.0, 0.92)
# Part of the sides of the detector that is shown enlarged.
_ENLARGED = 0.22


@styled
def tracks_on_detector(tracks: pd.DataFrame, *, min_states: int) -> Figure:
    """Draw the spots of tracks on the detector, coloured by state of charge and joined by lines, and a part enlarged.

    Parameters
    ----------
    tracks : DataFrame
        `sample`, `state_of_charge`, `track`, `phase`, `row`, `col` [px], in the order of the states.
    min_states : int
        Tracks with spots in fewer states are left out.
    """
    figure = Figure(figsize=(TWO_COLUMNS, 3.4))
    whole, part = figure.subplots(1, 2)
    states = tracks.groupby("track")["sample"].transform("nunique")
    shown = tracks[states >= min_states]
    if not len(shown):
        for axes in (whole, part):
            nothing_to_show(axes, f"no tracks of {min_states} states")
        return figure
    charge = shown["state_of_charge"].to_numpy(np.float64)
    norm = Normalize(charge.min(), max(charge.max(), charge.min() + 1e-3))
    colours = _colour_map()
    window = _window(shown)
    count, complete = shown["track"].nunique(), int((states.groupby(tracks["track"]).first() == states.max()).sum())
    for axes, size in ((whole, 5.0), (part, 22.0)):
        axes.add_collection(_lines(shown, colours, norm, width=0.5 if axes is whole else 1.0))
        for phase, filled in ((0, True), (1, False)):
            of = shown["phase"] == phase
            edges = colours(norm(charge[of]))
            axes.scatter(
                shown["col"][of],
                shown["row"][of],
                s=size,
                facecolors=edges if filled else "white",
                edgecolors=edges,
                linewidths=0.6 if axes is whole else 1.0,
                zorder=3,
            )
    rows, cols = (float(shown[axis].max()) + 4 for axis in ("row", "col"))
    whole.set(
        xlim=(min(float(shown["col"].min()) - 4, -0.5), cols), ylim=(rows, min(float(shown["row"].min()) - 4, -0.5))
    )
    part.set(xlim=window[:2], ylim=window[2:])
    for axes in (whole, part):
        axes.set_aspect("equal", adjustable="box")
    corner = (window[0], window[3])
    whole.add_patch(
        Rectangle(
            corner,
            window[1] - window[0],
            window[2] - window[3],
            fill=False,
            edgecolor="#333333",
            linewidth=0.8,
            zorder=4,
        )
    )
    label(
        whole, x="Column [px]", y="Row [px]", title=f"a  {count:,} tracks, {complete:,} through all states", grid=False
    )
    label(part, x="Column [px]", y="Row [px]", title="b  enlarged", grid=False)
    scale = ScalarMappable(norm, colours)
    ticks = np.unique(charge)
    bar = figure.colorbar(scale, ax=[whole, part], label="State of charge", shrink=0.9, pad=0.01)
    if len(ticks) <= 8:
        bar.set_ticks(ticks.tolist(), labels=[f"{tick:g}" for tick in ticks])
    return figure


def _colour_map() -> Colormap:
    return ListedColormap(colormaps[_MAP](np.linspace(*_RANGE, 256)))


def _lines(shown: pd.DataFrame, colours: Colormap, norm: Normalize, *, width: float) -> LineCollection:
    """Return the lines from each spot to the spots of its track in the next state, in the colour of the latter."""
    order = {name: number for number, name in enumerate(shown["sample"].unique())}
    table = shown.assign(state=shown["sample"].map(order))
    present = table[["track", "state"]].drop_duplicates().sort_values(["track", "state"])
    present["next"] = present.groupby("track")["state"].shift(-1)
    ends = table.merge(present, on=["track", "state"]).merge(
        table, left_on=["track", "next"], right_on=["track", "state"], suffixes=("", "_next")
    )
    # Both phases go on to a single one; to two phases, each goes on to its own.
    both = ends.groupby(["track", "state"])["phase"].transform("nunique") > 1
    both &= ends.groupby(["track", "state"])["phase_next"].transform("nunique") > 1
    ends = ends[~both | (ends["phase"] == ends["phase_next"])]
    segments = ends[["col", "row", "col_next", "row_next"]].to_numpy(np.float64).reshape(-1, 2, 2)
    return LineCollection(
        list(segments), colors=colours(norm(ends["state_of_charge_next"])), linewidths=width, zorder=2
    )


def _window(shown: pd.DataFrame) -> NDArray[np.float64]:
    """Return (left, right, bottom, top) of the square with the most spots."""
    at = shown[["row", "col"]].to_numpy(np.float64)
    side = _ENLARGED * float(np.ptp(at, axis=0).max() + 1)
    corners = np.floor(at / side)
    square, counts = np.unique(corners, axis=0, return_counts=True)
    row, col = square[np.argmax(counts)] * side
    return np.array([col, col + side, row + side, row])
