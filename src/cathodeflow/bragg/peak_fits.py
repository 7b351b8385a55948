"""Maximum-likelihood fits of peak profiles, with subpixel positions and standard errors."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import label
from scipy.spatial import cKDTree

from cathodeflow.bragg.crowded_fits import Crowd, fit_crowds, hot_pixels, unexplained
from cathodeflow.bragg.least_squares import fit_all
from cathodeflow.bragg.options import Fit
from cathodeflow.bragg.profiles import MODELS, profile
from cathodeflow.errors import InputError

# Limits the memory of float64 copies of patches of other types.
_BLOCK = 16384
_PAIRS = 4096
# Maximum number of passes over overlapping peaks, and shift of a centre below which it has converged [px].
_PASSES = 12
_MOVED = 5e-3
# Step length at which a fit has converged [standard errors].
_TOLERANCE = 0.01

# Largest side of a patch around a saturated peak [px].
_LARGEST = 101
# Columns of the results of `least_squares.fit_all`.
COLUMNS = 18

Floats = NDArray[np.float64]
Pairs = NDArray[np.intp]


class PeakFits(NamedTuple):
    """Fitted peaks, one entry each, (n,) float64 except `converged` (n,) bool.

    A fit that did not converge has the values of its last iteration, or NaN if nothing could be fitted: not more finite
    pixels than parameters, no counts, or no pixel above the background.

    `row`, `col` : centre [px]. `amplitude` : height above the background [counts]. `background` [counts/px].
    `fwhm_row`, `fwhm_col` : full widths at half maximum [px]. `mixing` : Lorentzian fraction, 0 for `gaussian`.
    `*_err` : standard errors, in the same units, from the inverse Fisher matrix of all parameters at the fitted values.
    `chi2` : reduced Pearson chi-square. `pixels` : number of pixels in the fit with counts above 0 and the threshold.
    `partner_row`, `partner_col` : centre of a second peak that is no candidate, found by the fit [px]; NaN without one.
    `converged` : the fit ended at an optimum with its centre inside the patch and finite errors of all parameters, and
    `pixels` exceeds the number of parameters.
    """

    row: Floats
    col: Floats
    amplitude: Floats
    background: Floats
    fwhm_row: Floats
    fwhm_col: Floats
    mixing: Floats
    row_err: Floats
    col_err: Floats
    amplitude_err: Floats
    background_err: Floats
    fwhm_row_err: Floats
    fwhm_col_err: Floats
    mixing_err: Floats
    chi2: Floats
    pixels: Floats
    partner_row: Floats
    partner_col: Floats
    converged: NDArray[np.bool_]


def fit_peaks(
    patches: ArrayLike,
    options: Fit,
    *,
    variance: float = 0.0,
    search: float | None = None,
    tolerance: float = _TOLERANCE,
) -> PeakFits:
    """Fit one peak on flat background to each patch, maximising the Poisson likelihood.

    Levenberg-Marquardt on the Poisson deviance [1]_ with the expected (Fisher) curvature; `profiles.profile` is the
    model. Bounds: centre within the patch, amplitude and background not negative, widths from 0.8 px to twice the
    patch, mixing in [0, 1]; the step is solved inside them. The patches are spread over numba's threads, and no result
    depends on their number.

    Parameters
    ----------
    patches : (n, size, size) real
        Counts. Pixels that are not finite are left out of the likelihood.
    options : Fit
        `threshold`: pixels below it are censored; their likelihood is the probability to lie there. Treated as zeros
        they increase the error of the centre up to three times. `gain`: counts are divided by it, then they are
        Poisson. `read_noise`: its square is added to the counts and to the model, whose sum is nearly Poisson [2]_.
        `patch_size` and `neighbours` are only used by `fit_frame`, `dark_noise` and `max_chi2` not at all.
    variance : float
        Variance of the noise other than counting and read-out noise [counts^2]. If all variances are 0, that of a patch
        with negative counts is taken as the mean square of these.
    search : float, optional
        The fit starts at the maximum within this distance of the patch centre along each axis [px]. Default: the whole
        patch.
    tolerance : float
        Step length at which the fit has converged [standard errors].

    Returns
    -------
    PeakFits
        Centres in patch pixels, pixel centres at integers.

    Raises
    ------
    InputError
        If `patches` are not square patches of real numbers, at least 3 px wide.

    References
    ----------
    .. [1] T. A. Laurence, B. A. Chromy, Nature Methods 7, 338 (2010).
    .. [2] F. Huang et al., Nature Methods 10, 653 (2013).

    Examples
    --------
    >>> rows, cols = np.mgrid[:11, :11]
    >>> fits = fit_peaks(profile([5.25, 4.5, 100, 2, 2.5, 3, 0.3], rows, cols)[None], Fit())
    >>> fits.row.round(2), fits.col.round(2)
    (array([5.25]), array([4.5]))
    """
    patches = np.asarray(patches)
    if (
        patches.ndim != 3
        or patches.shape[1] != patches.shape[2]
        or patches.shape[1] < 3
        or patches.dtype.kind not in "biuf"
    ):
        raise InputError("patches", f"{patches.dtype} {patches.shape}", "real numbers (n, size, size), size at least 3")
    none = np.zeros((1, *patches.shape[1:]))
    results = np.empty((len(patches), COLUMNS))
    for first in range(0, len(patches), _BLOCK):
        block = np.asarray(patches[first : first + _BLOCK], dtype=np.float64) / options.gain
        noise = _noise(block, np.full((1, 1, 1), variance), options)
        part = results[first : first + _BLOCK]
        _fit(block, noise, none, None, part, options, search, tolerance)
    return _named(results, options)


def fit_frame(
    frame: NDArray[np.floating],
    rows: ArrayLike,
    cols: ArrayLike,
    options: Fit,
    *,
    mask: ArrayLike | None = None,
    saturated: ArrayLike | None = None,
    variance: ArrayLike = 0.0,
) -> PeakFits:
    """Fit the peaks of one frame at its candidate pixels.

    A patch is fitted around each candidate as by `fit_peaks`, without masked and saturated pixels, pixels outside the
    frame, and pixels closer to another candidate; hot pixels beside the peak are found and left out. Patches
    grow until at most a quarter of them is saturated.

    With `neighbours="subtract"`, candidates with others within the side of a patch are then refitted with the latter
    pixels: the fitted neighbours are part of the model as known intensity (subtracting them from the counts would
    distort their statistics), until the centres converge. If the refit fails or ends closer to another candidate, the
    first fit is kept. Then up to three neighbours are fitted jointly, for errors that contain those of the neighbours;
    and where one peak does not explain the counts, a second one is added, if the Bayesian information criterion prefers
    two (`crowded_fits.fit_crowds`); not with a threshold.

    Parameters
    ----------
    frame : (row, col) real
        Counts; pixels that are not finite are left out.
    rows, cols : (n,) int
        Candidate pixels, inside the frame.
    options : Fit
    mask : (row, col) bool or integer, optional
        Pixels other than 0 are left out.
    saturated : (row, col) bool, optional
        Pixels whose counts are only known to be higher; left out, too.
    variance : float or (row, col) float
        Variance of the noise other than counting and read-out noise, such as that of the dark image [counts^2].

    Returns
    -------
    PeakFits
        Centres in frame pixels. `converged` also means that the centre is in the frame and, along both axes, within a
        quarter of the patch's side of the candidate pixel.

    Raises
    ------
    InputError
        Shapes of frame, candidates and mask do not match, or candidates are outside the frame.
    """
    frame = np.asarray(frame)
    rows, cols = np.asarray(rows), np.asarray(cols)
    size = options.patch_size
    bad = np.broadcast_to(False, frame.shape) if mask is None else np.asarray(mask)
    full = np.broadcast_to(False, frame.shape) if saturated is None else np.asarray(saturated, dtype=bool)
    if frame.ndim != 2 or bad.shape != frame.shape or full.shape != frame.shape:
        raise InputError("frame", f"shape {frame.shape}, mask {bad.shape}", "two axes, and a mask of the same shape")
    if rows.shape != cols.shape or rows.ndim != 1:
        raise InputError("candidates", f"rows {rows.shape}, cols {cols.shape}", "two lists of equal length")
    if len(rows) and not (
        0 <= rows.min() <= rows.max() < frame.shape[0] and 0 <= cols.min() <= cols.max() < frame.shape[1]
    ):
        raise InputError("candidates", "pixels outside the frame", f"pixels inside {frame.shape}")
    rows, cols = rows.astype(np.intp), cols.astype(np.intp)
    positions = np.stack([rows, cols], axis=1).astype(np.float64)
    pixels = _Pixels(frame, bad, full, np.broadcast_to(np.asarray(variance, np.float64), frame.shape), options)
    patches, noise = pixels.cut(rows, cols, size)
    pairs = _neighbours(positions, size)
    none = np.zeros((1, size, size))
    results = np.empty((len(positions), COLUMNS))
    alone = np.where(_of_neighbours(positions, pairs, size), np.nan, patches)
    _fit(alone, noise, none, None, results, options, 1.0)
    hot = np.zeros(patches.shape, bool)
    doubtful = np.flatnonzero(~(results[:, 15] == 1) | unexplained(results, options))
    hot[doubtful] = hot_pixels(alone[doubtful])
    if hot.any():
        patches[hot], alone[hot] = np.nan, np.nan
        again = np.flatnonzero(hot.any(axis=(1, 2)))
        part = np.empty((len(again), COLUMNS))
        _fit(alone[again], noise[again], none, None, part, options, 1.0)
        results[again] = part
    results[:, :2] += positions - size // 2
    reach = np.full(len(positions), size / 4)
    partners = np.full((len(positions), 2), np.nan)
    if options.neighbours == "subtract" and len(pairs):
        _refit(results, patches, noise, positions, pairs, options)
    plateau = _plateaus(pixels, positions)
    for index in np.flatnonzero(plateau):
        same = (plateau == plateau[index]) | (np.arange(len(plateau)) == index)
        results[index], reach[index] = _fit_plateau(pixels, positions, int(index), same, options)
    if options.neighbours == "subtract" and options.threshold <= 0:
        crowd = Crowd(results, positions, pairs, (plateau > 0) | hot.any(axis=(1, 2)), pixels.cut)
        partners = fit_crowds(crowd, options)
    fits = _named(results, options, partners)
    # A centre this far from its candidate, or outside the frame, does not belong to that peak.
    astray = np.maximum(np.abs(fits.row - rows), np.abs(fits.col - cols)) > reach
    outside = (
        (fits.row < -0.5) | (fits.row > frame.shape[0] - 0.5) | (fits.col < -0.5) | (fits.col > frame.shape[1] - 0.5)
    )
    return fits._replace(converged=fits.converged & ~astray & ~outside)


def deviations(fits: PeakFits, rows: ArrayLike, cols: ArrayLike, npeaks: ArrayLike) -> NDArray[np.float64]:
    """Compute the distance of each fitted centre from its candidate pixel, as in the peak files of BraggNN.

    Parameters
    ----------
    fits : PeakFits
        In frame pixels.
    rows, cols : (n,) int
        Candidate pixels.
    npeaks : (n,) int
        Number of peaks in the candidate's connected component.

    Returns
    -------
    (n,) float64
        Distance [px]; -1 if the component has more than one peak, inf if the fit failed.
    """
    distance = np.hypot(fits.row - np.asarray(rows), fits.col - np.asarray(cols))
    return np.where(fits.converged, np.where(np.asarray(npeaks) > 1, -1.0, distance), np.inf)


def _noise(patches: Floats, variance: Floats, options: Fit) -> Floats:
    """Variance of all noise but that of counting [photons^2], (n or 1, size or 1, size or 1).

    `patches` are in photons, `variance` is without the read-out noise [counts^2].
    """
    noise: Floats = (variance + options.read_noise**2) / options.gain**2
    if noise.any():
        return np.ascontiguousarray(noise)
    # Negative counts show noise that no option names: symmetric about zero where there is no background.
    negative = (patches < 0) & np.isfinite(patches)
    squares = np.where(negative, patches, 0) ** 2
    return squares.sum(axis=(1, 2), keepdims=True) / np.maximum(negative.sum(axis=(1, 2), keepdims=True), 1)


def _fit(
    patches: Floats,
    noise: Floats,
    known: Floats,
    starts: Floats | None,
    results: Floats,
    options: Fit,
    search: float | None,
    tolerance: float = _TOLERANCE,
) -> None:
    starts = np.full((1, 7), np.nan) if starts is None else starts
    search = float(patches.shape[1]) if search is None else float(search)
    # Counts are whole multiples of the gain.
    threshold = np.ceil(options.threshold / options.gain) if options.threshold > 0 else -np.inf
    parameters = MODELS[options.model]
    fit_all(patches, known, noise, starts, parameters, search, threshold, tolerance, options.max_iterations, results)


def _named(results: Floats, options: Fit, partners: Floats | None = None) -> PeakFits:
    columns = np.ascontiguousarray(results.T)
    for of_counts in (2, 3, 9, 10):
        columns[of_counts] *= options.gain
    second = np.full((2, len(results)), np.nan) if partners is None else partners.T
    return PeakFits._make([*columns[:15], columns[16], *second, columns[15] == 1.0])


class _Pixels(NamedTuple):
    """A frame, its bad and saturated pixels, and the variance of its noise without read-out [counts^2]."""

    frame: NDArray[Any]
    bad: NDArray[Any]
    saturated: NDArray[np.bool_]
    variance: Floats
    options: Fit

    def cut(self, rows: Pairs, cols: Pairs, size: int) -> tuple[Floats, Floats]:
        """Patches around pixels [photons], NaN where bad, saturated or outside the frame, and their variances."""
        inside, at = _around(rows, cols, size, self.frame.shape)
        good = inside & (self.bad[at] == 0) & ~self.saturated[at]
        patches = np.where(good, self.frame[at], np.nan) / self.options.gain
        return patches, _noise(patches, self.variance[at], self.options)


def _around(
    rows: Pairs, cols: Pairs, size: int, shape: tuple[int, ...]
) -> tuple[NDArray[np.bool_], tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Which pixels of the patches around pixels are inside a frame, and the indices of those pixels or the nearest."""
    reach = np.arange(size) - size // 2
    r, c = rows[:, None, None] + reach[:, None], cols[:, None, None] + reach
    inside = (r >= 0) & (r < shape[0]) & (c >= 0) & (c < shape[1])
    return inside, (np.clip(r, 0, shape[0] - 1), np.clip(c, 0, shape[1] - 1))


