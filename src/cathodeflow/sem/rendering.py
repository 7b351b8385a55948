"""Rendered secondary-electron images of layers of secondary particles, as in a composite cathode."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

Floats = NDArray[np.float32]

# Period of the noise that textures the surfaces [px]; particles are smaller.
_TILE = 256
# Candidates per position of the upper layer, and the minimum distance of its particles, in sums of their radii.
_CANDIDATES, _NEAREST = 4, 0.86


class Appearance(NamedTuple):
    """Appearance of particles; lengths in px."""

    diameter: float
    #: Standard deviation of the logarithm of the diameters.
    spread: float
    #: Ratio of the longest to the shortest axis of the most elongated particles.
    elongation: float = 1.1
    #: Irregularity of the outlines, as a fraction of the radius.
    lumps: float = 0.1
    #: Size of the primary particles on the surface, and their height as a fraction of the radius.
    grain: float = 2.0
    roughness: float = 0.1
    #: Fragments per particle.
    fragments: float = 0.5
    #: Fraction of cracked particles, and the width of the cracks.
    cracked: float = 0.0
    crack_width: float = 1.2
    #: Fraction of the gaps that a film fills.
    film: float = 0.0


class Scene(NamedTuple):
    """Emission of secondary electrons (row, col), of mean 0 and standard deviation 1, and what it shows.

    `labels` (row, col) int32: number, from 1 on, of the particle of the upper layer that a pixel shows, else 0;
    `diameters` (particles,): those of circles of equal area, where nothing hides the particles [px].
    """

    emission: Floats
    labels: NDArray[np.int32]
    diameters: NDArray[np.float64]
    particles: int
    mean_diameter: float
    cracked: int


def render(
    appearance: Appearance, *, rows: int, cols: int, focus_blur: float, noise: float, rng: np.random.Generator
) -> Scene:
    """Render an image of particles of one appearance.

    Particles are bodies in a height map: a lower layer, and an upper layer whose particles hardly overlap. Steep
    surfaces emit more electrons; fewer electrons leave the gaps.

    Parameters
    ----------
    appearance : Appearance
    rows, cols : int
        Size of the image [px].
    focus_blur : float
        Standard deviation of a Gaussian blur [px].
    noise : float
        Standard deviation of the noise, as a fraction of that of the image.
    rng : Generator
    """
    radius = appearance.diameter / 2
    surface = np.abs(_noise(rng, appearance.grain))
    warps = [_noise(rng, 0.35 * radius) for _ in range(2)]
    height = 0.1 * radius * gaussian_filter(rng.standard_normal((rows, cols), dtype=np.float32), 1.0)
    height -= 1.6 * radius
    bodies = _population(appearance, rows, cols, rng)
    labels = np.zeros((rows, cols), np.int32)
    numbers = np.where(bodies["upper"], np.cumsum(bodies["upper"]), 0)
    for body, number in zip(bodies, numbers.tolist(), strict=True):
        _add(height, labels, number, body, appearance, surface, warps, rng)
    if appearance.film:
        level = gaussian_filter(rng.standard_normal((rows, cols), dtype=np.float32), 0.8 * radius)
        level *= 0.35 * radius / level.std()
        level += np.quantile(height - level, appearance.film)
        labels[level > height] = 0
        np.maximum(height, level, out=height)
    upper = bodies[bodies["upper"]]
    return Scene(
        emission=_standardised(_emission(height, radius, focus_blur, noise, rng)),
        labels=labels,
        diameters=2 * upper["radius"],
        particles=len(upper),
        mean_diameter=float(2 * upper["radius"].mean()),
        cracked=int(upper["cracked"].sum()),
    )


def _noise(rng: np.random.Generator, size: float) -> Floats:
    """Draw noise with features of a size [px] and standard deviation 1."""
    values = gaussian_filter(rng.standard_normal((_TILE, _TILE), dtype=np.float32), size, mode="wrap")
    # Tiled twice along each axis, so that every window is a slice.
    return np.tile(_standardised(values), (2, 2))


def _standardised(values: Floats) -> Floats:
    return (values - values.mean()) / values.std()


def _population(appearance: Appearance, rows: int, cols: int, rng: np.random.Generator) -> NDArray[np.void]:
    """Draw the particles in drawing order: lower layer, upper layer, fragments."""
    kind = [("row", "f8"), ("col", "f8"), ("radius", "f8"), ("base", "f8"), ("upper", "?"), ("cracked", "?")]
    mean = appearance.diameter / 2
    margin = 1.5 * mean
    places = round((rows + 2 * margin) * (cols + 2 * margin) / (math.pi * mean**2 * math.exp(2 * appearance.spread**2)))
    counts = (places, _CANDIDATES * places, round(appearance.fragments * places))
    bodies = np.zeros(sum(counts), dtype=kind)
    bodies["row"] = rng.uniform(-margin, rows + margin, len(bodies))
    bodies["col"] = rng.uniform(-margin, cols + margin, len(bodies))
    sizes = np.exp(appearance.spread * np.clip(rng.standard_normal(len(bodies)), -2.2, 2.2))
    bodies["radius"] = np.minimum(mean * sizes, (_TILE / 2 - 2) / _reach(appearance, appearance.elongation))
    bodies["cracked"] = rng.random(len(bodies)) < appearance.cracked
    lower, upper, fragments = np.split(bodies, np.cumsum(counts)[:2])
    lower["base"] = -mean * rng.uniform(0.8, 1.3, len(lower))
    upper["base"] = mean * rng.uniform(-0.35, 0.35, len(upper))
    upper["upper"] = True
    fragments["radius"] = mean * rng.uniform(0.15, 0.32, len(fragments))
    fragments["base"] = mean * rng.uniform(-0.7, 0.5, len(fragments))
    fragments["cracked"] = False
    return np.concatenate([lower, _apart(upper, places), fragments])


def _reach(appearance: Appearance, elongation: float) -> float:
    """Return the extent of a body from its centre, in radii; the noise of the outline is hardly ever above 2.5."""
    return float(elongation**0.5 * (1 + 2.5 * appearance.lumps))


def _apart(bodies: NDArray[np.void], most: int) -> NDArray[np.void]:
    """Keep up to `most` bodies, each far enough from those kept before it."""
    places = np.column_stack([bodies["row"], bodies["col"]])
    near = 2 * _NEAREST * bodies["radius"].max()
    pairs = cKDTree(places).query_pairs(near, output_type="ndarray")
    first, second = pairs.min(axis=1), pairs.max(axis=1)
    distance = np.hypot(*(places[first] - places[second]).T)
    close = distance < _NEAREST * (bodies["radius"][first] + bodies["radius"][second])
    order = np.lexsort((first[close], second[close]))
    kept = np.ones(len(bodies), dtype=bool)
    # Sorted by the later body of each pair, so that the earlier one is already decided.
    for earlier, later in zip(first[close][order].tolist(), second[close][order].tolist(), strict=True):
        if kept[earlier]:
            kept[later] = False
    return bodies[np.flatnonzero(kept)[:most]]


def _add(
    height: Floats,
    labels: NDArray[np.int32],
    number: int,
    body: np.void,
    appearance: Appearance,
    surface: Floats,
    warps: list[Floats],
    rng: np.random.Generator,
) -> None:
    """Add one body to the height map in place, textured with a random window of the noise."""
    angle, elongation, turn, shift = rng.random(4).tolist()
    start = rng.integers(_TILE, size=2).tolist()
    radius, row, col = float(body["radius"]), float(body["row"]), float(body["col"])
    elongation = 1 + (appearance.elongation - 1) * elongation
    stretch, reach = elongation**0.5, radius * _reach(appearance, elongation)
    top, bottom = max(int(row - reach), 0), min(int(row + reach) + 2, height.shape[0])
    left, right = max(int(col - reach), 0), min(int(col + reach) + 2, height.shape[1])
    if top >= bottom or left >= right:
        return
    window = (slice(start[0], start[0] + bottom - top), slice(start[1], start[1] + right - left))
    warp_row, warp_col = (np.float32(appearance.lumps) * warp[window] for warp in warps)
    down = ((np.arange(top, bottom, dtype=np.float32) - row) / radius)[:, None] + warp_row
    across = ((np.arange(left, right, dtype=np.float32) - col) / radius)[None] + warp_col
    sine, cosine = math.sin(math.pi * angle), math.cos(math.pi * angle)
    along, aside = (cosine * down + sine * across) / stretch, (cosine * across - sine * down) * stretch
    square = along**2 + aside**2
    rise = np.sqrt(np.maximum(1 - square, 0)) + np.float32(appearance.roughness) * surface[window]
    if body["cracked"]:
        sine, cosine = math.sin(2 * math.pi * turn), math.cos(2 * math.pi * turn)
        crack = cosine * down + sine * across + 0.6 * warp_row - 0.35 * (shift - 0.5)
        rise -= np.exp(-((crack * (radius / appearance.crack_width)) ** 2)) * (np.sqrt(square) < 0.95)
    inside = np.where(square < 1, np.float32(body["base"]) + np.float32(radius) * rise, -np.inf)
    part = height[top:bottom, left:right]
    labels[top:bottom, left:right][inside > part] = number
    np.maximum(part, inside, out=part, casting="same_kind")


def _emission(height: Floats, radius: float, focus_blur: float, noise: float, rng: np.random.Generator) -> Floats:
    down, across = np.gradient(gaussian_filter(height, 0.6))
    steep = np.sqrt(1 + np.minimum(down**2 + across**2, 6.0))
    depth = np.clip((gaussian_filter(height, 0.6 * radius) - height) / radius, -0.6, 1.2)
    # The detector is on one side: slopes that face it are slightly brighter.
    facing = np.clip(across, -1.5, 1.5)
    emission = (0.55 + 0.45 * steep + 0.12 * facing) * np.exp(-1.1 * depth)
    emission = _standardised(gaussian_filter(emission, focus_blur))
    return emission + noise * rng.standard_normal(height.shape, dtype=np.float32)
