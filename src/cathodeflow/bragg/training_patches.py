"""Patches as the input of BraggNN: a single peak, all other pixels zero, scaled to [0, 1]."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from cathodeflow.bragg.crop import crop_patches
from cathodeflow.bragg.network_options import Patches
from cathodeflow.errors import InputError
from cathodeflow.io.patch_table import TrainingPatches

Float32 = NDArray[np.float32]
CENTRAL = 2.0


class Frames(Protocol):
    """Frames read one at a time: an array (frame, row, col), or a dataset of an open HDF5 file."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> NDArray[np.floating]: ...


def prepare_patches(
    frame: NDArray[np.floating], rows: ArrayLike, cols: ArrayLike, *, patch_size: int, min_value: float
) -> tuple[Float32, Float32]:
    """Cut and clean the patches around candidate pixels of a frame.

    Pixels below `min_value` and outside the frame become 0; of the 8-connected components that remain, only the one
    whose brightest pixel is nearest the patch centre is kept; the patch is scaled to [0, 1].

    Parameters
    ----------
    frame : (row, col) floating
    rows, cols : (n,) int
        Candidate pixels, inside the frame.
    patch_size : int
        Odd side of the patches [px].
    min_value : float
        Threshold [counts].

    Returns
    -------
    patches : (n, patch_size, patch_size) float32
        Pixel (patch_size // 2, patch_size // 2) of a patch is its candidate pixel, also at the edges of the frame.
    counts : (n, 2) float32
        Intensities that 0 and 1 correspond to in each patch [counts].
    """
    patches = crop_patches(_thresholded(frame, min_value), rows, cols, size=patch_size)
    centre = np.full(len(patches), float(patch_size // 2))
    counts = np.empty((len(patches), 2), np.float32)
    clean_patches(patches, centre, centre, counts)
    return patches, counts


def cut_training_patches(
    frames: Frames,
    fidx: ArrayLike,
    rows: ArrayLike,
    cols: ArrayLike,
    deviations: ArrayLike,
    npeaks: ArrayLike,
    *,
    errors: ArrayLike | None = None,
    options: Patches,
) -> Iterator[TrainingPatches]:
    """Cut the training patches, one frame at a time in the order of the frames.

    Peaks that overlap others (npeaks other than 1) and peaks with an unreliable fit (deviation outside [0, 1) px) are
    left out, as in BraggNN's own data. Patches are centred on the pixel nearest the peak; within a frame they are
    ordered by position.

    Parameters
    ----------
    frames : indexable by frame
        Only frames with peaks are read, each once, in increasing order.
    fidx : (n,) int
        Frame of each peak.
    rows, cols : (n,) float
        Fitted centre of each peak [px].
    deviations : (n,) float
        Distance of the centre from the brightest pixel [px], -1 where unknown.
    npeaks : (n,) int
        Number of peaks in the peak's connected component.
    errors : (n, 2) float, optional
        Standard errors of rows and columns [px]. Default: unknown (NaN).
    options : Patches
        `patch_size`, and `max_shift`, the margin of the patches on every side.

    Yields
    ------
    TrainingPatches
        Of one frame.

    Raises
    ------
    InputError
        A peak is on a frame that does not exist.
    """
    frame_of, deviation = np.asarray(fidx, dtype=np.int64), np.asarray(deviations)
    row, col = np.asarray(rows, dtype=np.float64), np.asarray(cols, dtype=np.float64)
    error = np.full((len(row), 2), np.nan) if errors is None else np.asarray(errors)
    if len(frame_of) and not 0 <= frame_of.min() <= frame_of.max() < len(frames):
        raise InputError(
            "peaks", f"a peak on frame {frame_of.max() if frame_of.min() >= 0 else frame_of.min()}",
            f"frames 0 to {len(frames) - 1}",
        )  # fmt: skip
    usable = (np.asarray(npeaks) == 1) & (deviation >= 0) & (deviation < 1) & np.isfinite(row) & np.isfinite(col)
    order = np.lexsort((col, row, frame_of))
    order = order[usable[order]]
    size = options.patch_size + 2 * options.max_shift
    for peaks in np.split(order, np.flatnonzero(np.diff(frame_of[order])) + 1) if len(order) else []:
        number = int(frame_of[peaks[0]])
        frame = _thresholded(np.asarray(frames[number]), options.min_value)
        # A centre fitted outside the frame is kept: its patch surrounds the nearest pixel inside.
        centre_row = np.clip(np.floor(row[peaks] + 0.5), 0, frame.shape[0] - 1).astype(np.intp)
        centre_col = np.clip(np.floor(col[peaks] + 0.5), 0, frame.shape[1] - 1).astype(np.intp)
        yield TrainingPatches(
            crop_patches(frame, centre_row, centre_col, size=size),
            (row[peaks] - centre_row + size // 2).astype(np.float32),
            (col[peaks] - centre_col + size // 2).astype(np.float32),
            np.full(len(peaks), number, dtype=np.int64),
            peaks.astype(np.int64),
            error[peaks].astype(np.float32),
        )


def network_batch(
    table: TrainingPatches,
    index: NDArray[np.integer],
    shift_row: NDArray[np.integer],
    shift_col: NDArray[np.integer],
    symmetry: NDArray[np.integer],
    *,
    patch_size: int,
    neighbour: NDArray[np.integer] | None = None,
    offset: NDArray[np.integer] | None = None,
    counts: Float32 | None = None,
) -> tuple[Float32, Float32]:
    """Crop, clean and turn patches of the table: the network's input and labels.

    The counts of a neighbour are added unchanged: on a detector the counts of two peaks add up, noise included.

    Parameters
    ----------
    table : TrainingPatches
    index : (b,) int
        Rows of the table.
    shift_row, shift_col : (b,) int
        Shift of the crop from the middle of the stored patch [px].
    symmetry : (b,) int
        0 to 7: bit 0 transposes the patch, then bit 1 reverses its rows and bit 2 its columns.
    patch_size : int
        Odd side of the crops [px].
    neighbour : (b,) int, optional
        Row of the table whose patch is added to each, or -1. It is left out where the brightest pixel would be more
        than 2 px (`CENTRAL`) from the peak: in inference such a patch would not belong to this peak.
    offset : (b, 2) int, optional
        (row, col) from the middle of the patch to the middle of its neighbour [px].
    counts : (b, 2) float32, optional
        Filled with the intensities that 0 and 1 correspond to in each patch [counts].

    Returns
    -------
    patches : (b, 1, patch_size, patch_size) float32
    labels : (b, 2) float32
        (col, row) over patch_size, BraggNN's own order.
    """
    margin = (table.patches.shape[1] - patch_size) // 2
    top, left = margin + np.asarray(shift_row, dtype=np.int64), margin + np.asarray(shift_col, dtype=np.int64)
    if len(top) and min(top.min(), left.min(), 2 * margin - top.max(), 2 * margin - left.max()) < 0:
        raise ValueError(f"shifts beyond the stored margin of {margin} px")
    patches = np.empty((len(index), 1, patch_size, patch_size), np.float32)
    labels = np.empty((len(index), 2), np.float32)
    second = np.full(len(index), -1) if neighbour is None else np.asarray(neighbour, dtype=np.int64)
    away = np.zeros((len(index), 2), np.int64) if offset is None else np.asarray(offset, dtype=np.int64)
    _crop_clean_turn(table.patches, table.row, table.col, np.asarray(index, dtype=np.int64), top, left,
                     np.asarray(symmetry, dtype=np.int64), second, away, patches[:, 0], labels,
                     np.empty((len(index), 2), np.float32) if counts is None else counts)  # fmt: skip
    return patches, labels


def _thresholded(frame: NDArray[np.floating], min_value: float) -> Float32:
    # Written so that NaN becomes 0 as well.
    return np.where(frame >= max(min_value, 0.0), frame, 0).astype(np.float32)


@njit(nogil=True, cache=True)
def clean_patches(patches, rows, cols, counts):  # type: ignore[no-untyped-def]
    """Keep, in place, each patch's component nearest a position, and scale the patch to [0, 1].

    Parameters
    ----------
    patches : (n, size, size) float32
        Changed. Pixels at 0 and below are background.
    rows, cols : (n,) floating
        Position in each patch [px]; the 8-connected component whose brightest pixel is nearest stays.
    counts : (n, 2) float32
        Filled with the values that become 0 and 1.
    """
    size = patches.shape[1]
    label = np.empty((size, size), np.int32)
    stack = np.empty(size * size, np.int32)
    for n in range(len(patches)):
        counts[n] = _clean(patches[n], rows[n], cols[n], label, stack)


@njit(nogil=True, cache=True)
def _clean(patch, row, col, label, stack):  # type: ignore[no-untyped-def]
    size = patch.shape[0]
    label[:] = 0
    components, kept, nearest = 0, 0, np.inf
    for start in range(size * size):
        r, c = start // size, start % size
        if label[r, c] != 0 or not patch[r, c] > 0:
            continue
        components += 1
        label[r, c] = components
        stack[0] = start
        depth, peak, distance = 1, -1.0, np.inf
        while depth > 0:
            depth -= 1
            r, c = stack[depth] // size, stack[depth] % size
            away = (r - row) ** 2 + (c - col) ** 2
            # Of equally bright pixels the nearest counts, so that the result does not depend on the orientation of a
            # patch.
            if patch[r, c] > peak or (patch[r, c] == peak and away < distance):
                peak, distance = patch[r, c], away
            for i in range(max(r - 1, 0), min(r + 2, size)):
                for j in range(max(c - 1, 0), min(c + 2, size)):
                    if label[i, j] == 0 and patch[i, j] > 0:
                        label[i, j] = components
                        stack[depth] = i * size + j
                        depth += 1
        if distance < nearest:
            nearest, kept = distance, components
    low, high = np.inf, 0.0
    for r in range(size):
        for c in range(size):
            if label[r, c] != kept or kept == 0:
                patch[r, c] = 0
            low, high = min(low, patch[r, c]), max(high, patch[r, c])
    scale = 1 / (high - low) if high > low else 0.0
    for r in range(size):
        for c in range(size):
            patch[r, c] = (patch[r, c] - low) * scale
    return low, high


@njit(nogil=True, cache=True)
def _crop_clean_turn(  # type: ignore[no-untyped-def]
    stored, rows, cols, index, top, left, symmetry, neighbour, offset, patches, labels, counts
):
    size, side = patches.shape[1], stored.shape[1]
    crop = np.empty((size, size), np.float32)
    label = np.empty((size, size), np.int32)
    stack = np.empty(size * size, np.int32)
    for n in range(len(index)):
        i = index[n]
        row, col = rows[i] - top[n], cols[i] - left[n]
        crop[:] = stored[i, top[n] : top[n] + size, left[n] : left[n] + size]
        if neighbour[n] >= 0:
            # Pixel (r, c) of the crop is pixel (r, c) + shift of the neighbour's stored patch.
            shift_row, shift_col = top[n] - offset[n, 0], left[n] - offset[n, 1]
            for r in range(max(0, -shift_row), min(size, side - shift_row)):
                for c in range(max(0, -shift_col), min(size, side - shift_col)):
                    crop[r, c] += stored[neighbour[n], r + shift_row, c + shift_col]
            # A brighter neighbour would be the candidate; no patch would be cut around the weaker peak.
            brightest = np.argmax(crop)
            if max(abs(brightest // size - row), abs(brightest % size - col)) > CENTRAL:
                crop[:] = stored[i, top[n] : top[n] + size, left[n] : left[n] + size]
        counts[n] = _clean(crop, row, col, label, stack)
        transpose, reverse_rows, reverse_cols = symmetry[n] & 1, symmetry[n] & 2, symmetry[n] & 4
        for r in range(size):
            for c in range(size):
                to_row, to_col = (c, r) if transpose else (r, c)
                to_row = size - 1 - to_row if reverse_rows else to_row
                to_col = size - 1 - to_col if reverse_cols else to_col
                patches[n, to_row, to_col] = crop[r, c]
        if transpose:
            row, col = col, row
        labels[n, 0] = (size - 1 - col if reverse_cols else col) / size
        labels[n, 1] = (size - 1 - row if reverse_rows else row) / size
