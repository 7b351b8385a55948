"""Corrections of detector counts; each step reports figures of its effect.

Every function takes counts (frame, row, col) float32 and a mask of the known ones, and returns both with a dict of
figures. Unknown counts are 0.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label, rank_filter

from cathodeflow.errors import InputError

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Region = tuple[slice, slice]

# Expected counts above which an empty frame is a fault: Poisson noise alone gives one in 20,000 cases.
_EXPECTED = 10.0
# Minimum counts in the scan of the pixels around a dead pixel; between such pixels a dark fringe is never empty.
_BRIGHT = 100.0
# Minimum counts of the rows, or columns, on both sides of one without any; beside a dark fringe are fewer.
_BAND = 500.0
# Minimum number of voxels at one highest count, next to each other, of a detector that saturates, and this count.
_FLAT_TOP, _FLAT_COUNT = 4, 200.0
# Fraction of the frames in which a block of pixels must be hot, and the most that its counts vary between frames.
_STEADY, _VARIES = 0.2, 2.0
# Rank, from the highest, of the counts around a block of 3 x 3 pixels that it is compared with.
_RANK = 6
# Maximum number of dead pixels within five by five.
_DEAD = 4
# Largest fraction of the intensity that a mask hides if it is the right way round.
_MOST = 0.5
# Minimum level of the neighbours of a hot voxel [counts]; below it, single photons would count as hot.
_FLOOR = 5.0
# Fraction of the frames in which a pixel must be hot to be masked in all frames.
_OFTEN = 0.1
# Minimum sensitivity that can be corrected, as a fraction of the median.
_SENSITIVE = 0.1


class Counts(NamedTuple):
    """Counts (frame, row, col) float32, mask of the known ones, and figures of the step."""

    values: Floats
    known: Bools
    figures: dict[str, Any]


def accept(frames: NDArray[Any], *, saturation: float | None) -> Counts:
    """Accept raw frames; saturated pixels and pixels that are not finite become unknown.

    Parameters
    ----------
    frames : (frame, row, col) real
    saturation : float, optional
        Counts at or above which the detector is not linear, or that mark a bad pixel.
    """
    known = np.isfinite(frames)
    invalid = int((~known).sum())
    if saturation is not None:
        known &= frames < saturation
    values = np.where(known, frames, 0).astype(np.float32)
    figures = {"step": "raw", "shape": list(frames.shape), "counts": float(values.sum(dtype=np.float64))}
    return Counts(values, known, {**figures, "not_finite": invalid, "saturated": int((~known).sum()) - invalid})


def find_flat_top(values: Floats, known: Bools) -> tuple[Bools, dict[str, Any]]:
    """Find voxels at the highest count where several that touch have it: there the detector saturates.

    Returns
    -------
    saturated : (frame, row, col) bool
    figures : dict
    """
    top = float(values.max(initial=0.0))
    at = (values == top) & known
    if top < _FLAT_COUNT or np.count_nonzero(at) < _FLAT_TOP:
        return np.zeros_like(at), {"step": "saturation", "voxels": 0}
    groups, _ = label(at, np.ones((3, 3, 3)))
    if np.bincount(groups.ravel())[1:].max() < _FLAT_TOP:
        return np.zeros_like(at), {"step": "saturation", "voxels": 0}
    number = int(at.sum())
    warning = f"{number} voxels have the same highest count of {top:g}: the detector was saturated there"
    return at, {"step": "saturation", "voxels": number, "warning": warning}


def leave_out_blocks(values: Floats, known: Bools, *, ratio: float) -> Counts:
    """Mask blocks of up to 3 x 3 pixels far above those around them: hot in most frames, or only in one (cosmic rays).

    A Bragg peak is neither: it rises and falls over several frames.

    Parameters
    ----------
    values, known : (frame, row, col)
    ratio : float
        Threshold as a multiple of the sixth highest of the 16 pixels around a block, or of five counts.
    """
    steady = np.quantile(values, _STEADY, axis=0)
    # Of the same pixels at other times: those of a peak vary.
    often = (steady * _VARIES >= np.quantile(values, 1 - _STEADY, axis=0)) & (steady > ratio * _FLOOR)
    hot = often & (steady > ratio * np.maximum(_around(steady), _FLOOR))
    hot = binary_dilation(hot, np.ones((3, 3))) & often
    rays = np.zeros(values.shape, bool)
    before, after = np.roll(values, 1, axis=0), np.roll(values, -1, axis=0)
    before[0], after[-1] = values[1 % len(values)], values[-2 % len(values)]
    # Only frames with a candidate are searched, as there are few.
    sudden = values > ratio * np.maximum(np.maximum(before, after), _FLOOR)
    for frame in np.flatnonzero(sudden.any(axis=(1, 2))):
        found = sudden[frame] & (values[frame] > ratio * np.maximum(_around(values[frame]), _FLOOR))
        rays[frame] = binary_dilation(found, np.ones((3, 3))) & sudden[frame]
    known = known & ~hot & ~rays
    figures: dict[str, Any] = {"step": "blocks", "hot_pixels": int(hot.sum()), "cosmic_voxels": int(rays.sum())}
    if hot.any() or rays.any():
        figures["warning"] = f"{int(hot.sum())} pixels are hot in blocks, {int(rays.sum())} voxels hit by cosmic rays"
    return Counts(np.where(known, values, 0), known, figures)


def _around(image: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Sixth highest of the 16 pixels two rows or columns away; a block of 3 x 3 covers at most five of them."""
    ring = np.ones((5, 5), bool)
    ring[1:4, 1:4] = False
    found: NDArray[np.floating[Any]] = rank_filter(image, rank=-_RANK, footprint=ring, mode="nearest")
    return found


