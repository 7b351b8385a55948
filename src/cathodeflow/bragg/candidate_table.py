"""Table of candidate peaks, frame by frame."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.statistics import median

#: Columns of `candidates.parquet` that the stages read.
COLUMNS = ("frame", "row", "col", "persistence", "npeaks", "central")


def candidate_columns(found: Sequence[NDArray[np.void]]) -> dict[str, NDArray[Any]]:
    """Make the columns of the table from the candidates of each frame, as `peak_search.candidates` returns them.

    Parameters
    ----------
    found : sequence of (n,) structured
        One for each frame, at least one.
    """
    peaks = np.concatenate(found)
    columns: dict[str, NDArray[Any]] = {"frame": np.repeat(np.arange(len(found)), [len(rows) for rows in found])}
    return columns | {name: peaks[name] for name in peaks.dtype.names or ()}


def search_figures(found: Sequence[NDArray[np.void]]) -> dict[str, Any]:
    """Compute the figures of merit of a peak search from the candidates of each frame."""
    peaks = np.concatenate(found)
    return {
        "peaks": len(peaks),
        "peaks_per_frame": len(peaks) / len(found),
        "frames_without_peaks": sum(len(rows) == 0 for rows in found),
        "share_central": float(peaks["central"].mean()) if len(peaks) else None,
        "share_alone": float((peaks["npeaks"] == 1).mean()) if len(peaks) else None,
        "median_persistence": median(peaks["persistence"]),
    }


def by_frame(table: pd.DataFrame, n_frames: int, where: str) -> Iterator[tuple[int, slice]]:
    """Yield (frame, its rows) of a table ordered by frame, for the frames that have rows.

    Parameters
    ----------
    table : DataFrame
        With a column `frame`.
    n_frames : int
        Number of frames.
    where : str
        File of the table, for errors.

    Raises
    ------
    InputError
        The table is not ordered, or contains frames that do not exist.
    """
    frame = table["frame"].to_numpy()
    if not len(frame):
        return
    if (np.diff(frame) < 0).any() or not 0 <= frame[0] <= frame[-1] < n_frames:
        raise InputError(where, f"frames {frame.min()} to {frame.max()}", f"ordered frames 0 to {n_frames - 1}")
    edges = np.flatnonzero(np.diff(frame)) + 1
    for start, stop in zip([0, *edges], [*edges, len(frame)], strict=True):
        yield int(frame[start]), slice(int(start), int(stop))


def require_inside(rows: NDArray[np.number], cols: NDArray[np.number], shape: tuple[int, ...], where: str) -> None:
    """Require that positions [px] are on frames of a shape, unlike those of frames with another binning.

    Raises
    ------
    InputError
        Naming `where` and the range of the positions.
    """
    if len(rows) and not (-1 < rows.min() <= rows.max() < shape[0] and -1 < cols.min() <= cols.max() < shape[1]):
        found = f"peaks on rows {rows.min():g} to {rows.max():g} and columns {cols.min():g} to {cols.max():g}"
        raise InputError(where, found, f"peaks of these frames, {shape[0]} x {shape[1]} pixels")
