"""Levenberg-Marquardt kernels for the Poisson likelihood of peak profiles, one or several to a patch, compiled.

All compiled functions stand in this one file because numba's on-disk cache is checked against the file of the outermost
function only.
"""

import math

import numpy as np
from numba import njit, prange

N = 7
# Patches that one thread fits one after the other.
BLOCK = 64
#: Parameters of each peak of a joint fit: centre [px], amplitude, full widths [px], mixing.
PER_PEAK = 6
#: The same, and the skew of an ellipse whose axes are not those of the detector.
PER_TURNED_PEAK = 7
LN2 = math.log(2.0)
# No `nnan` and `ninf`: NaN marks pixels that are left out.
FAST = {"reassoc", "contract", "arcp", "nsz"}
# All functions that `fit_all` and `maximise_jointly` call are compiled into them. If they were compiled separately, the
# process that compiles them would use another version than processes that read the cache, with another order of
# summation: the last bits of the results would depend on which process compiled.
# Rows of the work array: pixel coordinates, counts and their reciprocal, threshold where the counts lie below it (0
# elsewhere), known intensity, Gaussian, 1 / expected, weight, weighted residual, threshold of every pixel, the
# derivatives by each parameter, and one of those times the weight.
ROW, COL, COUNTS, RECIPROCAL, THRESHOLD, KNOWN, GAUSS, INVERSE, WEIGHT, RESIDUAL, CUT = range(11)
JACOBIAN = 11
# Expected counts at which a Poisson count reaches the threshold with a probability below exp(-CERTAIN) are certain to
# lie below it.
CERTAIN = 30.0
WEIGHTED = JACOBIAN + N
WORK = WEIGHTED + 1


@njit(forceinline=True)
def _copy(source, target):
    """Copy one or two dimensions: unlike `target[:] = source`, without the seconds that numba needs for its errors."""
    for i, value in enumerate(source.flat):
        target.flat[i] = value


@njit(forceinline=True)
def _gather(patch, known, variance, threshold, work):
    """List the finite pixels in `work`; return their number, the largest count, the sum, and how many hold counts."""
    size = patch.shape[0]
    n, highest, total, bright = 0, 0.0, 0.0, 0
    for i in range(size):
        for j in range(size):
            value = float(patch[i, j])
            noise = variance[i % variance.shape[0], j % variance.shape[1]]
            if math.isfinite(value) and math.isfinite(known[i, j]) and math.isfinite(noise):
                # Counts plus the variance of their other noise are nearly Poisson about (expected + variance). Without
                # such noise, a negative count has no likelihood.
                below = value < threshold
                bright += value > 0.0 and not below
                value = (threshold if below else value) + noise
                if noise == 0.0:
                    value = max(value, 0.0)
                work[ROW, n], work[COL, n], work[COUNTS, n], work[KNOWN, n] = i, j, value, known[i, j] + noise
                work[RECIPROCAL, n] = 1.0 / value if value > 0.0 else 1.0
                work[THRESHOLD, n] = value if below else 0.0
                work[CUT, n] = threshold + noise
                if not below:
                    highest = max(highest, value)
                    total += value
                n += 1
    return n, highest, total, bright


