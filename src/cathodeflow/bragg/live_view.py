"""What the live page of `watch` shows: the last frame as an image, peaks per frame, and the strain of the rings."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cathodeflow.bragg.frame_peaks import FramePeaks
from cathodeflow.bragg.watching import MeasuredCounts
from cathodeflow.io.text import package_text

# Longest side of the image [px].
_SIDE = 1024
# Frames whose numbers of peaks are drawn.
_FRAMES = 2000
_BAD = (90, 110, 120)


def page() -> str:
    """Return the HTML of the page."""
    return package_text(Path(__file__).with_name("live_view.html"))


def frame_image(frame: MeasuredCounts) -> bytes:
    """Draw a frame on a logarithmic scale, as PNG.

    Large frames are reduced: a pixel of the image is the highest of the pixels that it stands for, so that no peak is
    lost. Bad pixels are grey.
    """
    # Imported here, as it takes a second that no frame should wait for in a command without a page.
    from matplotlib import colormaps

    from cathodeflow.plotting import MAP

    counts = np.where(frame.bad, -np.inf, frame.counts)
    step = -(-max(counts.shape) // _SIDE)
    rows, cols = (-(-side // step) for side in counts.shape)
    padded = np.full((rows * step, cols * step), -np.inf, np.float32)
    padded[: counts.shape[0], : counts.shape[1]] = counts
    highest = padded.reshape(rows, step, cols, step).max(axis=(1, 3))
    good = np.isfinite(highest)
    low, high = np.percentile(highest[good], [2, 99.97]) if good.any() else (0.0, 1.0)
    low = max(float(low), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.log(np.maximum(highest, low) / low) / np.log(max(float(high) / low, 2.0))
    level = np.where(good, np.clip(np.nan_to_num(scaled) * 254, 0, 254), 255).astype(np.uint8)
    colours = np.round(colormaps[MAP](np.arange(255) / 254)[:, :3] * 255).astype(np.uint8)
    image = Image.fromarray(level, mode="P")
    image.putpalette([*colours.reshape(-1).tolist(), *_BAD])
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return file.getvalue()


def peak_marks(peaks: FramePeaks) -> list[list[float]]:
    """Return the peaks of a frame as [row, col, 1 if good]; the pixel of the peak where the fit failed."""
    fits = peaks.fitted.fits
    row = np.where(np.isfinite(fits.row), fits.row, peaks.found["row"])
    col = np.where(np.isfinite(fits.col), fits.col, peaks.found["col"])
    return np.stack([row, col, peaks.fitted.good], axis=1).round(2).tolist()


def page_state(
    *,
    source: str,
    figures: Mapping[str, Any],
    table: pd.DataFrame,
    last: Mapping[str, Any] | None,
    rings: pd.DataFrame | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    """Put together what the page fetches.

    Parameters
    ----------
    source : str
    figures : mapping
        Numbers beside the frame, such as `frames_per_s` and `lag`.
    table : DataFrame
        A row per frame, with `frame`, `peaks` and `good`.
    last : mapping, optional
        `name`, `rows`, `cols` and `peaks` of the last frame.
    rings : DataFrame, optional
        Of `ring_strain`.
    notes : sequence of str
        Lines for the reader.
    """
    shown = table.tail(_FRAMES)
    return {
        "source": source,
        **figures,
        "series": {name: shown[name].tolist() for name in ("frame", "peaks", "good")},
        "last": last,
        "rings": [] if rings is None else rings.to_dict("records"),
        "notes": list(notes),
    }


def rate(times: NDArray[np.float64], now: float, window: float) -> float:
    """Return the frames per second of the last `window` seconds.

    Examples
    --------
    >>> rate(np.array([1.0, 2.0, 9.0, 10.0]), 10.0, 5.0)
    0.4
    """
    return float(np.count_nonzero(times > now - window) / window)
