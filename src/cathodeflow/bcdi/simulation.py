"""Simulated strained crystals and their diffraction patterns, with the truth."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.bcdi.crystals import HABITS, Vectors, draw_polyhedron
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
from cathodeflow.bcdi.polyhedra import Floats, Polyhedron, amplitude, bounds, grid, transformed, window
from cathodeflow.bcdi.simulation_options import Simulate
from cathodeflow.errors import InputError

# Lattice spacing relative to the distance of the nearest facet, for crystals without a unit of length.
_SPACING = 0.02
# Minimum extent of a crystal [voxel].
_EXTENT = 4


class Crystal(NamedTuple):
    """A crystal in its window, with the centre of its bounding box at n // 2, and its properties.

    Attributes
    ----------
    amplitude : (z, y, x) float32
        Fraction of each voxel that is crystal, 0 to 1.
    phase : (z, y, x) float32
        Phase of the object [rad]: -Q . u, as atoms displaced by u scatter exp(-i q . (r + u)), the sign of numpy's
        fftn. Not wrapped, with mean 0 in the support; 0 where the amplitude is 0.
    support : (z, y, x) bool
        True where at least half of the voxel is crystal.
    phase_range : float
        Maximum minus minimum phase in the support [rad].
    regime, kind, habit : str
        Of `REGIMES`, `KINDS` and `HABITS`.
    oversampling : (3,) float64
        Side of the window relative to the extent of the crystal, along each axis.
    """

    amplitude: Floats
    phase: Floats
    support: NDArray[np.bool_]
    phase_range: float
    regime: str
    kind: str
    habit: str
    oversampling: Vectors


class Block(NamedTuple):
    """Several crystals (n) and their measurements.

    Attributes
    ----------
    counts : (n, z, y, x) int32
    good : (n, y, x) bool
        Pixels that are neither masked nor hot.
    amplitude, phase : (n, z, y, x) float32
        Truth, as in `Crystal`.
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
    size: int,
    habit: str,
    kind: str,
    regime: str,
    oversampling: float | tuple[float, float, float],
    aspect: float,
    rounding: float,
    correlation: float,
    phase_range: float | None = None,
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
        One of `REGIMES`, from whose interval the phase range is drawn, above that of a dislocation.
    oversampling : float or (float, float, float)
        Side of the window relative to the extent of the crystal: along the least oversampled axis, or along each axis,
        for which the crystal is stretched. At least 2, and the crystal has at least 4 voxels.
    aspect, rounding
        As in `draw_polyhedron`.
    correlation : float
        Correlation length of the smooth displacement, as a fraction of the crystal's largest extent.
    phase_range : float, optional
        Phase range to use instead of that of the regime [rad].

    Raises
    ------
    InputError
        An option is out of range, or the phase range is smaller than that of the dislocation.
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
    around = [(side.start, size - side.stop) for side in where]
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
    """A crystal as a polyhedron and the parameters of its displacement, in voxels, and its extent along each axis."""

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
    """Draw the parameters of a crystal; arguments and errors as in `crystal`."""
    wanted = np.asarray(oversampling, dtype=np.float64)
    if wanted.shape not in ((), (3,)) or not ((wanted >= 2) & (wanted <= size / _EXTENT)).all():
        raise InputError("oversampling", f"{oversampling}", f"2 to {size / _EXTENT:g} at {size} voxels")
    polyhedron = _fitted(draw_polyhedron(rng, habit=habit, aspect=aspect, rounding=rounding), size / wanted)
    extent = np.ptp(bounds(polyhedron), axis=0)
    spacing = _SPACING * polyhedron.distances.min()
    q = 2 * np.pi / spacing * draw_direction(rng)
    parameters = draw_parameters(rng, kind, polyhedron=polyhedron, q=q, length=correlation * extent.max())
    return Outline(polyhedron, extent, parameters)


def block(numbers: Sequence[int] | NDArray[np.integer], options: Simulate) -> Block:
    """Simulate the crystals with these numbers and their measurements.

    A crystal depends only on the seed, its number, the size and the options of the population, its noise also on those
    of the measurement, but not on the other numbers, so the crystals can be divided into blocks in any way.

    Raises
    ------
    InputError
        As in `crystal`, `detector_mask` and `measure`, or there is nothing to choose from.
    """
    found = []
    for number in numbers:
        rng, noise = generators(options.seed or 0, number)
        drawn = draw_crystal(rng, options)
        found.append((drawn, *draw_measurement(noise, drawn, options)))
    if not found:
        raise InputError("numbers", "none", "numbers of crystals")
    crystals, patterns, photons = zip(*found, strict=True)
    return Block(
        counts=np.stack([pattern.counts for pattern in patterns]),
        good=np.stack([pattern.good for pattern in patterns]),
        amplitude=np.stack([drawn.amplitude for drawn in crystals]),
        phase=np.stack([drawn.phase for drawn in crystals]),
        photons=np.array(photons, dtype=np.float32),
        phase_range=np.array([drawn.phase_range for drawn in crystals], dtype=np.float32),
        oversampling=np.array([drawn.oversampling for drawn in crystals], dtype=np.float32),
        regime=np.array([list(REGIMES).index(drawn.regime) for drawn in crystals], dtype=np.int8),
        kind=np.array([KINDS.index(drawn.kind) for drawn in crystals], dtype=np.int8),
        habit=np.array([list(HABITS).index(drawn.habit) for drawn in crystals], dtype=np.int8),
    )


