"""Flags of fitted peaks: what makes a position doubtful."""

import math

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cathodeflow.bragg.peak_fits import PeakFits
from cathodeflow.bragg.peak_options import Fit
from cathodeflow.bragg.profiles import MODELS

#: Names of the flags, in the order of the tables.
FLAGS = ("saturated", "touches_mask", "touches_edge", "blended", "too_few_pixels", "poor_fit")
# Nearer than this fraction of its width, another maximum is not separated from a peak.
_SEPARATED = 1.0
# Candidates whose brightest pixels are closer than this are not separated whatever their fits say [px]: fits of pairs
# 1 to 2 px apart end in optima with narrow peaks further apart than the true ones.
_NEAREST = 2.3
# Half a width of peaks without a fit [px].
_UNKNOWN = 2.0

Bools = NDArray[np.bool_]


def flag_peaks(
    fits: PeakFits,
    rows: ArrayLike,
    cols: ArrayLike,
    options: Fit,
    *,
    mask: Bools,
    saturated: Bools | None = None,
) -> dict[str, Bools]:
    """Flag the fitted peaks of one frame.

    A peak covers the pixels within one full width at half maximum of its fitted centre, and the 3 x 3 pixels around its
    candidate.

    Parameters
    ----------
    fits : PeakFits
        Fits of the candidates, in frame pixels.
    rows, cols : (n,) int
        Candidate pixels.
    options : Fit
        `model` and `max_chi2`.
    mask : (row, col) bool
        Bad pixels.
    saturated : (row, col) bool, optional
        Saturated pixels; none by default.

    Returns
    -------
    dict of str to (n,) bool
        `saturated`, `touches_mask` and `touches_edge`: the peak covers a saturated pixel, a bad one, or leaves the
        frame. `blended`: another candidate lies within its width or 2.3 px, or two peaks explain the counts better
        than one.
        `too_few_pixels`: no more pixels with counts than parameters. `poor_fit`: chi-square above `max_chi2`.
    """
    row, col = np.asarray(rows, np.int64), np.asarray(cols, np.int64)
    full = np.zeros(mask.shape, bool) if saturated is None else saturated
    fitted = fits.converged & (np.abs(fits.row - row) < mask.shape[0])
    centre_row, centre_col = np.where(fitted, fits.row, row), np.where(fitted, fits.col, col)
    width_row, width_col = (np.where(fitted, width, _UNKNOWN) for width in (fits.fwhm_row, fits.fwhm_col))
    found = {name: np.zeros(len(row), bool) for name in FLAGS}
    marks = found["saturated"], found["touches_mask"], found["touches_edge"]
    _touched(row, col, centre_row, centre_col, width_row, width_col, full, np.asarray(mask, bool), *marks)
    found["blended"] = np.isfinite(fits.partner_row) | _crowded(row, col, centre_row, centre_col, width_row, width_col)
    found["too_few_pixels"] = ~(fits.pixels > MODELS[options.model])
    found["poor_fit"] = ~(fits.chi2 <= options.max_chi2) & np.isfinite(fits.chi2)
    return found


def is_good(fits: PeakFits, found: dict[str, Bools]) -> Bools:
    """Return which peaks have a converged fit and no flag."""
    return np.asarray(fits.converged & ~np.logical_or.reduce([found[name] for name in FLAGS]))


@njit(cache=True, nogil=True)
def _touched(  # type: ignore[no-untyped-def]
    rows, cols, centre_rows, centre_cols, width_rows, width_cols, saturated, mask, on_saturated, on_mask, on_edge
):
    """Find which peaks cover a saturated pixel, a bad one, or one outside the frame; the last three are written."""
    height, width = mask.shape
    for i in range(rows.size):
        top = math.floor(min(centre_rows[i] - width_rows[i], rows[i] - 1.0))
        left = math.floor(min(centre_cols[i] - width_cols[i], cols[i] - 1.0))
        bottom = math.ceil(max(centre_rows[i] + width_rows[i], rows[i] + 1.0))
        right = math.ceil(max(centre_cols[i] + width_cols[i], cols[i] + 1.0))
        for r in range(top, bottom + 1):
            u = (r - centre_rows[i]) / width_rows[i]
            for c in range(left, right + 1):
                v = (c - centre_cols[i]) / width_cols[i]
                if u * u + v * v <= 1.0 or (abs(r - rows[i]) <= 1 and abs(c - cols[i]) <= 1):
                    if r < 0 or c < 0 or r >= height or c >= width:
                        on_edge[i] = True
                    else:
                        on_saturated[i] |= saturated[r, c]
                        on_mask[i] |= mask[r, c]


def _crowded(row: NDArray[np.int64], col: NDArray[np.int64], *shapes: NDArray[np.float64]) -> Bools:
    """Return which peaks have the centre of another within their mean width, or its candidate within 2.3 px."""
    centre_row, centre_col, width_row, width_col = shapes
    order = np.argsort(centre_row, kind="stable")
    reach = _SEPARATED * (0.5 * (width_row + width_col))
    first, end = (np.searchsorted(centre_row[order], centre_row + sign * reach) for sign in (-1, 1))
    # Pairs of each peak with all that lie in its rows, itself among them.
    own = np.repeat(np.arange(len(row)), end - first)
    place = np.arange(len(own)) - np.repeat(np.cumsum(end - first) - (end - first), end - first)
    near = order[np.repeat(first, end - first) + place]
    distance = np.hypot(centre_row[near] - centre_row[own], centre_col[near] - centre_col[own])
    blended: Bools = np.bincount(own[distance < reach[own]], minlength=len(row)) > 1
    if len(row):
        close = cKDTree(np.column_stack([row, col])).query_pairs(_NEAREST, output_type="ndarray")
        blended[close.ravel()] = True
    return blended
