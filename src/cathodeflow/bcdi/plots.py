"""Figures of coherent diffraction imaging: slices of a particle, its diffraction, errors, resolution, success."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from cathodeflow.plotting import (
    COLOURS,
    MAP,
    ONE_COLUMN,
    TWO_COLUMNS,
    label,
    nothing_to_show,
    plain_log,
    scale_bar,
    styled,
)

if TYPE_CHECKING:
    from cathodeflow.bcdi.resolution import Curve  # it imports torch, which figures do not need

Floats = NDArray[np.floating]

#: Maps of angles, whose ends are the same, and of what is above or below 0.
CYCLIC, DIVERGING = "twilight_shifted", "RdBu_r"
_AXES = "zyx"
# A colour that occurs in none of the maps.
_NOTHING = "#A6A6A6"
_STARTS = {"network": "from the prediction of the network", "random": "from random starts"}
# Orders of magnitude of the intensity that are shown.
_DECADES = 6.0
# Magnitude of the phase [rad] above which it may wrap.
_WRAPS = 0.75 * np.pi
# Minimum limit of the phase scale [rad]: smaller values are noise.
_LEAST_PHASE = 0.1


@styled
def slices_figure(
    volume: NDArray[np.complexfloating],
    support: NDArray[np.bool_],
    *,
    strain: Floats | None = None,
    voxel_nm: ArrayLike | None = None,
) -> Figure:
    """Draw amplitude, phase and strain in the three slices through the middle of the support, cut out around it.

    Parameters
    ----------
    volume : (z, y, x) complex
    support : (z, y, x) bool
        Phase and strain are grey outside.
    strain : (z, y, x), optional
        NaN where it is unknown.
    voxel_nm : (3,), optional
        Size of a voxel along z, y, x [nm]; without it there is no scale bar.
    """
    if not support.any():
        figure = Figure(figsize=(TWO_COLUMNS, 2.0))
        nothing_to_show(figure.subplots(), "no voxel in the support")
        return figure
    size = np.ones(3) if voxel_nm is None else np.asarray(voxel_nm, np.float64)
    places = np.argwhere(support)
    middle = np.round(places.mean(0)).astype(int)
    # A margin of a tenth of the particle, at least two voxels.
    margin = np.maximum(np.ptp(places, axis=0) // 10, 2)
    box = [
        slice(max(low, 0), high) for low, high in zip(places.min(0) - margin, places.max(0) + margin + 1, strict=True)
    ]
    amplitude = np.abs(volume)
    inner = {"Amplitude": amplitude / amplitude.max(), "Phase": np.where(support, np.angle(volume), np.nan)}
    scales: dict[str, tuple[str, Normalize]] = {"Amplitude": (MAP, Normalize(0, 1))}
    # On the full range, a weakly strained crystal would have almost one colour.
    most = max(_limit(inner["Phase"], 0.99), _LEAST_PHASE)
    wraps = most > _WRAPS
    scales["Phase"] = (CYCLIC, Normalize(-np.pi, np.pi)) if wraps else (DIVERGING, CenteredNorm(0, most))
    if strain is not None:
        inner["Strain"] = np.where(support, strain, np.nan)
        scales["Strain"] = (DIVERGING, CenteredNorm(0, _limit(inner["Strain"], 0.99)))
    sides = [(part.stop - part.start) * step for part, step in zip(box, size, strict=True)]
    pairs = [(1, 2), (0, 2), (0, 1)]
    width = 1.9
    heights = [sides[rows] / sides[cols] for rows, cols in pairs]
    figure = Figure(figsize=(width * len(inner) + 0.4, min(width * sum(heights) + 1.0, 10)))
    grid = figure.subplots(3, len(inner), squeeze=False, height_ratios=heights)
    for line, (rows, cols), axis in zip(grid, pairs, (0, 1, 2), strict=True):
        for axes, (name, values) in zip(line, inner.items(), strict=True):
            # Flipped, so that the axes point up.
            image = values.take(middle[axis], axis)[box[rows], box[cols]][::-1]
            colours, norm = scales[name]
            axes.set_facecolor(_NOTHING)
            axes.imshow(image, cmap=colours, norm=norm, aspect=size[rows] / size[cols])
            _without_ticks(axes)
        line[0].set_ylabel(f"{_AXES[cols]} →  {_AXES[rows]} ↑  at {_AXES[axis]} = {middle[axis]}", fontsize=7.5)
        if voxel_nm is not None:
            scale_bar(line[0], image.shape[0], image.shape[1], float(size[cols]))
    for column, (name, (colours, norm)) in enumerate(scales.items()):
        grid[0, column].set_title(name, loc="center")
        layout: dict[str, Any] = {"orientation": "horizontal", "shrink": 0.85, "aspect": 18, "pad": 0.02}
        bar = figure.colorbar(ScalarMappable(norm, colours), ax=list(grid[:, column]), **layout)
        if name == "Phase":
            if wraps:
                bar.set_ticks([-np.pi, 0, np.pi], labels=["−π", "0", "π"])
            else:
                bar.ax.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
            bar.set_label("Phase [rad]")
        elif name == "Strain":
            bar.set_label(f"Strain [{_power_of_ten(bar.ax, norm)}]")
        else:
            bar.set_label("Amplitude / maximum")
    return figure


@styled
def diffraction_figure(measured: Floats, calculated: Floats, *, valid: NDArray[np.bool_] | None = None) -> Figure:
    """Draw intensities in the three slices through zero frequency, measured and calculated, and their difference.

    The difference is 2 (A_calculated - A_measured). Its standard deviation is 1 for counting noise, and lower where
    there are hardly any counts.

    Parameters
    ----------
    measured, calculated : (z, y, x)
        Square root of the photons.
    valid : (z, y, x) bool, optional
        Unmeasured pixels are grey.
    """
    known = np.ones(measured.shape, bool) if valid is None else valid
    highest = float(max(np.max(measured[known], initial=0), np.max(calculated[known], initial=0)) ** 2)
    if not highest > 0:
        figure = Figure(figsize=(TWO_COLUMNS, 2.0))
        nothing_to_show(figure.subplots(), "no intensity")
        return figure
    counted = measured[known & (measured > 0)] ** 2
    lowest = max(float(counted.min(initial=highest)), highest / 10**_DECADES)
    panels = {
        "Measured": np.where(known, np.maximum(measured**2, lowest), np.nan),
        "Calculated": np.maximum(calculated**2, lowest),
        "Difference": np.where(known, 2 * (calculated - measured), np.nan),
    }
    log = LogNorm(lowest, max(highest, 1.001 * lowest))
    centred = CenteredNorm(0, max(_limit(panels["Difference"], 0.999), 1.0))
    figure = Figure(figsize=(TWO_COLUMNS, TWO_COLUMNS))
    grid = figure.subplots(3, 3)
    names = ("frame", "detector row [px]", "detector column [px]")
    for line, axis in zip(grid, range(3), strict=True):
        rows, cols = (other for other in range(3) if other != axis)
        for axes, (name, values) in zip(line, panels.items(), strict=True):
            image = values.take(values.shape[axis] // 2, axis)
            colours, norm = (DIVERGING, centred) if name == "Difference" else (MAP, log)
            axes.set_facecolor(_NOTHING)
            axes.imshow(image, cmap=colours, norm=norm, aspect="auto", origin="lower" if rows == 0 else "upper")
            axes.tick_params(labelsize=6, labelleft=axes is line[0])
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.set_xlabel(names[cols], fontsize=7.5, labelpad=2)
        line[0].set_ylabel(names[rows], fontsize=7.5, labelpad=2)
    for axes, name in zip(grid[0], panels, strict=True):
        axes.set_title(name, loc="center")
    both, alone = list(grid[:, :2].ravel()), list(grid[:, 2])
    layout: dict[str, Any] = {"orientation": "horizontal", "shrink": 0.9, "pad": 0.02}
    figure.colorbar(ScalarMappable(log, MAP), ax=both, label="Intensity [photons]", aspect=45, **layout)
    bar = ScalarMappable(centred, DIVERGING)
    figure.colorbar(bar, ax=alone, label="Difference [σ]", aspect=22, extend="both", **layout)
    return figure


@styled
def errors_figure(
    errors: Iterable[ArrayLike],
    *,
    best: int | None = None,
    noise: float = 0.0,
    unit: str = "relative to the amplitude",
) -> Figure:
    """Draw the error of each start against its iterations.

    Parameters
    ----------
    errors : iterable of (iterations,)
        One curve per start, that of the best start first.
    best : int, optional
        Index of the best start among the random starts, from 0; its curve is highlighted. Default: no curve.
    noise : float
        Counting noise: distance of the measured from the true amplitude; drawn as a line if above 0.
    unit : str
        Unit of the error.
    """
    figure = Figure(figsize=(ONE_COLUMN * 1.4, 2.9))
    axes = figure.subplots()
    curves = [np.asarray(curve, np.float64) for curve in errors]
    if not any(len(curve) for curve in curves):
        nothing_to_show(axes, "no iterations")
        return figure
    others = curves if best is None else curves[1:]
    for number, curve in enumerate(others):
        text = f"{'' if best is None else 'other '}starts ({len(others)})" if number == 0 else None
        axes.plot(np.arange(1, len(curve) + 1), curve, color="#9A9A9A", linewidth=0.7, label=text)
    if best is not None:
        axes.plot(np.arange(1, len(curves[0]) + 1), curves[0], color=COLOURS[0], label=f"kept: start {best + 1}")
    if noise > 0:
        axes.axhline(noise, color="#4A4A4A", linewidth=0.9, linestyle="--", label="counting noise")
    if min(float(np.nanmin(curve)) for curve in curves if len(curve)) > 0:
        axes.set_yscale("log")
        plain_log(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    label(axes, x="Iteration", y=f"Error [{unit}]")
    return figure


@styled
def resolution_figure(curves: "Mapping[str, Curve]") -> Figure:
    """Draw transfer functions and shell correlations with their thresholds and the crossing points.

    Parameters
    ----------
    curves : mapping
        By name, such as "PRTF" and "FSC".
    """
    figure = Figure(figsize=(ONE_COLUMN * 1.4, 2.9))
    axes = figure.subplots()
    if not curves:
        nothing_to_show(axes, "no curve to show")
        return figure
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        nm = curve.resolution_nm
        ends = len(curve.frequency) and not (curve.value <= curve.threshold).any()
        text = "never above its threshold" if np.isinf(nm) else f"{nm:.3g} nm{' or better' if ends else ''}"
        axes.plot(curve.frequency, curve.value, color=colour, label=f"{name}: {text}")
        axes.plot(curve.frequency, curve.threshold, color=colour, linestyle="--", linewidth=0.8)
        if np.isfinite(nm):
            height = np.interp(1 / nm, curve.frequency, curve.value)
            axes.plot(1 / nm, height, "o", color=colour, markersize=5)
    values = np.concatenate([curve.value for curve in curves.values()])
    axes.set(ylim=(min(0.0, 1.05 * values.min(initial=0)), 1.05 * values.max(initial=1)))
    axes.set_xlim(left=0)
    axes.plot([], [], color="#777777", linestyle="--", linewidth=0.8, label="threshold")
    axes.legend(fontsize=7.5)
    label(axes, x="Spatial frequency [1/nm]", y="Agreement")
    return figure


@styled
def success_figure(rates: pd.DataFrame) -> Figure:
    """Draw success rates against iterations, a panel for each strain regime, a line for each kind of start.

    Parameters
    ----------
    rates : DataFrame
        Of `figures_of_merit.success_rates`: start, regime, iterations, count, share, low, high.
    """
    regimes = list(dict.fromkeys(rates["regime"]))
    if not regimes:
        figure = Figure(figsize=(TWO_COLUMNS, 2.0))
        nothing_to_show(figure.subplots(), "no trials")
        return figure
    starts = list(dict.fromkeys(rates["start"]))
    figure = Figure(figsize=(max(2.1 * len(regimes) + 0.5, ONE_COLUMN), 2.9))
    line = figure.subplots(1, len(regimes), squeeze=False, sharey=True)[0]
    for axes, regime in zip(line, regimes, strict=True):
        for start, colour, marker in zip(starts, COLOURS, "osD^v<>", strict=False):
            curve = rates[(rates["regime"] == regime) & (rates["start"] == start)].sort_values("iterations")
            axes.fill_between(
                curve["iterations"], 100 * curve["low"], 100 * curve["high"], color=colour, alpha=0.2, linewidth=0
            )
            axes.plot(
                curve["iterations"], 100 * curve["share"], color=colour, marker=marker, label=_STARTS.get(start, start)
            )
        counts = sorted({int(count) for count in rates.loc[rates["regime"] == regime, "count"]})
        number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        label(
            axes,
            x="Iterations",
            y="" if axes is not line[0] else "Success rate [%]",
            title=f"{regime} strain ({number} crystals)",
        )
        axes.title.set_fontsize(8)
        axes.set(ylim=(-3, 103))
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.legend(*line[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(starts))
    return figure


def _limit(values: Floats, fraction: float) -> float:
    """Quantile of the magnitudes of the known values."""
    known = np.abs(values[np.isfinite(values)])
    return float(np.quantile(known, fraction)) or 1e-12 if known.size else 1.0


def _without_ticks(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#888888", linewidth=0.5)


def _power_of_ten(axes: Axes, norm: Normalize) -> str:
    """Write the ticks of a colour bar without their common power of ten, and return it."""
    power = int(np.floor(np.log10(norm.vmax or 1.0)))
    axes.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 10.0**power:g}".replace("-", "−")))
    return f"$10^{{{power}}}$"
