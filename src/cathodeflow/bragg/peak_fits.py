"""Maximum-likelihood fits of peak profiles, with subpixel positions and standard errors."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cathodeflow.bragg.least_squares import fit_all
from cathodeflow.bragg.options import Fit
from cathodeflow.bragg.profiles import MODELS, profile
from cathodeflow.errors import InputError

# Limits the memory of float64 copies of patches of other types.
_BLOCK = 16384
_PAIRS = 4096
# Maximum number of passes over overlapping peaks, and shift of a centre below which it has converged [px].
_PASSES = 30
_MOVED = 1e-3
# Step length at which a fit has converged [standard errors].
_TOLERANCE = 0.01

Floats = NDArray[np.float64]
Pairs = NDArray[np.intp]


class PeakFits(NamedTuple):
    """Fitted peaks, one entry each, (n,) float64 except `converged` (n,) bool.

    A fit that did not converge has the values of its last iteration, or NaN if nothing could be fitted: not more finite
    pixels than parameters, no counts, or no pixel above the background.

    `row`, `col` : centre [px]. `amplitude` : height above the background [counts]. `background` [counts/px].
    `fwhm_row`, `fwhm_col` : full widths at half maximum [px]. `mixing` : Lorentzian fraction, 0 for `gaussian`.
    `*_err` : standard errors, in the same units, from the inverse Fisher matrix of all parameters at the fitted values.
    `chi2` : reduced Pearson chi-square. `converged` : the fit ended at an optimum with its centre inside the patch.
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
    converged: NDArray[np.bool_]


def fit_peaks(
    patches: ArrayLike, options: Fit, *, search: float | None = None, tolerance: float = _TOLERANCE
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
        `threshold`: pixels below it are censored. They contribute to the likelihood where the model is above it, as
        counts equal to it; treated as zeros they increase the error of the centre up to three times. `read_noise`: its
        square is added to the counts and to the model, whose sum is nearly Poisson [2]_. Counts that are still
        negative are set to zero: set the read-out noise if a dark image was subtracted, or the background is too high.
        `patch_size` and `neighbours` are only used by `fit_frame`.
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
    results = np.empty((len(patches), 16))
    for first in range(0, len(patches), _BLOCK):
        block = np.ascontiguousarray(patches[first : first + _BLOCK], dtype=np.float64)
        _fit(block, none, None, results[first : first + _BLOCK], options, search, tolerance)
    return _named(results)


def fit_frame(
    frame: NDArray[np.floating], rows: ArrayLike, cols: ArrayLike, options: Fit, *, mask: ArrayLike | None = None
) -> PeakFits:
    """Fit the peaks of one frame at its candidate pixels.

    A patch is fitted around each candidate as by `fit_peaks`, without masked pixels, pixels outside the frame, and
    pixels closer to another candidate. With `neighbours="subtract"`, candidates with others within the side of a patch
    are then refitted with the latter pixels: the fitted neighbours are part of the model as known intensity
    (subtracting them from the counts would distort their statistics), until the centres converge. The standard errors
    assume that the neighbours are exact. If the refit fails or ends closer to another candidate, the first fit is kept.

    Parameters
    ----------
    frame : (row, col) real
        Counts; pixels that are not finite are left out.
    rows, cols : (n,) int
        Candidate pixels, inside the frame.
    options : Fit
    mask : (row, col) bool or integer, optional
        Pixels other than 0 are left out.

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
    if frame.ndim != 2 or bad.shape != frame.shape:
        raise InputError("frame", f"shape {frame.shape}, mask {bad.shape}", "two axes, and a mask of the same shape")
    if rows.shape != cols.shape or rows.ndim != 1:
        raise InputError("candidates", f"rows {rows.shape}, cols {cols.shape}", "two lists of equal length")
    if len(rows) and not (
        0 <= rows.min() <= rows.max() < frame.shape[0] and 0 <= cols.min() <= cols.max() < frame.shape[1]
    ):
        raise InputError("candidates", "pixels outside the frame", f"pixels inside {frame.shape}")
    positions = np.stack([rows, cols], axis=1).astype(np.float64)
    patches = _cut(frame, bad, rows.astype(np.intp), cols.astype(np.intp), size)
    pairs = (
        cKDTree(positions).query_pairs(size, p=np.inf, output_type="ndarray")
        if len(positions)
        else np.empty((0, 2), int)
    )
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    none = np.zeros((1, size, size))
    results = np.empty((len(positions), 16))
    _fit(np.where(_of_neighbours(positions, pairs, size), np.nan, patches), none, None, results, options, 1.0)
    results[:, :2] += positions - size // 2
    if options.neighbours == "subtract" and len(pairs):
        _refit(results, patches, positions, pairs, options)
    fits = _named(results)
    # A centre this far from its candidate, or outside the frame, does not belong to that peak.
    astray = np.maximum(np.abs(fits.row - rows), np.abs(fits.col - cols)) > size / 4
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


def _fit(
    patches: Floats,
    known: Floats,
    starts: Floats | None,
    results: Floats,
    options: Fit,
    search: float | None,
    tolerance: float = _TOLERANCE,
) -> None:
    starts = np.full((1, 7), np.nan) if starts is None else starts
    search = float(patches.shape[1]) if search is None else float(search)
    threshold = options.threshold if options.threshold > 0 else -np.inf
    variance = options.read_noise**2
    parameters = MODELS[options.model]
    fit_all(patches, known, starts, parameters, search, threshold, variance, tolerance, options.max_iterations, results)


def _named(results: Floats) -> PeakFits:
    columns = np.ascontiguousarray(results.T)
    return PeakFits._make([*columns[:15], columns[15] == 1.0])


def _cut(frame: NDArray[Any], bad: NDArray[Any], rows: Pairs, cols: Pairs, size: int) -> Floats:
    """Patches around pixels, NaN where bad or outside the frame; only the pixels of the patches are read."""
    reach = np.arange(size) - size // 2
    r, c = rows[:, None, None] + reach[:, None], cols[:, None, None] + reach
    inside = (r >= 0) & (r < frame.shape[0]) & (c >= 0) & (c < frame.shape[1])
    at = (np.clip(r, 0, frame.shape[0] - 1), np.clip(c, 0, frame.shape[1] - 1))
    return np.where(inside & (bad[at] == 0), frame[at], np.nan)


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


def _refit(results: Floats, patches: Floats, positions: Floats, pairs: Pairs, options: Fit) -> None:
    """Refit the candidates that have neighbours, with these as known intensity, until the centres converge."""
    size = patches.shape[1]
    crowded = np.unique(pairs[:, 0])
    index = np.searchsorted(crowded, pairs)
    positions, patches, first = positions[crowded], patches[crowded], results[crowded]
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
        new = _with_neighbours(current, active, own[pair], other[pair], patches, positions, options)
        kept = settled[active] & _settled(new, tree, active)
        new = np.where(kept[:, None], new, first[active])
        moved = np.zeros(len(crowded), dtype=bool)
        moved[active] = np.abs(new[:, :2] - current[active, :2]).max(axis=1) > _MOVED
        current[active] = new
        active = np.unique(own[moved[other]])
    results[crowded] = current


def _with_neighbours(
    current: Floats, active: Pairs, own: Pairs, other: Pairs, patches: Floats, positions: Floats, options: Fit
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
    new = np.empty((len(active), 16))
    _fit(patches[active], known, starts, new, options, 1.0)
    new[:, :2] += corner
    return new