def subtract_dark(values: Floats, known: Bools, dark: NDArray[Any], *, region: Region | None, limit: float) -> Counts:
    """Subtract a dark frame; pixels whose dark counts are far from the median become unknown.

    Parameters
    ----------
    values, known : (frame, row, col)
    dark : (row, col)
        Dark frame of the size of the frames, or of the whole detector if `region` is given [counts per frame].
    region : (slice, slice), optional
        Rows and columns of the detector that the frames show.
    limit : float
        Maximum difference of a pixel's dark counts from the median [counts].

    Raises
    ------
    InputError
        The dark frame has another size.
    """
    here = _cut("dark", dark, values.shape, region).astype(np.float32)
    good = np.abs(here - np.nanmedian(here)) <= limit
    known = known & good
    figures = {"step": "dark", "mean": float(here[good].mean()), "bad_pixels": int((~good).sum())}
    return Counts(np.where(known, values - here, 0), known, figures)


def clip_negative(values: Floats, known: Bools) -> Counts:
    """Set negative counts to 0: they occur after subtracting the dark frame, and have no amplitude."""
    negative = values < 0
    figures = {"step": "negative", "voxels": int(negative.sum()), "counts": float(values[negative].sum())}
    return Counts(np.maximum(values, 0), known, figures)


def divide_by_whitefield(values: Floats, known: Bools, whitefield: NDArray[Any], *, region: Region | None) -> Counts:
    """Divide by the sensitivity of each pixel; pixels below a tenth of the median sensitivity become unknown.

    Parameters are as in `subtract_dark`. The whitefield is scaled to a median of 1, so the results are counts.

    Raises
    ------
    InputError
        The whitefield has another size, or is mostly 0.
    """
    here = _cut("whitefield", whitefield, values.shape, region).astype(np.float32)
    median = float(np.nanmedian(here))
    if not median > 0:
        raise InputError("whitefield", f"a median of {median:g}", "more than 0")
    sensitivity = here / np.float32(median)
    good = sensitivity >= _SENSITIVE
    known = known & good
    figures = {"step": "whitefield", "deviation": float(sensitivity[good].std()), "bad_pixels": int((~good).sum())}
    return Counts(np.where(known, values / np.where(good, sensitivity, 1), 0), known, figures)


def leave_out(values: Floats, known: Bools, good: NDArray[Any], *, region: Region | None) -> Counts:
    """Mask the pixels where a mask (row, col) or (frame, row, col) is 0: beam stop, gaps, other crystals.

    Raises
    ------
    InputError
        The mask has another size.
    """
    if good.ndim == 2:
        good = _cut("mask", good, values.shape, region)
    elif good.shape != values.shape:
        raise InputError("mask", _size(good.shape), f"{_size(values.shape)}, the size of the scan")
    total = float(values.sum(where=known, dtype=np.float64))
    known = known & (good != 0)
    lost = 1 - float(values.sum(where=known, dtype=np.float64)) / total if total else 0.0
    figures: dict[str, Any] = {"step": "mask", "share": float(1 - known.mean()), "share_of_intensity": lost}
    if lost > _MOST:
        figures["warning"] = f"{lost:.0%} of the intensity is masked: if the mask is 0 at good pixels, set invert_mask"
    return Counts(np.where(known, values, 0), known, figures)


def leave_out_silent(values: Floats, known: Bools) -> Counts:
    """Mask pixels, rows, columns and frames that are always 0 although their neighbours have counts.

    Raises
    ------
    InputError
        All frames are 0.
    """
    totals = values.sum(axis=0)
    gaps = _bands(totals, np.asarray(known.any(axis=0)))
    # Only a few pixels without counts among others with counts; a larger group may be a dark fringe.
    around = rank_filter(totals, rank=_DEAD, size=5, mode="nearest")
    dead = (totals == 0) & known.any(axis=0) & (around >= _BRIGHT)
    frames = values.sum(axis=(1, 2), dtype=np.float64)
    silent = np.flatnonzero(frames == 0)
    if len(silent) == len(frames):
        raise InputError("scan", f"{len(frames)} frames that are 0 everywhere", "a diffraction peak")
    counting = np.flatnonzero(frames)
    # No counts are expected outside the first and the last frame with counts.
    expected = np.interp(silent, counting, frames[counting], left=0, right=0)
    lost = silent[expected >= _EXPECTED]
    known = known & ~dead & ~gaps
    known[lost] = False
    figures: dict[str, Any] = {"step": "silent", "dead_pixels": int(dead.sum()), "zero_frames": silent.tolist()}
    figures["gap_pixels"] = int(gaps.sum())
    if gaps.any():
        figures["warning"] = f"{int(gaps.sum())} pixels in rows or columns without counts are masked as gaps"
    if len(lost):
        named = ", ".join(map(str, lost[:8])) + (" ..." if len(lost) > 8 else "")
        figures["warning"] = f"frames {named} are 0 everywhere between frames with counts, and are masked"
    return Counts(values, known, figures)


