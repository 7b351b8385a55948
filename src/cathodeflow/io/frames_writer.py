"""Writing frames.h5 frame by frame, atomically; its layout is that of `frames_file`."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.hdf5 import NewFile, new_dataset, new_hdf5
from cathodeflow.io.raw_format import FrameConditions

_COMPRESSIONS: dict[str, dict[str, Any]] = {
    "bitshuffle-lz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
    "gzip": {"compression": "gzip", "compression_opts": 4, "shuffle": True},
    "none": {},
}
_UNITS = {"omega": "deg", "energy": "keV"}
_PLUGIN = "bitshuffle-lz4 (HDF5 filter 32008): in Python, `import hdf5plugin` before reading"


class StoredFrame(NamedTuple):
    """A frame as frames.h5 holds it.

    Attributes
    ----------
    pixels : (row, col) float32
        Finite counts.
    invalid, saturated : (n, 2) int
        (row, col) of the pixels without a count in this frame, and of the saturated ones.
    """

    pixels: NDArray[np.float32]
    invalid: NDArray[np.intp]
    saturated: NDArray[np.intp]

    def bad_pixels(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the (row, col) bool mask of the frame, given that of all frames."""
        return _marked(mask, self.invalid)

    def saturated_pixels(self) -> NDArray[np.bool_]:
        """Return the (row, col) bool mask of the saturated pixels."""
        return _marked(np.zeros(self.pixels.shape, bool), self.saturated)


