"""Peaks of a scan that is still being measured: small files, each of the frames that arrived together.

They are written atomically, so that after a crash or a kill everything that was measured is there, and nothing twice.
A file has the dataset `frames`, a text (JSON) with a line for each frame, and `peaks`, the records of all its peaks.
"""

import fcntl
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.atomic import WRITTEN
from cathodeflow.io.digests import content_digest
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import new_dataset, new_hdf5, open_hdf5, read_array
from cathodeflow.io.tables import read_json, write_json

log = logging.getLogger("cathodeflow")

_NAME = re.compile(r"part_(\d+)\.h5")


class MeasuredFrame(NamedTuple):
    """A frame and its peaks.

    Attributes
    ----------
    path, number : str, int
        File, and number of the frame in it.
    content : str
        Digest of the raw counts.
    method : str
        Digest of everything else that the peaks depend on.
    peaks : (n,) structured
    """

    path: str
    number: int
    content: str
    method: str
    peaks: NDArray[np.void]


class PeakParts:
    """The files in a folder, with all frames that were measured so far.

    Parameters
    ----------
    folder : path
    settings : mapping
        JSON content that all peaks depend on; what was measured with others is removed.
    dtype : np.dtype
        Type of the peaks.

    Attributes
    ----------
    frames : dict of (str, int) to MeasuredFrame

    Raises
    ------
    InputError
        Another process works with this folder.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any], dtype: np.dtype) -> None:
        self._folder, self._dtype = Path(folder), dtype
        self.frames: dict[tuple[str, int], MeasuredFrame] = {}
        self._next = 0
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self._folder / "lock", "w")  # noqa: SIM115
        try:
            # Released by the system when the process ends in any way.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            expected = "one command for each folder; end the other one first"
            raise InputError(folder, "another command that measures into it", expected) from None
        except OSError:
            pass  # a file system without locks
        about = self._folder / "settings.json"
        digest = content_digest(settings)
        parts = self._parts()
        if about.exists() and _digest_of(about) != digest:
            log.info("%s: %d files made with other options or images are removed", folder, len(parts))
            for path in parts:
                path.unlink()
            parts = []
        with _unrecorded():
            write_json(about, {"digest": digest, "settings": settings})
        for path in parts:
            try:
                read = list(_read(path, dtype))
            except InputError as error:
                log.warning("measured again: %s", error)
                path.unlink()
                continue
            self.frames |= {(frame.path, frame.number): frame for frame in read}
            self._next = int(_NAME.fullmatch(path.name)[1]) + 1  # type: ignore[index]

    def __enter__(self) -> "PeakParts":
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def add(self, frames: Iterable[MeasuredFrame]) -> None:
        """Write a part with frames; they take the place of those of before."""
        added = list(frames)
        self.frames |= {(frame.path, frame.number): frame for frame in added}
        with _unrecorded():
            _write(self._folder / f"part_{self._next:06d}.h5", added, self._dtype)
        self._next += 1

    def join(self, frames: Iterable[MeasuredFrame]) -> None:
        """Write one part with the frames given, and remove all others."""
        before = self._parts()
        self.frames = {}
        self.add(frames)
        for path in before:
            path.unlink()

    def _parts(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("part_*.h5") if _NAME.fullmatch(path.name))


@contextmanager
def _unrecorded() -> Iterator[None]:
    """Keep files out of the record of the job, whose outputs they are not."""
    before = dict(WRITTEN)
    yield
    for path in set(WRITTEN) - set(before):
        del WRITTEN[path]


def _digest_of(path: Path) -> str | None:
    with suppress(InputError):
        values = read_json(path)
        return values.get("digest") if isinstance(values, dict) else None
    return None


def _write(path: Path, frames: list[MeasuredFrame], dtype: np.dtype) -> None:
    lines = [{**frame._asdict(), "peaks": len(frame.peaks)} for frame in frames]
    with new_hdf5(path) as file:
        new_dataset(file, "frames", np.frombuffer(json.dumps(lines).encode(), np.uint8))
        new_dataset(file, "peaks", np.concatenate([np.zeros(0, dtype), *(frame.peaks for frame in frames)]))


def _read(path: Path, dtype: np.dtype) -> Iterator[MeasuredFrame]:
    with open_hdf5(path) as file, guarded(path, "peaks of measured frames"):
        lines = json.loads(read_array(file, "frames").tobytes())
        peaks = np.asarray(file["peaks"][()])
        if peaks.dtype != dtype or sum(line["peaks"] for line in lines) != len(peaks):
            raise InputError(path, f"{len(peaks)} peaks of another kind or number", "peaks of measured frames")
        start = 0
        for line in lines:
            end = start + line["peaks"]
            yield MeasuredFrame(**{**line, "peaks": peaks[start:end]})
            start = end
