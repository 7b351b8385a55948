"""Lattice parameters of a population of particles in every state and phase, by robust weighted least squares.

The logarithm of a measured spacing is that of the population's cell in this state and phase, plus an offset of the
track that is the same in all states (position along the beam, own lattice), plus the particle's own way through the
charge, plus the error of measurement:

    ln d = ln d_hkl(a, c) + o + e,   o ~ N(0, tau^2),   e ~ N(0, w_a^2 kappa_a^2 + w_c^2 kappa_c^2 + sigma^2),

with the weights w of the lattice parameters in ln d_hkl, as particles differ in their lattice parameters.

This is a linear mixed model (N. M. Laird, J. H. Ware, Biometrics 38, 963, 1982) after Gauss-Newton linearisation.
The scatters tau and kappa (of each state and phase) are estimated from the residuals with the median absolute
deviation, and outliers are given less weight (P. J. Huber, Ann. Math. Stat. 35, 73, 1964). As the offsets are common
to all states, the changes of the lattice parameters are known much better than these themselves.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from cathodeflow.cells import log_spacing

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Standard deviation of the prior of a logarithmic lattice parameter about the given cell: cells change by per cents.
PRIOR = 0.05
#: A parameter counts as determined if its error is below this fraction of the prior's, which then has at most a
#: twenty-fifth of the weight.
DETERMINED = 0.2
# Residuals beyond so many standard deviations have less weight, and beyond the second none.
_HUBER, _CUT = 2.0, 8.0
_MAD = 1.4826
_SMALLEST = 1e-8
# Rows at which the scatter of a group has half the weight of its own.
_FEW = 10
# Resamples that are computed at once.
_TOGETHER = 100


class Spacings(NamedTuple):
    """Spacings of tracks in the states, (n,) each.

    Attributes
    ----------
    track : int64
        0 to the number of tracks.
    group : int64
        Number of the state and phase.
    log_d, error : float64
        Logarithm of d [Angstrom] and its standard error, which is the relative one of d.
    """

    track: Ints
    group: Ints
    log_d: Floats
    error: Floats

    def take(self, chosen: NDArray[np.bool_] | Ints) -> "Spacings":
        """Take some of the rows."""
        return Spacings(self.track[chosen], self.group[chosen], self.log_d[chosen], self.error[chosen])


class Population(NamedTuple):
    """Cells of all groups.

    Attributes
    ----------
    log_parameters : (g, p) float64
        Logarithms of the lattice parameters [Angstrom].
    covariance : (g p, g p) float64
        Of all of them.
    offset_scatter : float
        Standard deviation tau of the offsets of tracks.
    scatter : (g, p) float64
        Standard deviations kappa of the logarithmic lattice parameters of particles in a group.
    """

    log_parameters: Floats
    covariance: Floats
    offset_scatter: float
    scatter: Floats

    @property
    def determined(self) -> NDArray[np.bool_]:
        """Whether the tracks determine a parameter of a group, (g, p)."""
        errors = np.sqrt(np.diag(self.covariance)).reshape(self.log_parameters.shape)
        return np.asarray(errors < DETERMINED * PRIOR)

    def take(self, groups: Ints) -> "Population":
        """Take some of the groups."""
        count, p = self.log_parameters.shape
        blocks = self.covariance.reshape(count, p, count, p)[groups][:, :, groups]
        size = len(groups) * p
        return Population(
            self.log_parameters[groups], blocks.reshape(size, size), self.offset_scatter, self.scatter[groups]
        )


class Prior(NamedTuple):
    """What is known of the cells before the measurement.

    Attributes
    ----------
    centre : (p,) float64
        Logarithms of the given lattice parameters.
    width : (g,) float64
        Standard deviation of those of each group about them.
    """

    centre: Floats
    width: Floats


class _Normal(NamedTuple):
    """Parts of the normal equations: of each row, and of each track what its unknown offset takes away."""

    blocks: Floats
    gradient: Floats
    track_gradient: Floats
    track_residual: Floats
    track_weight: Floats


def start(log_parameters: Floats, offset_scatter: float, scatter: float) -> Population:
    """Begin a population with cells (g, p) and the scatter of offsets and of lattice parameters."""
    size = log_parameters.size
    return Population(log_parameters, np.zeros((size, size)), offset_scatter, np.full(log_parameters.shape, scatter))


def fit_population(
    spacings: Spacings, parts: Floats, before: Population, prior: Prior, *, iterations: int = 40
) -> tuple[Population, Floats]:
    """Fit the cells of all groups.

    Parameters
    ----------
    spacings : Spacings
        Of tracks with known hkl.
    parts : (n, p) float64
        Coefficients of 1/d^2 of each row's reflection.
    before : Population
        Where to start.
    prior : Prior
    iterations : int
        Maximum number of iterations.

    Returns
    -------
    population : Population
    weights : (n,) float64
        Weight of each row, 1 except for outliers.
    """
    log_p, tau, kappa = before.log_parameters.copy(), before.offset_scatter, before.scatter.copy()
    n_tracks = int(spacings.track.max()) + 1 if len(spacings.track) else 0
    weights, track_weights = np.ones(len(spacings.track)), np.ones(n_tracks)
    for _ in range(iterations):
        normal = _normal(spacings, parts, log_p, tau / np.sqrt(track_weights), kappa, weights)
        matrix, gradient = _equations(normal, spacings, log_p, prior, np.ones((1, n_tracks)))
        step = np.linalg.solve(matrix[0], gradient[0]).reshape(log_p.shape)
        log_p = log_p + step
        log_d, slopes = log_spacing(parts, log_p[spacings.group])
        residual, variance = spacings.log_d - log_d, variances(spacings, slopes, kappa)
        offset = offsets(spacings, residual, tau, variance, weights, n_tracks)
        rest = residual - offset[spacings.track]
        weights = _robust(rest / np.sqrt(variance), cut=_CUT)
        track_weights = _robust(offset / max(tau, _SMALLEST), cut=np.inf)
        new_kappa = _scatters(spacings, slopes, rest, kappa)
        new_tau = max(_MAD * float(np.median(np.abs(offset))), _SMALLEST) if n_tracks > 2 else tau
        done = np.abs(step).max() < 1e-9 and np.allclose(new_kappa, kappa, rtol=1e-2, atol=1e-7)
        kappa, tau = new_kappa, new_tau
        if done:
            break
    normal = _normal(spacings, parts, log_p, tau / np.sqrt(track_weights), kappa, weights)
    matrix, _ = _equations(normal, spacings, log_p, prior, np.ones((1, n_tracks)))
    return Population(log_p, np.linalg.inv(matrix[0]), tau, kappa), weights


def resampled_cells(
    spacings: Spacings, parts: Floats, population: Population, weights: Floats, prior: Prior, *, drawn: Floats
) -> Floats:
    """Cells of the population with resampled tracks, by one Gauss-Newton step from the fit.

    Parameters
    ----------
    spacings, parts, population, weights, prior
        Those of `fit_population` and what it returned.
    drawn : (s, tracks) float64
        How often each track is drawn.

    Returns
    -------
    (s, g, p) float64
        Logarithms of the lattice parameters.
    """
    log_p, n_tracks = population.log_parameters, drawn.shape[1]
    tau = np.full(n_tracks, population.offset_scatter)
    normal = _normal(spacings, parts, log_p, tau, population.scatter, weights)
    found = []
    for first in range(0, len(drawn), _TOGETHER):
        matrix, gradient = _equations(normal, spacings, log_p, prior, drawn[first : first + _TOGETHER])
        found.append(np.linalg.solve(matrix, gradient[..., None])[..., 0].reshape(-1, *log_p.shape))
    return log_p + np.concatenate(found)


def variances(spacings: Spacings, slopes: Floats, kappa: Floats) -> Floats:
    """Variance (n,) of ln d about the population's, from errors of measurement and the scatter (g, p) of particles."""
    return np.asarray(np.square(spacings.error) + np.sum(np.square(slopes * kappa[spacings.group]), axis=-1))