def _bands(totals: Floats, known: Bools) -> Bools:
    """Find rows and columns without counts, of which Poisson noise expects counts: gaps between modules."""
    found = np.zeros(totals.shape, bool)
    for axis in (0, 1):
        sums = totals.sum(axis=1 - axis, dtype=np.float64)
        counting, empty = np.flatnonzero(sums), np.flatnonzero((sums == 0) & known.any(axis=1 - axis))
        if len(counting) < 2 or not len(empty):
            continue
        # The lower one of the two sides: the tail of a peak may fall steeply to nothing.
        after = np.searchsorted(counting, empty)
        inside = (after > 0) & (after < len(counting))
        empty, after = empty[inside], after[inside]
        around = np.minimum(sums[counting[after - 1]], sums[counting[after]])
        band = empty[around >= _BAND]
        found |= np.isin(np.arange(totals.shape[axis]), band).reshape((-1, 1) if axis == 0 else (1, -1))
    return found & known


def leave_out_hot(values: Floats, known: Bools, *, ratio: float) -> Counts:
    """Mask voxels far above their neighbours in the frame, and pixels that are hot in a tenth of the frames or more.

    Voxels are compared with the second highest of their eight neighbours, so that a spark over two pixels is found,
    too. The median would not do: the crest of a fringe two pixels wide is far above it.

    Parameters
    ----------
    values, known : (frame, row, col)
    ratio : float
        Threshold as a multiple of the second highest neighbour, or of five counts where that neighbour is lower.
    """
    places = np.argwhere(values > ratio * _FLOOR)
    around = [(0, down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if down or across]
    last = np.array(values.shape) - 1
    neighbours = np.full((len(places), len(around)), np.nan, np.float32)
    for number, offset in enumerate(around):
        at = places + offset
        inside = np.all((at >= 0) & (at <= last), axis=1)
        index = tuple(at[inside].T)
        neighbours[inside, number] = np.where(known[index], values[index], np.nan)
    # Sorting puts unknown values last; with fewer than two known neighbours a voxel is never hot.
    count = np.isfinite(neighbours).sum(axis=1)
    second = np.sort(neighbours, axis=1)[np.arange(len(places)), np.maximum(count - 2, 0)]
    level = np.where(count >= 2, np.maximum(second, _FLOOR), np.inf)
    hot = places[values[tuple(places.T)] > ratio * level]
    known = known.copy()
    known[tuple(hot.T)] = False
    times = np.zeros(values.shape[1:], np.intp)
    np.add.at(times, (hot[:, 1], hot[:, 2]), 1)
    always = times > max(_OFTEN * len(values), 1)
    known &= ~always
    cleaned = np.where(known, values, 0)
    removed = float((values - cleaned).sum(dtype=np.float64))
    figures = {"step": "hot", "voxels": len(hot), "pixels": int(always.sum()), "counts": removed}
    return Counts(cleaned, known, figures)


def drop_background(values: Floats, known: Bools, *, threshold: float) -> Counts:
    """Set counts below a threshold to 0: background between the fringes; these pixels stay known.

    Parameters
    ----------
    values, known : (frame, row, col)
    threshold : float
        [counts]
    """
    kept = np.where(values < threshold, 0, values)
    total = float(values.sum(dtype=np.float64))
    share = (total - float(kept.sum(dtype=np.float64))) / total if total else 0.0
    figures = {"step": "background", "voxels": int(((values > 0) & (kept == 0)).sum()), "share": share}
    return Counts(kept, known, figures)


def _cut(name: str, image: NDArray[Any], shape: tuple[int, ...], region: Region | None) -> NDArray[Any]:
    """Cut the region of the frames out of an image of the detector."""
    if image.shape == shape[1:]:
        return image
    expected = f"{_size(shape[1:])} pixels, the size of the frames"
    if image.ndim != 2 or region is None:
        raise InputError(name, f"{_size(image.shape)} pixels", f"{expected}, or the region of the detector")
    part = image[region]
    if part.shape != shape[1:]:
        ends = " and ".join(f"{side.start} to {side.stop}" for side in region)
        found = f"{_size(image.shape)} pixels, {_size(part.shape)} of them in the region {ends}"
        raise InputError(name, found, expected)
    return part


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
