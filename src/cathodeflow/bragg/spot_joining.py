"""Join the peaks of neighbouring frames that belong to one spot of a rocking scan."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.bragg.matching import match
from cathodeflow.bragg.series_options import Spots

# Standard errors by which an amplitude must lie below the maxima beside it.
_SIGNIFICANT = 3.0


def join_peaks(peaks: pd.DataFrame, options: Spots) -> NDArray[np.int64]:
    """Return the number of the spot that each peak belongs to.

    Peaks of successive frames are joined one to one, nearest pairs first; then the ends are joined with peaks that
    begin after a gap of one frame, and so on. The chains are divided where two rocking curves follow each other.

    Parameters
    ----------
    peaks : DataFrame
        `frame`, `row`, `col` [px], `amplitude` and `amplitude_err` [counts].
    options : Spots

    Returns
    -------
    (n,) int64
        Numbers from 0, in the order of the first peaks of the spots.

    Examples
    --------
    >>> rocking = {"frame": [3, 4, 5, 8], "row": [7.1, 7.0, 7.2, 7.0], "col": [2.0, 2.0, 2.1, 2.0]}
    >>> peaks = pd.DataFrame({**rocking, "amplitude": [50.0, 90.0, 40.0, 60.0], "amplitude_err": 5.0})
    >>> join_peaks(peaks, Spots())
    array([0, 0, 0, 1])
    """
    frame = peaks["frame"].to_numpy(np.int64)
    at = peaks[["row", "col"]].to_numpy(np.float64)
    after, before = np.full((2, len(peaks)), -1, np.int64)
    for step in range(1, options.max_gap + 2):
        ends, starts = np.flatnonzero(after < 0), np.flatnonzero(before < 0)
        found = match(
            at[ends],
            at[starts],
            max_distance=options.max_distance,
            a_frame=frame[ends] + step,
            b_frame=frame[starts],
        )
        after[ends[found.a]], before[starts[found.b]] = starts[found.b], ends[found.a]
    amplitude, error = (peaks[name].to_numpy(np.float64) for name in ("amplitude", "amplitude_err"))
    spot, number = np.full(len(peaks), -1, np.int64), 0
    for first in np.flatnonzero(before < 0):
        chain = [int(first)]
        while after[chain[-1]] >= 0:
            chain.append(int(after[chain[-1]]))
        members = np.array(chain)
        for part in split_chain(amplitude[members], error[members], max_dip=options.max_dip):
            spot[members[part]] = number
            number += 1
    return spot


def split_chain(amplitude: NDArray[np.float64], error: NDArray[np.float64], *, max_dip: float) -> list[slice]:
    """Divide a chain of peaks at its saddles.

    Parameters
    ----------
    amplitude, error : (n,) float64
        Amplitude of the peak in each frame of the chain, in the order of the frames, and its standard error [counts].
    max_dip : float
        A saddle lies below this fraction of the lower of the maxima on its sides, and three standard errors below it.

    Returns
    -------
    list of slice
        The peak at a saddle goes to the side of the higher neighbour, from which more of it comes.

    Examples
    --------
    >>> split_chain(np.array([20.0, 90.0, 30.0, 70.0, 60.0]), np.full(5, 5.0), max_dip=0.5)
    [slice(0, 3, None), slice(3, 5, None)]
    """
    parts, pending = [], [(0, len(amplitude))]
    while pending:
        first, end = pending.pop()
        cut = _saddle(amplitude[first:end], error[first:end], max_dip)
        if cut is None:
            parts.append(slice(first, end))
        else:
            pending += [(first, first + cut), (first + cut, end)]
    return sorted(parts, key=lambda part: int(part.start))


def _saddle(amplitude: NDArray[np.float64], error: NDArray[np.float64], max_dip: float) -> int | None:
    """Return the index at which the second part begins, at the deepest saddle; None without one."""
    deepest, cut = max_dip, None
    for k in range(1, len(amplitude) - 1):
        left, right = int(np.argmax(amplitude[:k])), k + 1 + int(np.argmax(amplitude[k + 1 :]))
        lower = left if amplitude[left] <= amplitude[right] else right
        significant = amplitude[lower] - amplitude[k] > _SIGNIFICANT * np.hypot(error[lower], error[k])
        if significant and amplitude[k] < deepest * amplitude[lower]:
            deepest = amplitude[k] / amplitude[lower]
            cut = k + 1 if amplitude[k - 1] >= amplitude[k + 1] else k
    return cut
