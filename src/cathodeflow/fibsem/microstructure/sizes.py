"""Properties that are sizes: particles, chords, correlation lengths, thickness of films."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from cathodeflow.fibsem.microstructure.chords import chord_lengths
from cathodeflow.fibsem.microstructure.correlation import (
    autocorrelation,
    correlation_length,
    representative_side,
    two_point_correlation,
)
from cathodeflow.fibsem.microstructure.particles import divide, particle_sizes, quantiles
from cathodeflow.fibsem.microstructure.property_table import ABSENT, NAN, ONE_SLICE, Curve, Property, Voxel
from cathodeflow.fibsem.microstructure.thickness import local_thickness
from cathodeflow.fibsem.properties_options import Properties
from cathodeflow.fibsem.two_point import covariance, integral_range

Float64 = NDArray[np.float64]

_LEVELS = (0.1, 0.5, 0.9)
_BINS = 20


class Sample(NamedTuple):
    """A volume to measure.

    labels : (z, y, x) dask array of uint8
    counts : (n_classes,) int, voxels of each class.
    classes : tuple of str
    voxel : Voxel
    options : Properties
    """

    labels: da.Array
    counts: NDArray[np.int64]
    classes: tuple[str, ...]
    voxel: Voxel
    options: Properties


def particle_properties(sample: Sample, curves: list[Curve]) -> Iterator[Property]:
    """Measure number and diameters of the particles of the chosen phases."""
    default = ("active",) if "active" in sample.classes else sample.classes[1:2]
    names = ("particle_diameter_mean", "particle_diameter_d10", "particle_diameter_d50", "particle_diameter_d90")
    unit, size = sample.voxel.unit, sample.voxel.size
    for phase in sample.options.particle_phases or default:
        mask, note = _central(sample, phase)
        depth = sample.options.particle_depth * min(size)
        found = particle_sizes(divide(mask, size, depth), size) if mask.any() else None
        if found is None or not found.diameters.size:
            reason = "all particles touch the edges of the volume" if found else ABSENT
            yield Property("particle_count", phase, None, float(found.number) if found else 0.0, "1", note=reason)
            yield from (Property(name, phase, None, NAN, unit, note=reason) for name in names)
            continue
        volumes = found.weights * found.diameters ** (2 if sample.labels.shape[0] == 1 else 3)
        mean = float(np.average(found.diameters, weights=found.weights))
        values = [mean, *quantiles(found.diameters, volumes, _LEVELS)]
        used = f"{found.diameters.size} particles that do not touch the edges"
        yield Property("particle_count", phase, None, float(found.number), "1", note=note)
        for name, value in zip(names, values, strict=True):
            by = "" if name.endswith("mean") else "by volume; "
            yield Property(name, phase, None, value, unit, note="; ".join(filter(None, [by + used, note])))
        curves.append(_distribution("particle_diameter", phase, None, found.diameters, volumes, unit))


def chord_properties(sample: Sample, curves: list[Curve]) -> Iterator[Property]:
    """Measure the mean chord lengths of all phases along each axis."""
    unit, n_classes = sample.voxel.unit, len(sample.classes)
    for axis, step in enumerate(sample.voxel.size):
        n = sample.labels.shape[axis]
        chords = chord_lengths(sample.labels, axis, n_classes) if n > 1 else None
        for index, phase in enumerate(sample.classes):
            value = NAN if chords is None else float(chords.mean[index]) * step
            note = ONE_SLICE if chords is None else "" if sample.counts[index] else ABSENT
            if math.isnan(value) and not note:
                note = "no boundary along this direction"
            yield Property("chord_length_mean", phase, axis, value, unit, note=note)
            if chords is not None and chords.histogram[index].any():
                lengths = np.arange(n + 1, dtype=np.float64) * step
                density = chords.histogram[index] / chords.histogram[index].sum()
                last = int(np.flatnonzero(density)[-1]) + 1
                curves.append(Curve("chord_length", phase, axis, lengths[1:last], density[1:last], unit))


def correlation_properties(sample: Sample, curves: list[Curve]) -> Iterator[Property]:
    """Measure the correlation length of all phases along each axis, and the size of a representative volume."""
    unit, size, shape = sample.voxel.unit, sample.voxel.size, sample.labels.shape
    axes = [axis for axis in range(3) if shape[axis] > 1]
    lag = sample.options.max_lag
    pairs = {axis: two_point_correlation(sample.labels, axis, len(sample.classes), lag) for axis in axes}
    for index, phase in enumerate(sample.classes):
        fraction = float(sample.counts[index] / sample.counts.sum())
        missing = ABSENT if not fraction else "the only phase" if fraction == 1 else ""
        rhos = [] if missing else [autocorrelation(pairs[axis][index]) for axis in axes]
        for axis in range(3):
            value, note = NAN, missing or (ONE_SLICE if axis not in axes else "")
            if not note:
                rho = rhos[axes.index(axis)]
                value = correlation_length(rho, size[axis])
                note = "" if math.isfinite(value) else "longer than the maximum distance"
                distances = np.arange(len(rho), dtype=np.float64) * size[axis]
                curves.append(Curve("two_point_correlation", phase, axis, distances, pairs[axis][index], unit))
            yield Property("correlation_length", phase, axis, value, unit, note=note)
        side, note = NAN, missing
        if not missing and len(axes) > 1:
            range_ = integral_range(covariance(sample.labels == index)) * math.prod(size[axis] for axis in axes)
            side = representative_side(fraction, range_, len(axes), sample.options.representative_error)
            shortest = min(shape[axis] * size[axis] for axis in axes)
            error = f"{100 * sample.options.representative_error:g} %"
            note = f"side of the volume with a relative standard error of {error} of the volume fraction"
            note += "; longer than this volume" if side > shortest else ""
        yield Property("representative_size", phase, None, side, unit, note=note)


def thickness_properties(sample: Sample, curves: list[Curve]) -> Iterator[Property]:
    """Measure the local thickness of the chosen phases."""
    default = ("binder",) if "binder" in sample.classes else ()
    names = ("film_thickness_mean", "film_thickness_d10", "film_thickness_d50", "film_thickness_d90")
    for phase in default if sample.options.film_phases is None else sample.options.film_phases:
        mask, note = _central(sample, phase)
        found = local_thickness(mask, sample.voxel.size).astype(np.float64)
        if not found.size:
            note = "the only phase" if mask.any() else ABSENT
        values = [NAN] * 4
        if found.size:
            values = [float(found.mean()), *(float(value) for value in np.quantile(found, _LEVELS))]
            unit = sample.voxel.unit
            curves.append(_distribution("film_thickness", phase, None, found, np.ones(found.size), unit))
        for name, value in zip(names, values, strict=True):
            yield Property(name, phase, None, value, sample.voxel.unit, note=note)


def _central(sample: Sample, phase: str) -> tuple[NDArray[np.bool_], str]:
    """Return a phase in the volume, or in its central part if that is too large, and a note of this."""
    shape, most = sample.labels.shape, sample.options.sizes_voxels
    factor = min(1.0, (most / math.prod(shape)) ** (1 / sum(n > 1 for n in shape)))
    sides = [max(1, int(n * factor)) for n in shape]
    place = tuple(slice((n - side) // 2, (n - side) // 2 + side) for n, side in zip(shape, sides, strict=True))
    mask = np.asarray(sample.labels[place]) == sample.classes.index(phase)
    note = "" if factor == 1 else f"in the central {' x '.join(map(str, sides))} voxels"
    return mask, note


def _distribution(name: str, phase: str, direction: int | None, values: Float64, weights: Float64, unit: str) -> Curve:
    edges: Sequence[float] = np.linspace(0, float(values.max()) * (1 + 1e-9), _BINS + 1).tolist()
    counts, _ = np.histogram(values, edges, weights=weights)
    return Curve(name, phase, direction, np.array(edges[:-1]), counts / counts.sum(), unit)
