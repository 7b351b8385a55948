"""Simulated crystals with strain and their diffraction, one by one or as a stream, with the truth."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bcdi.crystals import (
    HABITS,
    Floats,
    Polyhedron,
    Vectors,
    amplitude,
    bounds,
    draw_polyhedron,
    grid,
    transformed,
    window,
)
from cathodeflow.bcdi.diffraction import Pattern, detector_mask, expected_intensity, measure
from cathodeflow.bcdi.displacement import REGIMES, regime_of
from cathodeflow.bcdi.fields import (
    DISLOCATIONS,
    KINDS,
    Parameters,
    displacement_of,
    draw_direction,
    draw_parameters,
    scaled,
)
from cathodeflow.errors import InputError

# Lattice spacing over the distance of the nearest facet, for crystals that have no unit of length.
_SPACING = 0.02
# Least extent of a crystal [voxel].
_EXTENT = 4


class Crystal(NamedTuple):
    """A crystal in its window, with the centre of its bounding box at n // 2, and what is known of it.

    Attributes
    ----------
    amplitude : (z, y, x) float32
        Share of each voxel that is crystal, 0 to 1.
    phase : (z, y, x) float32
        Of the object [rad]: -Q . u, as atoms displaced by u scatter exp(-i q . (r + u)), the sign of numpy's fftn.
        Not wrapped, of mean 0 in the support; 0 where the amplitude is.
    support : (z, y, x) bool
        At least half of the voxel is crystal.
    phase_range : float
        Largest less least phase in the support [rad].
    regime, kind, habit : str
        Of `REGIMES`, `KINDS` and `HABITS`.
    oversampling : (3,) float64
        Side of the window over the crystal's extent, along each axis.
    """

    amplitude: Floats
    phase: Floats
    support: NDArray[np.bool_]
    phase_range: float
    regime: str
    kind: str
    habit: str
    oversampling: Vectors


class Population(NamedTuple):
    """Crystals of a stream: choices are drawn evenly, and so are numbers, from least to largest."""

    habits: Sequence[str] = tuple(HABITS)
    #: Dislocations are drawn for the regime `extreme` only.
    kinds: Sequence[str] = KINDS
    regimes: Sequence[str] = tuple(REGIMES)
    #: Along the axis with the least. From 2.2 on, the crystal lies within the middle half of 32 voxels or more.
    oversampling: tuple[float, float] = (2.2, 5.0)
    #: Largest ratio of the axes.
    aspect: float = 1.5
    #: Radius of edges over the distance of the nearest facet.
    rounding: tuple[float, float] = (0.05, 0.4)
    #: Correlation length of smooth fields over the crystal's extent.
    correlation: tuple[float, float] = (0.25, 0.6)


class Measurement(NamedTuple):
    """Measurements of a stream; of ranges a number is drawn evenly, of the photons its logarithm."""

    photons: tuple[float, float] = (1e5, 1e8)
    #: Deviation of the Gauss function that the intensity is folded with [voxel].
    coherence: tuple[float, float] = (0.0, 0.4)
    #: Mean counts of a voxel besides.
    background: tuple[float, float] = (0.0, 0.02)
    #: Share of the pixels.
    hot_fraction: float = 0.0
    #: Radius of the beam stop on the peak [px].
    stop_radius: float = 0.0
    #: Width of a gap along the rows and one along the columns, each anywhere outside the middle eighth [px].
    gap: int = 0


class Block(NamedTuple):
    """Crystals n with their measurements.

    Attributes
    ----------
    counts : (n, z, y, x) int32
    good : (n, y, x) bool
        Pixels that are neither blind nor hot.
    amplitude, phase : (n, z, y, x) float32
        Truth, as of `Crystal`.
    photons, phase_range : (n,) float32
    oversampling : (n, 3) float32
    regime, kind, habit : (n,) int8
        Numbers in `REGIMES`, `KINDS` and `HABITS`.
    """

    counts: NDArray[np.int32]
    good: NDArray[np.bool_]
    amplitude: Floats
    phase: Floats
    photons: Floats
    phase_range: Floats
    oversampling: Floats
    regime: NDArray[np.int8]
    kind: NDArray[np.int8]
    habit: NDArray[np.int8]


def crystal(
    rng: np.random.Generator,
    *,
    size: int = 64,
    habit: str = "polyhedron",
    kind: str = "smooth",
    regime: str = "medium",
    phase_range: float | None = None,
    oversampling: float | tuple[float, float, float] = 3.0,
    aspect: float = 1.5,
    rounding: float = 0.2,
    correlation: float = 0.4,
) -> Crystal:
    """Simulate a crystal.

    Parameters
    ----------
    rng : Generator
    size : int
        Side of the window [voxel].
    habit : str
        Of `HABITS`.
    kind : str
        Of `KINDS`.
    regime : str
        Of `REGIMES`, whose range of phase ranges one is drawn from; with a dislocation, from its own on.
    phase_range : float, optional
        This one instead [rad].
    oversampling : float or (float, float, float)
        Side of the window over the crystal's extent: of the axis with the least, or of each axis, for which the
        crystal is stretched. At least 2, and the crystal has at least 4 voxels.
    aspect, rounding
        As of `draw_polyhedron`.
    correlation : float
        Correlation length of the smooth displacement over the crystal's largest extent.

    Raises
    ------
    InputError
        An option is out of its range, or the phase range is less than that of the dislocation.
    """
    drawn = outline(rng, size=size, habit=habit, kind=kind, oversampling=oversampling, aspect=aspect, rounding=rounding,
                    correlation=correlation)  # fmt: skip
    polyhedron, extent = drawn.polyhedron, drawn.extent
    displacement = displacement_of(drawn.parameters, polyhedron)
    where, part = window(grid((size, size, size)), polyhedron)
    share = amplitude(polyhedron, part)
    inside = share >= 0.5
    _, phase = scaled(displacement, part, inside=inside, regime=regime, phase_range=phase_range, rng=rng)
    found = float(np.ptp(phase[inside]))
    around = [(place.start, size - place.stop) for place in where]
    return Crystal(
        amplitude=np.pad(share, around),
        phase=np.pad(np.where(share > 0, -phase, np.float32(0)), around),
        support=np.pad(inside, around),
        phase_range=found,
        regime=regime_of(found),
        kind=kind,
        habit=habit,
        oversampling=size / extent,
    )


class Outline(NamedTuple):
    """A crystal as a polyhedron and the parameters of its displacement, in voxels, with its extent along each axis."""

    polyhedron: Polyhedron
    extent: Vectors
    parameters: Parameters


def outline(
    rng: np.random.Generator,
    *,
    size: int,
    habit: str,
    kind: str,
    oversampling: float | tuple[float, float, float],
    aspect: float,
    rounding: float,
    correlation: float,
) -> Outline:
    """Draw a crystal without its voxels; parameters and errors as of `crystal`."""
    wanted = np.asarray(oversampling, dtype=np.float64)
    if wanted.shape not in ((), (3,)) or not ((wanted >= 2) & (wanted <= size / _EXTENT)).all():
        raise InputError("oversampling", f"{oversampling}", f"2 to {size / _EXTENT:g} at {size} voxels")
    polyhedron = _fitted(draw_polyhedron(rng, habit=habit, aspect=aspect, rounding=rounding), size / wanted)
    extent = np.ptp(bounds(polyhedron), axis=0)
    spacing = _SPACING * polyhedron.distances.min()
    q = 2 * np.pi / spacing * draw_direction(rng)
    parameters = draw_parameters(rng, kind, polyhedron=polyhedron, q=q, length=correlation * extent.max())
    return Outline(polyhedron, extent, parameters)


def block(
    numbers: Sequence[int] | NDArray[np.integer],
    *,
    seed: int,
    size: int = 64,
    population: Population = Population(),  # noqa: B008
    measurement: Measurement = Measurement(),  # noqa: B008
) -> Block:
    """Simulate the crystals of a stream that have these numbers, and measure them.

    A crystal depends on the seed, its number, the size and the population alone, its noise on the measurement too:
    not on the other numbers, so a stream may be cut into blocks at will.

    Raises
    ------
    InputError
        As of `crystal`, `detector_mask` and `measure`, or nothing to choose from.
    """
    found = []
    for number in numbers:
        one, noise = generators(seed, number)
        drawn = draw_crystal(one, size=size, population=population)
        found.append((drawn, *draw_measurement(noise, drawn, measurement=measurement)))
    if not found:
        raise InputError("numbers", "none", "numbers of crystals")
    crystals, patterns, photons = zip(*found, strict=True)
    return Block(
        counts=np.stack([pattern.counts for pattern in patterns]),
        good=np.stack([pattern.good for pattern in patterns]),
        amplitude=np.stack([one.amplitude for one in crystals]),
        phase=np.stack([one.phase for one in crystals]),
        photons=np.array(photons, dtype=np.float32),
        phase_range=np.array([one.phase_range for one in crystals], dtype=np.float32),
        oversampling=np.array([one.oversampling for one in crystals], dtype=np.float32),
        regime=np.array([list(REGIMES).index(one.regime) for one in crystals], dtype=np.int8),
        kind=np.array([KINDS.index(one.kind) for one in crystals], dtype=np.int8),
        habit=np.array([list(HABITS).index(one.habit) for one in crystals], dtype=np.int8),
    )


def generators(seed: int, number: int | np.integer) -> tuple[np.random.Generator, np.random.Generator]:
    """Random numbers of a crystal of a stream, and of its measurement."""
    one, noise = (np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(number), k))) for k in (0, 1))
    return one, noise


def draw_crystal(rng: np.random.Generator, *, size: int, population: Population) -> Crystal:
    """Draw a crystal of a population."""
    regime, options = draw_options(rng, size=size, population=population)
    return crystal(rng, size=size, regime=regime, **options)


def draw_options(rng: np.random.Generator, *, size: int, population: Population) -> tuple[str, dict[str, Any]]:
    """Draw the regime of a crystal of a population, and the other options of `outline`."""
    low, high = population.oversampling
    if not 2 <= low <= high <= size / _EXTENT:
        found = f"{population.oversampling}"
        raise InputError("oversampling", found, f"a range within 2 to {size / _EXTENT:g} at {size} voxels")
    regime = _choice(rng, "regimes", population.regimes)
    kinds = [kind for kind in population.kinds if regime == "extreme" or kind not in DISLOCATIONS]
    return regime, {
        "habit": _choice(rng, "habits", population.habits),
        "kind": _choice(rng, f"kinds for the regime {regime}", kinds),
        "oversampling": _uniform(rng, "oversampling", population.oversampling),
        "aspect": population.aspect,
        "rounding": _uniform(rng, "rounding", population.rounding),
        "correlation": _uniform(rng, "correlation", population.correlation),
    }


def draw_measurement(
    rng: np.random.Generator, one: Crystal, *, measurement: Measurement
) -> tuple[Pattern, float]:  # fmt: skip
    """Measure a crystal; also returns the number of photons that was drawn."""
    exposure = draw_exposure(rng, measurement)
    intensity = expected_intensity(one.amplitude, one.phase, **exposure)
    rows, cols = intensity.shape[1:]
    row_gap, col_gap = (_draw_gap(rng, side, measurement.gap) for side in (rows, cols))
    good = detector_mask((rows, cols), stop_radius=measurement.stop_radius, row_gaps=row_gap, col_gaps=col_gap)
    return measure(intensity, rng=rng, good=good, hot_fraction=measurement.hot_fraction), exposure["photons"]


def draw_exposure(rng: np.random.Generator, measurement: Measurement) -> dict[str, float]:
    """Draw photons, coherence and background of a measurement: options of `diffraction.expected_intensity`."""
    if not 0 < measurement.photons[0] <= measurement.photons[1]:
        raise InputError("photons", f"{measurement.photons}", "a range above 0")
    return {
        "photons": float(np.exp(rng.uniform(*np.log(measurement.photons)))),
        "coherence": _uniform(rng, "coherence", measurement.coherence),
        "background": _uniform(rng, "background", measurement.background),
    }


def _fitted(polyhedron: Polyhedron, extent: NDArray[np.float64]) -> Polyhedron:
    """Polyhedron of these extents; of a single one, the largest is."""
    if extent.ndim == 0:
        return transformed(polyhedron, np.eye(3) * extent / np.ptp(bounds(polyhedron), axis=0).max())
    # The rounding follows the stretching only in the mean, so what is left is stretched again.
    for _ in range(4):
        polyhedron = transformed(polyhedron, np.diag(extent / np.ptp(bounds(polyhedron), axis=0)))
    return transformed(polyhedron, np.eye(3), shift=-bounds(polyhedron).mean(axis=0))


def _choice(rng: np.random.Generator, name: str, among: Sequence[str]) -> str:
    if not len(among):
        raise InputError(name, "none", "something to draw from")
    return among[int(rng.integers(len(among)))]


def _uniform(rng: np.random.Generator, name: str, ends: tuple[float, float]) -> float:
    if not ends[0] <= ends[1]:
        raise InputError(name, f"{ends}", "the lower end first")
    return float(rng.uniform(*ends))


def _draw_gap(rng: np.random.Generator, side: int, width: int) -> list[tuple[int, int]]:
    """Place a gap on one side of the middle eighth."""
    free = side // 2 - side // 16 - width
    if width < 0 or free < 0:
        raise InputError("gap", f"{width} px", f"0 to {side // 2 - side // 16} px at {side} px")
    before = int(rng.integers(free + 1))
    start = before if rng.random() < 0.5 else side - width - before
    return [(start, start + width)] if width else []
