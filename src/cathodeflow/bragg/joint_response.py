"""Shift of peaks that were fitted together with their neighbours, by intensity that the fit lacks.

The parameters of the neighbours and the common background follow the misfit too, and take up what is nearer to them.
The fit is linearised as in `peak_information`, with the parameters of up to two neighbours.
"""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cathodeflow.bragg.matching import points_by_frame
from cathodeflow.bragg.profiles import PARAMETERS, profile, slopes_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Half the side of the window that holds the patches of a peak and its neighbours [px].
REACH = 8
# Half the side of the patch of each peak [px].
_PATCH = 5
# Neighbours are fitted jointly up to this multiple of their mean width, plus 2 px, and no more than these.
_WIDTHS, _MARGIN, _MOST = 2.2, 2.0, 2
# Larger shifts are cut off [px].
_FURTHEST = 1.0
# Peaks at a time.
_BLOCK = 512


def neighbours_of(peaks: pd.DataFrame) -> Integers:
    """Return the neighbours that each peak was fitted together with, (n, 2) int64 from the nearest; -1 for none.

    Parameters
    ----------
    peaks : DataFrame
        `frame`, and `row`, `col`, `fwhm_row`, `fwhm_col` [px].
    """
    found = np.full((len(peaks), _MOST), -1, np.int64)
    if not len(peaks):
        return found
    width = peaks[["fwhm_row", "fwhm_col"]].to_numpy(np.float64).mean(axis=1)
    at = peaks[["row", "col"]].to_numpy(np.float64)
    # Neighbours further than the window holds hardly respond.
    pairs = cKDTree(points_by_frame(at, peaks["frame"].to_numpy(), REACH)).query_pairs(REACH, output_type="ndarray")
    own, other = np.concatenate([pairs, pairs[:, ::-1]]).T
    distance = np.hypot(*(at[own] - at[other]).T)
    near = distance < _WIDTHS * 0.5 * (width[own] + width[other]) + _MARGIN
    own, other, distance = own[near], other[near], distance[near]
    order = np.lexsort((distance, own))
    own, other = own[order], other[order]
    rank = np.arange(len(own)) - np.searchsorted(own, own)
    found[own[rank < _MOST], rank[rank < _MOST]] = other[rank < _MOST]
    return found


def joint_shifts(parameters: Floats, chosen: Integers, neighbours: Integers, lacking: Floats) -> Floats:
    """Compute the shifts of the fitted positions of peaks with neighbours.

    Parameters
    ----------
    parameters : (7, n_peaks) float64
        Of all peaks, in the order of `profiles.PARAMETERS`.
    chosen : (n,) int64
        Peaks to compute.
    neighbours : (n, m) int64
        Those of the chosen peaks.
    lacking : (side^2, n) float64
        Intensity that the fits of the chosen peaks lack, in a square window around their pixel [counts/px].

    Returns
    -------
    (2, n) float64
        In row and column [px]; at most 1 px, as the response is linear only near the fit.
    """
    blocks = [slice(first, first + _BLOCK) for first in range(0, len(chosen), _BLOCK)]
    parts = [_of_block(parameters, chosen[block], neighbours[block], lacking[:, block]) for block in blocks]
    return np.concatenate([np.zeros((2, 0)), *parts], axis=1)


def _of_block(parameters: Floats, chosen: Integers, neighbours: Integers, lacking: Floats) -> Floats:
    reach = math.isqrt(len(lacking)) // 2
    rows, cols = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1, 1)
    corner = np.rint(parameters[:2, chosen])
    expected, slopes, near = np.zeros(lacking.shape), [], np.zeros(lacking.shape, bool)
    for number, members in enumerate((chosen, *neighbours.T)):
        present = members >= 0
        given = parameters[:, np.maximum(members, 0)].copy()
        given[:2] -= corner
        if number:
            given[PARAMETERS.index("background")] = 0
        expected += np.where(present, profile(given.T, rows, cols), 0.0)
        middle = np.rint(given[:2])
        near |= present & (np.abs(rows - middle[0]) <= _PATCH) & (np.abs(cols - middle[1]) <= _PATCH)
        free = [name for name in PARAMETERS if not number or name != "background"]
        slopes.append(np.where(present, slopes_of(given, rows, cols, free), 0.0))
    stacked = np.concatenate(slopes)
    weight = near / np.maximum(expected, 1e-3)
    fisher = np.einsum("apn,bpn,pn->nab", stacked, stacked, weight, optimize=True)
    # Parameters of absent neighbours have no information and stay where they are.
    diagonal = np.einsum("naa->na", fisher)
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled = fisher / (scale[:, :, None] * scale[:, None, :])
    scaled += np.eye(len(stacked)) * np.where(diagonal > 0, 1e-8, 1.0)[:, None, :]
    force = np.einsum("apn,pn,pn->na", stacked, weight, lacking, optimize=True) / scale
    moved: Floats = np.linalg.solve(scaled, force[:, :, None])[:, :2, 0] / scale[:, :2]
    return np.clip(moved.T, -_FURTHEST, _FURTHEST)