def _marked(mask: NDArray[np.bool_], places: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return a mask in which pixels (n, 2) are marked, too."""
    if not len(places):
        return mask
    marked = mask.copy()
    marked[tuple(places.T)] = True
    return marked


_NONE = np.empty((0, 2), np.intp)


def storable(frame: NDArray[np.float32], mask: NDArray[Any], saturation: float) -> StoredFrame:
    """Separate the counts of a frame from its marks.

    Parameters
    ----------
    frame : (row, col) float32
        NaN where a pixel has no count, infinite where it is saturated.
    mask : (row, col)
        Other than 0 where a pixel is bad in all frames.
    saturation : float
        Count of a saturated pixel, unless the frame has a higher one.
    """
    # The sum shows whether all are finite in half the time, but for counts near the end of float32.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(frame.sum()):
            return StoredFrame(frame, _NONE, _NONE)
    finite = np.isfinite(frame)
    places = np.argwhere(~finite)
    if not len(places):
        return StoredFrame(frame, _NONE, _NONE)
    values = frame[tuple(places.T)]
    unmasked = mask[tuple(places.T)] == 0
    marked = (places[marks & unmasked] for marks in (np.isnan(values), values == np.inf))
    top = float(frame.max(initial=0, where=finite))
    top = max(saturation, top) if np.isfinite(saturation) else top
    stored = frame.copy()
    stored[tuple(places.T)] = np.nan_to_num(values, nan=0.0, posinf=top, neginf=-np.inf)
    return StoredFrame(stored, *marked)


def write_frames(
    path: str | os.PathLike[str],
    frames: Iterable[tuple[int, ArrayLike]],
    *,
    shape: tuple[int, int],
    mask: ArrayLike | None = None,
    binning: int = 1,
    source: str = "",
    raw_shape: tuple[int, int] | None = None,
    dtype: DTypeLike = np.float32,
    compression: str = "bitshuffle-lz4",
    saturation: float = np.inf,
    dark: NDArray[np.floating] | None = None,
    dark_frames: int = 1,
    conditions: FrameConditions | None = None,
) -> tuple[int, int, int]:
    """Write frames.h5 frame by frame, atomically; equal frames give equal bytes.

    Parameters
    ----------
    path : path
    frames : iterable of (int, (row, col) array)
        Numbers in the raw series and frames; taken one at a time. NaN is a pixel without a count: it is stored as 0 and
        listed in `invalid_pixels`. Infinity is a saturated pixel: it is stored as `saturation`, or as the highest count
        of the frame if that is higher, and listed in `saturated_pixels`.
    shape : (int, int)
        (row, col) of the frames [px].
    mask : (row, col) bool, optional
        True where a pixel is bad. Default: no bad pixels.
    binning : int
        Side of the blocks of raw pixels that were summed [px].
    source : str
        Source of the frames.
    raw_shape : (int, int), optional
        (row, col) of the raw frames [px]. Default: `shape` times `binning`.
    dtype : dtype
        Type of the stored counts: float32, or integers that hold all of them.
    compression : {"bitshuffle-lz4", "gzip", "none"}
        The first needs a plugin of HDF5 to be read, the others do not.
    saturation : float
        Count of a saturated pixel.
    dark : (row, col) floating, optional
        Dark image that was subtracted, in the pixels of the frames [counts].
    dark_frames : int
        Number of frames of which it is the mean.
    conditions : FrameConditions, optional
        Angle and energy of all frames of the raw series, by their numbers; written where any frame has one.

    Returns
    -------
    (int, int, int)
        Frames, and entries of `invalid_pixels` and `saturated_pixels`.

    Raises
    ------
    InputError
        There is no frame.
    ValueError
        A frame or the mask has another shape.
    """
    numbers: list[int] = []
    with _new_file(path, shape, mask, dtype, compression) as (file, dataset, listed, bad):
        for number, frame in frames:
            pixels = np.asarray(frame, dtype=np.float32)
            if pixels.shape != tuple(shape):  # HDF5 would broadcast it
                raise ValueError(f"frame {number} of {pixels.shape} pixels in a file of {tuple(shape)}")
            stored = storable(pixels, bad, saturation)
            _append(listed[0], len(numbers), stored.invalid)
            _append(listed[1], len(numbers), stored.saturated)
            dataset.resize(len(numbers) + 1, axis=0)
            dataset[len(numbers)] = stored.pixels.astype(dtype, copy=False)
            numbers.append(int(number))
            file.require_room()
        if not numbers:
            raise InputError(source or os.fspath(path), "no frame", "at least one frame")
        raw_shape = raw_shape or (shape[0] * binning, shape[1] * binning)
        _describe(file, numbers, binning, source, raw_shape, compression, dark, dark_frames, conditions)
        counted = len(numbers), len(listed[0]), len(listed[1])
    return counted


def write_overview(
    path: str | os.PathLike[str],
    numbers: Sequence[int],
    frames: Mapping[int, NDArray[np.float32]],
    *,
    invalid: Sequence[NDArray[np.intp]],
    saturated: Sequence[NDArray[np.intp]],
    shape: tuple[int, int],
    mask: ArrayLike,
    binning: int,
    source: str,
    raw_shape: tuple[int, int],
    dtype: DTypeLike,
    compression: str,
    saturation: float,
    dark: NDArray[np.floating] | None,
    dark_frames: int,
    conditions: FrameConditions,
) -> None:
    """Write frames.h5 with all that `write_frames` writes but the pixels of most frames, atomically.

    Reading another frame than those that are kept is an error.

    Parameters
    ----------
    path : path
    numbers : sequence of int
        Number of each frame in the raw series.
    frames : mapping of int to (row, col) float32
        Frames that are kept, by their index in `numbers`; counts as `storable` gives them.
    invalid, saturated : sequence of (n, 2) int
        (row, col) of such pixels of each frame, as of `storable`.
    shape, mask, binning, source, raw_shape, dtype, compression, saturation, dark, dark_frames, conditions
        As for `write_frames`.
    """
    with _new_file(path, shape, mask, dtype, compression) as (file, dataset, listed, _):
        for index, marked in enumerate(zip(invalid, saturated, strict=True)):
            for where, places in zip(listed, marked, strict=True):
                _append(where, index, places)
        dataset.resize(len(numbers), axis=0)
        for index, pixels in frames.items():
            dataset[index] = pixels.astype(dtype, copy=False)
        file.attrs["kept_frames"] = np.array(sorted(frames), dtype=np.int64)
        _describe(file, list(numbers), binning, source, raw_shape, compression, dark, dark_frames, conditions)


@contextmanager
def _new_file(
    path: str | os.PathLike[str], shape: tuple[int, int], mask: ArrayLike | None, dtype: DTypeLike, compression: str
) -> Iterator[tuple[NewFile, h5py.Dataset, tuple[h5py.Dataset, h5py.Dataset], NDArray[np.uint8]]]:
    """Create a file with empty datasets of frames, invalid and saturated pixels, and its mask."""
    bad = np.zeros(shape, np.uint8) if mask is None else np.asarray(mask, dtype=bool).astype(np.uint8)
    if bad.shape != tuple(shape):
        raise ValueError(f"mask of {bad.shape} pixels for frames of {tuple(shape)}")
    with new_hdf5(path) as file:
        dataset = new_dataset(
            file,
            "frames",
            shape=(0, *shape),
            maxshape=(None, *shape),
            dtype=dtype,
            chunks=(1, *shape),
            **_COMPRESSIONS[compression],
        )
        invalid, saturated = (
            new_dataset(file, name, shape=(0, 3), maxshape=(None, 3), dtype=np.uint32, chunks=(8192, 3))
            for name in ("invalid_pixels", "saturated_pixels")
        )
        yield file, dataset, (invalid, saturated), bad
        new_dataset(file, "mask", bad, compression="gzip")


def _describe(
    file: NewFile,
    numbers: list[int],
    binning: int,
    source: str,
    raw_shape: tuple[int, int],
    compression: str,
    dark: NDArray[np.floating] | None,
    dark_frames: int,
    conditions: FrameConditions | None,
) -> None:
    """Write all but the frames and the masks."""
    new_dataset(file, "frame_number", np.array(numbers, dtype=np.int64))
    known = {} if conditions is None else {"omega": conditions.omega, "energy": conditions.energy_kev}
    for name, values in known.items():
        if np.isfinite(here := np.asarray(values, np.float64)[numbers]).any():
            new_dataset(file, name, here).attrs["units"] = _UNITS[name]
    file.attrs["compression"] = _PLUGIN if compression == "bitshuffle-lz4" else compression
    file.attrs["binning"] = binning
    file.attrs["source"] = source
    file.attrs["raw_shape"] = np.array(raw_shape, dtype=np.int64)
    if dark is not None:
        new_dataset(file, "dark", np.asarray(dark, np.float32), compression="gzip")
        file.attrs["dark_frames"] = dark_frames


def _append(listed: h5py.Dataset, index: int, places: NDArray[np.intp]) -> None:
    """Append (index, row, col) of some pixels of a frame."""
    if len(places):
        listed.resize(len(listed) + len(places), axis=0)
        listed[-len(places) :] = np.column_stack([np.full(len(places), index), places])