def offsets(
    spacings: Spacings, residual: Floats, tau: float, variance: Floats, weights: Floats, n_tracks: int
) -> Floats:
    """Best linear unbiased prediction of the offsets (tracks,) from residuals (n,) of the population's spacings."""
    precision = weights / variance
    total = np.bincount(spacings.track, precision, n_tracks)
    return np.asarray(np.bincount(spacings.track, precision * residual, n_tracks) / (total + max(tau, _SMALLEST) ** -2))


def _normal(spacings: Spacings, parts: Floats, log_p: Floats, tau: Floats, kappa: Floats, weights: Floats) -> _Normal:
    groups, p = log_p.shape
    log_d, slopes = log_spacing(parts, log_p[spacings.group])
    precision = weights / variances(spacings, slopes, kappa)
    residual, n_tracks = spacings.log_d - log_d, len(tau)
    weighted = slopes * precision[:, None]
    track_gradient = np.zeros((n_tracks, groups, p))
    np.add.at(track_gradient, (spacings.track, spacings.group), weighted)
    total = np.bincount(spacings.track, precision, n_tracks)
    track_residual = np.bincount(spacings.track, precision * residual, n_tracks)
    return _Normal(
        np.einsum("ni,nj->nij", weighted, slopes),
        weighted * residual[:, None],
        track_gradient.reshape(n_tracks, groups * p),
        np.asarray(track_residual, np.float64),
        1 / (total + np.maximum(tau, _SMALLEST) ** -2),
    )


