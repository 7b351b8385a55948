"""What the Bragg commands share: their group, flags and the reading of tables."""

from collections.abc import Callable, Iterator
from typing import Any

import click

from cathodeflow.bragg.options import Section
from cathodeflow.commands import Stages


@click.group(name="bragg", cls=Stages)
def group() -> None:
    """Bragg peaks on X-ray detector frames: find, fit and locate them."""


group.section = Section


def outputs(function: Callable[..., None]) -> Callable[..., None]:
    """Add the flags that every stage with results has."""
    flags = [
        click.option("--sample", required=True, help="Name of the scan."),
        click.option("--out", required=True, metavar="FILE", help="File of results to write."),
        click.option("--record", required=True, metavar="FILE", help="JSON file for options and figures of merit."),
    ]
    for flag in reversed(flags):
        function = flag(function)
    return function


def read_candidates(path: str) -> Any:
    """Read the table of candidates, ordered by frame."""
    from cathodeflow.io.tables import read_table

    return read_table(path, ["frame", "row", "col", "persistence", "npeaks", "central"])


def by_frame(table: Any, n_frames: int, where: str) -> Iterator[tuple[int, slice]]:
    """Yield (frame, its rows) of a table ordered by frame, for the frames that have rows."""
    import numpy as np

    from cathodeflow.errors import InputError

    frame = table["frame"].to_numpy()
    if (len(frame) and (np.diff(frame) < 0).any()) or (len(frame) and not 0 <= frame[0] <= frame[-1] < n_frames):
        raise InputError(where, f"frames {frame.min()} to {frame.max()}", f"ordered frames 0 to {n_frames - 1}")
    edges = np.flatnonzero(np.diff(frame)) + 1
    for start, stop in zip([0, *edges], [*edges, len(frame)], strict=True):
        if stop > start:
            yield int(frame[start]), slice(int(start), int(stop))


def require_inside(rows: Any, cols: Any, shape: tuple[int, ...], where: str) -> None:
    """Require that positions [px] lie on frames of a shape: peaks of frames binned otherwise do not."""
    from cathodeflow.errors import InputError

    if len(rows) and not (-1 < rows.min() <= rows.max() < shape[0] and -1 < cols.min() <= cols.max() < shape[1]):
        found = f"peaks on rows {rows.min():g} to {rows.max():g} and columns {cols.min():g} to {cols.max():g}"
        raise InputError(where, found, f"peaks of these frames, {shape[0]} x {shape[1]} pixels")


def median(values: Any) -> float | None:
    """Median, or None of nothing."""
    import numpy as np

    return float(np.median(values)) if len(values) else None
