"""Sampling error of the properties of one volume: how far they are from those of the whole electrode."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.fibsem.intervals import WITHOUT_SCALE, ScaledError, interval, scaled, slope
from cathodeflow.fibsem.microstructure.property_table import Property
from cathodeflow.fibsem.sampling_options import SamplingError
from cathodeflow.fibsem.two_point import Covariance, covariance, mean_variance

#: Labels -> properties.
Compute = Callable[[NDArray[np.uint8]], list[Property]]
#: Property, phase and direction.
Key = tuple[str, str, int | None]

# Degrees of freedom of the variances, for quantiles of Student's t: of volume fractions, and per block of all others,
# more where directions are pooled. They are below the number of blocks less one, as the ratios of variances are
# estimates, too; both numbers are those with which intervals cover as stated (`benchmarks/fibsem_coverage.py`).
_FRACTIONS, _PER_BLOCK = 12.0, 4 / 7
# Effective diffusivity of a block that does not percolate, as a fraction of the mean, where logarithms are taken.
_FLOOR = 0.02


def sampling_errors(
    labels: Any,
    properties: Iterable[Property],
    compute: Compute,
    *,
    classes: Sequence[str],
    options: SamplingError,
) -> dict[Key, ScaledError]:
    """Estimate the sampling error of every property of one volume, from this volume alone.

    The volume is cut into blocks, and the variance s^2 between blocks is extrapolated to the whole volume. Blocks that
    touch are not independent: with R, the ratio of the variances over whole volumes and over blocks, the variance of
    the whole is s^2 R / (1 - R).

    - Volume fractions: mean of the variance that the two-point statistics of the phase predict (`two_point`, as
      ImageRep), and of that of the blocks, with R by the two-point statistics.
    - All others: by the blocks. Surfaces and transport are correlated over shorter distances than the phase itself, so
      R is the geometric mean of that of the phase (of a pair: the larger one) and of independent blocks. Directions are
      pooled. The variance of a tortuosity factor is the mean of that of its logarithm, where blocks percolate, and of
      the relative variance of the effective diffusivity, which blocks that do not percolate have, too.

    Parameters
    ----------
    labels : (z, y, x) or (y, x) int array, also of Dask
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
    parts = blocks(labels.shape, options)
    values: dict[Key, list[float]] = {}
    for part in parts if len(parts) > 1 else ():
        for key, value in values_of(compute(np.asarray(labels[part]))).items():
            values.setdefault(key, []).append(value)
    block = tuple(side.stop - side.start for side in parts[0])
    ratios = {name: _ratio(own, labels.shape, block, len(parts)) for name, own in found.items()}
    variances = _relative_variances({key: np.array(own) for key, own in values.items()}, len(parts))
    errors: dict[Key, ScaledError] = {}
    for key, value in values_of(properties).items():
        if key[0] in WITHOUT_SCALE or not np.isfinite(scaled(key[0], value)):
            continue
        relative, freedom = variances.get(key[:2], float("nan")), (len(parts) - 1) * _PER_BLOCK
        if key[0] == "volume_fraction":
            by_points, ratio = mean_variance(found[key[1]], labels.shape) / value**2, ratios[key[1]]
            by_blocks = relative * ratio / (1 - ratio)
            variance, freedom = float(np.nanmean([by_points, by_blocks])), _FRACTIONS
        else:
            ratio = max([ratios[name] for name in key[1].split("-") if name in ratios] or ratios.values())
            ratio = float(np.sqrt(ratio / len(parts)))
            variance = relative * ratio / (1 - ratio) if len(parts) > 1 else float("nan")
            freedom *= np.sqrt(3) if key[2] is not None else 1.0
        if np.isfinite(variance):
            errors[key] = ScaledError(float(np.sqrt(variance)) * value / slope(key[0], value), freedom)
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


def _relative_variances(values: Mapping[Key, NDArray[np.float64]], n: int) -> dict[tuple[str, str], float]:
    """Variance of the logarithm between n blocks of each property and phase, pooled over its directions."""
    pooled: dict[tuple[str, str], list[float]] = {}
    for (name, phase, direction), own in values.items():
        variance = _log_variance(own)
        if name in ("tortuosity_factor", "effective_diffusivity"):
            through = values.get(("effective_diffusivity", phase, direction), np.array([]))
            mean = float(through.mean()) if len(through) == n else float("nan")
            if not mean > 0:
                continue
            floored = own if name == "tortuosity_factor" else np.maximum(own, _FLOOR * mean)
            known = floored[np.isfinite(floored)]
            own_variance = _log_variance(known) if len(known) > n / 2 else float("nan")
            variance = float(np.nanmean([float(through.var(ddof=1)) / mean**2, own_variance]))
        # A property that some blocks lack has no variance between blocks.
        if len(own) == n and np.isfinite(variance):
            pooled.setdefault((name, phase), []).append(variance)
    return {group: float(np.mean(variances)) for group, variances in pooled.items()}


def _log_variance(values: NDArray[np.float64]) -> float:
    possible = len(values) > 1 and np.isfinite(values).all() and bool((values > 0).all())
    return float(np.log(values).var(ddof=1)) if possible else float("nan")


def _ratio(found: Covariance, shape: Sequence[int], block: Sequence[int], n: int) -> float:
    """Ratio of the variances over whole volumes and over blocks, between one over the number of blocks and a half."""
    ratio = mean_variance(found, shape) / max(mean_variance(found, block), 1e-12)
    return float(np.clip(ratio, 1 / max(n, 2), 0.5))
