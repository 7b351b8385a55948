"""Peaks that overlap: up to three candidates fitted jointly, and a second peak where no candidate marks it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from cathodeflow.bragg.joint_fits import JointFits, fit_jointly, second_starts
from cathodeflow.bragg.least_squares import PER_PEAK
from cathodeflow.bragg.peak_options import Fit
from cathodeflow.bragg.profiles import MODELS, profile

Floats = NDArray[np.float64]
Pairs = NDArray[np.intp]
Cut = Callable[[Pairs, Pairs, int], tuple[Floats, Floats]]

# Neighbours are fitted jointly up to this multiple of their mean width, plus 2 px.
_REACH = 2.2
# A joint fit that moves a centre further than this has exchanged peaks [px].
_FURTHEST = 1.0
# A second peak is at least this far from the first [px], and this fraction of its height.
_APART, _FRACTION = 0.7, 0.1
# Chi-square is too high for one peak from this number of standard deviations on.
_UNLIKELY = 2.5
# A hot pixel exceeds all its neighbours this many times.
_HOT = 4.0


class Crowd(NamedTuple):
    """Candidates of one frame with their fits.

    `results` : (n, 18) as of `least_squares.fit_all`, centres in frame pixels [photons]; changed in place.
    `positions` : (n, 2) candidate pixels. `pairs` : (m, 2) candidates whose patches overlap, in both orders.
    `fixed` : (n,) bool, fits that stay as they are, such as those of saturated peaks. `cut` : returns the patches
    around pixels and the variances of their noise [photons].
    """

    results: Floats
    positions: Floats
    pairs: Pairs
    fixed: NDArray[np.bool_]
    cut: Cut


def hot_pixels(patches: Floats) -> NDArray[np.bool_]:
    """Find single pixels far above all their neighbours, at least 2 px from the centre of their patch.

    No peak is as narrow; such a pixel is hot, or hit by a cosmic ray, and moves the centre of the peak beside it.

    Parameters
    ----------
    patches : (n, size, size) float64
        [photons]; NaN where a pixel is left out.
    """
    size = patches.shape[1]
    if not len(patches):
        return np.zeros(patches.shape, bool)
    around = np.ones((1, 3, 3), bool)
    around[0, 1, 1] = False
    values = np.where(np.isfinite(patches), patches, -np.inf)
    highest = maximum_filter(values, footprint=around, mode="constant", cval=-np.inf)
    # Pixels that are left out count as the lowest of their patch.
    finite = np.isfinite(patches)
    lowest = np.min(patches, axis=(1, 2), keepdims=True, where=finite, initial=np.inf)
    ground = np.median(np.where(finite, patches, lowest), axis=(1, 2), keepdims=True)
    with np.errstate(invalid="ignore"):
        above = np.maximum(highest - ground, 0)
        hot = values - ground > _HOT * above + 6 * np.sqrt(np.maximum(highest, 1))
    rows, cols = np.abs(np.mgrid[:size, :size] - size // 2)
    return np.asarray(hot & (np.maximum(rows, cols) >= 2) & np.isfinite(highest))


def unexplained(results: Floats, options: Fit) -> NDArray[np.bool_]:
    """Tell for which fits chi-square is too high for counting noise."""
    freedom = np.maximum(results[:, 17] - MODELS[options.model], 1)
    return np.asarray(results[:, 14] > 1 + _UNLIKELY * np.sqrt(2 / freedom))


def fit_crowds(crowd: Crowd, options: Fit) -> Floats:
    """Fit close neighbours jointly, and add second peaks; return the centres of the latter, (n, 2) or NaN [px]."""
    partners = np.full((len(crowd.results), 2), np.nan)
    if not len(crowd.results):
        return partners
    _fit_groups(crowd, options)
    _add_second(crowd, options, partners)
    return partners


def _settled(crowd: Crowd) -> NDArray[np.bool_]:
    return np.asarray((crowd.results[:, 15] == 1) & (np.abs(crowd.results[:, :2] - crowd.positions).max(axis=1) < 3))


def _fit_groups(crowd: Crowd, options: Fit) -> None:
    settled = _settled(crowd)
    own, other = crowd.pairs[settled[crowd.pairs].all(axis=1) & ~crowd.fixed[crowd.pairs].any(axis=1)].T
    width = crowd.results[:, 4:6].mean(axis=1)
    distance = np.hypot(*(crowd.results[own, :2] - crowd.results[other, :2]).T)
    close = distance < _REACH * 0.5 * (width[own] + width[other]) + 2
    nearest: dict[int, list[int]] = {}
    for i, j in zip(
        own[close][(order := np.argsort(distance[close], kind="stable"))], other[close][order], strict=True
    ):
        nearest.setdefault(int(i), []).append(int(j))
    groups = {i: tuple(sorted([i, *others[:2]])) for i, others in nearest.items()}
    found = crowd.results.copy()
    for m in (2, 3):
        members = sorted(group for group in set(groups.values()) if len(group) == m)
        if not members:
            continue
        index = np.array(members)
        centres = np.rint(crowd.positions[index].mean(axis=1)).astype(np.intp)
        spread = np.abs(crowd.positions[index] - centres[:, None]).max()
        side = options.patch_size + 2 * int(spread)
        windows, known = _windows(crowd, index, centres, side, settled, options)
        starts = crowd.results[index][:, :, [0, 1, 2, 4, 5, 6]]
        starts[:, :, :2] -= (centres - side // 2)[:, None]
        joint = fit_jointly(
            windows, known, starts, crowd.results[index, 3].mean(axis=1), gaussian=options.model == "gaussian"
        )
        for number, group in enumerate(members):
            for place, i in enumerate(group):
                if groups.get(i) != group or not joint.converged[number]:
                    continue
                centre = joint.peaks[number, place, :2] + centres[number] - side // 2
                if np.abs(centre - crowd.results[i, :2]).max() < _FURTHEST:
                    _take(found[i], joint, number, place, centre)
    crowd.results[:] = found


def _take(result: Floats, joint: JointFits, number: int, place: int, centre: Floats) -> None:
    """Write one peak of a joint fit as a result of `least_squares.fit_all`."""
    peak, error = joint.peaks[number, place], joint.errors[number, place]
    result[:2], result[2], result[3] = centre, peak[2], joint.background[number]
    result[4:7] = peak[3:PER_PEAK]
    result[7:10], result[10], result[11:14] = error[:3], joint.background_err[number], error[3:PER_PEAK]
    result[14], result[15] = joint.chi2[number], 1


def _windows(
    crowd: Crowd, index: Pairs, centres: Pairs, side: int, settled: NDArray[np.bool_], options: Fit
) -> tuple[Floats, Floats]:
    """Cut the windows around groups (n, m) of candidates: counts, and known intensity, each plus variance."""
    windows, noise = crowd.cut(centres[:, 0], centres[:, 1], side)
    known = np.zeros(windows.shape)
    grid = np.mgrid[:side, :side]
    half = options.patch_size // 2
    partners: dict[int, list[int]] = {}
    for i, j in crowd.pairs:
        partners.setdefault(int(i), []).append(int(j))
    for number, group in enumerate(index):
        corner = centres[number] - side // 2
        rows, cols = grid + corner[:, None, None]
        near = np.zeros((side, side), bool)
        for i in group:
            row, col = crowd.positions[i]
            near |= (np.abs(rows - row) <= half) & (np.abs(cols - col) <= half)
        windows[number, ~near] = np.nan
        for j in sorted({j for i in group for j in partners.get(int(i), ())} - {int(i) for i in group}):
            if settled[j]:
                peak = crowd.results[j, :7].copy()
                peak[3] = 0
                known[number] += profile(peak, rows, cols)
            else:
                row, col = crowd.positions[j]
                own = np.min([(rows - r) ** 2 + (cols - c) ** 2 for r, c in crowd.positions[group]], axis=0)
                windows[number, (rows - row) ** 2 + (cols - col) ** 2 < own] = np.nan
    return windows + noise, known + noise


def _add_second(crowd: Crowd, options: Fit, partners: Floats) -> None:
    settled = _settled(crowd)
    index = np.flatnonzero(settled & ~crowd.fixed & unexplained(crowd.results, options))
    if not len(index):
        return
    side = options.patch_size
    centres = crowd.positions[index].astype(np.intp)
    corner = centres - side // 2
    windows, known = _windows(crowd, index[:, None], centres, side, settled, options)
    peaks = crowd.results[index][:, [0, 1, 2, 4, 5, 6]]
    peaks[:, :2] -= corner
    shown = crowd.results[index, :7]
    shown[:, :2] -= corner
    one = profile(shown[:, None, None], *np.mgrid[:side, :side]) + known
    valid = np.isfinite(windows)
    logs = np.log(one / np.where(windows > 0, windows, 1))
    before = np.where(valid, one - windows - windows * logs, 0).sum(axis=(1, 2))
    gaussian = options.model == "gaussian"
    parameters = np.full(len(index), MODELS[options.model])
    if options.rotation == "auto":
        turned = np.concatenate([peaks, np.zeros((len(peaks), 1))], axis=1)[:, None]
        single = fit_jointly(windows, known, turned, shown[:, 3], gaussian=gaussian)
        gains = 2 * (before - single.deviance) / np.maximum(single.chi2, 1)
        taken = single.converged & (gains > np.log(np.maximum(single.pixels, 1)))
        taken &= np.abs(single.peaks[:, 0, :2] - peaks[:, :2]).max(axis=1) < _FURTHEST
        for case in np.flatnonzero(taken).tolist():
            _take(crowd.results[index[case]], single, case, 0, single.peaks[case, 0, :2] + corner[case])
        # Two peaks must then be better than the turned one.
        before, parameters = np.where(taken, single.deviance, before), parameters + taken
    starts = np.concatenate(second_starts(windows - known, one - known, peaks))
    twice, of_both = np.concatenate([windows, windows]), np.concatenate([known, known])
    joint = fit_jointly(twice, of_both, starts, np.tile(shown[:, 3], 2), gaussian=gaussian)
    deviance = np.where(joint.converged, joint.deviance, np.inf).reshape(2, -1)
    chosen = deviance.argmin(axis=0) * len(index) + np.arange(len(index))
    for i, number in zip(index, chosen, strict=True):
        if not joint.converged[number]:
            continue
        two, pixels = joint.peaks[number], joint.pixels[number]
        # Bayesian information criterion, with the deviance scaled by chi-square as for a quasi-likelihood.
        case = number % len(index)
        gain = 2 * (before[case] - joint.deviance[number]) / max(float(joint.chi2[number]), 1.0)
        if gain < (2 * MODELS[options.model] - 1 - parameters[case]) * np.log(pixels):
            continue
        if np.hypot(*(two[0, :2] - two[1, :2])) < _APART or two[:, 2].min() < _FRACTION * two[:, 2].max():
            continue
        centre = two[:, :2] + corner[case]
        nearest = int(np.argmin(np.hypot(*(centre - crowd.positions[i]).T)))
        _take(crowd.results[i], joint, number, nearest, centre[nearest])
        partners[i] = centre[1 - nearest]
