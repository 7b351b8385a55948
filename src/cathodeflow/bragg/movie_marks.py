"""Crosses and squares at the peaks of a movie, and the colours of their tracks."""

import numpy as np
import pandas as pd
from matplotlib.colors import hsv_to_rgb, to_rgb
from numpy.typing import ArrayLike, NDArray

from cathodeflow.bragg.matching import match
from cathodeflow.plotting import COLOURS

Picture = NDArray[np.uint8]

#: Colours of crosses if no tracks are known, and of the squares around flagged peaks.
PLAIN, FLAGGED = ((np.array(to_rgb(name)) * 255).round().astype(np.uint8) for name in (COLOURS[4], COLOURS[1]))


def track_colours(tracks: ArrayLike) -> Picture:
    """Return the RGB colour (n, 3) uint8 of each track: every number has its own hue, also in the next state.

    Hues of successive numbers are a golden section apart, so they differ. Negative numbers, which stand for no track,
    are white.
    """
    number = np.asarray(tracks, np.int64)
    hue = np.mod(number * 0.6180339887498949, 1.0)
    colours = hsv_to_rgb(np.stack([hue, np.full(hue.shape, 0.8), np.full(hue.shape, 1.0)], axis=-1))
    return np.where((number < 0)[:, None], 255, np.rint(255 * colours)).astype(np.uint8)


def tracks_of_peaks(
    rows: ArrayLike, cols: ArrayLike, frame: int, spots: pd.DataFrame, *, max_distance: float
) -> NDArray[np.int64]:
    """Return the track of each peak of a frame: that of the nearest spot, one to one; -1 for peaks without one.

    Parameters
    ----------
    rows, cols : (n,)
        Positions in detector pixels.
    frame : int
        Index of the frame in the file.
    spots : DataFrame
        Spots of the scan: `track`, `first_frame`, `last_frame`, `row`, `col` [detector px].
    max_distance : float
        Maximum distance between peak and spot [px].
    """
    here = spots[(spots["first_frame"] <= frame) & (spots["last_frame"] >= frame)]
    peaks = np.column_stack([np.asarray(rows, np.float64), np.asarray(cols, np.float64)])
    found = match(peaks, here[["row", "col"]].to_numpy(np.float64), max_distance=max_distance)
    tracks = np.full(len(peaks), -1, np.int64)
    tracks[found.a] = here["track"].to_numpy(np.int64)[found.b]
    return tracks


def arm_length(persistence: ArrayLike, unit: float) -> NDArray[np.int64]:
    """Return the length of the arms of crosses [px], which grows with the logarithm of the persistence [counts].

    `unit` is the length of a pixel of a picture of 720 rows.
    """
    counts = np.maximum(np.asarray(persistence, np.float64), 1.0)
    return np.rint((4 + 3.5 * np.log10(counts)) * unit).astype(np.int64)


def draw_crosses(
    picture: Picture, x: ArrayLike, y: ArrayLike, arms: ArrayLike, colours: Picture, *, unit: float
) -> None:
    """Draw upright crosses in place, open in the middle so that the peak stays visible, with a dark outline.

    Parameters
    ----------
    picture : (row, col, 3) uint8
        A picture, or a part of one that begins at an even row and column.
    x, y : (n,)
        Centres [px of the picture].
    arms : (n,) int
        Length of the arms from the centre [px].
    colours : (n, 3) uint8
    unit : float
        As for `arm_length`.
    """
    # MP4 stores colour for blocks of 2 x 2 pixels: lines that fill whole blocks keep their colour.
    width = 2 * max(1, round(unit))
    gap = 2 * width
    corner_x, corner_y = (
        2 * np.rint((np.asarray(centre, np.float64) - (width - 1) / 2) / 2).astype(int) for centre in (x, y)
    )
    for left, top, arm, colour in zip(corner_x, corner_y, np.asarray(arms), colours, strict=True):
        reach = max(2 * round(arm / 2), gap + width)
        bars = [
            (top, top + width, left - reach, left - gap),
            (top, top + width, left + gap + width, left + reach + width),
            (top - reach, top - gap, left, left + width),
            (top + gap + width, top + reach + width, left, left + width),
        ]
        for margin, shade in ((1, np.uint8(0)), (0, colour)):
            for first, last, start, stop in bars:
                rows = slice(max(first - margin, 0), max(last + margin, 0))
                picture[rows, max(start - margin, 0) : max(stop + margin, 0)] = shade


def draw_squares(picture: Picture, x: ArrayLike, y: ArrayLike, *, unit: float) -> None:
    """Draw open squares around flagged peaks, in place."""
    half = round(6 * unit)
    centres = np.rint(np.column_stack([np.asarray(x, np.float64), np.asarray(y, np.float64)])).astype(int)
    for column, row in centres:
        top, bottom, left, right = (max(edge, 0) for edge in (row - half, row + half, column - half, column + half))
        picture[top : top + 1, left : right + 1] = picture[bottom : bottom + 1, left : right + 1] = FLAGGED
        picture[top : bottom + 1, left : left + 1] = picture[top : bottom + 1, right : right + 1] = FLAGGED
