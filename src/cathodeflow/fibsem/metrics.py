"""Figures of merit of predicted phases: overlap, boundaries, specks, calibration, phase fractions.

Slices are read and counted one after another (`counts.count_slice`), so that memory does not grow with their number.
All figures follow from sums of these counts: of one slice, of all, or of originals drawn anew for the intervals.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cathodeflow.errors import InputError
from cathodeflow.fibsem.counts import Counts, count_slice, figures
from cathodeflow.statistics import resampled_limits

Float64 = NDArray[np.float64]

# Bytes of an array that are read at a time, at most.
_TOGETHER = 2**25


class Evaluation(NamedTuple):
    """Figures of merit of one model.

    overall : DataFrame, one row over all slices, with intervals.
    slices : DataFrame, a row per slice.
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
    originals: ArrayLike | None = None,
    tolerance_px: float = 2.0,
    speck_px: int = 16,
    bins: int = 15,
    extremes: int = 5,
    bootstrap_samples: int = 2000,
    confidence: float = 0.95,
) -> Evaluation:
    """Compare predicted labels with the truth, slice by slice.

    Parameters
    ----------
    truth, prediction : (slice, row, col) int
        Labels 0..k - 1; NumPy, Zarr or Dask arrays.
    probabilities : (slice, class, row, col) float, optional
        Of the classes; without them `ece` is NaN.
    model, seed, split : str, int, str
        What the rows are of, written into them.
    classes : sequence of str
        Names of the k labels.
    rng : Generator
        For the intervals.
    originals : (slice,), optional
        Which original each slice was made from: these are drawn for the intervals. Default: every slice is one.
        Neighbouring slices show the same particles; blocks of them in place of originals give wider intervals that
        hold for other parts of the electrode too.
    tolerance_px : float
        Distance up to which boundaries agree [px].
    speck_px : int
        Most pixels of a speck [px].
    bins : int
        Of confidence.
    extremes : int
        How many slices of the highest and of the lowest accuracy are averaged.
    bootstrap_samples : int
    confidence : float
        Level of the intervals.

    Returns
    -------
    Evaluation
        Columns of both tables: `model`, `seed`, `split`, and those of `counts.figures`. Per slice also `slice` and
        `original`. Overall also `accuracy_best5` and `accuracy_worst5`, means of the best and worst slices (the number
        is `extremes`), with their standard deviations `..._deviation`; the numbers of `slices` and `originals`; and
        `<figure>_low`, `<figure>_high` of all figures but those of the truth and `fraction_<class>`, which has them as
        `fraction_error_<class>`; NaN where there is one original only.

    Raises
    ------
    InputError
        Shapes that do not fit, labels that are no classes, or values that are no probabilities.
    """
    counts = count(
        truth, prediction, probabilities, classes=classes, tolerance_px=tolerance_px, speck_px=speck_px, bins=bins
    )
    n = len(counts.slices)
    unit = _originals(originals, n)
    names, group = np.unique(unit, return_inverse=True)
    key = {"model": model, "seed": seed, "split": split}
    each = figures(counts, classes)
    whole = {name: float(value) for name, value in figures(_total(counts), classes).items()}
    row: dict[str, Any] = dict(key)
    for name, value in whole.items():
        row[name] = value
        if name == "accuracy":
            row |= _extremes(each[name], extremes)
    row |= {"slices": n, "originals": len(names)}
    main = _with_interval(whole, classes)
    sums = _grouped(counts, group)
    limits = _limits(
        lambda weights: _table(_weighted(weights, sums), classes, main),
        len(names), samples=bootstrap_samples, confidence=confidence, rng=rng,
    )  # fmt: skip
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
    tolerance_px: float = 2.0,
    speck_px: int = 16,
    bins: int = 15,
) -> Counts:
    """Count every slice; parameters as in `evaluate`. The axes of the counts begin with the slices."""
    arrays = {"truth": truth, "prediction": prediction}
    if probabilities is not None:
        arrays["probabilities"] = probabilities
    n = truth.shape[0]
    for where, array in arrays.items():
        shape = (n, len(classes), *truth.shape[1:]) if where == "probabilities" else truth.shape
        if array.shape != shape or len(truth.shape) != 3 or not n:
            raise InputError(where, f"the shape {array.shape}", f"{shape}, at least one (slice, row, col)")
    k, parts = len(classes), []
    for number, one in enumerate(zip(*map(_slices, arrays.values()), strict=True)):
        try:
            parts.append(count_slice(*one, n_classes=k, tolerance_px=tolerance_px, speck_px=speck_px, bins=bins))
        except InputError as error:
            raise InputError(f"{error.where}, slice {number}", error.found, error.expected) from error
    return Counts(*(np.stack(part) for part in zip(*parts, strict=True)))


def compare(
    counts: Counts,
    reference: Counts,
    *,
    classes: Sequence[str],
    rng: np.random.Generator,
    originals: ArrayLike | None = None,
    bootstrap_samples: int = 2000,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Differences of two models on the same slices, with intervals.

    What makes a slice hard is hard for both, so that these intervals are narrower than those of either model.

    Parameters
    ----------
    counts, reference : Counts
        Of `evaluate` for the same slices and classes.
    classes, rng, originals, bootstrap_samples, confidence
        As in `evaluate`.

    Returns
    -------
    DataFrame
        figure, difference (of `counts` less that of `reference`), low, high.

    Raises
    ------
    InputError
        Counts of other slices.
    """
    if not np.array_equal(counts.confusion.sum(-1), reference.confusion.sum(-1)):
        raise InputError("reference", "counts of other slices", "the same truth in both")
    names = _with_interval(figures(counts, classes), classes)
    group = np.unique(_originals(originals, len(counts.slices)), return_inverse=True)[1]
    pair = [_grouped(one, group) for one in (counts, reference)]

    def difference(weights: Float64) -> Float64:
        first, second = (_table(_weighted(weights, sums), classes, names) for sums in pair)
        return first - second

    m = int(group.max()) + 1
    limits = _limits(difference, m, samples=bootstrap_samples, confidence=confidence, rng=rng)
    value = difference(np.ones((1, m)))[0]
    return pd.DataFrame({"figure": names, "difference": value, "low": limits[:, 0], "high": limits[:, 1]})


def _slices(array: Any) -> Iterator[Any]:
    """Yield slices in order; those that lie in one block of a store are read together as far as they are small."""
    chunks = getattr(array, "chunks", None)
    # Of Dask the sizes of all blocks, of Zarr that of one.
    block = max(np.atleast_1d(chunks[0])) if chunks else 1
    size = int(np.prod(array.shape[1:])) * array.dtype.itemsize
    step = int(max(1, min(block, _TOGETHER // max(size, 1))))
    for start in range(0, array.shape[0], step):
        yield from np.asarray(array[start : start + step])


def _limits(
    figures_of: Callable[[Float64], Float64], m: int, *, samples: int, confidence: float, rng: np.random.Generator
) -> Float64:
    """Return the ends (d, 2) of intervals of figures (s, d) of weights (s, m); NaN where there is one original only."""
    if m == 1:
        return np.full((figures_of(np.ones((1, 1))).shape[1], 2), np.nan)
    return resampled_limits(figures_of, np.zeros(m, np.int64), samples=samples, confidence=confidence, rng=rng)


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
    """Leave out the figures of the truth, and fractions: these vary with the material, their errors with the model."""
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
    values = figures(counts, classes)
    return np.stack([values[name] for name in names], axis=-1)
