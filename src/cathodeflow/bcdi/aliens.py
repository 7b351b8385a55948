"""Other crystals in a scan: peaks that do not belong to the pattern of the brightest one.

The fringes of a crystal far from its peak are nearly the same on both sides of it, even if the crystal is strained,
which shifts and splits the peak itself. A smoothed intensity far above that on the opposite side is therefore the
peak of another crystal, if it stands apart from the pattern. Parts of one crystal that are tilted against each other
have two peaks on the rocking curve, as have strongly strained crystals: these are only reported.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, gaussian_filter1d, label

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
# Fraction of its height below which the intensity falls between another peak and that of the crystal.
_VALLEY = 0.1
# Ratio to the opposite side, and fraction of its height, down to which the surroundings of another peak are masked.
_EDGE, _WEAKEST = 2.0, 1e-3
# Maximum number of places that are looked at.
_MOST = 8
# Minimum fraction of known voxels in the smoothing.
_LEAST_KNOWN = 0.2
# Height of a second peak of the rocking curve relative to the first, and of the valley relative to the lower peak.
_SECOND, _BETWEEN = 0.3, 0.6
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
    for _ in range(_MOST):
        if not odd.any():
            break
        at = np.unravel_index(int(np.where(odd, smooth, 0).argmax()), odd.shape)
        groups, _ = label(smooth > _VALLEY * smooth[at])
        apart = groups == groups[at]
        odd &= ~apart
        if apart[tuple(centre)]:
            # A shoulder of the pattern itself.
            continue
        around = (smooth > _EDGE * opposite) & (smooth > smooth[at] * _WEAKEST) & (distance > (_NEAR / 2) ** 2)
        groups, _ = label(around)
        alien |= binary_dilation(groups == groups[at], iterations=1)
        odd &= ~alien
        places.append(tuple(int(each) for each in at))
    total = float(values.sum(dtype=np.float64))
    share = float(values.sum(where=alien, dtype=np.float64)) / total if total else 0.0
    figures: dict[str, Any] = {"step": "aliens", "peaks": len(places), "share_of_intensity": share}
    if places:
        named = "; ".join(f"frame {at[0]}, row {at[1]}, column {at[2]}" for at in places[:_MAX_NAMED])
        figures["warning"] = f"{len(places)} peaks of other crystals ({named}), {share:.1%} of the counts"
    return alien, figures


def rocking_peaks(values: Floats, oversampling: float) -> dict[str, Any]:
    """Find separate peaks on the rocking curve.

    Parameters
    ----------
    values : (frame, row, col)
        Counts, 0 where not known.
    oversampling : float
        Frames per fringe.
    """
    curve = gaussian_filter1d(values.sum(axis=(1, 2), dtype=np.float64), max(oversampling, 1.0) / 4)
    highest = float(curve.max())
    tops = [
        frame
        for frame in range(1, len(curve) - 1)
        if curve[frame] >= _SECOND * highest and curve[frame - 1] < curve[frame] >= curve[frame + 1]
    ]
    kept = tops[:1]
    for frame in tops[1:]:
        if curve[kept[-1] : frame].min() < _BETWEEN * min(curve[kept[-1]], curve[frame]):
            kept.append(frame)
        elif curve[frame] > curve[kept[-1]]:
            kept[-1] = frame
    figures: dict[str, Any] = {"step": "rocking", "peaks": max(len(kept), 1)}
    if len(kept) > 1:
        named = ", ".join(map(str, kept))
        figures["warning"] = f"the rocking curve has {len(kept)} peaks (frames {named}): tilted parts, or strong strain"
    return figures


def _mirrored(volume: Floats, centre: Sequence[int]) -> tuple[Floats, Bools]:
    """Point reflection of a volume through a voxel; and where it is inside the volume."""
    reflected, inside = volume, np.ones(volume.shape, bool)
    for axis, (n, c) in enumerate(zip(volume.shape, centre, strict=True)):
        at = 2 * c - np.arange(n)
        good = (at >= 0) & (at < n)
        reflected = np.take(reflected, np.clip(at, 0, n - 1), axis=axis)
        inside = inside & good.reshape([-1 if axis == index else 1 for index in range(3)])
    return np.where(inside, reflected, 0).astype(np.float32), inside