def _neighbours(positions: Floats, distance: float) -> Pairs:
    """Ordered pairs (own, other) of positions within a distance along both axes [px]."""
    if not len(positions):
        return np.empty((0, 2), np.intp)
    pairs = cKDTree(positions).query_pairs(distance, p=np.inf, output_type="ndarray")
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    ordered: Pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return ordered


def _plateaus(pixels: _Pixels, positions: Floats) -> NDArray[np.int64]:
    """Return the number of the saturated region that each candidate touches, from 1 on; 0 for none."""
    if not pixels.saturated.any():
        return np.zeros(len(positions), np.int64)
    at_rows, at_cols = positions.astype(np.intp).T
    regions = label(pixels.saturated, np.ones((3, 3)))[0]
    inside, at = _around(at_rows, at_cols, 3, pixels.frame.shape)
    touched: NDArray[np.int64] = np.where(inside, regions[at], 0).max(axis=(1, 2)).astype(np.int64)
    return touched


def _fit_plateau(
    pixels: _Pixels, positions: Floats, index: int, same: NDArray[np.bool_], options: Fit
) -> tuple[Floats, float]:
    """Fit a saturated peak from its flanks, in a patch that is large enough for them; also return a quarter of it.

    `same` marks the candidates on the same plateau, which are a part of this peak.
    """
    place = positions[index : index + 1].astype(np.intp)
    size = options.patch_size
    while True:
        inside, at = _around(place[:, 0], place[:, 1], size, pixels.frame.shape)
        full = pixels.saturated[at] & inside
        if full.mean() <= 0.25 or size >= _LARGEST:
            break
        size = min(2 * size - 1, _LARGEST)
    patches, noise = pixels.cut(place[:, 0], place[:, 1], size)
    near = np.abs(positions - positions[index]).max(axis=1) <= size
    others = np.flatnonzero(near & ~same)
    pairs = np.stack([np.zeros(len(others), np.intp), np.arange(1, len(others) + 1)], axis=1)
    these = np.concatenate([positions[index : index + 1], positions[others]])
    patches = np.where(_of_neighbours(these, pairs, size)[:1], np.nan, patches)
    rows, cols = np.nonzero(full[0])
    level = float(np.max(np.where(full, pixels.frame[at], 0))) / options.gain
    # A plateau is about as wide as the peak, and its top is higher than the level.
    width = max(2.0, 2.0 * np.sqrt(len(rows) / np.pi))
    ground = float(np.nanquantile(patches, 0.2)) if np.isfinite(patches).any() else 0.0
    start = [rows.mean(), cols.mean(), 1.5 * level, max(ground, 0.1), width, width, 0.2]
    result = np.empty((1, COLUMNS))
    _fit(patches, noise, np.zeros((1, size, size)), np.array([start]), result, options, 1.0)
    result[:, :2] += positions[index] - size // 2
    return result[0], size / 4


