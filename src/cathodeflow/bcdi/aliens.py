"""Other crystals in a scan: peaks that do not belong to the pattern of the brightest one.

The fringes of a crystal far from its peak are nearly the same on both sides of it, even if the crystal is strained,
which shifts and splits the peak itself. A smoothed intensity far above that on the opposite side is therefore the
peak of another crystal, or of a part that is tilted as a whole (two peaks on the rocking curve).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, label, maximum_position

from cathodeflow.bcdi.corrections import Counts

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Region = tuple[int, int, int, int, int, int]

# Width of the smoothing, in fringes: fringes of one crystal merge, peaks of two do not.
_SMOOTH = 0.6
# Distance from the peak, in fringes, within which strain makes a pattern asymmetric.
_NEAR = 4.0
# Minimum ratio to the opposite side, and minimum height as a fraction of the highest smoothed intensity.
_RATIO, _HEIGHT = 8.0, 0.01
# Ratio to the opposite side down to which the surroundings of another peak are masked.
_EDGE = 2.0
# Minimum fraction of known voxels in the smoothing.
_LEAST_KNOWN = 0.2
_MAX_NAMED = 4


def leave_out_regions(values: Floats, known: Bools, regions: Sequence[Region]) -> Counts:
    """Mask boxes of the scan: first frame, end, first row, end, first column, end."""
    known = known.copy()
    for first, last, top, bottom, left, right in regions:
        known[first:last, top:bottom, left:right] = False
    total = float(values.sum(dtype=np.float64))
    cleaned = np.where(known, values, 0)
    lost = 1 - float(cleaned.sum(dtype=np.float64)) / total if total else 0.0
    return Counts(cleaned, known, {"step": "regions", "number": len(regions), "share_of_intensity": lost})


def find_aliens(
    values: Floats, known: Bools, centre: Sequence[int], oversampling: Sequence[float]
) -> tuple[Bools, dict[str, Any]]:
    """Find the peaks of other crystals.

    Parameters
    ----------
    values : (frame, row, col)
        Counts, 0 where not known.
    known : (frame, row, col) bool
    centre : (int, int, int)
        Voxel of the peak.
    oversampling : (float, float, float)
        Voxels per fringe along each axis.

    Returns
    -------
    alien : (frame, row, col) bool
        Voxels around the other peaks.
    figures : dict
        Number of other peaks and fraction of the intensity there; a `warning` that names their places.
    """
    fringe = np.maximum(np.asarray(oversampling, dtype=np.float64), 1.0)
    widths = _SMOOTH * fringe
    weight = gaussian_filter(known.astype(np.float32), widths, mode="nearest")
    smooth = gaussian_filter(values, widths, mode="nearest") / np.maximum(weight, _LEAST_KNOWN)
    opposite, inside = _mirrored(smooth, centre)
    distance = sum(
        ((np.arange(n) - c) / f).reshape([-1 if axis == index else 1 for index in range(3)]) ** 2
        for axis, (n, c, f) in enumerate(zip(values.shape, centre, fringe, strict=True))
    )
    level = float(smooth.max()) * _HEIGHT
    # Where the other side was not measured, nothing is known of the symmetry.
    odd = inside & (weight > 0.5) & (smooth > _RATIO * np.maximum(opposite, level / _RATIO)) & (distance > _NEAR**2)
    alien = np.zeros(values.shape, bool)
    places: list[tuple[int, ...]] = []
    if odd.any():
        wide = (smooth > _EDGE * opposite) & (smooth > level / 100) & (distance > (_NEAR / 2) ** 2)
        groups, n_groups = label(wide)
        for index in np.unique(groups[odd]):
            if index and index <= n_groups:
                alien |= groups == index
                places.append(tuple(int(at) for at in maximum_position(np.where(odd, smooth, 0), groups, index)))
        alien = binary_dilation(alien, iterations=1)
    total = float(values.sum(dtype=np.float64))
    share = float(values.sum(where=alien, dtype=np.float64)) / total if total else 0.0
    figures: dict[str, Any] = {"step": "aliens", "peaks": len(places), "share_of_intensity": share}
    if places:
        named = "; ".join(f"frame {at[0]}, row {at[1]}, column {at[2]}" for at in places[:_MAX_NAMED])
        figures["warning"] = (
            f"{len(places)} peaks of other crystals or tilted parts ({named}), {share:.1%} of the counts"
        )
    return alien, figures


def _mirrored(volume: Floats, centre: Sequence[int]) -> tuple[Floats, Bools]:
    """Point reflection of a volume through a voxel; and where it is inside the volume."""
    reflected, inside = volume, np.ones(volume.shape, bool)
    for axis, (n, c) in enumerate(zip(volume.shape, centre, strict=True)):
        at = 2 * c - np.arange(n)
        good = (at >= 0) & (at < n)
        reflected = np.take(reflected, np.clip(at, 0, n - 1), axis=axis)
        inside = inside & good.reshape([-1 if axis == index else 1 for index in range(3)])
    return np.where(inside, reflected, 0).astype(np.float32), inside
