"""Intensity around the peaks of a rocking scan that their fits do not contain.

Each frame is fitted by itself, with the neighbours that were found in it. A neighbour of which only the flank of the
rocking curve is in a frame is not found there, and the long tails of bright peaks are subtracted only where patches
overlap. Both are known from all frames of the spots together.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numba import njit
from numpy.typing import NDArray

from cathodeflow.bragg.peak_information import Lacking, counts_of
from cathodeflow.bragg.profiles import PARAMETERS
from cathodeflow.bragg.rocking_curves import curves_of_spots

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Peaks whose patches overlap are fitted with each other; further ones are not [px].
_OVERLAP = 10.5
# Tails are followed down to this intensity [counts/px], at least to two full widths.
_NEGLIGIBLE = 0.05
# Frames in which a rocking curve has fallen below this fraction of its maximum are left out.
_FAINTEST = 1e-3
_HALF = 4.0 * np.log(2.0)


class Sources(NamedTuple):
    """All spots of a scan in all frames in which they have intensity, in the order of the frames.

    `first` : (n_frames + 1,) int64, the sources of frame k are first[k] to first[k + 1]. `parameters` : (n, 7) float64
    in the order of `profiles.PARAMETERS`, without background. `of_peak` : (n_peaks,) int64, the source of each peak.
    """

    first: Integers
    parameters: Floats
    of_peak: Integers


def sources_of(peaks: pd.DataFrame, spot: Integers, n_frames: int) -> Sources:
    """Describe every spot by one position and shape in all of its frames.

    Position, widths and Lorentzian fraction are means over the peaks of the spot, weighted by the squared ratio of
    amplitude and error; good peaks alone where there are any. The amplitude in a frame comes from the counts of the
    peak, and in frames without a peak from the fitted rocking curve.

    Parameters
    ----------
    peaks : DataFrame
        `peak_information.COLUMNS`, `frame` and `good`, in the order of the frames.
    spot : (n_peaks,) int64
        Spot of each peak.
    n_frames : int
        Number of frames of the scan.
    """
    given = peaks[list(PARAMETERS)].to_numpy(np.float64)
    frame, error = peaks["frame"].to_numpy(np.int64), peaks["amplitude_err"].to_numpy(np.float64)
    n_spots, good = int(spot.max(initial=-1)) + 1, peaks["good"].to_numpy(bool)
    chosen = good | (np.bincount(spot, good, n_spots) == 0)[spot]
    weight = np.where(chosen, (given[:, 2] / np.maximum(error, 1e-12)) ** 2, 0.0) + 1e-12
    total = np.bincount(spot, weight, n_spots)
    shape = np.stack([np.bincount(spot, weight * values, n_spots) / total for values in given.T], axis=1)
    shape[:, 3] = 0
    unit = shape.copy()
    unit[:, 2] = 1
    per_count = 1 / counts_of(unit.T)
    counts = counts_of(given.T)
    curves = curves_of_spots(frame, counts, (counts * error / np.maximum(given[:, 2], 1e-12)) ** 2, spot, n_spots)
    # Frames of a fitted curve that have no peak of the spot.
    reach = np.where(curves.converged, curves.fwhm * np.sqrt(-np.log(_FAINTEST) / _HALF), 0.0)
    low = np.maximum(np.ceil(np.where(curves.converged, curves.centre, 0) - reach), 0).astype(np.int64)
    high = np.minimum(np.floor(np.where(curves.converged, curves.centre, -1) + reach), n_frames - 1).astype(np.int64)
    length = np.where(curves.converged, np.maximum(high - low + 1, 0), 0)
    owner = np.repeat(np.arange(n_spots), length)
    at = np.arange(len(owner)) - np.repeat(np.cumsum(length) - length, length) + low[owner]
    absent = ~np.isin(owner * n_frames + at, spot * n_frames + frame)
    owner, at = owner[absent], at[absent]
    width = curves.fwhm[owner]
    height = curves.intensity[owner] / (width * np.sqrt(np.pi / _HALF))
    predicted = height * np.exp(-_HALF * ((at - curves.centre[owner]) / width) ** 2)
    of_all = np.concatenate([spot, owner])
    parameters = shape[of_all]
    parameters[:, 2] = np.concatenate([counts, predicted]) * per_count[of_all]
    frames = np.concatenate([frame, at])
    order = np.argsort(frames, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    first = np.searchsorted(frames[order], np.arange(n_frames + 1))
    return Sources(first, parameters[order], place[: len(spot)])


def model_of_frame(sources: Sources, number: int, shape: tuple[int, int]) -> Floats:
    """Return the intensity of all spots in a frame, (row, col) float64 [counts]."""
    image = np.zeros(shape)
    _add(image, sources.parameters[sources.first[number] : sources.first[number + 1]], _NEGLIGIBLE)
    return image


def lacking_of(peaks: pd.DataFrame, sources: Sources, shape: tuple[int, int], background: Floats | None) -> Lacking:
    """Return a function for the intensity that the fits of peaks lack, for `peak_information.information_of`.

    It is that of spots whose peaks in the frame were not found, or are so far that their tails were not subtracted, and
    the background that all frames have in common, if it is known, less the mean.

    Parameters
    ----------
    peaks : DataFrame
        As for `sources_of`.
    sources : Sources
    shape : (rows, cols)
        Of the frames.
    background : (row, col) float64, optional
        [counts]; NaN where it is not known.
    """
    centre = np.ascontiguousarray(peaks[["row", "col"]].to_numpy(np.float64))
    frame = peaks["frame"].to_numpy(np.int64)
    level = np.zeros(shape) if background is None else background

    def lacking(numbers: Integers, reach: int) -> Floats:
        found = np.zeros((len(numbers), (2 * reach + 1) ** 2))
        for number in np.unique(frame[numbers]):
            start, stop = np.searchsorted(frame, [number, number + 1])
            here = slice(*np.searchsorted(numbers, [start, stop]))
            own = sources.parameters[sources.of_peak[start:stop]]
            image = model_of_frame(sources, int(number), shape)
            _lacking(image, level, centre[start:stop], own, numbers[here] - start, reach, found[here])
        return found.T

    return lacking


@njit(cache=True, nogil=True, inline="always")
def _value(p, r, c):  # type: ignore[no-untyped-def]
    """Profile of a peak without its background, as `profiles.profile`."""
    q = 4.0 * ((r - p[0]) / p[4]) ** 2 + 4.0 * ((c - p[1]) / p[5]) ** 2
    return p[2] * (p[6] / (1.0 + q) + (1.0 - p[6]) * np.exp2(-q))


@njit(cache=True, nogil=True)
def _add(image, peaks, negligible):  # type: ignore[no-untyped-def]
    """Add peaks to an image as far as they are not negligible."""
    for p in peaks:
        reach = max(0.5 * np.sqrt(max(p[2] * p[6], 0.0) / negligible), 2.0)
        for r in range(max(int(p[0] - reach * p[4]), 0), min(int(p[0] + reach * p[4]) + 2, image.shape[0])):
            for c in range(max(int(p[1] - reach * p[5]), 0), min(int(p[1] + reach * p[5]) + 2, image.shape[1])):
                image[r, c] += _value(p, r, c)


@njit(cache=True, nogil=True)
def _lacking(image, level, centre, own, chosen, reach, found):  # type: ignore[no-untyped-def]
    """Write what the fits of the chosen peaks of a frame lack; 0 where the background is not known."""
    side = 2 * reach + 1
    for i in range(len(chosen)):
        row, col = centre[chosen[i]]
        top, left = round(row) - reach, round(col) - reach
        known = np.zeros(side * side, np.bool_)
        for k in range(side * side):
            r, c = top + k // side, left + k % side
            if 0 <= r < image.shape[0] and 0 <= c < image.shape[1] and np.isfinite(level[r, c]):
                found[i, k], known[k] = image[r, c] + level[r, c], True
        for j in range(len(centre)):
            if max(abs(centre[j, 0] - row), abs(centre[j, 1] - col)) < _OVERLAP:
                for k in range(side * side):
                    if known[k]:
                        found[i, k] -= _value(own[j], top + k // side, left + k % side)
        # The mean is part of the fitted background; without it, pixels that are not known do not pull.
        if known.any():
            found[i] = np.where(known, found[i] - found[i].sum() / known.sum(), 0.0)
