"""Flags of fitted peaks: what makes a position doubtful."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cathodeflow.bragg.options import Fit
from cathodeflow.bragg.peak_fits import PeakFits
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
    covered = {"saturated": full, "touches_mask": mask}
    found = {name: np.zeros(len(row), bool) for name in FLAGS}
    for i in range(len(row)):
        top, left = (
            int(np.floor(min(at - width, pixel - 1)))
            for at, width, pixel in ((centre_row[i], width_row[i], row[i]), (centre_col[i], width_col[i], col[i]))
        )
        bottom, right = (
            int(np.ceil(max(at + width, pixel + 1))) + 1
            for at, width, pixel in ((centre_row[i], width_row[i], row[i]), (centre_col[i], width_col[i], col[i]))
        )
        r, c = np.ogrid[top:bottom, left:right]
        inside = ((r - centre_row[i]) / width_row[i]) ** 2 + ((c - centre_col[i]) / width_col[i]) ** 2 <= 1
        inside |= (np.abs(r - row[i]) <= 1) & (np.abs(c - col[i]) <= 1)
        at_row, at_col = np.nonzero(inside)
        at_row, at_col = at_row + top, at_col + left
        on = (at_row >= 0) & (at_row < mask.shape[0]) & (at_col >= 0) & (at_col < mask.shape[1])
        found["touches_edge"][i] = not on.all()
        for name, pixels in covered.items():
            found[name][i] = pixels[at_row[on], at_col[on]].any()
    found["blended"] = np.isfinite(fits.partner_row) | _crowded(row, col, centre_row, centre_col, width_row, width_col)
    found["too_few_pixels"] = ~(fits.pixels > MODELS[options.model])
    found["poor_fit"] = ~(fits.chi2 <= options.max_chi2) & np.isfinite(fits.chi2)
    return found


def is_good(fits: PeakFits, found: dict[str, Bools]) -> Bools:
    """Return which peaks have a converged fit and no flag."""
    return np.asarray(fits.converged & ~np.logical_or.reduce([found[name] for name in FLAGS]))


def _crowded(row: NDArray[np.int64], col: NDArray[np.int64], *shapes: NDArray[np.float64]) -> Bools:
    """Return which peaks have the centre of another within their mean width, or its candidate within 2.3 px."""
    centre_row, centre_col, width_row, width_col = shapes
    blended = np.zeros(len(row), bool)
    if len(row):
        near = cKDTree(np.column_stack([row, col])).query_pairs(_NEAREST, output_type="ndarray")
        blended[near.ravel()] = True
    order = np.argsort(centre_row, kind="stable")
    width = 0.5 * (width_row + width_col)
    reach = _SEPARATED * width
    for i in range(len(row)):
        first, end = np.searchsorted(centre_row[order], [centre_row[i] - reach[i], centre_row[i] + reach[i]])
        near = order[first:end]
        distance = np.hypot(centre_row[near] - centre_row[i], centre_col[near] - centre_col[i])
        blended[i] |= np.count_nonzero(distance < reach[i]) > 1
    return blended
