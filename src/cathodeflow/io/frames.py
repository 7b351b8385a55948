"""Series of raw detector frames, streamed one by one from the files of a scan."""

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.formats import detect_format, named
from cathodeflow.io.guard import MAX_PIXELS, guarded
from cathodeflow.io.raw_format import CountLimits, FrameHeader
from cathodeflow.io.sources import list_files, split_source

T = TypeVar("T")
# Maximum number of bad frames that are listed, since one wrong setting can make every frame bad.
_MAX_LISTED = 20


class SeriesFile(NamedTuple):
    """A file of a series: path, number of its first frame in the series, and header (None if the file is bad)."""

    path: str
    first: int
    n_frames: int
    header: FrameHeader | None


class FrameSeries(NamedTuple):
    """The frames of a scan, without their pixels.

    Attributes
    ----------
    source : str
    n_frames : int
        Number of frames, including those of bad files, so that frame numbers do not shift if a file is left out.
    shape : (int, int)
        (row, col) of every frame [px].
    dtype : np.dtype
    files : tuple of SeriesFile
    bad : tuple of InputError
        Errors of the files that are left out.
    """

    source: str
    n_frames: int
    shape: tuple[int, int]
    dtype: np.dtype
    files: tuple[SeriesFile, ...]
    bad: tuple[InputError, ...]


def open_series(source: str, *, on_bad_file: str = "fail") -> FrameSeries:
    """Read the headers of all files of a series.

    Parameters
    ----------
    source : str
        File, glob pattern or folder, with `::/dataset/path` for HDF5 (see `cathodeflow.io.sources.list_files`).
    on_bad_file : {"fail", "skip"}
        Whether bad files are an error, or are left out and listed in `bad`. Readable files that differ from most others
        in shape or dtype are bad, too. An unreadable file is assumed to have as many frames as most others.

    Raises
    ------
    InputError
        There is no file or no good file; with "fail", one line for every bad file.
    """
    _, dataset = split_source(source)
    headers: list[tuple[str, FrameHeader | InputError]] = []
    for path in list_files(source):
        try:
            headers.append((path, read_header(path, dataset)))
        except InputError as error:
            headers.append((path, error))
    return join_headers(source, headers, on_bad_file=on_bad_file)


def join_headers(
    source: str, headers: Sequence[tuple[str, FrameHeader | InputError]], *, on_bad_file: str = "fail"
) -> FrameSeries:
    """Make a series of files whose headers were read.

    Parameters
    ----------
    source : str
        Name of the series in errors.
    headers : sequence of (str, FrameHeader or InputError)
        Files in their order, with the header, or the reason why it cannot be used.
    on_bad_file : {"fail", "skip"}
        As of `open_series`.

    Raises
    ------
    InputError
        As in `open_series`.
    """
    good = [(path, header) for path, header in headers if isinstance(header, FrameHeader)]
    if not good:
        raise InputErrors.of([error for _, error in headers if isinstance(error, InputError)])
    _require_once(source, good)
    kind = Counter((header.shape, header.dtype) for _, header in good).most_common(1)[0][0]
    model = next(path for path, header in good if (header.shape, header.dtype) == kind)
    usual = Counter(header.n_frames for _, header in good).most_common(1)[0][0]
    (shape, dtype), files, bad, first = kind, [], [], 0
    for path, header in headers:
        if isinstance(header, FrameHeader) and (header.shape, header.dtype) != kind:
            found = f"{header.dtype} of {header.shape} pixels"
            problem: InputError | None = InputError(path, found, f"{dtype} of {shape} pixels, as in {model}")
        else:
            problem = header if isinstance(header, InputError) else None
        if problem is not None:
            bad.append(problem)
        n_frames = header.n_frames if isinstance(header, FrameHeader) else usual
        keep = header if problem is None and isinstance(header, FrameHeader) else None
        files.append(SeriesFile(path, first, n_frames, keep))
        first += n_frames
    if bad and on_bad_file == "fail":
        raise InputErrors.of(bad)
    return FrameSeries(source, first, shape, dtype, tuple(files), tuple(bad))