def _of_neighbours(positions: Floats, pairs: Pairs, size: int) -> NDArray[np.bool_]:
    """Pixels of each patch that are closer to another candidate than to its own."""
    closer = np.zeros((len(positions), size, size), dtype=bool)
    rows, cols = np.mgrid[:size, :size] - size // 2
    for first in range(0, len(pairs), _PAIRS):
        own, other = pairs[first : first + _PAIRS].T
        apart = (positions[other] - positions[own])[:, :, None, None]
        np.logical_or.at(closer, own, 2 * (rows * apart[:, 0] + cols * apart[:, 1]) > (apart**2).sum(axis=1))
    return closer


def _settled(results: Floats, tree: cKDTree, candidates: Pairs) -> NDArray[np.bool_]:
    """Whether each candidate's fit converged and ended closer to it than to any other."""
    converged = results[:, 15] == 1
    nearest = tree.query(np.where(converged[:, None], results[:, :2], 0))[1]
    return converged & (nearest == candidates)


def _refit(results: Floats, patches: Floats, noise: Floats, positions: Floats, pairs: Pairs, options: Fit) -> None:
    """Refit the candidates that have neighbours, with these as known intensity, until the centres converge."""
    size = patches.shape[1]
    crowded = np.unique(pairs[:, 0])
    index = np.searchsorted(crowded, pairs)
    positions, patches, first = positions[crowded], patches[crowded], results[crowded]
    noise = noise[crowded] if len(noise) > 1 else noise
    tree = cKDTree(positions)
    # A fit that ended closer to another candidate found the peak of the latter, which must not be subtracted twice.
    settled = _settled(first, tree, np.arange(len(positions)))
    own, other = index[settled[index].all(axis=1)].T
    unsettled = index[settled[index[:, 0]] & ~settled[index[:, 1]]]
    patches = np.where(_of_neighbours(positions, unsettled, size), np.nan, patches)

    current = first.copy()
    active = np.unique(own)
    for _ in range(_PASSES):
        if not len(active):
            break
        pair = np.isin(own, active)
        new = _with_neighbours(current, active, own[pair], other[pair], patches, noise, positions, options)
        kept = settled[active] & _settled(new, tree, active)
        new = np.where(kept[:, None], new, first[active])
        moved = np.zeros(len(crowded), dtype=bool)
        moved[active] = np.abs(new[:, :2] - current[active, :2]).max(axis=1) > _MOVED
        current[active] = new
        active = np.unique(own[moved[other]])
    results[crowded] = current


def _with_neighbours(
    current: Floats,
    active: Pairs,
    own: Pairs,
    other: Pairs,
    patches: Floats,
    noise: Floats,
    positions: Floats,
    options: Fit,
) -> Floats:
    """Refit the active candidates with the current fits of their neighbours."""
    size = patches.shape[1]
    rows, cols = np.mgrid[:size, :size] - size // 2
    known = np.zeros((len(active), size, size))
    for begin in range(0, len(own), _PAIRS):
        a, b = own[begin : begin + _PAIRS], other[begin : begin + _PAIRS]
        peaks = current[b, :7]
        peaks[:, 3] = 0
        here = positions[a, :, None, None]
        intensity = profile(peaks[:, None, None], here[:, 0] + rows, here[:, 1] + cols)
        np.add.at(known, np.searchsorted(active, a), intensity)
    corner = positions[active] - size // 2
    starts = current[active, :7]
    starts[:, :2] -= corner
    new = np.empty((len(active), COLUMNS))
    _fit(patches[active], noise[active] if len(noise) > 1 else noise, known, starts, new, options, 1.0)
    new[:, :2] += corner
    return new
