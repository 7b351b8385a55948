"""True positions of the frames of a scan: evenness, and interpolation of frames onto even positions.

The intensity along a rocking curve is band-limited: its Fourier transform, the autocorrelation of the object, is twice
as wide as the object. With an oversampling of 2 or more a spline through unevenly spaced frames therefore gives
the intensity between them.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from cathodeflow.errors import InputError

Floats = NDArray[np.float64]
# Deviation of a position from the even one, in steps, up to which frames are taken as they are.
_EVEN = 0.05
# Distance of neighbouring frames, in steps, beyond which nothing is known between them.
_GAP = 2.0
# Deviation of a second motor from a straight line through the positions of the first one, in steps.
_STRAIGHT = 0.5


class EvenScan(NamedTuple):
    """Even positions of a scan.

    Attributes
    ----------
    positions : dict of str to (n,) float64
        Even positions by motor, in the order of the scan.
    at : (n,) float64, optional
        Place of each measured frame on these positions, as a number of frames; None where they are even.
    """

    positions: dict[str, Floats]
    at: Floats | None


def even_scan(where: str, scanned: dict[str, Floats]) -> EvenScan:
    """Find even positions from the first to the last one measured, as many as there are frames.

    Parameters
    ----------
    where : str
        Source of the positions, for messages.
    scanned : dict of str to (n,) float64
        Positions by motor; with several motors, all move along one line.

    Raises
    ------
    InputError
        A position is not a number, all are equal, or several motors do not move along one line (a mesh).
    """
    spans = {name: float(np.ptp(values)) for name, values in scanned.items()}
    first = max(spans, key=lambda name: spans[name])
    values = scanned[first]
    if len(values) < 2:
        raise InputError(where, "one point", "a rocking scan")
    if not all(np.isfinite(each).all() for each in scanned.values()):
        raise InputError(where, f"positions of {', '.join(scanned)} that are not numbers", "a position for each frame")
    if not spans[first] > 0:
        raise InputError(where, f"equal positions of {first}", "a rocking scan")
    n = len(values)
    low, high = (values.min(), values.max()) if values[-1] >= values[0] else (values.max(), values.min())
    at = (values - low) / (high - low) * (n - 1)
    even: dict[str, Floats] = {first: np.linspace(low, high, n)}
    for name, others in scanned.items():
        if name == first:
            continue
        slope, start = np.polyfit(at, others, 1)
        if np.abs(others - start - slope * at).max() > _STRAIGHT * abs(slope):
            raise InputError(where, f"{first} and {name} that do not move together", "a scan along one line, no mesh")
        even[name] = start + slope * np.arange(n)
    return EvenScan(even, None if np.abs(at - np.arange(n)).max() <= _EVEN else at)


def regridded(
    values: NDArray[np.float32], known: NDArray[np.bool_], at: Floats
) -> tuple[NDArray[np.float32], NDArray[np.bool_], dict[str, Any]]:
    """Interpolate frames that were measured at uneven positions onto even ones.

    Parameters
    ----------
    values, known : (frame, row, col)
        Counts, and where they are known.
    at : (frame,) float64
        Place of each frame, as a number of even frames (`EvenScan`).

    Returns
    -------
    values, known : (frame, row, col)
        A voxel is known if the frames on both sides are, and are less than two even steps apart.
    figures : dict
        Smallest and largest step, as a multiple of the mean step, and number of frames in gaps.
    """
    order = np.argsort(at, kind="stable")
    places, first = np.unique(at[order], return_index=True)
    # Frames at one position are averaged.
    frames = np.add.reduceat(values[order], first, axis=0) / np.diff([*first, len(at)])[:, None, None]
    good = np.logical_and.reduceat(known[order], first, axis=0)
    grid = np.arange(len(at), dtype=np.float64)
    steps = np.diff(places)
    below = np.clip(np.searchsorted(places, grid, side="right") - 1, 0, len(places) - 2)
    far = (steps[below] > _GAP) & (np.abs(grid - places[below]) > _EVEN) & (np.abs(grid - places[below + 1]) > _EVEN)
    new = np.empty_like(values)
    for row in range(values.shape[1]):
        # Row by row, as splines are of double precision.
        new[:, row] = CubicSpline(places, frames[:, row], axis=0)(grid)
    new_known = good[below] & good[below + 1] & ~far[:, None, None]
    # Between two frames without counts a spline is not 0.
    np.clip(new, 0, None, out=new)
    new[~new_known] = 0
    figures = {"step": "regrid", "smallest_step": float(steps.min()), "largest_step": float(steps.max())}
    return new, new_known, {**figures, "frames_in_gaps": int(far.sum())}
