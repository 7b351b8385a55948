"""All properties of a labelled volume."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.fibsem.microstructure.blocks import as_labels, count_phases
from cathodeflow.fibsem.microstructure.connectivity import components
from cathodeflow.fibsem.microstructure.property_table import ABSENT, NAN, ONE_SLICE, Curve, Property, Voxel
from cathodeflow.fibsem.microstructure.sizes import (
    Sample,
    chord_properties,
    correlation_properties,
    particle_properties,
    thickness_properties,
)
from cathodeflow.fibsem.microstructure.surfaces import interface_areas
from cathodeflow.fibsem.microstructure.transport import Transport, transport
from cathodeflow.fibsem.properties_options import Properties
from cathodeflow.parallel import ordered_map, thread_count

# Volumes of fewer voxels are read once and kept in memory.
_IN_MEMORY = 2**28
# Maximum number of transport problems that are solved at a time: each needs 40 bytes per voxel.
_TOGETHER = 4


class Measured(NamedTuple):
    """Properties of a volume.

    properties : list of Property
    slices : (z, n_classes) int, voxels of each class in each slice.
    curves : list of Curve, two-point correlations and distributions of sizes.
    """

    properties: list[Property]
    slices: NDArray[np.int64]
    curves: list[Curve]


def compute_properties(
    labels: Any, classes: Sequence[str], voxel: Voxel | None = None, options: Properties | None = None,
    *, device: str | None = None,
) -> list[Property]:  # fmt: skip
    """Compute the properties of a labelled volume.

    Parameters
    ----------
    labels : array or dask array
        (z, y, x), or (y, x) of a single slice; class indices, 255 for voxels without a label, which belong to no
        phase. Dask arrays are read block by block.
    classes : sequence of str
    voxel : Voxel, optional
        Default: lengths in voxels.
    options : Properties, optional
        `groups` chooses the properties.
    device : str, optional
        Of torch, for the transport solver. Default: `cpu`.

    Returns
    -------
    list of Property
        In the order of `options.groups`; standard errors and intervals are not computed here.

    Raises
    ------
    InputError
        No voxel has a label, or a label belongs to no class.
    """
    return measure(labels, classes, voxel, options, device=device).properties


def measure(
    labels: Any, classes: Sequence[str], voxel: Voxel | None = None, options: Properties | None = None,
    *, device: str | None = None,
) -> Measured:  # fmt: skip
    """Compute the properties as `compute_properties`, and the counts and curves that they are computed from."""
    options, voxel = options or Properties(), voxel or Voxel()
    volume = as_labels(labels)
    slices = count_phases(volume, len(classes))
    counts = slices.sum(0)
    if not counts.any():
        raise InputError("labels", "no voxel of a class", "class indices from 0 to " + str(len(classes) - 1))
    if volume.size < _IN_MEMORY:
        # Blocks of the same sides: the result does not depend on them.
        volume = da.from_array(np.asarray(volume), chunks=volume.chunks)
    sample = Sample(volume, counts, tuple(classes), voxel, options)
    curves: list[Curve] = []
    makers: dict[str, Callable[[], Iterator[Property]]] = {
        "fractions": lambda: _fractions(sample),
        "surfaces": lambda: _surfaces(sample),
        "connectivity": lambda: _connectivity(sample),
        "transport": lambda: _transport(sample, device or "cpu"),
        "particles": lambda: particle_properties(sample, curves),
        "chords": lambda: chord_properties(sample, curves),
        "correlation": lambda: correlation_properties(sample, curves),
        "thickness": lambda: thickness_properties(sample, curves),
    }
    properties = [one for group in options.groups for one in makers[group]()]
    return Measured(properties, slices, curves)


def _fractions(sample: Sample) -> Iterator[Property]:
    volume, counts, classes = sample.labels, sample.counts, sample.classes
    unlabelled = 1 - counts.sum() / math.prod(volume.shape)
    note = f"{100 * unlabelled:.2g} % of the voxels have no label" if unlabelled > 0 else ""
    for name, count in zip(classes, counts, strict=True):
        own = ABSENT if count == 0 else note
        yield Property("volume_fraction", name, None, float(count / counts.sum()), "1", note=own)


def _surfaces(sample: Sample) -> Iterator[Property]:
    volume, counts, classes, voxel = sample.labels, sample.counts, sample.classes, sample.voxel
    areas = interface_areas(volume, voxel.size, len(classes))
    flat = "one slice: length of the boundary per area" if volume.shape[0] == 1 else ""
    unit = f"1/{voxel.unit}"
    for index, name in enumerate(classes):
        note = flat if counts[index] else ABSENT
        yield Property("specific_surface_area", name, None, float(areas[index].sum()), unit, note=note)
    for a, b in combinations(range(len(classes)), 2):
        note = flat if counts[a] and counts[b] else ABSENT
        yield Property("contact_area", f"{classes[a]}-{classes[b]}", None, float(areas[a, b]), unit, note=note)


def _connectivity(sample: Sample) -> Iterator[Property]:
    volume, counts, classes = sample.labels, sample.counts, sample.classes
    for index, name in enumerate(classes):
        parts = components(volume, index)
        note = "" if counts[index] else ABSENT
        yield Property("connected_fraction", name, None, parts.connected_fraction, "1", note=note)
        for axis in range(3):
            if volume.shape[axis] < 2:
                yield Property("percolating_fraction", name, axis, NAN, "1", note=ONE_SLICE)
                continue
            value = parts.percolating_fraction(axis)
            yield Property("percolating_fraction", name, axis, value, "1", note=note)


def _transport(sample: Sample, device: str) -> Iterator[Property]:
    volume, counts, classes, options = sample.labels, sample.counts, sample.classes, sample.options
    places = sub_volumes(volume.shape, options.transport_voxels, options.sub_volumes)
    found: dict[tuple[int, int], list[tuple[float, Transport]]] = {}
    solved = [axis for axis in range(3) if volume.shape[axis] > 1]
    solver = options.transport_solver
    if solver == "auto":
        solver = "compiled" if device == "cpu" else "taufactor"
    for place in places:
        part = np.asarray(volume[place])
        jobs = list(product(np.flatnonzero(counts).tolist(), solved))

        def solve(job: tuple[int, int], part: NDArray[np.uint8] = part) -> tuple[float, Transport]:
            mask = part == job[0]
            return float(mask.mean()), transport(
                mask, job[1], sample.voxel.size, convergence=options.convergence, solver=solver, device=device
            )

        workers = 1 if solver == "taufactor" else min(_TOGETHER, thread_count())
        for job, one in zip(jobs, ordered_map(solve, jobs, workers=workers), strict=True):
            found.setdefault(job, []).append(one)
    for index, name in enumerate(classes):
        for axis in range(3):
            if (index, axis) in found:
                joined = _joined(found[index, axis], places[0])
            else:
                joined = Transport(NAN, NAN, ONE_SLICE if counts[index] else ABSENT)
            for key, value in (("tortuosity_factor", joined.tortuosity), ("effective_diffusivity", joined.diffusivity)):
                yield Property(key, name, axis, value, "1", note=joined.note)


def _joined(found: Sequence[tuple[float, Transport]], place: tuple[slice, ...]) -> Transport:
    """Mean effective diffusivity of sub-volumes, and the tortuosity factor that belongs to it."""
    if len(found) == 1:
        return found[0][1]
    fractions = np.array([fraction for fraction, _ in found])
    values = np.array([0.0 if math.isnan(one.diffusivity) else one.diffusivity for _, one in found])
    side = " x ".join(str(part.stop - part.start) for part in place)
    notes = [f"mean of {len(found)} sub-volumes of {side} voxels"]
    mean = float(values.mean())
    if not mean:
        return Transport(math.inf, 0.0, f"does not percolate in any of {len(found)} sub-volumes of {side} voxels")
    through = values > 0
    if not through.all():
        notes.append(f"{int((~through).sum())} of them do not percolate")
    spread = fractions[through] / values[through]
    if through.sum() > 1:
        notes.append(
            f"standard deviation between them: tortuosity factor {spread.std(ddof=1):.3g}, "
            f"effective diffusivity {values.std(ddof=1):.3g}"
        )
    notes += sorted({one.note for _, one in found if one.note.startswith("not converged")})
    return Transport(float(fractions.mean() / mean), mean, "; ".join(notes))


def sub_volumes(shape: Sequence[int], max_voxels: int, number: int) -> list[tuple[slice, ...]]:
    """Return the whole volume if it is small enough, otherwise equal parts of it, spread over the volume.

    Parameters
    ----------
    shape : (3,) int
    max_voxels : int
        Maximum number of voxels of a part.
    number : int
        Maximum number of parts, which do not overlap.

    Examples
    --------
    >>> sub_volumes((4, 6, 6), 200, 8)
    [(slice(0, 4, None), slice(0, 6, None), slice(0, 6, None))]
    >>> len(sub_volumes((100, 200, 200), 1_000_000, 8)), len(sub_volumes((100, 200, 200), 1_000_000, 3))
    (4, 3)
    """
    pieces = [1, 1, 1]
    while math.prod(math.ceil(n / k) for n, k in zip(shape, pieces, strict=True)) > max_voxels:
        longest = max(range(3), key=lambda axis: shape[axis] / pieces[axis])
        pieces[longest] += 1
    side = [n // k for n, k in zip(shape, pieces, strict=True)]
    grid = list(product(*(range(k) for k in pieces)))
    chosen = [grid[k] for k in np.unique(np.linspace(0, len(grid) - 1, min(number, len(grid))).round().astype(int))]
    return [tuple(slice(k * n, (k + 1) * n) for k, n in zip(index, side, strict=True)) for index in chosen]
