"""What `watch` reports while it runs: lines in the log, tables, and the live page."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cathodeflow.bragg.frame_peaks import from_records
from cathodeflow.bragg.live_scan import LiveScan
from cathodeflow.bragg.live_view import frame_image, page_state, peak_marks, rate
from cathodeflow.bragg.peak_options import Watch
from cathodeflow.bragg.strain_so_far import StrainSoFar
from cathodeflow.io.frames import FrameSeries
from cathodeflow.io.growing import GrowingSeries, frame_places
from cathodeflow.io.peak_parts import MeasuredFrame, PeakParts
from cathodeflow.io.tables import write_csv
from cathodeflow.live_page import LivePage

log = logging.getLogger("cathodeflow.bragg")

# Time between two lines in the log [s].
_LINES = 5.0
# Frames per second are those of this time [s].
_WINDOW = 10.0
_MAX_NOTES = 8


class WatchReport:
    """Tables, log and live page of a scan that is being measured.

    Parameters
    ----------
    source, folder : str
        Of the frames, and of the tables.
    growing : GrowingSeries
    scan : LiveScan
    parts : PeakParts
    page : LivePage
    strain : StrainSoFar, optional
    options : Watch
    """

    def __init__(
        self,
        source: str,
        folder: str,
        growing: GrowingSeries,
        scan: LiveScan,
        parts: PeakParts,
        page: LivePage,
        strain: StrainSoFar | None,
        options: Watch,
    ) -> None:
        self._source, self._folder, self._growing, self._scan = source, Path(folder), growing, scan
        self._parts, self._page, self._strain, self._options = parts, page, strain, options
        self._shown = self._lined = -np.inf
        self._took, self._told = 0.0, 0
        self._drawn: str | None = None
        self._state: tuple[object, ...] = ()
        self._rings: pd.DataFrame | None = None
        self._counts: dict[tuple[str | int, ...], tuple[int, int]] = {}

    def update(self, series: FrameSeries, *, waiting: int, status: str, always: bool = False) -> None:
        """Bring everything up to date, at most about once a second, if something is new.

        Parameters
        ----------
        series : FrameSeries
            Frames that are there.
        waiting : int
            Number of those that are not measured.
        status : str
        always : bool
            Also if it was done just now.
        """
        now = time.monotonic()
        # No more than a fifth of the time is spent here.
        if not always and now < self._shown + max(1.0, 5 * self._took):
            return
        places = [place for place in frame_places(series) if place in self._parts.frames]
        frames = [self._parts.frames[place] for place in places]
        table = self._table(frames)
        lag = _lag(table)
        speed = rate(np.array(list(self._scan.measured_at.values())), time.time(), _WINDOW)
        state = (len(frames), waiting, status, tuple(self._growing.waiting.items()))
        if always or state != self._state:
            rings = None if self._strain is None else self._strain.table([frame.peaks for frame in frames])
            write_csv(self._folder / "frames.csv", table)
            if rings is not None:
                write_csv(self._folder / "rings.csv", rings)
            self._state, self._rings = state, rings
        figures = {
            "frames": len(frames),
            "expected": self._options.expected,
            "waiting": waiting,
            "frames_per_s": speed,
            "lag": lag,
            "peaks": int(table["peaks"].sum()),
            "status": status,
        }
        if self._page.address:
            self._show(table, figures)
        # Nothing is said of a scan that pauses.
        if status == "finished" or (now > self._lined + _LINES and len(frames) != self._told):
            self._lined, self._told = now, len(frames)
            behind = "" if lag is None else f", {lag:.1f} s behind"
            held = f", {waiting} waiting" if waiting else ""
            log.info("%d frames, %.1f frames/s%s%s, %d peaks", len(frames), speed, behind, held, figures["peaks"])
        self._shown = time.monotonic()
        self._took = self._shown - now

    def _show(self, table: pd.DataFrame, figures: dict[str, Any]) -> None:
        last, images = None, {}
        if self._scan.last is not None:
            name, frame = self._scan.last
            rows, cols = frame.counts.shape
            last = {"name": name, "rows": rows, "cols": cols, "peaks": peak_marks(frame.peaks)}
            if name != self._drawn:
                images, self._drawn = {"frame.png": frame_image(frame)}, name
        held = [f"waiting for {path}: {why}" for path, why in self._growing.waiting.items()]
        notes = [*self._about_strain(len(table)), *map(str, self._scan.rejected.values()), *held]
        if len(notes) > _MAX_NOTES:
            notes = [*notes[: _MAX_NOTES - 1], f"and {len(notes) - _MAX_NOTES + 1} more lines of this kind"]
        state = page_state(source=self._source, figures=figures, table=table, last=last, rings=self._rings, notes=notes)
        self._page.update(state, images)

    def _about_strain(self, count: int) -> list[str]:
        if self._strain is None:
            return ["no strain without --geometry"]
        if self._strain.has_reference:
            return ["strain relative to the reference"]
        first = self._options.reference_frames
        if count <= first:
            return [f"strain from frame {first} on: the first {first} frames are the reference"]
        return [f"strain relative to the first {first} frames"]

    def _table(self, frames: Sequence[MeasuredFrame]) -> pd.DataFrame:
        rows = []
        for number, frame in enumerate(frames):
            key = frame.path, frame.number
            measured = (*key, frame.content, frame.method)
            if measured not in self._counts:
                good = from_records(frame.peaks).fitted.good
                self._counts[measured] = len(frame.peaks), int(good.sum())
            done = self._scan.measured_at.get(key)
            lag = np.nan if done is None else max(0.0, done - self._growing.arrival(*key))
            rows.append((number, *key, *self._counts[measured], lag))
        return pd.DataFrame(rows, columns=["frame", "file", "index", "peaks", "good", "lag"])


def _lag(table: pd.DataFrame) -> float | None:
    """Return how far the peaks are behind the frames: the time from writing to measuring of the last frame [s]."""
    known = table["lag"].dropna()
    return float(known.iloc[-1]) if len(known) else None
