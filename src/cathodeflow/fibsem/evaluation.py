"""Figures of merit of segmentations: overlap, boundaries, specks, calibration, phase fractions.

Slices are read and counted one by one (`slice_counts.count_slice`), so that memory does not grow with their number.
All figures of merit are computed from sums of these counts: of one slice, of all, or of bootstrap samples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cathodeflow.errors import InputError
from cathodeflow.fibsem.options import Metrics
from cathodeflow.fibsem.slice_counts import Counts, count_slice, figures_of_merit
from cathodeflow.statistics import resampled_limits

Float64 = NDArray[np.float64]

# Maximum bytes of an array that are read at a time.
_TOGETHER = 2**25


class Evaluation(NamedTuple):
    """Figures of merit of one model.

    overall : DataFrame, one row over all slices, with confidence intervals.
    slices : DataFrame, one row per slice.
    counts : Counts, (slice, ...), for `compare`.
    """

    overall: pd.DataFrame
    slices: pd.DataFrame
    counts: Counts


def evaluate(
    truth: Any,
    prediction: Any,
    probabilities: Any = None,
    *,
    model: str,
    seed: int,
    split: str,
    classes: Sequence[str],
    rng: np.random.Generator,
    options: Metrics,
    originals: ArrayLike | None = None,
) -> Evaluation:
    """Compare predicted labels with the reference, slice by slice.

    Parameters
    ----------
    truth, prediction : (slice, row, col) int
        Labels 0..k - 1; NumPy, Zarr or Dask arrays.
    probabilities : (slice, class, row, col) float, optional
        Class probabilities; without them `ece` is NaN.
    model, seed, split : str, int, str
        Written into the rows.
    classes : sequence of str
        Names of the k labels.
    rng : Generator
        For the bootstrap; the seed of the options is not used.
    options : Metrics
    originals : (slice,), optional
        Original slice of each augmented image; the bootstrap resamples originals. Default: every slice is an original.
        Neighbouring slices show the same particles; blocks of them as originals give wider intervals that are also
        valid for other parts of the electrode.

    Returns
    -------
    Evaluation
        Columns of both tables: `model`, `seed`, `split`, and those of `slice_counts.figures_of_merit`. Per slice also
        `slice` and `original`. Overall also `accuracy_best5` and `accuracy_worst5`, means over the best and worst
        slices (the number is `extremes`), with their standard deviations `..._deviation`; the numbers of `slices` and
        `originals`; and the confidence limits `<figure>_low` and `<figure>_high`, except for figures of the reference
        and for `fraction_<class>`, whose limits are those of `fraction_error_<class>`. Limits are NaN if there is only
        one original.

    Raises
    ------
    InputError
        Shapes that differ, labels outside the classes, or values that are not probabilities.
    """
    counts = count(truth, prediction, probabilities, classes=classes, options=options)
    n = len(counts.slices)
    unit = _originals(originals, n)
    names, group = np.unique(unit, return_inverse=True)
    key = {"model": model, "seed": seed, "split": split}
    each = figures_of_merit(counts, classes)
    whole = {name: float(value) for name, value in figures_of_merit(_total(counts), classes).items()}
    row: dict[str, Any] = dict(key)
    for name, value in whole.items():
        row[name] = value
        if name == "accuracy":
            row |= _extremes(each[name], options.extremes)
    row |= {"slices": n, "originals": len(names)}
    main = _with_interval(whole, classes)
    sums = _grouped(counts, group)
    limits = _limits(lambda weights: _table(_weighted(weights, sums), classes, main), len(names), options, rng)
    for name, (low, high) in zip(main, limits.tolist(), strict=True):
        row |= {f"{name}_low": low, f"{name}_high": high}
    slices = pd.DataFrame({**{name: [value] * n for name, value in key.items()}, "slice": range(n), "original": unit})
    return Evaluation(pd.DataFrame([row]), pd.concat([slices, pd.DataFrame(each)], axis=1), counts)


def count(
    truth: Any,
    prediction: Any,
    probabilities: Any = None,
    *,
    classes: Sequence[str],
    options: Metrics,
) -> Counts:
    """Count every slice; parameters as in `evaluate`. The first axis of the counts is that of the slices."""
    arrays = {"truth": truth, "prediction": prediction}
    if probabilities is not None:
        arrays["probabilities"] = probabilities
    n = truth.shape[0]
    for where, array in arrays.items():
        shape = (n, len(classes), *truth.shape[1:]) if where == "probabilities" else truth.shape
        if array.shape != shape or len(truth.shape) != 3 or not n:
            raise InputError(where, f"the shape {array.shape}", f"{shape}, at least one (slice, row, col)")
    k, parts = len(classes), []
    for index, images in enumerate(zip(*map(_slices, arrays.values()), strict=True)):
        try:
            parts.append(count_slice(*images, n_classes=k, options=options))
        except InputError as error:
            raise InputError(f"{error.where}, slice {index}", error.found, error.expected) from error
    return Counts(*(np.stack(part) for part in zip(*parts, strict=True)))


def compare(
    counts: Counts,
    reference: Counts,
    *,
    classes: Sequence[str],
    rng: np.random.Generator,
    options: Metrics,
    originals: ArrayLike | None = None,
) -> pd.DataFrame:
    """Compute the differences of two models on the same slices, with confidence intervals.

    Slices that are difficult for one model are difficult for the other, so these intervals are narrower than those of
    either model.

    Parameters
    ----------
    counts, reference : Counts
        Of `evaluate` for the same slices and classes.
    classes, rng, options, originals
        As in `evaluate`.

    Returns
    -------
    DataFrame
        figure, difference (`counts` minus `reference`), low, high.

    Raises
    ------
    InputError
        Counts of other slices.
    """
    if not np.array_equal(counts.confusion.sum(-1), reference.confusion.sum(-1)):
        raise InputError("reference", "counts of other slices", "the same truth in both")
    names = _with_interval(figures_of_merit(counts, classes), classes)
    group = np.unique(_originals(originals, len(counts.slices)), return_inverse=True)[1]
    pair = [_grouped(counted, group) for counted in (counts, reference)]

    def difference(weights: Float64) -> Float64:
        first, second = (_table(_weighted(weights, sums), classes, names) for sums in pair)
        return first - second

    m = int(group.max()) + 1
    limits = _limits(difference, m, options, rng)
    value = difference(np.ones((1, m)))[0]
    return pd.DataFrame({"figure": names, "difference": value, "low": limits[:, 0], "high": limits[:, 1]})


def _slices(array: Any) -> Iterator[Any]:
    """Yield slices in order; small slices in one block of a store are read together."""
    chunks = getattr(array, "chunks", None)
    # Of Dask the sizes of all blocks, of Zarr that of one.
    block = max(np.atleast_1d(chunks[0])) if chunks else 1
    size = int(np.prod(array.shape[1:])) * array.dtype.itemsize
    step = int(max(1, min(block, _TOGETHER // max(size, 1))))
    for start in range(0, array.shape[0], step):
        yield from np.asarray(array[start : start + step])


def _limits(figures_of: Callable[[Float64], Float64], m: int, options: Metrics, rng: np.random.Generator) -> Float64:
    """Return the limits (d, 2) of figures (s, d) of weights (s, m); NaN if there is only one original."""
    if m == 1:
        return np.full((figures_of(np.ones((1, 1))).shape[1], 2), np.nan)
    return resampled_limits(
        figures_of, np.zeros(m, np.int64), samples=options.bootstrap_samples, confidence=options.confidence, rng=rng
    )


def _originals(originals: ArrayLike | None, n: int) -> NDArray[Any]:
    values = np.arange(n) if originals is None else np.asarray(originals)
    if values.shape != (n,):
        raise InputError("originals", f"the shape {values.shape}", f"one for each of {n} slices")
    return values


def _extremes(accuracy: Float64, extremes: int) -> dict[str, float]:
    """Mean and standard deviation of the accuracies of the best and of the worst slices."""
    ranked, result = np.sort(accuracy), {}
    for name, part in (("best", ranked[-extremes:]), ("worst", ranked[:extremes])):
        result[f"accuracy_{name}{extremes}"] = float(part.mean())
        deviation = float(part.std(ddof=1)) if len(part) > 1 else float("nan")
        result[f"accuracy_{name}{extremes}_deviation"] = deviation
    return result


def _with_interval(names: Iterable[str], classes: Sequence[str]) -> list[str]:
    """Leave out figures of the reference, and fractions: these vary with the material, their errors with the model."""
    fixed = {"true_specks", *(f"{kind}_{name}" for kind in ("fraction", "true_fraction") for name in classes)}
    return [name for name in names if name not in fixed]


def _total(counts: Counts) -> Counts:
    return Counts(*(part.sum(0) for part in counts))


def _grouped(counts: Counts, group: NDArray[np.integer]) -> Counts:
    """Add up counts (slice, ...) over the slices of each group: (m, ...)."""
    member = (group == np.arange(int(group.max()) + 1)[:, None]).astype(np.float64)
    return _weighted(member, counts)


def _weighted(weights: Float64, counts: Counts) -> Counts:
    """Add up counts (n, ...) with weights (s, n): (s, ...)."""
    return Counts(*(np.tensordot(weights, part, axes=1) for part in counts))


def _table(counts: Counts, classes: Sequence[str], names: Sequence[str]) -> Float64:
    values = figures_of_merit(counts, classes)
    return np.stack([values[name] for name in names], axis=-1)