def _equations(
    normal: _Normal, spacings: Spacings, log_p: Floats, prior: Prior, times: Floats
) -> tuple[Floats, Floats]:
    """Matrices (s, m, m) and right sides (s, m) of the normal equations, with tracks that count `times` (s, tracks)."""
    groups, p = log_p.shape
    size, samples = groups * p, len(times)
    matrix, gradient = np.zeros((samples, size, size)), np.zeros((samples, size))
    for group in range(groups):
        rows = np.flatnonzero(spacings.group == group)
        counted, part = times[:, spacings.track[rows]], slice(group * p, (group + 1) * p)
        matrix[:, part, part] = (counted @ normal.blocks[rows].reshape(-1, p * p)).reshape(-1, p, p)
        gradient[:, part] = counted @ normal.gradient[rows]
    for number, count in enumerate(times):
        taken = normal.track_gradient * (count * normal.track_weight)[:, None]
        matrix[number] -= taken.T @ normal.track_gradient
        gradient[number] -= taken.T @ normal.track_residual
    diagonal = np.arange(size)
    known = np.repeat(prior.width**-2.0, p)
    matrix[:, diagonal, diagonal] += known
    gradient += known * (prior.centre - log_p).ravel()
    return matrix, gradient


def _robust(standardised: Floats, *, cut: float) -> Floats:
    """Weights of Huber of standardised residuals; 0 beyond `cut`."""
    size = np.abs(standardised)
    return np.where(size > cut, 0.0, np.minimum(1.0, _HUBER / np.maximum(size, _HUBER)))


def _scatters(spacings: Spacings, slopes: Floats, rest: Floats, kappa: Floats) -> Floats:
    """Scatter (g, p) of the lattice parameters, from the squared residuals by non-negative least squares.

    Groups with few rows are drawn towards the median of all groups.
    """
    rows_of_track = np.bincount(spacings.track)[spacings.track]
    # The offset of a track takes one of its degrees of freedom.
    freedom = 1 - 1 / np.maximum(rows_of_track, 1)
    variance = variances(spacings, slopes, kappa)
    # Squares are cut at nine variances, which takes 1.4 % from their mean if they are normal.
    squares = np.minimum(np.square(rest) / np.maximum(freedom, 0.5), 9 * variance) / 0.986
    found, count = np.square(kappa), np.zeros(len(kappa))
    for group in range(len(kappa)):
        rows = np.flatnonzero((spacings.group == group) & (freedom > 0))
        count[group] = len(rows)
        if len(rows) >= 3:
            excess = squares[rows] - np.square(spacings.error[rows])
            found[group], _ = nnls(np.square(slopes[rows]) / variance[rows, None], excess / variance[rows])
    typical = np.median(found[count >= 3], axis=0) if (count >= 3).any() else found.mean(axis=0)
    few = (count / (count + _FEW))[:, None]
    return np.asarray(np.sqrt(np.maximum(few * found + (1 - few) * typical, _SMALLEST**2)))
