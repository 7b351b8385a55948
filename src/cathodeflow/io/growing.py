"""Series of raw frames while they are written: a folder, a pattern, or an HDF5 file, looked at again and again.

Nothing but the list of names and the sizes and times of files is relied on, so that network file systems (NFS, GPFS)
work, on which changes of other machines are not announced.
"""

import os
import time
from typing import NamedTuple

from cathodeflow.errors import InputError
from cathodeflow.io.frames import FrameSeries, join_headers, open_series, read_header
from cathodeflow.io.hdf5 import beside_writers
from cathodeflow.io.hdf5_growing import written_headers
from cathodeflow.io.raw_format import FrameHeader
from cathodeflow.io.sources import list_files, split_source

_HDF5 = b"\x89HDF\r\n\x1a\n"


class _State(NamedTuple):
    """Size and time of change of a file [ns], and when it was first seen in this state [s]."""

    size: int
    changed: int
    since: float


class GrowingSeries:
    """A series of raw frames that is being written.

    A file of single frames counts as complete when its size and time of change stay the same for `settle` seconds and
    its header can be read. Of an HDF5 file, the frames count whose chunks are written.

    Parameters
    ----------
    source : str
        As of `open_series`; nothing needs to exist yet.
    settle : float
        Time after which a file that does not change is complete [s].

    Attributes
    ----------
    waiting : dict of str to str
        Files that are not complete or cannot be read yet, and why.
    """

    def __init__(self, source: str, *, settle: float) -> None:
        self._source, self._settle = source, settle
        self._dataset = split_source(source)[1]
        self._states: dict[str, _State] = {}
        self._headers: dict[str, list[FrameHeader]] = {}
        self._arrived: dict[tuple[str, int], float] = {}
        self._complete: set[str] = set()
        # HDF5 files by the state in which nothing more was found in them.
        self._looked: dict[str, _State] = {}
        self.waiting: dict[str, str] = {}

    def look(self) -> FrameSeries | None:
        """Look for new frames.

        Returns
        -------
        FrameSeries or None
            The frames that are complete, in the order of their files; None if there is none.

        Raises
        ------
        InputError
            A file of the series is linked to by another.
        """
        try:
            paths = list_files(self._source)
        except InputError as error:
            self.waiting = {self._source: error.found}
            return None
        self.waiting = {}
        for path in paths:
            if path not in self._complete:
                self._look_at(path)
        headers: list[tuple[str, FrameHeader | InputError]] = [
            (path, header) for path in paths for header in self._headers.get(path, ())
        ]
        if not headers:
            return None
        series = join_headers(self._source, headers, on_bad_file="skip")
        self.waiting |= {error.where: f"{error.found}, expected {error.expected}" for error in series.bad}
        return series

    def arrival(self, path: str, index: int) -> float:
        """Return when a frame of a file was written, as far as is known [s since 1970]."""
        return self._arrived.get((path, index), self._arrived[path, -1])

    def finished(self, *, on_bad_file: str) -> FrameSeries:
        """Read the series once more as one that is no longer written: as `open_series`."""
        with beside_writers():
            return open_series(self._source, on_bad_file=on_bad_file)

    def _look_at(self, path: str) -> None:
        try:
            # A file that is opened is asked for at its server, where a name alone may be answered from memory (NFS).
            with open(path, "rb") as file:
                status, head = os.fstat(file.fileno()), file.read(len(_HDF5))
        except OSError as error:
            self.waiting[path] = str(error.strerror)
            return
        now, state = time.monotonic(), self._states.get(path)
        if state is None or state[:2] != (status.st_size, status.st_mtime_ns):
            state = self._states[path] = _State(status.st_size, status.st_mtime_ns, now)
        # By our clock, or by that of the file system where both agree; one that is behind is found at the end.
        settled = max(now - state.since, time.time() - status.st_mtime) >= self._settle
        try:
            if not status.st_size:
                self.waiting[path] = "an empty file"
            elif head == _HDF5:
                self._look_into(path, settled, min(status.st_mtime, time.time()))
            elif settled:
                self._headers[path] = [read_header(path, self._dataset)]
                self._arrived[path, -1] = status.st_mtime
                self._complete.add(path)
            else:
                self.waiting[path] = "written just now"
        except InputError as error:
            self.waiting[path] = f"{error.found}, expected {error.expected}"

    def _look_into(self, path: str, settled: bool, changed: float) -> None:
        if self._looked.get(path) == self._states[path]:
            return
        known = sum(header.n_frames for header in self._headers.get(path, ()))
        with beside_writers():
            headers = written_headers(path, self._dataset, settled=settled, known=known)
        count = sum(header.n_frames for header in headers)
        if count < known:
            raise InputError(path, f"{count} frames", f"the {known} frames of before, and more")
        self._headers[path] = headers
        self._arrived.setdefault((path, -1), changed)
        self._arrived |= {(path, index): changed for index in range(known, count)}
        # The frames of a master file grow in others.
        if settled and not any(header.linked for header in headers):
            self._looked[path] = self._states[path]


def frame_places(series: FrameSeries) -> list[tuple[str, int]]:
    """Return the file of every frame of a series and its number in that file.

    A file that a series has in several parts is counted through.
    """
    places: list[tuple[str, int]] = []
    counted: dict[str, int] = {}
    for file in series.files:
        first = counted.get(file.path, 0)
        places += [(file.path, first + index) for index in range(file.n_frames)]
        counted[file.path] = first + file.n_frames
    return places
