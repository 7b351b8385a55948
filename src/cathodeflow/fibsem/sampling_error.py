"""Sampling error of the properties of one volume: how far they are from those of the whole electrode."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cathodeflow.fibsem.error_options import SamplingError
from cathodeflow.fibsem.intervals import ScaledError, interval, scaled, slope
from cathodeflow.fibsem.microstructure.property_table import Property
from cathodeflow.fibsem.two_point import Covariance, covariance, degrees_of_freedom, mean_variance

#: Labels -> properties.
Compute = Callable[[NDArray[np.uint8]], list[Property]]
#: Property, phase and direction.
Key = tuple[str, str, int | None]

#: Properties that follow from another one: their relative error is the same, and defined where blocks are infinite.
_FROM = {"tortuosity_factor": "effective_diffusivity"}


def sampling_errors(
    labels: NDArray[np.uint8],
    properties: Iterable[Property],
    compute: Compute,
    *,
    classes: Sequence[str],
    options: SamplingError,
) -> dict[Key, ScaledError]:
    """Estimate the sampling error of every property of one volume, from this volume alone.

    - Volume fractions: by the two-point statistics of the phase (`two_point`), as ImageRep does.
    - All others: the volume is cut into blocks, the property is computed in each, and the variance s^2 between blocks is
      extrapolated to the whole volume. With R, the ratio of the variances that the two-point statistics of the phase
      predict for the whole volume and for a block, the variance of the whole is s^2 R / (1 - R): blocks that touch are
      not independent, so R is larger than one over their number. Of a pair of phases, the larger R counts. Directions
      of a property are pooled, relative to their means.

    Parameters
    ----------
    labels : (z, y, x) or (y, x) int
        Labels 0, 1, ... in the order of `classes`.
    properties : iterable of Property
        Of the whole volume, as `compute` returns them.
    compute : callable
        Computes the properties of a block.
    classes : sequence of str
    options : SamplingError

    Returns
    -------
    dict
        Errors on the scales of `intervals.scaled` by (property, phase, direction); properties without an error, such as
        those of volumes too small for blocks, are missing.
    """
    found = {name: covariance(labels == number) for number, name in enumerate(classes)}
    errors: dict[Key, ScaledError] = {}
    rows = values_of(properties)
    for key, value in rows.items():
        if key[0] == "volume_fraction" and 0 < value < 1:
            error = float(np.sqrt(mean_variance(found[key[1]], labels.shape))) / slope(key[0], value)
            errors[key] = ScaledError(error, degrees_of_freedom(found[key[1]]))
    parts = blocks(labels.shape, options)
    if len(parts) < 2:
        return errors
    values: dict[Key, list[float]] = {}
    for part in parts:
        for key, value in values_of(compute(labels[part])).items():
            values.setdefault(key, []).append(value)
    block = tuple(side.stop - side.start for side in parts[0])
    spread = _spread({key: np.array(own) for key, own in values.items()}, len(parts))
    for key, value in rows.items():
        group = (_FROM.get(key[0], key[0]), key[1])
        if key in errors or group not in spread or not np.isfinite(scaled(key[0], value)):
            continue
        ratio = _ratio(key[1], found, labels.shape, block, len(parts))
        relative = spread[group].error * float(np.sqrt(ratio / (1 - ratio)))
        errors[key] = ScaledError(relative * value / slope(key[0], value), spread[group].freedom)
    return errors


def with_errors(properties: Iterable[Property], errors: Mapping[Key, ScaledError]) -> list[Property]:
    """Return properties with their standard errors and intervals."""
    return [
        row._replace(**interval(row.property, row.value, errors.get((row.property, row.phase, row.direction))))
        for row in properties
    ]


def values_of(properties: Iterable[Property]) -> dict[Key, float]:
    """Return the values of properties."""
    return {(row.property, row.phase, row.direction): row.value for row in properties}


def blocks(shape: Sequence[int], options: SamplingError) -> list[tuple[slice, ...]]:
    """Cut a volume into equal blocks; axes that are too short are not cut.

    Examples
    --------
    >>> len(blocks((100, 100, 20), SamplingError(blocks=2, min_block_px=16)))
    4
    """
    sides = []
    for side in shape:
        count = max(min(options.blocks, side // options.min_block_px), 1)
        size = side // count
        sides.append([slice(index * size, (index + 1) * size) for index in range(count)])
    return list(itertools.product(*sides))


def _spread(values: Mapping[Key, NDArray[np.float64]], n: int) -> dict[tuple[str, str], ScaledError]:
    """Relative standard deviation between blocks of each property and phase, pooled over its directions."""
    pooled: dict[tuple[str, str], list[float]] = {}
    for (name, phase, _), own in values.items():
        mean = float(own.mean())
        # A property that some blocks lack has no spread between blocks.
        if len(own) == n and np.isfinite(own).all() and mean > 0:
            pooled.setdefault((name, phase), []).append(float(own.var(ddof=1)) / mean**2)
    return {
        group: ScaledError(float(np.sqrt(np.mean(variances))), (n - 1) * len(variances) ** 0.5)
        for group, variances in pooled.items()
    }


def _ratio(
    phase: str, found: Mapping[str, Covariance], shape: Sequence[int], block: Sequence[int], n: int
) -> float:  # fmt: skip
    """Ratio of the variances over whole volumes and over blocks, between one over the number of blocks and a half."""
    phases = [name for name in phase.split("-") if name in found] or list(found)
    ratios = [mean_variance(found[name], shape) / max(mean_variance(found[name], block), 1e-12) for name in phases]
    return float(np.clip(max(ratios), 1 / n, 0.5))
