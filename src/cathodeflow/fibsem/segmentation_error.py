"""Segmentation error of properties: bias and spread against labels, carried over to new slices by stochastic passes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.fibsem.intervals import WITHOUT_SCALE, ScaledError, scaled, unscaled
from cathodeflow.fibsem.microstructure.property_table import Property
from cathodeflow.fibsem.sampling_error import Key, values_of

#: Property and phase: what a calibration holds for, in all directions.
Group = tuple[str, str]

_TRANSPORT = ("tortuosity_factor", "effective_diffusivity")
# How much larger the spread of the passes on new slices may make the errors.
_MOST = 10.0


class Calibration(NamedTuple):
    """Error of a property of a segmentation against labels, on the scale of `intervals.scaled`.

    bias : float, of the property of the validation slices.
    spread : float, standard deviation between blocks of the validation slices.
    blocks : int, their number.
    block_voxels : float, voxels of a block.
    freedom : float, degrees of freedom of the spread.
    """

    bias: float
    spread: float
    blocks: int
    block_voxels: float
    freedom: float


class Corrected(NamedTuple):
    """A property without the bias of the segmentation, and the error that the segmentation leaves.

    value : float
    error : ScaledError
    """

    value: float
    error: ScaledError


def calibrate(
    truth: Sequence[Property],
    predicted: Sequence[Property],
    blocks: Sequence[tuple[Sequence[Property], Sequence[Property]]],
    *,
    shape: Sequence[int],
    block_voxels: int,
) -> dict[Group, Calibration]:
    """Compare the properties of a segmentation with those of the labels, in whole and in blocks.

    Directions of a property are pooled; directions in which the volume is shorter than half of its longest side do not
    count, as a phase is connected through a thin volume whatever the segmentation does.

    The spread of transport is that of the diffusivity which the blocks have too much, over their mean diffusivity: the
    logarithm would be ruled by the blocks that hardly percolate, which do not matter to a larger volume.

    Parameters
    ----------
    truth, predicted : sequence of Property
        Of the validation slices: of the labels, and of the segmentation.
    blocks : sequence
        The same for each block.
    shape : (3,) int
        Of the validation slices [px].
    block_voxels : int

    Returns
    -------
    dict
        By property and phase; those that cannot be compared are missing.
    """
    whole = _differences(truth, predicted, shape)
    parts = [_differences(*pair, shape) for pair in blocks]
    result = {}
    for group in {key[:2] for key in whole}:
        keys = [key for key in whole if key[:2] == group]
        if group[0] in _TRANSPORT:
            inner = [_transport_differences(key, blocks) for key in keys]
        else:
            inner = [np.array([part[key] for part in parts if key in part]) for key in keys]
        inner = [values for values in inner if len(values) > 1]
        if not inner:
            continue
        spread = float(np.sqrt(np.mean([values.var(ddof=1) for values in inner])))
        count = min(map(len, inner))
        bias = float(np.mean([whole[key] for key in keys]))
        result[group] = Calibration(bias, spread, count, block_voxels, (count - 1) * len(inner) ** 0.5)
    return result


def correct(
    properties: Iterable[Property], calibration: Mapping[Group, Calibration], *, voxels: float, ratio: float
) -> dict[Key, Corrected]:
    """Remove the bias of the segmentation from properties, and estimate the error that remains.

    The variance is that of the bias, s^2 / n with n blocks of validation slices, plus that of the new volume,
    s^2 V_block / V; both grow with the square of `ratio`.

    Parameters
    ----------
    properties : iterable of Property
        Of the segmentation of new slices.
    calibration : mapping
        Of `calibrate`.
    voxels : float
        Voxels of the new slices.
    ratio : float
        Of `pass_ratio`.

    Returns
    -------
    dict
        By property, phase and direction; properties without calibration are missing. Volume fractions add up to 1.
    """
    found = {}
    for key, value in values_of(properties).items():
        own, middle = calibration.get(key[:2]), scaled(key[0], value)
        if own is not None and np.isfinite(middle):
            variance = own.spread**2 * (1 / own.blocks + own.block_voxels / voxels) * ratio**2
            error = ScaledError(float(np.sqrt(variance)), own.freedom)
            found[key] = Corrected(unscaled(key[0], middle - own.bias), error)
    fractions = [key for key in found if key[0] == "volume_fraction"]
    total = sum(found[key].value for key in fractions)
    expected = sum(row.value for row in properties if (row.property, row.phase, row.direction) in fractions)
    for key in fractions:
        found[key] = found[key]._replace(value=found[key].value * expected / total)
    return found


def pass_spread(passes: Sequence[Sequence[Property]], *, voxels: float) -> dict[Group, float]:
    """Compute the standard deviation of properties over stochastic passes, times the square root of the voxels.

    Each pass is a segmentation of the same slices. Errors of distant pixels are independent, so that the standard
    deviation falls with the square root of the volume; the product can be compared between volumes.
    """
    tables = [values_of(rows) for rows in passes]
    spread: dict[Group, list[float]] = {}
    for key in tables[0] if len(tables) > 1 else ():
        values = np.array([scaled(key[0], table.get(key, float("nan"))) for table in tables])
        if np.isfinite(values).all():
            spread.setdefault(key[:2], []).append(float(values.std(ddof=1)) * float(np.sqrt(voxels)))
    return {group: float(np.mean(values)) for group, values in spread.items()}


def pass_ratio(new: Mapping[Group, float], validation: Mapping[Group, float]) -> float:
    """Ratio of the spreads of the passes on new slices and on the validation slices: their median, at least 1.

    A method without dropout has no spread; the ratio is 1.

    Examples
    --------
    >>> pass_ratio({("volume_fraction", "pore"): 3.0}, {("volume_fraction", "pore"): 2.0})
    1.5
    """
    ratios = [new[group] / validation[group] for group in new if validation.get(group, 0.0) > 0]
    return float(np.clip(np.median(ratios), 1.0, _MOST)) if ratios else 1.0


def runs(slices: NDArray[np.integer]) -> list[NDArray[np.intp]]:
    """Find the indices of runs of neighbouring slices, the longest first.

    Examples
    --------
    >>> [run.tolist() for run in runs(np.array([7, 1, 2, 3]))]
    [[1, 2, 3], [0]]
    """
    order = np.argsort(slices, kind="stable")
    cuts = np.flatnonzero(np.diff(slices[order]) != 1) + 1
    return sorted(np.split(order, cuts), key=len, reverse=True)


def as_json(calibration: Mapping[Group, Calibration]) -> list[dict[str, Any]]:
    """Return a calibration as rows."""
    return [{"property": group[0], "phase": group[1], **own._asdict()} for group, own in sorted(calibration.items())]


def from_json(rows: Sequence[Mapping[str, Any]]) -> dict[Group, Calibration]:
    """Return the calibration of rows of `as_json`."""
    return {(row["property"], row["phase"]): Calibration(*(row[name] for name in Calibration._fields)) for row in rows}


def _differences(truth: Sequence[Property], predicted: Sequence[Property], shape: Sequence[int]) -> dict[Key, float]:
    """Differences between scaled properties of a segmentation and of the labels."""
    right, longest = values_of(truth), max(shape)
    differences = {}
    for key, value in values_of(predicted).items():
        thin = key[2] is not None and shape[key[2]] < longest / 2
        gap = scaled(key[0], value) - scaled(key[0], right.get(key, float("nan")))
        if key[0] not in WITHOUT_SCALE and not thin and np.isfinite(gap):
            differences[key] = gap
    return differences


def _transport_differences(
    key: Key, blocks: Sequence[tuple[Sequence[Property], Sequence[Property]]]
) -> NDArray[np.float64]:
    """Differences between segmentation and labels in blocks without the common one: over the mean of the blocks."""
    tables = [[values_of(side) for side in pair] for pair in blocks]

    def relative(own: Key) -> tuple[NDArray[np.float64], float]:
        truth, found = (np.array([pair[side].get(own, np.nan) for pair in tables]) for side in (0, 1))
        mean = float(truth.mean())
        if not mean > 0:
            return np.full(len(truth), np.nan), mean
        return (found - truth * found.sum() / truth.sum()) / mean, mean

    through, mean = relative(("effective_diffusivity", *key[1:]))
    if key[0] == "effective_diffusivity":
        # On the scale of log-odds.
        through = through / (1 - mean)
    else:
        fractions, _ = relative(("volume_fraction", key[1], None))
        through = np.where(np.isfinite(fractions), fractions, 0.0) - through
    return through[np.isfinite(through)]
