"""Label volumes of simulated electrodes: packed particles, binder at their contacts and as films, pores between."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from cathodeflow.errors import InputError
from cathodeflow.fibsem.slice_options import Simulate

Floats = NDArray[np.float32]
Points = NDArray[np.float64]

#: Labels of the phases.
PORE, ACTIVE, BINDER = 0, 1, 2
#: Names of the phases, in the order of the labels.
PHASES = ("pore", "active", "binder")

# Sweeps of pushing overlapping particles apart; more hardly change the packing.
_SWEEPS = 40
# Distance from a particle, as a fraction of the mean radius, up to which it is computed.
_REACH = 1.0
# Factor between the reach of binder at contacts of particles and as a film.
_FILM = 3.0
# Fraction of the sum of their radii by which neighbouring particles may overlap.
_OVERLAP = 0.1


def generate(
    shape: tuple[int, int, int],
    options: Simulate,
    *,
    elongation: float = 1.5,
    roughness: float = 0.06,
    patchiness: float = 0.12,
    seed: int,
) -> NDArray[np.uint8]:
    """Generate the label volume of a three-phase electrode.

    Ellipsoids of many sizes are packed and grown together until they reach their volume fraction. Binder then fills the
    remaining voxels that are nearest to two particles at once (contacts) and, in patches, to one particle (films).

    Parameters
    ----------
    shape : (int, int, int)
        Slices, rows, columns [px].
    options : Simulate
        Volume fractions, which are met to a voxel, and the range of diameters [px], which are evenly distributed.
    elongation : float
        Ratio of the longest to the shortest axis of the most elongated particles.
    roughness : float
        Roughness of the particle surface, as a fraction of the mean radius.
    patchiness : float
        Irregularity of the binder films, as a fraction of the mean radius.
    seed : int
        Random seed; that of the options is not used.

    Returns
    -------
    (slice, row, col) uint8
        0 pore, 1 active, 2 binder.

    Raises
    ------
    InputError
        The fractions are negative or do not add up to 1, or the diameters are not a range.

    Examples
    --------
    >>> labels = generate((16, 32, 32), Simulate(diameter=(8, 12)), seed=0)
    >>> [round(float((labels == phase).mean()), 2) for phase in (PORE, ACTIVE, BINDER)]
    [0.14, 0.6, 0.26]
    """
    fractions, (small, large) = options.fractions, options.diameter
    _require(fractions, small, large)
    rng = np.random.default_rng(seed)
    mean = (small + large) / 4
    centres, radii = _packed(shape, fractions[ACTIVE], small, large, rng)
    nearest, second = _distances(shape, centres, radii, elongation, _REACH * mean, rng)
    nearest += roughness * mean * _noise(shape, 0.25 * mean, rng)
    size = nearest.size
    labels = np.full(size, PORE, dtype=np.uint8)
    n_active = round(fractions[ACTIVE] * size)
    n_binder = min(round(fractions[BINDER] * size), size - n_active)
    chosen = np.argpartition(nearest, n_active - 1, axis=None)[:n_active] if n_active else np.array([], dtype=np.intp)
    labels[chosen] = ACTIVE
    surface = _highest(nearest, chosen)
    film = _FILM * (nearest - surface) + patchiness * mean * _noise(shape, 0.3 * mean, rng)
    score = np.minimum(second - surface, film, out=second).reshape(-1)
    score[chosen] = np.inf
    if n_binder:
        labels[np.argpartition(score, n_binder - 1)[:n_binder]] = BINDER
    return labels.reshape(shape)


def _require(fractions: Sequence[float], small: float, large: float) -> None:
    if len(fractions) != len(PHASES) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        expected = f"non-negative fractions of {', '.join(PHASES)} with the sum 1"
        raise InputError("fractions", ", ".join(f"{fraction:g}" for fraction in fractions), expected)
    if not 2 <= small <= large:
        raise InputError("diameter", f"{small:g} to {large:g} px", "at least 2 px, the minimum first")


def _highest(values: Floats, chosen: NDArray[np.intp]) -> float:
    """Return the maximum of the chosen values: the level of the surface of the grown particles."""
    return float(values.reshape(-1)[chosen].max()) if chosen.size else 0.0


def _packed(
    shape: tuple[int, int, int], fraction: float, small: float, large: float, rng: np.random.Generator
) -> tuple[Points, Points]:
    """Place spheres at random and push neighbours apart: centres (n, 3) and radii (n,) [px].

    Some stick out of the volume, so that its border cuts particles as a section through an electrode does.
    """
    margin = large / 2
    low, high = np.full(3, -margin), np.array(shape) + margin
    # The mean volume of a sphere whose diameter is evenly distributed.
    volume = math.pi / 6 * (small**2 + large**2) * (small + large) / 4
    count = max(1, round(fraction * float(np.prod(high - low)) / volume))
    centres = rng.uniform(low, high, (count, 3))
    radii = rng.uniform(small, large, count) / 2
    for _ in range(_SWEEPS):
        pairs = cKDTree(centres).query_pairs(2 * (1 - _OVERLAP) * float(radii.max()), output_type="ndarray")
        first, second = pairs.T
        between = centres[second] - centres[first]
        distance = np.maximum(np.linalg.norm(between, axis=1), 1e-6)
        excess = np.maximum((1 - _OVERLAP) * (radii[first] + radii[second]) - distance, 0)
        push = between * (0.5 * excess / distance)[:, None]
        for axis in range(3):
            centres[:, axis] += np.bincount(second, push[:, axis], count) - np.bincount(first, push[:, axis], count)
        np.clip(centres, low, high, out=centres)
    return centres, radii


def _distances(
    shape: tuple[int, int, int],
    centres: Points,
    radii: Points,
    elongation: float,
    reach: float,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Distance [px] of every voxel from the nearest particle, below 0 inside, and mean of those from the nearest two.

    Both stop at `reach`. The distance from an ellipsoid is measured in units of its mean radius, near enough here.
    """
    nearest = np.full(shape, reach, dtype=np.float32)
    second = nearest.copy()
    turns = Rotation.from_quat(rng.standard_normal((len(centres), 4))).as_matrix()
    ratios = rng.uniform(1, elongation, len(centres)) ** (1 / 3)
    middle = rng.uniform(-1, 1, len(centres))
    for centre, radius, turn, ratio, between in zip(centres, radii, turns, ratios, middle, strict=True):
        # Longest over shortest axis is ratio**3; the volume is that of the sphere.
        exponents = np.array([1.5, -1.5, 0.0]) + between * np.array([-0.5, -0.5, 1.0])
        axes = radius * ratio**exponents
        half = np.sqrt(((turn * (axes * (1 + reach / radius))) ** 2).sum(axis=1))
        start = np.maximum(np.floor(centre - half).astype(int), 0)
        stop = np.minimum(np.ceil(centre + half).astype(int) + 1, shape)
        if (start >= stop).any():
            continue
        window = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        distance = _ellipsoid(centre, (turn / axes).astype(np.float32), start, stop)
        distance -= 1
        distance *= np.float32(radius)
        old, runner_up = nearest[window], second[window]
        np.minimum(runner_up, np.maximum(old, distance), out=runner_up)
        np.minimum(old, distance, out=old)
    second += nearest
    second /= 2
    return nearest, second


def _ellipsoid(centre: Points, matrix: Floats, start: NDArray[np.intp], stop: NDArray[np.intp]) -> Floats:
    """Distance from the centre in units of the half axes: 1 on the surface. `matrix`: (axis of space, half axis)."""
    steps = [np.arange(a, b, dtype=np.float32) - np.float32(c) for a, b, c in zip(start, stop, centre, strict=True)]
    square = np.zeros([len(step) for step in steps], dtype=np.float32)
    for column in matrix.T:
        part = steps[0][:, None, None] * column[0] + steps[1][:, None] * column[1] + steps[2] * column[2]
        square += part * part
    return np.sqrt(square, out=square)


def _noise(shape: tuple[int, int, int], size: float, rng: np.random.Generator) -> Floats:
    """Draw noise with features of a size [px] and standard deviation 1."""
    values = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), size, mode="wrap", truncate=3)
    deviation = values.std()
    return values / deviation if deviation else values
