"""All properties of a labelled volume."""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.fibsem.microstructure.blocks import as_labels, count_phases
from cathodeflow.fibsem.microstructure.connectivity import components
from cathodeflow.fibsem.microstructure.property_table import NAN, Property, Voxel
from cathodeflow.fibsem.microstructure.surfaces import interface_areas
from cathodeflow.fibsem.microstructure.transport import Transport, transport
from cathodeflow.fibsem.properties_options import Properties

#: Notes of what cannot be computed.
ABSENT, ONE_SLICE = "phase absent", "one voxel along this direction"


class Measured(NamedTuple):
    """Properties of a volume.

    properties : list of Property
    slices : (z, n_classes) int, voxels of each class in each slice.
    """

    properties: list[Property]
    slices: NDArray[np.int64]


def compute_properties(
    labels: Any, classes: Sequence[str], voxel: Voxel | None = None, options: Properties | None = None,
    *, device: str = "cpu",
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
    device : str
        Of torch, for the transport solver.

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
    *, device: str = "cpu",
) -> Measured:  # fmt: skip
    """Compute the properties as `compute_properties`, and the counts and curves that they are computed from."""
    options, voxel = options or Properties(), voxel or Voxel()
    volume = as_labels(labels)
    slices = count_phases(volume, len(classes))
    counts = slices.sum(0)
    if not counts.any():
        raise InputError("labels", "no voxel of a class", "class indices from 0 to " + str(len(classes) - 1))
    makers = {
        "fractions": lambda: _fractions(counts, volume, classes),
        "surfaces": lambda: _surfaces(volume, counts, classes, voxel),
        "connectivity": lambda: _connectivity(volume, counts, classes),
        "transport": lambda: _transport(volume, counts, classes, voxel, options, device),
    }
    properties = [one for group in options.groups if group in makers for one in makers[group]()]
    return Measured(properties, slices)


def _fractions(counts: NDArray[np.int64], volume: da.Array, classes: Sequence[str]) -> Iterator[Property]:
    unlabelled = 1 - counts.sum() / math.prod(volume.shape)
    note = f"{100 * unlabelled:.2g} % of the voxels have no label" if unlabelled > 0 else ""
    for name, count in zip(classes, counts, strict=True):
        own = ABSENT if count == 0 else note
        yield Property("volume_fraction", name, None, float(count / counts.sum()), "1", note=own)


def _surfaces(volume: da.Array, counts: NDArray[np.int64], classes: Sequence[str], voxel: Voxel) -> Iterator[Property]:
    areas = interface_areas(volume, voxel.size, len(classes))
    flat = "one slice: length of the boundary per area" if volume.shape[0] == 1 else ""
    unit = f"1/{voxel.unit}"
    for index, name in enumerate(classes):
        note = flat if counts[index] else ABSENT
        yield Property("specific_surface_area", name, None, float(areas[index].sum()), unit, note=note)
    for a, b in combinations(range(len(classes)), 2):
        note = flat if counts[a] and counts[b] else ABSENT
        yield Property("contact_area", f"{classes[a]}-{classes[b]}", None, float(areas[a, b]), unit, note=note)


def _connectivity(volume: da.Array, counts: NDArray[np.int64], classes: Sequence[str]) -> Iterator[Property]:
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


def _transport(
    volume: da.Array, counts: NDArray[np.int64], classes: Sequence[str], voxel: Voxel, options: Properties, device: str
) -> Iterator[Property]:
    places = sub_volumes(volume.shape, options.transport_voxels, options.sub_volumes)
    found: dict[tuple[int, int], list[tuple[float, Transport]]] = {}
    solved = [axis for axis in range(3) if volume.shape[axis] > 1]
    solver = options.transport_solver
    if solver == "auto":
        solver = "compiled" if device == "cpu" else "taufactor"
    for place in places:
        part = np.asarray(volume[place])
        for index, axis in product(np.flatnonzero(counts).tolist(), solved):
            mask = part == index
            one = transport(mask, axis, voxel.size, convergence=options.convergence, solver=solver, device=device)
            found.setdefault((index, axis), []).append((float(mask.mean()), one))
    for index, name in enumerate(classes):
        for axis in range(3):
            if (index, axis) in found:
                one = _joined(found[index, axis], places[0])
            else:
                one = Transport(NAN, NAN, ONE_SLICE if counts[index] else ABSENT)
            for key, value in (("tortuosity_factor", one.tortuosity), ("effective_diffusivity", one.diffusivity)):
                yield Property(key, name, axis, value, "1", note=one.note)


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