def stored(simulated: Block) -> tuple[Floats, NDArray[np.complex64], NDArray[np.bool_]]:
    """Return the training data of a network: amplitudes at the good pixels, true objects, and the good pixels.

    Returns
    -------
    amplitudes : (n, z, y, x) float32
        Square roots of the counts, 0 at bad pixels.
    objects : (n, z, y, x) complex64
    good : (n, y, x) bool
    """
    amplitudes = np.sqrt(simulated.counts * simulated.good[:, None], dtype=np.float32)
    return amplitudes, simulated.amplitude * np.exp(np.complex64(1j) * simulated.phase), simulated.good


def crystal_table(numbers: Sequence[int], simulated: Block) -> pd.DataFrame:
    """List the crystals of a block, one row each: number, regime, kind, habit, oversampling, phase range, photons."""
    names = {"regime": list(REGIMES), "kind": KINDS, "habit": list(HABITS)}
    columns = {name: np.array(known)[getattr(simulated, name)] for name, known in names.items()}
    columns |= {f"oversampling_{axis}": simulated.oversampling[:, k] for k, axis in enumerate("zyx")}
    rest = {"phase_range": simulated.phase_range, "photons": simulated.photons}
    return pd.DataFrame({"number": list(numbers), **columns, **rest})


def generators(seed: int, number: int | np.integer) -> tuple[np.random.Generator, np.random.Generator]:
    """Return the random generators of a simulated crystal and of its measurement."""
    rng, noise = (np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(number), k))) for k in (0, 1))
    return rng, noise


def draw_crystal(rng: np.random.Generator, options: Simulate) -> Crystal:
    """Draw a crystal of the population that the options describe."""
    regime, drawn = draw_properties(rng, options)
    return crystal(rng, regime=regime, **drawn)


def draw_properties(rng: np.random.Generator, options: Simulate) -> tuple[str, dict[str, Any]]:
    """Draw the regime of a crystal of the population, and the keyword arguments of `outline`."""
    low, high = options.oversampling
    if not 2 <= low <= high <= options.size / _EXTENT:
        found = f"{options.oversampling}"
        raise InputError(
            "oversampling", found, f"a range within 2 to {options.size / _EXTENT:g} at {options.size} voxels"
        )
    regime = _choice(rng, "regimes", options.regimes)
    kinds = [kind for kind in options.kinds if regime == "extreme" or kind not in DISLOCATIONS]
    return regime, {
        "size": options.size,
        "habit": _choice(rng, "habits", options.habits),
        "kind": _choice(rng, f"kinds for the regime {regime}", kinds),
        "oversampling": _uniform(rng, "oversampling", options.oversampling),
        "aspect": options.aspect,
        "rounding": _uniform(rng, "rounding", options.rounding),
        "correlation": _uniform(rng, "correlation", options.correlation),
    }


def draw_measurement(rng: np.random.Generator, drawn: Crystal, options: Simulate) -> tuple[Pattern, float]:
    """Measure a crystal; also returns the number of photons that was drawn."""
    exposure = draw_exposure(rng, options)
    intensity = expected_intensity(drawn.amplitude, drawn.phase, **exposure)
    rows, cols = intensity.shape[1:]
    row_gap, col_gap = (_draw_gap(rng, side, options.gap) for side in (rows, cols))
    good = detector_mask((rows, cols), stop_radius=options.stop_radius, row_gaps=row_gap, col_gaps=col_gap)
    return measure(intensity, rng=rng, good=good, hot_fraction=options.hot_fraction), exposure["photons"]


def draw_exposure(rng: np.random.Generator, options: Simulate) -> dict[str, float]:
    """Draw photons, coherence and background of a measurement: parameters of `diffraction.expected_intensity`."""
    if not 0 < options.photons[0] <= options.photons[1]:
        raise InputError("photons", f"{options.photons}", "a range above 0")
    return {
        "photons": float(np.exp(rng.uniform(*np.log(options.photons)))),
        "coherence": _uniform(rng, "coherence", options.coherence),
        "background": _uniform(rng, "background", options.background),
    }


def _fitted(polyhedron: Polyhedron, extent: NDArray[np.float64]) -> Polyhedron:
    """Scale a polyhedron to these extents; a single number is the largest extent."""
    if extent.ndim == 0:
        return transformed(polyhedron, np.eye(3) * extent / np.ptp(bounds(polyhedron), axis=0).max())
    # The rounding scales only with the mean stretch, so the remaining difference is corrected by another stretch.
    for _ in range(4):
        polyhedron = transformed(polyhedron, np.diag(extent / np.ptp(bounds(polyhedron), axis=0)))
    return transformed(polyhedron, np.eye(3), shift=-bounds(polyhedron).mean(axis=0))


def _choice(rng: np.random.Generator, name: str, among: Sequence[str]) -> str:
    if not len(among):
        raise InputError(name, "none", "at least one")
    return among[int(rng.integers(len(among)))]


def _uniform(rng: np.random.Generator, name: str, ends: Sequence[float]) -> float:
    if not ends[0] <= ends[1]:
        raise InputError(name, f"{ends}", "the lower limit first")
    return float(rng.uniform(ends[0], ends[1]))


def _draw_gap(rng: np.random.Generator, side: int, width: int) -> list[tuple[int, int]]:
    """Draw the position of a gap on one side of the central eighth."""
    free = side // 2 - side // 16 - width
    if width < 0 or free < 0:
        raise InputError("gap", f"{width} px", f"0 to {side // 2 - side // 16} px at {side} px")
    before = int(rng.integers(free + 1))
    start = before if rng.random() < 0.5 else side - width - before
    return [(start, start + width)] if width else []
