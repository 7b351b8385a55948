"""frames.h5: detector frames in BraggNN's layout, read frame by frame; `frames_writer` writes it.

Dataset `frames` (frame, row, col) float32, or integers where all counts are whole, a chunk per frame, bitshuffle and
lz4 (BraggNN: Liu et al., IUCrJ 9, 104, 2022). Additions of Cathodeflow: `mask` (row, col) uint8, 1 where a pixel is bad
in all frames; `invalid_pixels` (n, 3) uint32, (frame, row, col) of pixels without a count in that frame alone, with the
index of the frame in the file; `saturated_pixels`, alike, of pixels whose counts are only known to be high; `dark`
(row, col) float32, the dark image that was subtracted; `frame_number` (frame,) int64, the number in the raw series;
where they are known, `omega` [deg] and `energy` [keV], (frame,) float64; attributes `binning`, `source`, `raw_shape`,
`compression`, `dark_frames`. Bad and invalid pixels are 0 in `frames`. Files that hold `frames` alone open too. An
overview, as `bragg measure` writes it, has the pixels of the frames in its attribute `kept_frames` only.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import MAX_PIXELS, guarded, one_line
from cathodeflow.io.hdf5 import (
    contents,
    find_node,
    open_hdf5,
    read_array,
    require_plain,
)


class LazyFrames:
    """The frames of an open file: `frames[i]` reads a (row, col) float32 frame, `len(frames)` is their number."""

    def __init__(self, dataset: h5py.Dataset, kept: frozenset[int] | None = None) -> None:
        self._dataset, self._kept = dataset, kept
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
            Its chunk cannot be decoded, or the file is an overview without its pixels.
        """
        number = range(len(self))[index]
        where = f"{self._dataset.file.filename}::{self._dataset.name}, frame {number}"
        if self._kept is not None and number not in self._kept:
            found = f"an overview with the pixels of frame {', '.join(map(str, sorted(self._kept)))} only"
            raise InputError(where, found, "all frames, as `cathodeflow bragg frames` writes them")
        try:
            return np.asarray(self._dataset[number], dtype=np.float32)
        except (OSError, RuntimeError) as error:
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
        LazyFrames(frames, _kept(file, where)),
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


def _kept(file: h5py.File, where: str) -> frozenset[int] | None:
    if "kept_frames" not in file.attrs:
        return None
    return frozenset(_attribute(file, "kept_frames", where, 0).tolist())


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
