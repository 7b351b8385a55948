"""frames.h5: detector frames in BraggNN's layout, written and read frame by frame.

Dataset `frames` (frame, row, col) float32, a chunk per frame, bitshuffle and lz4 (BraggNN: Liu et al., IUCrJ 9, 104,
2022). Additions of Cathodeflow: `mask` (row, col) uint8, 1 where a pixel is bad in all frames; `invalid_pixels` (n, 3)
uint32, (frame, row, col) of pixels without a count in that frame alone, with the index of the frame in the file;
`saturated_pixels`, alike, of pixels whose counts are only known to be high; `dark` (row, col) float32, the dark image
that was subtracted; `frame_number` (frame,) int64, the number in the raw series; where they are known, `omega` [deg]
and `energy` [keV], (frame,) float64; attributes `binning`, `source`, `raw_shape`, `compression`, `dark_frames`.
Bad and invalid pixels are 0 in `frames`. Files that hold `frames` alone open too.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import MAX_PIXELS, guarded, one_line
from cathodeflow.io.hdf5 import contents, find_node, new_dataset, new_hdf5, open_hdf5, read_array, require_plain
from cathodeflow.io.raw_format import FrameConditions

_COMPRESSIONS: dict[str, dict[str, Any]] = {
    "bitshuffle-lz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
    "gzip": {"compression": "gzip", "compression_opts": 4, "shuffle": True},
    "none": {},
}
_UNITS = {"omega": "deg", "energy": "keV"}
_PLUGIN = "bitshuffle-lz4 (HDF5 filter 32008): in Python, `import hdf5plugin` before reading"


class LazyFrames:
    """The frames of an open file: `frames[i]` reads a (row, col) float32 frame, `len(frames)` is their number."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.shape: tuple[int, int, int] = dataset.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """Read frame `index`; negative indices count from the end.

        Raises
        ------
        IndexError
            There is no such frame.
        InputError
            Its chunk cannot be decoded.
        """
        number = range(len(self))[index]
        try:
            return np.asarray(self._dataset[number], dtype=np.float32)
        except (OSError, RuntimeError) as error:
            where = f"{self._dataset.file.filename}::{self._dataset.name}, frame {number}"
            raise InputError(where, f"an error ({one_line(error)})", "readable frames") from error

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[number] for number in range(len(self)))


class FramesFile(NamedTuple):
    """An open frames.h5.

    Attributes
    ----------
    frames : LazyFrames
        (frame, row, col) float32, read when indexed.
    mask : (row, col) bool
        True where a pixel is bad in all frames.
    invalid : (n, 3) int64
        (frame, row, col) of the pixels without a count in that frame alone, in the order of the frames.
    saturated : (n, 3) int64
        (frame, row, col) of the saturated pixels, alike.
    dark : (row, col) float32 or None
        Dark image that was subtracted, summed over binned pixels [counts].
    dark_frames : int
        Number of frames of which it is the mean.
    frame_number : (frame,) int64
        Number of each frame in the raw series.
    binning : int
        Side of the blocks of raw pixels that were summed [px].
    source : str
    raw_shape : (int, int)
        (row, col) of the raw frames [px].
    omega : (frame,) float64, optional
        Orientation angle of the sample [deg].
    energy_kev : (frame,) float64, optional
        Photon energy.
    """

    frames: LazyFrames
    mask: NDArray[np.bool_]
    frame_number: NDArray[np.int64]
    binning: int
    source: str
    raw_shape: tuple[int, int]
    invalid: NDArray[np.int64]
    saturated: NDArray[np.int64]
    dark: NDArray[np.float32] | None
    dark_frames: int
    omega: NDArray[np.float64] | None = None
    energy_kev: NDArray[np.float64] | None = None

    def saturated_pixels(self, index: int) -> NDArray[np.bool_]:
        """Return the (row, col) bool mask of the saturated pixels of a frame."""
        mask = np.zeros(self.mask.shape, bool)
        first, end = np.searchsorted(self.saturated[:, 0], [index, index + 1])
        mask[self.saturated[first:end, 1], self.saturated[first:end, 2]] = True
        return mask

    def bad_pixels(self, index: int) -> NDArray[np.bool_]:
        """Return the (row, col) bool mask of a frame: pixels that are bad in all frames, or without a count in it."""
        first, end = np.searchsorted(self.invalid[:, 0], [index, index + 1])
        if first == end:
            return self.mask
        mask = self.mask.copy()
        mask[self.invalid[first:end, 1], self.invalid[first:end, 2]] = True
        return mask


class StoredCounts(NamedTuple):
    """A frame as frames.h5 has it.

    Attributes
    ----------
    counts : (row, col) float32
        Finite counts.
    invalid, saturated : (row, col) bool or None
        Pixels without a count in this frame alone, and saturated ones; None without such pixels.
    """

    counts: NDArray[np.float32]
    invalid: NDArray[np.bool_] | None
    saturated: NDArray[np.bool_] | None


def stored_counts(frame: NDArray[np.float32], bad: NDArray[np.bool_], saturation: float) -> StoredCounts:
    """Convert a corrected frame, with NaN and infinity, to what frames.h5 stores of it (see `write_frames`).

    Parameters
    ----------
    frame : (row, col) float32
    bad : (row, col) bool
        Pixels that are bad in all frames.
    saturation : float
        Count of a saturated pixel.
    """
    finite = np.isfinite(frame)
    if finite.all():
        return StoredCounts(frame, None, None)
    top = float(frame.max(initial=0, where=finite))
    top = max(saturation, top) if np.isfinite(saturation) else top
    counts = np.nan_to_num(frame, nan=0.0, posinf=top, neginf=-np.inf)
    return StoredCounts(counts, np.isnan(frame) & ~bad, (frame == np.inf) & ~bad)


def write_frames(
    path: str | os.PathLike[str],
    frames: Iterable[tuple[int, ArrayLike]],
    *,
    shape: tuple[int, int],
    mask: ArrayLike | None = None,
    binning: int = 1,
    source: str = "",
    raw_shape: tuple[int, int] | None = None,
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
    bad = np.zeros(shape, np.uint8) if mask is None else np.asarray(mask, dtype=bool).astype(np.uint8)
    if bad.shape != tuple(shape):
        raise ValueError(f"mask of {bad.shape} pixels for frames of {tuple(shape)}")
    numbers: list[int] = []
    with new_hdf5(path) as file:
        dataset = new_dataset(
            file,
            "frames",
            shape=(0, *shape),
            maxshape=(None, *shape),
            dtype=np.float32,
            chunks=(1, *shape),
            **_COMPRESSIONS[compression],
        )
        invalid, saturated = (
            new_dataset(file, name, shape=(0, 3), maxshape=(None, 3), dtype=np.uint32, chunks=(8192, 3))
            for name in ("invalid_pixels", "saturated_pixels")
        )
        for number, frame in frames:
            pixels = np.asarray(frame, dtype=np.float32)
            if pixels.shape != tuple(shape):  # HDF5 would broadcast it
                raise ValueError(f"frame {number} of {pixels.shape} pixels in a file of {tuple(shape)}")
            stored = stored_counts(pixels, bad != 0, saturation)
            for listed, marked in ((invalid, stored.invalid), (saturated, stored.saturated)):
                if marked is not None:
                    _append(listed, len(numbers), marked)
            dataset.resize(len(numbers) + 1, axis=0)
            dataset[len(numbers)] = stored.counts
            numbers.append(int(number))
            file.require_room()
        if not numbers:
            raise InputError(source or os.fspath(path), "no frame", "at least one frame")
        new_dataset(file, "mask", bad, compression="gzip")
        new_dataset(file, "frame_number", np.array(numbers, dtype=np.int64))
        known = {} if conditions is None else {"omega": conditions.omega, "energy": conditions.energy_kev}
        for name, values in known.items():
            if np.isfinite(here := np.asarray(values, np.float64)[numbers]).any():
                new_dataset(file, name, here).attrs["units"] = _UNITS[name]
        file.attrs["compression"] = _PLUGIN if compression == "bitshuffle-lz4" else compression
        file.attrs["binning"] = binning
        file.attrs["source"] = source
        file.attrs["raw_shape"] = np.array(raw_shape or [side * binning for side in shape], dtype=np.int64)
        if dark is not None:
            new_dataset(file, "dark", np.asarray(dark, np.float32), compression="gzip")
            file.attrs["dark_frames"] = dark_frames
        counted = len(numbers), len(invalid), len(saturated)
    return counted


def _append(listed: h5py.Dataset, index: int, marked: NDArray[np.bool_]) -> None:
    """Append (index, row, col) of the marked pixels."""
    rows, cols = np.nonzero(marked)
    if len(rows):
        listed.resize(len(listed) + len(rows), axis=0)
        listed[-len(rows) :] = np.stack([np.full_like(rows, index), rows, cols], axis=1)


@contextmanager
def read_frames_file(path: str | os.PathLike[str]) -> Iterator[FramesFile]:
    """Open frames.h5 of Cathodeflow or BraggNN (with only `frames`: no bad pixels, binning 1).

    Raises
    ------
    InputError
        The file is truncated or not HDF5, or a dataset is missing or has another shape or type.
    """
    where = os.fspath(path)
    with open_hdf5(path) as file:
        # Not around the caller's block, whose errors are not those of the file.
        with guarded(where, "a readable frames.h5"):
            found = _frames_file(file, where)
        yield found


def _frames_file(file: h5py.File, where: str) -> FramesFile:
    frames = find_node(file, "frames")
    if not isinstance(frames, h5py.Dataset):
        raise InputError(where, f"datasets {contents(file)}", "a dataset frames")
    if frames.ndim != 3 or frames.dtype.kind not in "biuf" or 0 in frames.shape:
        found = f"{frames.dtype} of shape {frames.shape}"
        raise InputError(f"{where}::frames", found, "real numbers (frame, row, col), at least one frame")
    require_plain(frames, f"{where}::frames")
    shape = frames.shape[1:]
    if shape[0] * shape[1] > MAX_PIXELS:
        raise InputError(f"{where}::frames", f"frames of {shape} pixels", f"at most {MAX_PIXELS} pixels")
    mask = _companion(file, "mask", where, shape)
    number = _companion(file, "frame_number", where, frames.shape[:1])
    binning = _attribute(file, "binning", where, 1)
    if binning.size != 1 or binning[0] < 1:
        raise InputError(where, f"binning {binning.tolist()}", "a number of at least 1")
    raw_shape = _attribute(file, "raw_shape", where, [side * int(binning[0]) for side in shape])
    if raw_shape.size != 2:
        raise InputError(where, f"raw_shape {raw_shape.tolist()}", "two numbers")
    source = file.attrs.get("source", "")
    return FramesFile(
        LazyFrames(frames),
        np.zeros(shape, bool) if mask is None else mask.astype(bool),
        np.arange(len(frames)) if number is None else number.astype(np.int64),
        int(binning[0]),
        source.decode(errors="replace") if isinstance(source, bytes) else str(source),
        (int(raw_shape[0]), int(raw_shape[1])),
        _listed(file, "invalid_pixels", where, frames.shape),
        _listed(file, "saturated_pixels", where, frames.shape),
        _dark(file, where, shape),
        int(_attribute(file, "dark_frames", where, 1)[0]),
        _floats(file, "omega", where, len(frames)),
        _floats(file, "energy", where, len(frames)),
    )


def _dark(file: h5py.File, where: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    dataset = find_node(file, "dark")
    if not isinstance(dataset, h5py.Dataset):
        return None
    if dataset.shape != shape or dataset.dtype.kind not in "iuf":
        found = f"{dataset.dtype} of shape {dataset.shape}"
        raise InputError(f"{where}::dark", found, f"numbers of shape {shape}")
    return read_array(file, "dark").astype(np.float32)


def _listed(file: h5py.File, name: str, where: str, shape: tuple[int, ...]) -> NDArray[np.int64]:
    dataset = find_node(file, name)
    if not isinstance(dataset, h5py.Dataset):
        return np.empty((0, 3), np.int64)
    if dataset.ndim != 2 or dataset.shape[1] != 3 or dataset.dtype.kind not in "iu":
        found = f"{dataset.dtype} of shape {dataset.shape}"
        raise InputError(f"{where}::{name}", found, "integers (n, 3)")
    invalid = read_array(file, name).astype(np.int64)
    if len(invalid) and (
        invalid.min() < 0 or np.any(invalid.max(axis=0) >= shape) or np.any(np.diff(invalid[:, 0]) < 0)
    ):
        found = "pixels outside the frames, or frames that are not in order"
        raise InputError(f"{where}::{name}", found, f"(frame, row, col) within {shape}, ascending frames")
    return invalid


def _floats(file: h5py.File, name: str, where: str, length: int) -> NDArray[np.float64] | None:
    dataset = find_node(file, name)
    if not isinstance(dataset, h5py.Dataset):
        return None
    if dataset.shape != (length,) or dataset.dtype.kind != "f":
        found = f"{dataset.dtype} of shape {dataset.shape}"
        raise InputError(f"{where}::{name}", found, f"real numbers of shape ({length},)")
    return read_array(file, name).astype(np.float64)


def _companion(file: h5py.File, name: str, where: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
    dataset = find_node(file, name)
    if not isinstance(dataset, h5py.Dataset):
        return None
    if dataset.shape != shape or dataset.dtype.kind not in "biu":
        found = f"{dataset.dtype} of shape {dataset.shape}"
        raise InputError(f"{where}::{name}", found, f"integers of shape {shape}")
    return read_array(file, name)


def _attribute(file: h5py.File, name: str, where: str, default: int | list[int]) -> NDArray[np.int64]:
    value = np.atleast_1d(np.asarray(file.attrs.get(name, default)))
    if value.dtype.kind not in "iu" or not value.size:
        raise InputError(where, f"attribute {name} = {value.tolist()}", "integers")
    return value.astype(np.int64)
