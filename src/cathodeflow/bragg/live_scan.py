"""A scan that is measured while it is written: new frames at once, and all of them again where that is needed."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.frame_peaks import FramePeaks, as_records, from_records
from cathodeflow.bragg.peak_options import Watch
from cathodeflow.bragg.raw_scan import Images, RawScan, each_frame, scan_of, scan_with
from cathodeflow.bragg.watching import GrowingMask, MeasuredCounts, Measurement, SearchedFrame, content_of
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.frames import FrameSeries, count_limits, read_frames, stored_masks
from cathodeflow.io.growing import frame_places
from cathodeflow.io.hdf5 import beside_writers
from cathodeflow.io.peak_parts import MeasuredFrame, PeakParts
from cathodeflow.io.raw_format import FrameConditions
from cathodeflow.parallel import thread_count
from cathodeflow.progress import progress

log = logging.getLogger("cathodeflow.bragg")

# Frames that are measured within this time are stored together [s].
_TOGETHER = 0.5
# Errors that are listed.
_MAX_LISTED = 20


class LiveScan:
    """Measure the frames of a scan that is being written.

    Parameters
    ----------
    images : Images
    options : Watch
    parts : PeakParts
        Frames that were measured before; new ones are added.

    Attributes
    ----------
    last : (str, MeasuredCounts) or None
        Name and content of the frame that was measured last.
    measured_at : dict of (str, int) to float
        When the peaks of a frame were stored, by file and number in it [s since 1970].
    rejected : dict of (str, int) to InputError
        Frames that cannot be used.
    """

    def __init__(self, images: Images, options: Watch, parts: PeakParts) -> None:
        self._images, self._options, self._parts = images, options, parts
        self._growing = GrowingMask(images.bad_pixels)
        self._measurement: Measurement | None = None
        self._warned: set[str] = set()
        self.last: tuple[str, MeasuredCounts] | None = None
        self.measured_at: dict[tuple[str, int], float] = {}
        self.rejected: dict[tuple[str, int], InputError] = {}

    def wanted(self, series: FrameSeries) -> range:
        """Return the numbers of the frames that the options select."""
        options = self._options.frames
        return range(series.n_frames)[options.start : options.stop : options.step]

    def pending(self, series: FrameSeries) -> list[int]:
        """Return the numbers of the frames that are there and not measured."""
        places = frame_places(series)
        done = self._parts.frames.keys() | self.rejected.keys()
        return [number for number in self.wanted(series) if places[number] not in done]

    def measure_new(self, series: FrameSeries) -> int:
        """Measure frames that are there and not measured, for about half a second, and return their number."""
        until, places = time.monotonic() + _TOGETHER, frame_places(series)
        done: list[MeasuredFrame] = []
        pending = self.pending(series)
        if not pending:
            return 0
        with beside_writers():
            scan = self._open(series)
            first = self.wanted(series)[0]
            if not self._growing.begun and pending[0] != first:
                # The command was started again: the mask begins as it did before.
                for number, raw in self._read(series, [first]):
                    self._growing.add(number, raw, scan.correction)
            for number, raw in self._read(series, pending):
                try:
                    measured, method = self._measure(scan, number, raw)
                except InputError as error:
                    self.rejected[places[number]] = error
                    self._warn(error)
                    continue
                done.append(MeasuredFrame(*places[number], content_of(raw), method, as_records(measured.peaks)))
                path, index = places[number]
                several = index > 0 or (number + 1 < len(places) and places[number + 1][0] == path)
                self.last = f"{path}, frame {index}" if several else path, measured
                if time.monotonic() > until:
                    break
        if done:
            self._parts.add(done)
            self.measured_at |= dict.fromkeys([(frame.path, frame.number) for frame in done], time.time())
        return len(done)

    def finish(self, series: FrameSeries) -> list[FramePeaks]:
        """Compare all frames with what was measured, measure those that differ, and return the peaks of all.

        Frames are measured again whose mask has changed since, or whose files have. The result is that of the stages
        `frames`, `find-peaks` and `fit`.

        Raises
        ------
        InputError
            As in the stage `frames`.
        """
        options, places = self._options.frames, frame_places(series)
        bad: list[InputError] = []
        found: dict[int, MeasuredFrame] = {}
        again: list[MeasuredFrame] = []
        n_again, stored = 0, time.monotonic()
        with beside_writers():
            scan = scan_of(series, self._images, options, _no_conditions(series))
            measurement = Measurement(scan, self._options)

            def compare(number: int, raw: NDArray[Any]) -> tuple[int, str, str, SearchedFrame | None]:
                content, method = content_of(raw), measurement.method(number)
                before = self._parts.frames.get(places[number])
                same = before is not None and (before.content, before.method) == (content, method)
                return number, content, method, None if same else measurement.search(number, raw)

            frames = each_frame(scan, compare, workers=thread_count(), bad=bad)
            for number, content, method, searched in progress(frames, "comparing", total=len(scan.wanted)):
                if searched is None:
                    found[number] = self._parts.frames[places[number]]
                    continue
                records = as_records(measurement.fit(searched).peaks)
                found[number] = MeasuredFrame(*places[number], content, method, records)
                again.append(found[number])
                n_again += 1
                if time.monotonic() > stored + 10 * _TOGETHER:
                    self._parts.add(again)
                    again, stored = [], time.monotonic()
        if bad and options.on_bad_file == "fail":
            raise InputErrors.of(bad[:_MAX_LISTED])
        for problem in (*series.bad, *bad):
            self._warn(problem)
        if not found:
            raise InputError(series.source, "no frame", "at least one frame")
        if n_again:
            log.info("%d of %d frames measured again, with the final mask or counts", n_again, len(found))
        ordered = [found[number] for number in sorted(found)]
        self._parts.join(ordered)
        return [from_records(frame.peaks) for frame in ordered]

    def _open(self, series: FrameSeries) -> RawScan:
        """Return the scan with the mask so far, whose series is a longer one."""
        now = None if self._measurement is None else self._measurement.scan
        limits = count_limits(series)
        if now is None or now.correction.limits != limits:
            now = scan_with(series, self._images, self._options.frames, self._no_mask(series), _no_conditions(series))
            self._measurement = None
        mask_of = stored_masks(series) if self._options.frames.stored_mask else None
        return now._replace(series=series, correction=now.correction._replace(mask_of=mask_of))

    def _no_mask(self, series: FrameSeries) -> NDArray[np.bool_]:
        bad = self._images.bad_pixels
        return np.zeros(series.shape, bool) if bad is None else bad

    def _measure(self, scan: RawScan, number: int, raw: NDArray[Any]) -> tuple[MeasuredCounts, str]:
        mask = self._growing.add(number, raw, scan.correction)
        if mask.all():
            where = f"{scan.series.source}, frame {number}"
            raise InputError(where, "no pixel with a count that is not masked", "counts")
        now = self._measurement
        if now is None or not np.array_equal(now.scan.correction.mask, mask):
            masked = scan_with(scan.series, self._images, self._options.frames, mask, scan.conditions)
            self._measurement = now = Measurement(masked, self._options)
        elif now.scan.series is not scan.series:
            now.scan = scan
        return now.fit(now.search(number, raw)), now.method(number)

    def _read(self, series: FrameSeries, numbers: list[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Read frames, as many as follow each other at a time; those that cannot be read now are tried again later."""
        bad: list[InputError] = []
        breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
        for part in np.split(np.array(numbers, np.int64), breaks) if numbers else []:
            yield from read_frames(series, int(part[0]), int(part[-1]) + 1, bad=bad)
        for error in bad:
            self._warn(error)

    def _warn(self, error: InputError) -> None:
        if str(error) not in self._warned:
            self._warned.add(str(error))
            log.warning("left out: %s", error)


def _no_conditions(series: FrameSeries) -> FrameConditions:
    """Peaks need no angles and energies of the frames."""
    return FrameConditions(*np.full((2, series.n_frames), np.nan))
