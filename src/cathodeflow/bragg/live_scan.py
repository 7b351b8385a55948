"""A scan that is measured while it is written: new frames at once, and all of them again where that is needed."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.frame_peaks import FramePeaks, as_records, from_records
from cathodeflow.bragg.options import Watch
from cathodeflow.bragg.scan_corrections import CorrectionImages, InvalidPixels, sample_frames, scan_mask
from cathodeflow.bragg.watching import GrowingMask, MeasuredCounts, Measurement, content_of
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.frames import FrameSeries, read_frames
from cathodeflow.io.growing import frame_places
from cathodeflow.io.hdf5 import beside_writers
from cathodeflow.io.peak_parts import MeasuredFrame, PeakParts
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
    images : CorrectionImages
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

    def __init__(self, images: CorrectionImages, options: Watch, parts: PeakParts) -> None:
        self._images, self._options, self._parts = images, options, parts
        self._growing = GrowingMask(images)
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
        find_invalid = InvalidPixels(series, self._options.frames)
        done: list[MeasuredFrame] = []
        pending = self.pending(series)
        with beside_writers():
            if pending and not self._growing.begun and pending[0] != (first := self.wanted(series)[0]):
                # The command was started again: the mask begins as it did before.
                for number, raw in self._read(series, [first]):
                    self._growing.add(find_invalid(number, raw))
            for number, raw in self._read(series, pending):
                try:
                    measured = self._measure(series, find_invalid, number, raw)
                except InputError as error:
                    self.rejected[places[number]] = error
                    self._warn(error)
                    continue
                assert self._measurement is not None
                digests = content_of(raw), self._measurement.method(number)
                done.append(MeasuredFrame(*places[number], *digests, as_records(measured.peaks)))
                path, index = places[number]
                several = index > 0 or (number + 1 < len(places) and places[number + 1][0] == path)
                self.last = f"{path}, frame {index}" if several else path, measured
                if time.monotonic() > until:
                    break
        if done:
            self._parts.add(done)
            self.measured_at |= dict.fromkeys([(frame.path, frame.index) for frame in done], time.time())
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
        contents: dict[int, str] = {}
        with beside_writers():
            find_invalid = InvalidPixels(series, options)
            samples = sample_frames(series, options)
            mask = scan_mask([find_invalid(*sample) for sample in samples], self._images, series.source)
            measurement = Measurement(series, self._images, find_invalid, mask, self._options)

            def changed() -> Iterator[tuple[int, NDArray[Any]]]:
                frames = read_frames(series, options.start, options.stop, options.step, bad=bad)
                for number, raw in progress(frames, "comparing", total=len(self.wanted(series))):
                    before, content = self._parts.frames.get(places[number]), content_of(raw)
                    if before and (before.content, before.method) == (content, measurement.method(number)):
                        found[number] = before
                    else:
                        contents[number] = content
                        yield number, raw

            again: list[MeasuredFrame] = []
            stored = time.monotonic()
            for number, measured in measurement.measure(changed(), bad):
                digests = contents[number], measurement.method(number)
                found[number] = MeasuredFrame(*places[number], *digests, as_records(measured.peaks))
                again.append(found[number])
                if time.monotonic() > stored + 10 * _TOGETHER:
                    self._parts.add(again)
                    again, stored = [], time.monotonic()
        if bad and options.on_bad_file == "fail":
            raise InputErrors.of(bad[:_MAX_LISTED])
        for problem in (*series.bad, *bad):
            self._warn(problem)
        if not found:
            raise InputError(series.source, "no frame", "at least one frame")
        if contents:
            log.info("%d of %d frames measured again, with the final mask or counts", len(contents), len(found))
        ordered = [found[number] for number in sorted(found)]
        self._parts.join(ordered)
        return [from_records(frame.peaks) for frame in ordered]

    def _measure(
        self, series: FrameSeries, find_invalid: InvalidPixels, number: int, raw: NDArray[Any]
    ) -> MeasuredCounts:
        mask = self._growing.add(find_invalid(number, raw))
        if mask.all():
            raise InputError(f"{series.source}, frame {number}", "no pixel with a count that is not masked", "counts")
        now = self._measurement
        if now is None or now.find_invalid.limits != find_invalid.limits or not np.array_equal(now.mask, mask):
            self._measurement = now = Measurement(series, self._images, find_invalid, mask, self._options)
        now.find_invalid = find_invalid
        return next(now.measure([(number, raw)]))[1]

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
