"""Fits of saturated peaks from their flanks."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from cathodeflow.bragg.patch_fits import COLUMNS, Floats, Pixels, around, fit_patches, of_neighbours
from cathodeflow.bragg.peak_options import Fit

# Largest side of a patch around a saturated peak [px].
_LARGEST = 101


def find_plateaus(pixels: Pixels, positions: Floats) -> NDArray[np.int64]:
    """Return the number of the saturated region that each candidate touches, from 1 on; 0 for none."""
    if not pixels.saturated.any():
        return np.zeros(len(positions), np.int64)
    at_rows, at_cols = positions.astype(np.intp).T
    regions = saturated_regions(pixels.saturated)
    inside, at = around(at_rows, at_cols, 3, pixels.frame.shape)
    touched: NDArray[np.int64] = np.where(inside, regions[at], 0).max(axis=(1, 2)).astype(np.int64)
    return touched


def saturated_regions(marked: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Label the 8-connected regions of a mask from 1 on, as `label` does.

    Few pixels of a frame are marked: of rows and columns without any, only the first after a marked one is looked at.
    """
    kept = []
    for axis in (1, 0):
        some = np.asarray(marked.any(axis=axis))
        some[1:] |= some[:-1]
        kept.append(np.flatnonzero(some))
    at = np.ix_(*kept)
    regions = np.zeros(marked.shape, np.int32)
    regions[at] = label(marked[at], np.ones((3, 3)))[0]
    return regions


def fit_plateau(
    pixels: Pixels, positions: Floats, index: int, same: NDArray[np.bool_], options: Fit
) -> tuple[Floats, float]:
    """Fit a saturated peak from its flanks, in a patch that is large enough for them; also return a quarter of it.

    `same` marks the candidates on the same plateau, which are a part of this peak.
    """
    place = positions[index : index + 1].astype(np.intp)
    size = options.patch_size
    while True:
        inside, at = around(place[:, 0], place[:, 1], size, pixels.frame.shape)
        full = pixels.saturated[at] & inside
        if full.mean() <= 0.25 or size >= _LARGEST:
            break
        size = min(2 * size - 1, _LARGEST)
    patches, noise = pixels.cut(place[:, 0], place[:, 1], size)
    near = np.abs(positions - positions[index]).max(axis=1) <= size
    others = np.flatnonzero(near & ~same)
    pairs = np.stack([np.zeros(len(others), np.intp), np.arange(1, len(others) + 1)], axis=1)
    these = np.concatenate([positions[index : index + 1], positions[others]])
    patches = np.where(of_neighbours(these, pairs, size)[:1], np.nan, patches)
    rows, cols = np.nonzero(full[0])
    level = float(np.max(np.where(full, pixels.frame[at], 0))) / options.gain
    # A plateau is about as wide as the peak, and its top is higher than the level.
    width = max(2.0, 2.0 * np.sqrt(len(rows) / np.pi))
    ground = float(np.nanquantile(patches, 0.2)) if np.isfinite(patches).any() else 0.0
    start = [rows.mean(), cols.mean(), 1.5 * level, max(ground, 0.1), width, width, 0.2]
    result = np.empty((1, COLUMNS))
    fit_patches(patches, noise, np.zeros((1, size, size)), np.array([start]), result, options, 1.0)
    result[:, :2] += positions[index] - size // 2
    return result[0], size / 4
