"""Which pairs of spots belong to one particle: a mixture of common motions and chance, fitted to all pairs.

All particles of a reflection move by nearly the same strain when the charge changes, while azimuth and angle of the
sample stay: their pairs form a narrow peak (two where two phases coexist) in the differences, on the even background of
pairs by chance. The mixture is fitted by expectation-maximisation [1]_, and gives every pair its odds.

References
----------
.. [1] A. P. Dempster, N. M. Laird, D. B. Rubin, J. R. Stat. Soc. B 39, 1 (1977)
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_ITERATIONS = 30
# Most motions of one reflection in one step.
_MODES = 3
# A motion is one of at least so many pairs, of this fraction of the spots, and of so many times their chance number.
_PAIRS, _FRACTION, _EXCESS = 4.0, 0.08, 5.0
# Lower limits of intrinsic scatter: fractions of the gates, and of the logarithm of the intensity.
_FLOOR, _INTENSITY_FLOOR = 0.01, 0.1
# Of the pairs of one particle, some differ more than their errors say, where a spot is blended or of few frames: this
# fraction, by a normal distribution so many times as wide.
_TAIL, _WIDER = 0.15, 5.0
# Variance of the logarithm of the intensity ratio of motions that few pairs determine, and their weight in pairs.
_PRIOR_VARIANCE, _PRIOR_WEIGHT = 0.5, 3.0


class Pairs(NamedTuple):
    """Pairs of spots (i, j), and their differences j - i with the variances of their errors, (n,) each.

    `strain`: of the logarithm of the lattice spacing; `azimuth` [deg]; `angle`: of the sample [deg], or frames;
    `intensity`: of the logarithm of the intensity.
    """

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    strain: Floats
    azimuth: Floats
    angle: Floats
    intensity: Floats
    strain_var: Floats
    azimuth_var: Floats
    angle_var: Floats

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> "Pairs":
        """Return some of the pairs."""
        return self._replace(**{name: values[index] for name, values in self._asdict().items()})


class Gates(NamedTuple):
    """Largest differences of pairs: strain, azimuth [deg], angle of the sample [deg] or frames."""

    strain: float
    azimuth: float
    angle: float


class Motion(NamedTuple):
    """A common motion: mean strain, its intrinsic variance, expected number of pairs, and intensity ratio (log)."""

    strain: float
    variance: float
    pairs: float
    intensity: float
    intensity_var: float


class PairModel(NamedTuple):
    """Result of `fit_pairs`: the motions, scatter of azimuth and angle, and the odds of every pair.

    `odds` : (n,) float64, logarithm of the probability that a pair belongs to one particle over that of chance.
    `motion` : (n,) int64, the likeliest motion.
    """

    motions: list[Motion]
    azimuth_var: float
    angle_var: float
    odds: Floats
    motion: NDArray[np.int64]


def fit_pairs(pairs: Pairs, gates: Gates, n_spots: int, *, signed: bool = True) -> PairModel:
    """Fit the mixture of motions and chance to the pairs of one reflection in one step.

    Motions are added one at a time, at the strain with the highest excess of close pairs, as long as they explain
    enough pairs.

    Parameters
    ----------
    pairs : Pairs
    gates : Gates
        The pairs are all those within these differences.
    n_spots : int
        Spots of the reflection at the first state.
    signed : bool
        Whether strains may be negative, as those of a motion; the distance of two phases is not.

    Returns
    -------
    PairModel
        Without motions, the odds are minus infinity.
    """
    count = len(pairs.i)
    nothing = PairModel([], gates.azimuth**2, gates.angle**2, np.full(count, -np.inf), np.zeros(count, np.int64))
    if not count:
        return nothing
    # Pairs far apart in azimuth or angle are chance: their strains show how the spots of the ring are spread.
    far = (np.abs(pairs.azimuth) > 0.5 * gates.azimuth) | (np.abs(pairs.angle) > 0.5 * gates.angle)
    scale = max(float(np.std(pairs.intensity)), 0.5)
    chance = _normal(pairs.intensity - np.median(pairs.intensity), scale**2)
    chance = chance * _spread(pairs.strain[far], pairs.strain, gates.strain, signed) / (4 * gates.azimuth * gates.angle)
    azimuth_var, angle_var = (
        max((gate / 10) ** 2, 4 * float(np.median(variance)))
        for gate, variance in ((gates.azimuth, pairs.azimuth_var), (gates.angle, pairs.angle_var))
    )
    motions: list[Motion] = []
    taken = np.zeros(count)
    best = nothing
    for _ in range(_MODES):
        start = _start(pairs, 1 - taken, gates, azimuth_var, angle_var, far, signed)
        trial = _maximise(pairs, [*motions, start], chance, gates, azimuth_var, angle_var)
        if not _worthwhile(pairs, trial, gates, n_spots, pairs.strain[far] if far.any() else pairs.strain):
            break
        best = trial
        motions, azimuth_var, angle_var = trial.motions, trial.azimuth_var, trial.angle_var
        taken = 1 / (1 + np.exp(-np.clip(trial.odds, -50, 50)))
    return best


def _start(
    pairs: Pairs,
    free: Floats,
    gates: Gates,
    azimuth_var: float,
    angle_var: float,
    far: NDArray[np.bool_],
    signed: bool,
) -> Motion:
    """Return a motion at the strain with most pairs that agree in azimuth and angle, beyond those of chance."""
    close = free * np.exp(-0.5 * (pairs.azimuth**2 / azimuth_var + pairs.angle**2 / angle_var))
    width = max(0.02 * gates.strain, 2 * float(np.sqrt(np.median(pairs.strain_var))))
    grid = np.arange(-gates.strain, gates.strain + width / 4, width / 2)
    density = np.zeros(len(grid))
    for first in range(0, len(pairs.i), 4096):
        part = slice(first, first + 4096)
        density += (close[part, None] * np.exp(-0.5 * ((pairs.strain[part, None] - grid) / width) ** 2)).sum(axis=0)
    # Pairs that are far apart in azimuth or angle are three quarters of those of chance.
    by_chance = 4 / 3 * far.sum() * 2 * np.pi * np.sqrt(azimuth_var * angle_var) / (4 * gates.azimuth * gates.angle)
    by_chance = by_chance * _spread(pairs.strain[far], grid, gates.strain, signed) * np.sqrt(2 * np.pi) * width
    at = float(grid[np.argmax((density - by_chance) / np.sqrt(by_chance + 1))])
    near = close * np.exp(-0.5 * ((pairs.strain - at) / width) ** 2)
    intensity = float(np.sum(near * pairs.intensity) / max(near.sum(), 1e-12))
    return Motion(at, width**2, max(float(near.sum()), 1.0), intensity, _PRIOR_VARIANCE)


def _maximise(
    pairs: Pairs, motions: list[Motion], chance: Floats, gates: Gates, azimuth_var: float, angle_var: float
) -> PairModel:
    count = len(pairs.i)
    for iteration in range(_ITERATIONS + 1):
        azimuth, azimuth_core = _density(pairs.azimuth, azimuth_var + pairs.azimuth_var)
        angle, angle_core = _density(pairs.angle, angle_var + pairs.angle_var)
        strains = [_density(pairs.strain - motion.strain, motion.variance + pairs.strain_var) for motion in motions]
        intensities = [_density(pairs.intensity - motion.intensity, motion.intensity_var) for motion in motions]
        likelihood = np.array(
            [
                motion.pairs * azimuth * angle * strain[0] * intensity[0]
                for motion, strain, intensity in zip(motions, strains, intensities, strict=True)
            ]
        )
        by_chance = max(count - sum(motion.pairs for motion in motions), 0.02 * count) * chance
        total = likelihood.sum(axis=0)
        if iteration == _ITERATIONS:
            break
        part = likelihood / (total + by_chance)
        weight = part.sum(axis=0)
        azimuth_var = _scatter(pairs.azimuth, pairs.azimuth_var, weight * azimuth_core, _FLOOR * gates.azimuth)
        angle_var = _scatter(pairs.angle, pairs.angle_var, weight * angle_core, _FLOOR * gates.angle)
        motions = [
            _updated(pairs, weights, strain[1], intensity[1], gates)
            for weights, strain, intensity in zip(part, strains, intensities, strict=True)
        ]
    with np.errstate(divide="ignore"):
        odds = np.log(total) - np.log(np.maximum(by_chance, 1e-300))
    return PairModel(motions, azimuth_var, angle_var, odds, np.argmax(likelihood, axis=0))


def _updated(pairs: Pairs, weight: Floats, strain_core: Floats, intensity_core: Floats, gates: Gates) -> Motion:
    core = weight * strain_core
    strain = float(np.sum(core * pairs.strain) / max(float(core.sum()), 1e-12))
    variance = _scatter(pairs.strain - strain, pairs.strain_var, core, _FLOOR * gates.strain)
    core = weight * intensity_core
    total = float(core.sum())
    intensity = float(np.sum(core * pairs.intensity) / max(total, 1e-12))
    squares = float(np.sum(core * (pairs.intensity - intensity) ** 2)) + _PRIOR_WEIGHT * _PRIOR_VARIANCE
    spread = max(squares / (total + _PRIOR_WEIGHT), _INTENSITY_FLOOR**2)
    return Motion(strain, variance, max(float(weight.sum()), 1e-12), intensity, spread)


def _scatter(difference: Floats, variance: Floats, weight: Floats, floor: float) -> float:
    """Return the intrinsic variance of differences beyond that of their errors."""
    excess = float(np.sum(weight * (difference**2 - variance)) / max(float(weight.sum()), 1e-12))
    return max(excess, floor**2)


def _spread(far: Floats, strain: Floats, gate: float, signed: bool) -> Floats:
    """Return the density of the strains of chance pairs at `strain`, from those of pairs far apart otherwise."""
    even = 1 / (2 * gate if signed else gate)
    if len(far) < 10:
        return np.full(len(strain), even)
    width = 1.06 * max(float(np.std(far)), 0.01 * gate) * len(far) ** -0.2
    edges = np.linspace(-gate, gate, 201)
    counts, _ = np.histogram(far, edges)
    step, middle = edges[1] - edges[0], 0.5 * (edges[1:] + edges[:-1])
    kernel = np.exp(-0.5 * ((middle[:, None] - middle) / max(width, step)) ** 2)
    density = (kernel / kernel.sum(axis=0)) @ counts / (len(far) * step)
    return 0.9 * np.interp(strain, middle, density) + 0.1 * even


def _worthwhile(pairs: Pairs, model: PairModel, gates: Gates, n_spots: int, far: Floats) -> bool:
    """Whether every motion explains enough pairs, and more than chance would put there."""
    for motion in model.motions:
        strain, azimuth, angle = (
            2 * float(np.sqrt(intrinsic + np.median(errors)))
            for intrinsic, errors in (
                (motion.variance, pairs.strain_var),
                (model.azimuth_var, pairs.azimuth_var),
                (model.angle_var, pairs.angle_var),
            )
        )
        fraction = float(np.mean(np.abs(far - motion.strain) < strain))
        fraction *= min(azimuth / gates.azimuth, 1.0) * min(angle / gates.angle, 1.0)
        # Of all pairs: a motion as wide as the gates would explain chance itself.
        by_chance = fraction * len(pairs.i)
        if motion.pairs < max(min(_PAIRS, 0.5 * n_spots), _FRACTION * n_spots, _EXCESS * by_chance):
            return False
    return bool(model.motions)


def _density(difference: Floats, variance: Floats | float) -> tuple[Floats, Floats]:
    """Return the density of differences of one particle, with wide tails, and the part that is not of the tails."""
    core = (1 - _TAIL) * _normal(difference, variance)
    density = core + _TAIL * _normal(difference, _WIDER**2 * variance)
    return density, core / np.maximum(density, 1e-300)


def _normal(difference: Floats, variance: Floats | float) -> Floats:
    density: Floats = np.exp(-0.5 * difference**2 / variance) / np.sqrt(2 * np.pi * variance)
    return density
