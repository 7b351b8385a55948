"""Maximum-likelihood fits of peak profiles, with subpixel positions and standard errors."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cathodeflow.bragg.crowded_fits import Crowd, fit_crowds, hot_pixels, unexplained
from cathodeflow.bragg.neighbour_fits import refit_neighbours
from cathodeflow.bragg.patch_fits import (
    COLUMNS,
    TOLERANCE,
    Floats,
    Pairs,
    Pixels,
    fit_patches,
    noise_of,
    of_neighbours,
)
from cathodeflow.bragg.peak_options import Fit
from cathodeflow.bragg.saturated_fits import find_plateaus, fit_plateau
from cathodeflow.errors import InputError

# Limits the memory of float64 copies of patches of other types.
_BLOCK = 16384


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
    tolerance: float = TOLERANCE,
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
    >>> from cathodeflow.bragg.profiles import profile
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
        noise = noise_of(block, np.full((1, 1, 1), variance), options)
        part = results[first : first + _BLOCK]
        fit_patches(block, noise, none, None, part, options, search, tolerance)
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
    and where one peak does not explain the counts, a turned ellipse (`rotation="auto"`) or a second peak takes its
    place, if the Bayesian information criterion prefers it (`crowded_fits.fit_crowds`); not with a threshold.

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
    pixels = Pixels(frame, bad, full, np.broadcast_to(np.asarray(variance, np.float64), frame.shape), options)
    patches, noise = pixels.cut(rows, cols, size)
    pairs = _neighbours(positions, size)
    none = np.zeros((1, size, size))
    results = np.empty((len(positions), COLUMNS))
    alone = np.where(of_neighbours(positions, pairs, size), np.nan, patches)
    fit_patches(alone, noise, none, None, results, options, 1.0)
    hot = np.zeros(patches.shape, bool)
    doubtful = np.flatnonzero(~(results[:, 15] == 1) | unexplained(results, options))
    hot[doubtful] = hot_pixels(alone[doubtful])
    if hot.any():
        patches[hot], alone[hot] = np.nan, np.nan
        again = np.flatnonzero(hot.any(axis=(1, 2)))
        part = np.empty((len(again), COLUMNS))
        fit_patches(alone[again], noise[again], none, None, part, options, 1.0)
        results[again] = part
    results[:, :2] += positions - size // 2
    reach = np.full(len(positions), size / 4)
    partners = np.full((len(positions), 2), np.nan)
    if options.neighbours == "subtract" and len(pairs):
        refit_neighbours(results, patches, noise, positions, pairs, options)
    plateau = find_plateaus(pixels, positions)
    for index in np.flatnonzero(plateau):
        same = (plateau == plateau[index]) | (np.arange(len(plateau)) == index)
        results[index], reach[index] = fit_plateau(pixels, positions, int(index), same, options)
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


def _named(results: Floats, options: Fit, partners: Floats | None = None) -> PeakFits:
    columns = np.ascontiguousarray(results.T)
    for of_counts in (2, 3, 9, 10):
        columns[of_counts] *= options.gain
    second = np.full((2, len(results)), np.nan) if partners is None else partners.T
    return PeakFits._make([*columns[:15], columns[16], *second, columns[15] == 1.0])


def _neighbours(positions: Floats, distance: float) -> Pairs:
    """Ordered pairs (own, other) of positions within a distance along both axes [px]."""
    if not len(positions):
        return np.empty((0, 2), np.intp)
    pairs = cKDTree(positions).query_pairs(distance, p=np.inf, output_type="ndarray")
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    ordered: Pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return ordered