def _require_once(source: str, good: list[tuple[str, FrameHeader]]) -> None:
    """Require that no file of a series is also linked to by another: its frames would count twice."""
    paths = {os.path.realpath(path): path for path, header in good}
    for path, header in good:
        both = next((paths[real] for real in map(os.path.realpath, header.linked) if real in paths), None)
        if both is not None and os.path.realpath(path) != os.path.realpath(both):
            expected = f"{path} alone, or a pattern that leaves it out"
            raise InputError(source, f"{both} as well as {path}, which links to it", expected)


class LazyFrame(NamedTuple):
    """A frame of a series that is still to be decoded, which may happen in any thread.

    Attributes
    ----------
    number : int
        Number of the frame in the series.
    path : str
        Its file.
    load : callable
        Returns the (row, col) array. It raises InputError if the frame cannot be decoded; the rest of the file is then
        to be left out.
    """

    number: int
    path: str
    load: Callable[[], NDArray[Any]]


def read_frames(
    series: FrameSeries,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
    *,
    bad: list[InputError] | None = None,
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (frame number, (row, col) array) of a range of a series; one frame or HDF5 chunk is in memory at a time.

    Parameters
    ----------
    series : FrameSeries
    start, stop, step : int
        Range of frame numbers, as in `range`; None is the end.
    bad : list of InputError, optional
        Decoding errors are appended here, and the rest of the file is left out, instead of raised.

    Raises
    ------
    InputError
        The range has no frame, or a frame cannot be decoded.
    """
    damaged: set[str] = set()
    for frame in lazy_frames(series, start, stop, step):
        if frame.path in damaged:
            continue
        try:
            pixels = frame.load()
        except InputError as error:
            if bad is None:
                raise
            bad.append(error)
            damaged.add(frame.path)
            continue
        yield frame.number, pixels


def lazy_frames(series: FrameSeries, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[LazyFrame]:
    """Yield the frames of a range of a series, to be decoded later; parameters are those of `read_frames`.

    Raises
    ------
    InputError
        The range has no frame.
    """
    wanted = range(series.n_frames)[start:stop:step]
    if not wanted:
        found = f"no frame from {start} to {'the end' if stop is None else stop}"
        raise InputError(series.source, found, f"a range within its {series.n_frames} frames")
    for file in series.files:
        here = _part(wanted, file.first, file.first + file.n_frames)
        if file.header is None or not here:
            continue
        local = range(here.start - file.first, here.stop - file.first, here.step)
        for number, load in zip(here, _loads(file.path, file.header, local), strict=False):
            yield LazyFrame(number, file.path, load)


def count_limits(series: FrameSeries) -> CountLimits:
    """Return what the files of a series say of their values; where they differ, what holds for all."""
    known = [file.header.limits for file in series.files if file.header is not None]
    lowest = [limits.lowest for limits in known if limits.lowest is not None]
    highest = [limits.highest for limits in known if limits.highest is not None]
    marks = sorted({mark for limits in known for mark in limits.marks})
    return CountLimits(tuple(marks), max(lowest, default=None), min(highest, default=None))


def stored_masks(series: FrameSeries) -> Callable[[int], NDArray[np.bool_] | None]:
    """Return a function that reads the bad pixels of a frame from the mask that its file holds.

    Returns
    -------
    callable
        Frame number to (row, col) bool, None where the file has no mask. It raises InputError if the mask cannot be
        read.
    """
    kept: dict[str, NDArray[np.bool_]] = {}
    firsts = [file.first for file in series.files]

    def mask_of(number: int) -> NDArray[np.bool_] | None:
        file = series.files[bisect_right(firsts, number) - 1]
        if file.header is None or not file.header.n_masks:
            return None
        if file.path in kept:
            return kept[file.path]
        reader = named(file.header.format).frames
        assert reader is not None and reader.mask is not None
        with guarded(file.path, "a readable mask of bad pixels"):
            mask = reader.mask(file.path, file.header, number - file.first)
        if file.header.n_masks == 1:
            kept[file.path] = mask
        return mask

    return mask_of


def read_header(path: str, dataset: str | None = None) -> FrameHeader:
    """Read the header of a file of frames, without pixels.

    Parameters
    ----------
    path : str
    dataset : str, optional
        Path of the dataset in an HDF5 file.

    Raises
    ------
    InputError
        The file is missing, truncated, empty or of unknown format, or does not contain grey frames of real numbers.
    """
    found = detect_format(path, "frames")
    assert found.frames is not None
    if dataset is not None and not found.has_datasets:
        raise InputError(f"{path}::{dataset}", f"a file of format {found.name}", "an HDF5 file")
    expected = (
        f"a detector image in a format that {found.name} reads" if found.fallback else f"a readable {found.name} file"
    )
    with guarded(path, expected):
        header = found.frames.header(path, dataset)
    where = f"{path}::{header.dataset}" if header.dataset else path
    if header.dtype.kind not in "biuf":
        raise InputError(where, f"values of type {header.dtype}", "real numbers")
    if header.n_frames < 1 or 0 in header.shape:
        raise InputError(where, f"{header.n_frames} frames of {header.shape} pixels", "at least one frame")
    if not all(isinstance(side, Integral) for side in header.shape):
        raise InputError(where, f"frames of shape {header.shape}", "numbers of rows and columns")
    if min(header.shape) < 0 or header.shape[0] * header.shape[1] > MAX_PIXELS:
        raise InputError(where, f"frames of {header.shape} pixels", f"frames of at most {MAX_PIXELS} pixels")
    return header._replace(dtype=header.dtype.newbyteorder("="), format=found.name)


def iterate_file(path: str, header: FrameHeader, indices: range) -> Iterator[NDArray[Any]]:
    """Yield the frames `indices` of a file as (row, col) arrays, with one frame or one HDF5 chunk in memory at a time.

    Raises
    ------
    InputError
        The pixels of a frame cannot be decoded, or a frame differs from the header in shape or dtype.
    """
    return (load() for load in _loads(path, header, indices))


def _loads(path: str, header: FrameHeader, indices: range) -> Iterator[Callable[[], NDArray[Any]]]:
    """Yield functions that return the frames `indices` of a file; after one that raises, the others are missing."""
    reader = named(header.format).frames
    assert reader is not None
    if reader.deferred is None and header.n_frames == 1:
        for index in indices:
            yield partial(_only_frame, path, header, index)
        return
    frames: Iterator[Any] = (reader.deferred or reader.read)(path, header, indices)
    for index in indices:
        try:
            with guarded(f"{path}, frame {index}", f"readable {header.format} frames"):
                frame = next(frames, None)
        except InputError as error:
            yield partial(_raised, error)
            return
        given = frame if reader.deferred is not None else partial(_same, frame)
        yield partial(_decoded, path, header, index, given)


def _same(frame: NDArray[Any] | None) -> NDArray[Any] | None:
    return frame


def _raised(error: InputError) -> NDArray[Any]:
    raise error


def _only_frame(path: str, header: FrameHeader, index: int) -> NDArray[Any]:
    """Read the frame of a file with one frame."""
    reader = named(header.format).frames
    assert reader is not None
    frames = reader.read(path, header, range(index, index + 1))
    return _decoded(path, header, index, lambda: next(frames, None))


def _decoded(
    path: str, header: FrameHeader, index: int, load: Callable[[], NDArray[Any] | None] | None
) -> NDArray[Any]:
    """Decode a frame.

    Raises
    ------
    InputError
        It cannot be decoded, is missing, or differs from the header in shape or dtype.
    """
    with guarded(f"{path}, frame {index}", f"readable {header.format} frames"):
        frame = None if load is None else load()
    if frame is None:
        raise InputError(path, f"no frame {index}", f"{header.n_frames} frames")
    if frame.shape != header.shape or frame.dtype.newbyteorder("=") != header.dtype:
        found = f"{frame.dtype} of {frame.shape} pixels"
        raise InputError(f"{path}, frame {index}", found, f"{header.dtype} of {header.shape} as in frame 0")
    return np.ascontiguousarray(frame, dtype=header.dtype)


def unless_bad(frames: Iterator[T], bad: list[InputError]) -> Iterator[T]:
    """Pass frames, or results of them, on while `bad` is empty; after the first error, collect more and raise all.

    Raises
    ------
    InputError
        One line for each error in `bad`, at most 20.
    """
    for item in frames:
        if not bad:
            yield item
        elif len(bad) >= _MAX_LISTED:
            break
    if bad:
        raise InputErrors.of(bad)


def _part(wanted: range, first: int, end: int) -> range:
    """Restrict an ascending range to first <= number < end."""
    skip = max(0, -((wanted.start - first) // wanted.step))
    return range(wanted.start + skip * wanted.step, min(wanted.stop, end), wanted.step)