@njit(forceinline=True)
def _start(work, n, size, search, grid, x):
    """Start values: background from the border's lower quartile, the rest from the region above half maximum.

    The brightest pixel is searched after smoothing by (1, 2, 1) / 4 along both axes, so that one noisy pixel does not
    decide; the widths are corrected for that smoothing.
    """
    grid[:, :] = 0.0
    border = grid[2].ravel()
    m = 0
    lowest = np.inf
    for p in range(n):
        value = work[COUNTS, p] - work[THRESHOLD, p] - work[KNOWN, p]
        lowest = min(lowest, value)
        i, j = int(work[ROW, p]), int(work[COL, p])
        if i == 0 or j == 0 or i == size - 1 or j == size - 1:
            k = m
            while k > 0 and border[k - 1] > value:
                border[k] = border[k - 1]
                k -= 1
            border[k] = value
            m += 1
    background = max(border[m // 4] if m >= 4 else lowest, 0.0)

    image, smooth = grid[0], grid[1]
    for p in range(n):
        i, j = int(work[ROW, p]), int(work[COL, p])
        image[i + 1, j + 1] = work[COUNTS, p] - work[THRESHOLD, p] - work[KNOWN, p] - background
    for i in range(1, size + 1):
        for j in range(size + 2):
            smooth[i, j] = image[i - 1, j] + 2.0 * image[i, j] + image[i + 1, j]
    top, nearest, row, col = -np.inf, np.inf, 0, 0
    centre = 0.5 * (size + 1)
    for i in range(1, size + 1):
        for j in range(1, size + 1):
            value = (smooth[i, j - 1] + 2.0 * smooth[i, j] + smooth[i, j + 1]) / 16.0
            image[i, j] = value
            distance = abs(i - centre) + abs(j - centre)
            if max(abs(i - centre), abs(j - centre)) > search:
                continue
            if value > top or (value == top and distance < nearest):
                top, nearest, row, col = value, distance, i, j
    reach = max(2, size // 3)
    total = mean_row = mean_col = var_row = var_col = 0.0
    for i in range(max(1, row - reach), min(size, row + reach) + 1):
        for j in range(max(1, col - reach), min(size, col + reach) + 1):
            if image[i, j] >= 0.5 * top:
                r, c = i - row, j - col
                total += 1.0
                mean_row += r
                mean_col += c
                var_row += r * r
                var_col += c * c
    total = max(total, 1.0)
    mean_row /= total
    mean_col /= total
    # A filled ellipse with full axis w has variance w^2 / 16; 2.77 = 8 ln 2 * 0.5 is the square FWHM of the smoothing.
    broad_row = 16.0 * (var_row / total - mean_row**2 + 1.0 / 12.0)
    broad_col = 16.0 * (var_col / total - mean_col**2 + 1.0 / 12.0)
    width_row = math.sqrt(max(broad_row - 2.77, 1.0))
    width_col = math.sqrt(max(broad_col - 2.77, 1.0))
    x[0], x[1] = row - 1 + mean_row, col - 1 + mean_col
    x[2] = top * math.sqrt((width_row**2 + 2.77) * (width_col**2 + 2.77)) / (width_row * width_col)
    x[3], x[4], x[5] = background, width_row, width_col


@njit(forceinline=True)
def _censor(n, work):
    """Replace the terms of pixels below the threshold by the probability to lie there; return the deviance's change.

    With C = P(N < T), T the threshold and e the expected counts: d log C / de = -h, h = P(N = T - 1) / C, whose inverse
    is the finite sum 1 + (T - 1) / e + (T - 1) (T - 2) / e^2 + ... The weight of all pixels is their expected
    information, that of the cases N < T and N >= T together: C h (h + (T - 1) / e - 1) + (1 - C + C h) / e.
    """
    change = 0.0
    for p in range(n):
        cut, inverse = work[CUT, p], work[INVERSE, p]
        expected, below = 1.0 / inverse, work[THRESHOLD, p] > 0.0
        log_probability, hazard, information = 0.0, 0.0, inverse
        if cut > expected and cut * math.log(cut * inverse) - cut + expected > CERTAIN:
            information = 0.0
        elif below or expected - cut < 8.0 * math.sqrt(expected):
            total, term, j = 1.0, 1.0, cut - 1.0
            while j > 0.0 and term > 1e-12 * total:
                term *= j * inverse
                total += term
                j -= 1.0
            hazard = 1.0 / total
            log_probability = (cut - 1.0) * math.log(expected) - expected - math.lgamma(cut) + math.log(total)
            log_probability = min(log_probability, 0.0)
            probability = math.exp(log_probability)
            information = probability * hazard * (hazard + (cut - 1.0) * inverse - 1.0)
            information += max(1.0 - probability + probability * hazard, 0.0) * inverse
        work[WEIGHT, p] = max(information, 0.0)
        if below:
            counts = work[COUNTS, p]
            change -= expected - counts - counts * math.log(expected * work[RECIPROCAL, p]) + log_probability
            work[RESIDUAL, p] = hazard
    return change


@njit(fastmath=FAST, forceinline=True)
def _normal_equations(x, k, n, size, censored, work, axes, gradient, fisher):
    """Half the Poisson deviance at `x`; its gradient and Fisher matrix are written.

    Laurence & Chromy, Nature Methods 7, 338 (2010), eq. 3, with the expected curvature (weights 1 / expected) in place
    of counts / expected^2: it stays positive where the counts are zero, and its inverse is the Cramer-Rao bound.
    With a threshold, `_censor` replaces the terms of the pixels below it. The loops are many and short because only
    such loops become vector instructions.
    """
    row, col, amplitude, background, mixing = x[0], x[1], x[2], x[3], x[6]
    per_row, per_col = 1.0 / x[4], 1.0 / x[5]
    gauss_row, gauss_col = axes[0], axes[1]
    for i in range(size):
        u, v = (i - row) * per_row, (i - col) * per_col
        gauss_row[i] = math.exp(-4.0 * LN2 * u * u)
        gauss_col[i] = math.exp(-4.0 * LN2 * v * v)
    rows, cols, counts, reciprocal, known = work[ROW], work[COL], work[COUNTS], work[RECIPROCAL], work[KNOWN]
    gauss, inverse = work[GAUSS], work[INVERSE]
    weight, residual = work[WEIGHT], work[RESIDUAL]
    by_row_centre, by_col_centre, by_amplitude = work[JACOBIAN], work[JACOBIAN + 1], work[JACOBIAN + 2]
    by_background, by_row_width, by_col_width = work[JACOBIAN + 3], work[JACOBIAN + 4], work[JACOBIAN + 5]
    by_mixing = work[JACOBIAN + 6]
    for p in range(n):
        gauss[p] = gauss_row[int(rows[p])] * gauss_col[int(cols[p])]
    by_row, by_col = 8.0 * amplitude * per_row, 8.0 * amplitude * per_col
    for p in range(n):
        u, v = (rows[p] - row) * per_row, (cols[p] - col) * per_col
        lorentz = 1.0 / (1.0 + 4.0 * (u * u + v * v))
        shape = mixing * lorentz + (1.0 - mixing) * gauss[p]
        slope = mixing * lorentz * lorentz + (1.0 - mixing) * LN2 * gauss[p]
        expected = amplitude * shape + background + known[p]
        inverse[p] = 1.0 / expected
        weight[p] = inverse[p]
        residual[p] = (expected - counts[p]) * weight[p]
        slope_row, slope_col = by_row * slope * u, by_col * slope * v
        by_row_centre[p], by_col_centre[p] = slope_row, slope_col
        by_amplitude[p], by_background[p] = shape, 1.0
        by_row_width[p], by_col_width[p] = slope_row * u, slope_col * v
        by_mixing[p] = amplitude * (lorentz - gauss[p])
    deviance = 0.0
    for p in range(n):
        expected = 1.0 / inverse[p]
        term = expected - counts[p] - counts[p] * math.log(expected * reciprocal[p])
        deviance += term
    if censored:
        deviance += _censor(n, work)
    for a in range(k):
        by_a, weighted = work[JACOBIAN + a], work[WEIGHTED]
        total = 0.0
        for p in range(n):
            total += by_a[p] * residual[p]
        gradient[a] = total
        for p in range(n):
            weighted[p] = by_a[p] * weight[p]
        for b in range(a + 1):
            by_b = work[JACOBIAN + b]
            total = 0.0
            for p in range(n):
                total += weighted[p] * by_b[p]
            fisher[a, b] = total
            fisher[b, a] = total
    return deviance


@njit(forceinline=True)
def _cholesky(matrix, fixed, damping, k, factor):
    """Lower factor of the matrix with its diagonal raised by `damping`; fixed rows are those of the unit matrix."""
    for a in range(k):
        for b in range(a + 1):
            total = matrix[a, b]
            if fixed[a] or fixed[b]:
                total = 1.0 if a == b else 0.0
            elif a == b:
                total *= 1.0 + damping
            floor = 1e-12 * total
            for m in range(b):
                total -= factor[a, m] * factor[b, m]
            if a == b:
                if not total > floor:
                    return False
                factor[a, a] = math.sqrt(total)
            else:
                factor[a, b] = total / factor[b, b]
    return True


@njit(forceinline=True)
def _solve(factor, k, y):
    """Solve (factor factor^T) y = y in place."""
    for a in range(k):
        for m in range(a):
            y[a] -= factor[a, m] * y[m]
        y[a] /= factor[a, a]
    for a in range(k - 1, -1, -1):
        for m in range(a + 1, k):
            y[a] -= factor[m, a] * y[m]
        y[a] /= factor[a, a]


@njit(forceinline=True)
def _step(gradient, fisher, damping, lowest, highest, k, fixed, factor, step):
    """Damped scoring step inside a box: parameters that would leave it stay there; the others are solved again."""
    for a in range(k):
        fixed[a] = (
            not fisher[a, a] > 0.0
            or (lowest[a] >= 0.0 and gradient[a] > 0.0)
            or (highest[a] <= 0.0 and gradient[a] < 0.0)
        )
    step[:] = 0.0
    clipped = np.zeros(N)
    for _ in range(k + 1):
        if not _cholesky(fisher, fixed, damping, k, factor):
            return False
        for a in range(k):
            step[a] = clipped[a]
            if not fixed[a]:
                step[a] = -gradient[a]
                for b in range(k):
                    step[a] -= fisher[a, b] * clipped[b]
        _solve(factor, k, step)
        inside = True
        for a in range(k):
            if not fixed[a] and not lowest[a] <= step[a] <= highest[a]:
                clipped[a] = min(max(step[a], lowest[a]), highest[a])
                inside = False
        for a in range(k):
            fixed[a] = fixed[a] or clipped[a] != 0.0
        if inside:
            return True
    return False


@njit(forceinline=True)
def _fit(
    patch, known, variance, start, k, search, threshold, tolerance, max_iterations, work, grid, axes, small, fixed, out
):
    """Fit one patch; `out` gets the columns of `fit_all`."""
    size = patch.shape[0]
    out[:] = np.nan
    n, brightest, total, bright = _gather(patch, known, variance, threshold, work)
    censored = threshold > 0.0
    out[2 * N + 1], out[2 * N + 2], out[2 * N + 3] = 0.0, bright, n
    if n <= k or brightest == 0.0:
        return
    fisher, trial_fisher, factor = small[0], small[1], small[2]
    x, trial, gradient, trial_gradient, step = small[3, 0], small[3, 1], small[3, 2], small[3, 3], small[3, 4]
    lower, upper, lowest, highest = small[3, 5], small[3, 6], small[4, 0], small[4, 1]
    limit = small[4, 2]

    # With a background of exactly 0, one stray count would have a likelihood of zero.
    floor = 1e-8 * brightest
    lower[0] = lower[1] = -0.5
    upper[0] = upper[1] = size - 0.5
    lower[2], upper[2] = 0.0, np.inf
    lower[3], upper[3] = floor, np.inf
    # The pixel itself is 1 px wide: below this the height and the centre of a narrow peak cannot be separated.
    lower[4] = lower[5] = 0.8
    upper[4] = upper[5] = 2.0 * size
    lower[6], upper[6] = 0.0, 1.0
    if math.isfinite(start[0]):
        _copy(start, x)
    else:
        _start(work, n, size, search, grid, x)
        x[6] = 0.5
    if k < N:
        x[6] = 0.0
    if not x[2] > 0.0:
        return
    for a in range(N):
        x[a] = min(max(x[a], lower[a]), upper[a])

    deviance, damping, growth = math.inf, 0.01, 4.0
    decrement = curvature = 0.0
    first, last, converged, ended, iterations = True, False, False, False, 0
    # Decrements below the second value are rounding errors of the deviance.
    shortest = max(tolerance * tolerance, 1e-14 * total)
    _copy(x, trial)
    while True:
        # The one place of this call: it is inlined, and each copy costs seconds of compilation.
        found = _normal_equations(trial, k, n, size, censored, work, axes, trial_gradient, trial_fisher)
        if ended:
            break
        accepted = first or found <= deviance
        if accepted:
            if not first:
                # Nielsen's rule (IMM-REP-1999-05): damping follows the accuracy of the quadratic model.
                gain = (deviance - found) / (decrement - 0.5 * curvature + 1e-300)
                damping *= min(max(1.0 - (2.0 * gain - 1.0) ** 3, 0.1), 2.0)
                growth = 4.0
            _copy(trial, x)
            _copy(trial_gradient, gradient)
            _copy(trial_fisher, fisher)
            deviance = found
        else:
            damping *= growth
            growth *= 2.0
        first = False
        converged = ended = last
        # Far from the optimum the quadratic model is valid only for moderate changes.
        limit[0], limit[1], limit[2], limit[3] = 0.5 * x[4], 0.5 * x[5], np.inf, np.inf
        limit[4], limit[5], limit[6] = 0.5 * x[4], 0.5 * x[5], 0.5
        for a in range(N):
            lowest[a] = max(lower[a] - x[a], -limit[a])
            highest[a] = min(upper[a] - x[a], limit[a])
        moved = False
        while not (moved or ended):
            ended = iterations == max_iterations
            if not ended:
                iterations += 1
                moved = _step(gradient, fisher, damping, lowest, highest, k, fixed, factor, step)
                if not moved:
                    damping = max(growth * damping, 1e-6)
                    growth *= 2.0
                    ended = damping > 1e9
        _copy(x, trial)
        if ended:
            if accepted:
                break
            # Once more at `x`, so that the terms of the pixels are those of the optimum.
            continue
        decrement = curvature = 0.0
        for a in range(k):
            trial[a] = min(max(x[a] + step[a], lower[a]), upper[a])
            decrement -= gradient[a] * step[a]
            for b in range(k):
                curvature += step[a] * fisher[a, b] * step[b]
        # The decrement is the squared length of the step in standard errors.
        last = decrement * (1.0 + damping) < shortest
    if not x[2] > 0.0:
        return
    for a in range(2):
        converged = converged and lower[a] < x[a] < upper[a]
    _copy(x, out[:N])

    chi2 = 0.0
    used = 0
    for p in range(n):
        # Near the threshold, the counts above it are a selection.
        if not censored or 1.0 / work[INVERSE, p] - work[CUT, p] > 3.0 / math.sqrt(work[INVERSE, p]):
            chi2 += (work[COUNTS, p] * work[INVERSE, p] - 1.0) ** 2 / work[INVERSE, p]
            used += 1
    if used > k:
        out[2 * N] = chi2 / (used - k)
    for a in range(N):
        fixed[a] = not fisher[a, a] > 0.0
    if _cholesky(fisher, fixed, 0.0, k, factor):
        for a in range(k):
            step[:] = 0.0
            step[a] = 1.0
            _solve(factor, k, step)
            if not fixed[a]:
                out[N + a] = math.sqrt(step[a])
        if k < N:
            out[2 * N - 1] = 0.0
    # Without an error, or with no more pixels of counts than parameters, the optimum says nothing.
    converged = converged and bright > k
    for a in range(k):
        converged = converged and math.isfinite(out[N + a])
    out[2 * N + 1] = converged


@njit(parallel=True, cache=True, nogil=True)
def fit_all(patches, known, variances, starts, k, search, threshold, tolerance, max_iterations, results):
    """Fit every patch; each result depends on its own patch only, so not on the number of threads.

    Parameters
    ----------
    patches : (n, size, size) float64
        Counts; pixels that are not finite are left out.
    known : (1 or n, size, size) float64
        Known intensity in addition to the peak [counts/px].
    variances : (1 or n, 1 or size, 1 or size) float64
        Variance of the noise other than that of counting, such as read-out noise [counts^2].
    starts : (1 or n, 7) float64
        Start values; NaN for those found from the patch.
    k : int
        Number of free parameters: 7, or 6 with the mixing held at 0.
    search : float
        Maximum distance from the patch centre, along either axis, at which the start value of the peak is searched
        [px].
    threshold : float
        Counts below it are censored: only known to be below it. Not positive: none are.
    tolerance : float
        Length of the last step [standard errors].
    max_iterations : int
    results : (n, 18) float64
        Output: parameters, standard errors, reduced chi-square, converged, pixels with counts above 0 and the
        threshold, all pixels of the fit.
    """
    n, size = patches.shape[0], patches.shape[1]
    block = BLOCK
    for chunk in prange((n + block - 1) // block):
        work = np.empty((WORK, size * size))
        grid = np.empty((3, size + 2, size + 2))
        axes = np.empty((2, size))
        small = np.zeros((5, N, N))
        fixed = np.zeros(N, np.bool_)
        for i in range(chunk * block, min(n, (chunk + 1) * block)):
            _fit(
                patches[i],
                known[i % known.shape[0]],
                variances[i % variances.shape[0]],
                starts[i % starts.shape[0]],
                k,
                search,
                threshold,
                tolerance,
                max_iterations,
                work,
                grid,
                axes,
                small,
                fixed,
                results[i],
            )


@njit(forceinline=True)
def _joint_equations(x, pixels, n, per_peak, slopes, gradient, fisher):
    """Half the Poisson deviance at `x`; its gradient and Fisher matrix are written.

    Turned ellipses have u^2 + v^2 + 2 skew u v in place of u^2 + v^2; with a skew of 0 every bit is that of the others.
    """
    k = x.size
    gradient[:] = 0.0
    fisher[:, :] = 0.0
    deviance = 0.0
    slopes[0] = 1.0
    for p in range(n):
        row, col, counts, expected = pixels[0, p], pixels[1, p], pixels[2, p], x[0] + pixels[3, p]
        for first in range(1, k, per_peak):
            skew = x[first + 6] if per_peak > PER_PEAK else 0.0
            u, v = (row - x[first]) / x[first + 3], (col - x[first + 1]) / x[first + 4]
            q = 4.0 * (u * u + v * v + 2.0 * skew * u * v)
            amplitude, mixing = x[first + 2], x[first + 5]
            lorentz, gauss = 1.0 / (1.0 + q), math.exp(-LN2 * q)
            shape = mixing * lorentz + (1.0 - mixing) * gauss
            slope = 8.0 * amplitude * (mixing * lorentz * lorentz + (1.0 - mixing) * LN2 * gauss)
            by_row, by_col = slope * (u + skew * v) / x[first + 3], slope * (v + skew * u) / x[first + 4]
            expected += amplitude * shape
            slopes[first], slopes[first + 1], slopes[first + 2] = by_row, by_col, shape
            slopes[first + 3], slopes[first + 4] = by_row * u, by_col * v
            slopes[first + 5] = amplitude * (lorentz - gauss)
            if per_peak > PER_PEAK:
                slopes[first + 6] = -slope * u * v
        weight = 1.0 / expected
        residual = (expected - counts) * weight
        deviance += expected - counts - counts * math.log(expected / counts if counts > 0.0 else expected)
        for i in range(k):
            gradient[i] += slopes[i] * residual
            weighted = slopes[i] * weight
            for j in range(i + 1):
                fisher[i, j] += weighted * slopes[j]
    for i in range(k):
        for j in range(i):
            fisher[j, i] = fisher[i, j]
    return deviance


@njit(forceinline=True)
def _damped_step(gradient, fisher, fixed, damping, factor, step):
    """Solve for the damped step by Cholesky's method; False where the matrix is not positive."""
    k = gradient.size
    if not _cholesky(fisher, fixed, damping, k, factor):
        return False
    for a in range(k):
        step[a] = 0.0 if fixed[a] else -gradient[a]
    _solve(factor, k, step)
    return True


@njit(cache=True, nogil=True)
def maximise_jointly(windows, known, x, low, high, per_peak, iterations, tolerance, deviance, converged):
    """Fit several peaks on one background to each window.

    Parameters
    ----------
    windows, known : (n, size, size) float64
        Counts, and known intensity in addition to the peaks [photons/px]; pixels that are not finite are left out.
    x : (n, 1 + per_peak m) float64
        Background, then the parameters of each peak: start values, replaced by the result.
    low, high : (1 + per_peak m,) float64
        Limits of the parameters.
    per_peak : int
        `PER_PEAK`, or `PER_TURNED_PEAK`.
    iterations : int
    tolerance : float
        Length of the last step [standard errors].
    deviance, converged : (n,) float64, bool
        Output: half the Poisson deviance, and whether the fit ended with so short a step.
    """
    size, k = windows.shape[1], x.shape[1]
    pixels, slopes, fixed = np.empty((4, size * size)), np.empty(k), np.zeros(k, np.bool_)
    gradient, trial_gradient, step, trial = np.empty(k), np.empty(k), np.empty(k), np.empty(k)
    fisher, trial_fisher, factor = np.empty((k, k)), np.empty((k, k)), np.zeros((k, k))
    for w in range(windows.shape[0]):
        n, brightest = 0, 1.0
        for i in range(size):
            for j in range(size):
                if math.isfinite(windows[w, i, j]) and math.isfinite(known[w, i, j]):
                    pixels[0, n], pixels[1, n], pixels[2, n], pixels[3, n] = i, j, windows[w, i, j], known[w, i, j]
                    brightest = max(brightest, windows[w, i, j])
                    n += 1
        # With a background of exactly 0, one stray count would have a likelihood of zero.
        floor = 1e-8 * brightest
        at = x[w]
        for a in range(k):
            at[a] = min(max(at[a], floor if a == 0 else low[a]), high[a])
        value = _joint_equations(at, pixels, n, per_peak, slopes, gradient, fisher)
        damping = 1e-2
        for _ in range(iterations):
            for a in range(k):
                bottom = floor if a == 0 else low[a]
                fixed[a] = (
                    (at[a] <= bottom and gradient[a] > 0.0)
                    or (at[a] >= high[a] and gradient[a] < 0.0)
                    or high[a] <= bottom
                    or not fisher[a, a] > 0.0
                )
            better = False
            length = math.inf
            if _damped_step(gradient, fisher, fixed, damping, factor, step):
                for a in range(k):
                    # Far from the optimum the quadratic model is valid only for moderate changes.
                    kind = (a - 1) % per_peak
                    if a > 0 and kind != 2:
                        first = a - kind
                        limit = 0.5 if kind >= 5 else 0.25 * (at[first + 3] + at[first + 4])
                        step[a] = min(max(step[a], -limit), limit)
                    trial[a] = min(max(at[a] + step[a], floor if a == 0 else low[a]), high[a])
                found = _joint_equations(trial, pixels, n, per_peak, slopes, trial_gradient, trial_fisher)
                better = found <= value
                if better:
                    length = 0.0
                    for a in range(k):
                        for b in range(k):
                            length += (trial[a] - at[a]) * fisher[a, b] * (trial[b] - at[b])
                    value = found
                    _copy(trial, at)
                    _copy(trial_gradient, gradient)
                    _copy(trial_fisher, fisher)
            damping = damping / 5.0 if better else damping * 6.0
            if length < tolerance * tolerance:
                converged[w] = True
                break
            if damping > 1e9:
                break
        deviance[w] = value
