"""Pictures of a movie: a detector frame with its peaks, and beside it charge and voltage of the cell.

What does not change is drawn once by Matplotlib; frame, crosses and text are set into it, which takes milliseconds.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cathodeflow.bragg.movie_marks import PLAIN, arm_length, draw_crosses, draw_squares, track_colours
from cathodeflow.bragg.series_options import Movie
from cathodeflow.plotting import COLOURS, STYLE, label, plain_log

Picture = NDArray[np.uint8]

# Bad pixels have a colour that no colour map has.
_BAD = (24, 44, 84)
_CURRENT = (0xD5, 0x5E, 0x00)
# Height of the picture for which the sizes below hold [px].
_HEIGHT = 720
# Part of the picture for the frame: left, top, width, height, as fractions of the picture's sides.
_BOX = (0.065, 0.125, 0.6, 0.785)


class Point(NamedTuple):
    """A scan of the series: its name, and state of charge (0 to 1) and voltage [V] of the cell, NaN if unknown."""

    name: str
    charge: float
    voltage: float


class Fixed(NamedTuple):
    """What all pictures have in common.

    `empty` : (row, col, 3) uint8, the picture without frame, crosses and text. `top`, `left` : its pixel at which the
    frame begins. `scale` : its pixels per pixel of the frame. `size` : (rows, cols) of the frame in it. `limits` :
    lowest and highest intensity [counts]. `marks` : for each scan the (x, y) of its points in the panels.
    """

    empty: Picture
    top: int
    left: int
    scale: float
    size: tuple[int, int]
    limits: tuple[float, float]
    marks: list[list[tuple[float, float]]]


def picture_size(options: Movie) -> tuple[int, int]:
    """Return (rows, cols) of the pictures, 16 : 9 with even sides.

    Examples
    --------
    >>> picture_size(Movie(height=480))
    (480, 854)
    """
    return options.height, 2 * round(options.height * 8 / 9)


def intensity_limits(frames: Iterable[NDArray[np.floating]], options: Movie) -> tuple[float, float]:
    """Return the limits of the colour scale [counts]: those of the options, or those that suit some frames."""
    positive = [frame[frame > 0] for frame in frames]
    percentiles = np.array([np.percentile(pixels, [5, 99.97]) for pixels in positive if pixels.size] or [(1.0, 10.0)])
    high = options.max_counts or float(percentiles[:, 1].max())
    low = options.min_counts or max(float(np.median(percentiles[:, 0])), high / 1e4)
    return low, max(high, 1.001 * low)


def scaled(frame: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Scale a frame (row, col) to another size: pixels are repeated, or the highest one of several is shown.

    The mean of several pixels would hide narrow peaks.

    Examples
    --------
    >>> scaled(np.array([[1.0, 9, 2, 3]]), (2, 2))
    array([[9., 3.],
           [9., 3.]])
    """
    for axis in (0, 1):
        length, wanted = frame.shape[axis], size[axis]
        if wanted >= length:
            frame = frame.take((np.arange(wanted) * length) // wanted, axis=axis)
        else:
            frame = np.maximum.reduceat(frame, (np.arange(wanted) * length) // wanted, axis=axis)
    return frame


def prepare(
    shape: tuple[int, int],
    points: Sequence[Point],
    limits: tuple[float, float],
    options: Movie,
    *,
    binning: int,
    tracked: bool,
) -> Fixed:
    """Draw what all pictures have in common.

    Parameters
    ----------
    shape : (int, int)
        (row, col) of the frames.
    points : sequence of Point
        Scans in the order of the movie.
    limits : (float, float)
        Intensity at both ends of the colour scale [counts].
    options : Movie
        `height` and `colour_map`.
    binning : int
        Binning of the frames, which the axes state.
    tracked : bool
        Whether the legend explains the colours of tracks.
    """
    height, width = picture_size(options)
    left, top = 2 * round(_BOX[0] * width / 2), 2 * round(_BOX[1] * height / 2)
    scale = min(_BOX[2] * width / shape[1], _BOX[3] * height / shape[0])
    # Whole numbers, so that all pixels have one size, unless that would waste much of the picture.
    scale = float(np.floor(scale)) if scale >= 4 else scale
    size = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
    with matplotlib.rc_context({**STYLE, "figure.constrained_layout.use": False}):
        figure = Figure(figsize=(width / 100, height / 100), dpi=100 * height / _HEIGHT)
        figure.set_size_inches(width / figure.dpi, height / figure.dpi)
        canvas: Any = FigureCanvasAgg(figure)

        def axes_at(x: float, y: float, wide: float, high: float) -> Axes:
            return figure.add_axes((x / width, 1 - (y + high) / height, wide / width, high / height))

        frame_axes = axes_at(left, top, size[1], size[0])
        unit = "px" if binning == 1 else f"px of {binning} x {binning}"
        frame_axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
        frame_axes.set(xlabel=f"Column [{unit}]", ylabel=f"Row [{unit}]")
        frame_axes.spines[:].set_visible(False)
        bar = axes_at(left + size[1] + 0.012 * width, top, 0.014 * width, size[0])
        mappable = ScalarMappable(LogNorm(*limits), options.colour_map)
        drawn = figure.colorbar(mappable, cax=bar, label="Intensity [counts]", extend="both", extendfrac=0.02)
        plain_log(drawn.ax.yaxis)
        side = left + size[1] + 0.135 * width
        marks = _draw_panels(axes_at, points, side, width, height)
        canvas.draw()
        placed = [
            [(float(x), height - float(y)) for x, y in (axes.transData.transform(at) for axes, at in found)]
            for found in marks
        ]
        empty = np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
    _draw_legend(empty, round(side - 0.02 * width), tracked=tracked)
    return Fixed(empty, top, left, scale, size, limits, placed)


def compose(
    fixed: Fixed,
    frame: NDArray[np.floating],
    bad: NDArray[np.bool_],
    peaks: pd.DataFrame,
    colours: Picture,
    options: Movie,
    *,
    scan: int,
    text: Sequence[str],
) -> Picture:
    """Make one picture of the movie.

    Parameters
    ----------
    fixed : Fixed
    frame : (row, col)
        [counts].
    bad : (row, col) bool
        Pixels without a count.
    peaks : DataFrame
        `row`, `col` [frame px], `persistence` [counts], and `good`: others are squares.
    colours : (n, 3) uint8
        Colour of each peak's cross.
    options : Movie
    scan : int
        Index of the scan, which is marked in the panels.
    text : sequence of str
        Lines above the frame.

    Returns
    -------
    (row, col, 3) uint8
    """
    picture = fixed.empty.copy()
    box = slice(fixed.top, fixed.top + fixed.size[0]), slice(fixed.left, fixed.left + fixed.size[1])
    low, high = np.log(fixed.limits)
    level = (np.log(np.maximum(scaled(frame, fixed.size), fixed.limits[0])) - low) / (high - low)
    picture[box] = _palette(options.colour_map)[np.minimum(level * 255, 255).astype(np.uint8)]
    picture[box][scaled(bad, fixed.size)] = _BAD
    unit = len(picture) / _HEIGHT
    y, x = ((peaks[axis].to_numpy(np.float64) + 0.5) * fixed.scale - 0.5 for axis in ("row", "col"))
    good = peaks["good"].to_numpy(bool)
    draw_squares(picture[box], x[~good], y[~good], unit=unit)
    arms = arm_length(peaks["persistence"], unit)
    # The weakest first, so that no strong peak is covered.
    order = np.flatnonzero(good)[np.argsort(arms[good], kind="stable")]
    draw_crosses(picture[box], x[order], y[order], arms[order], colours[order], unit=unit)
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for line, content in enumerate(text):
        at = fixed.left, round((18 + 30 * line) * unit)
        draw.text(at, content, fill=(34, 34, 34), font=_font(round((24 if line == 0 else 19) * unit)))
    for mark_x, mark_y in fixed.marks[scan]:
        radius = 7 * unit
        draw.ellipse((mark_x - radius, mark_y - radius, mark_x + radius, mark_y + radius), fill=_CURRENT)
    return np.asarray(image)


def _draw_panels(
    axes_at: Callable[[float, float, float, float], Axes],
    points: Sequence[Point],
    side: float,
    width: int,
    height: int,
) -> list[list[tuple[Axes, tuple[float, float]]]]:
    """Draw charge and voltage of all scans; return the points of each scan, with their axes."""
    panels = {
        name: values
        for name, values in (
            ("State of charge", [point.charge for point in points]),
            ("Voltage [V]", [point.voltage for point in points]),
        )
        if np.isfinite(values).any()
    }
    marks: list[list[tuple[Axes, tuple[float, float]]]] = [[] for _ in points]
    for index, (name, values) in enumerate(panels.items()):
        axes = axes_at(side, (0.125 + 0.315 * index) * height, min(0.98 * width - side, 0.34 * width), 0.22 * height)
        number = np.arange(1, len(points) + 1)
        axes.plot(number, values, "-o", color=COLOURS[6], markersize=4, linewidth=1)
        axes.set(xlim=(0.5, len(points) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(y=0.15)
        label(axes, x="Scan", y=name)
        for scan, value in enumerate(values):
            if np.isfinite(value):
                marks[scan].append((axes, (scan + 1.0, value)))
    return marks


def _draw_legend(picture: Picture, left: int, *, tracked: bool) -> None:
    """Explain crosses and squares at the lower right, in place."""
    height = len(picture)
    unit = height / _HEIGHT
    image = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(image), _font(round(15 * unit))
    top, step = 0.8 * height, 0.044 * height
    lines = ["Persistence [counts]", "", "flagged peak"]
    lines += ["Colour: track of a particle (white: none)"] if tracked else []
    for line, text in enumerate(lines):
        indent = 1.1 * step if text == "flagged peak" else 0
        draw.text((left + indent, top + (line - 1) * step), text, fill=(34, 34, 34), font=font, anchor="lm")
    x = left + (0.5 + 2.7 * np.arange(3)) * step
    for at, persistence in zip(x, (10, 100, 1000), strict=True):
        draw.text((at + 0.65 * step, top), f"{persistence:,}", fill=(34, 34, 34), font=font, anchor="lm")
    picture[:] = np.asarray(image)
    colours = track_colours([3, 4, 5]) if tracked else np.tile(PLAIN, (3, 1))
    draw_crosses(picture, x, np.full(3, top), arm_length([10, 100, 1000], unit), colours, unit=unit)
    draw_squares(picture, [left + 0.5 * step], [top + step], unit=unit)


@cache
def _palette(colour_map: str) -> Picture:
    """Colours (256, 3) of a colour map."""
    colours = matplotlib.colormaps[colour_map](np.arange(256), bytes=True)
    return np.asarray(colours[:, :3], np.uint8)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont("DejaVu Sans"), size)
