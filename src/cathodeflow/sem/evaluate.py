"""What a network makes of crops: its outputs, predictions, and figures of merit with their intervals."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cathodeflow.errors import InputError
from cathodeflow.sem.batches import Source
from cathodeflow.sem.calibration import apply_mean_temperature, apply_temperature
from cathodeflow.sem.model import SemNetwork, as_input
from cathodeflow.sem.strangeness import group_means
from cathodeflow.statistics import confidence_bins, resampled_limits, wilson

Float64 = NDArray[np.float64]

#: Figures of `figures_of_merit`, in this order; those that are shares of right answers first.
SHARES = ("accuracy", "composition_accuracy", "state_accuracy")
FIGURES = (*SHARES, "macro_f1", "ece", "nll")
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_FLOOR = 1e-30
_ROUNDING = 1e-9


class Outputs(NamedTuple):
    """What a network gives for crops: logits (n, k) and pooled features (n, c), both float32."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32]


def network_outputs(
    model: SemNetwork,
    crops: Any,
    rows: ArrayLike | None = None,
    *,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
) -> Outputs:
    """Logits and features of crops, which are read while the network is busy with those before.

    Parameters
    ----------
    model : SemNetwork
        Moved to `device` and set to evaluation.
    crops : (n, side, side) uint8
        NumPy, Zarr or Dask array.
    rows : (m,) int, optional
        Which crops, ascending; default: all.
    batch_size : int
        Crops at a time.
    device : torch.device or str
    precision : {"32-true", "bf16-mixed", "16-mixed"}
        Arithmetic of the convolutions; logits are computed in float32.

    Returns
    -------
    Outputs
        In the order of `rows`.
    """
    chosen = np.arange(crops.shape[0]) if rows is None else np.asarray(rows, dtype=np.int64)
    model = model.to(device, memory_format=torch.channels_last).eval()
    # No crops are no reason to fail: one of zeros tells the widths of what is empty then.
    if not chosen.size:
        blank = _outputs(model, torch.zeros(1, *crops.shape[1:], dtype=torch.uint8), device, precision)
        return Outputs(blank.logits[:0], blank.features[:0])
    source = Source(crops, chosen, batch_size=batch_size, memory=0)
    parts = [_outputs(model, images, device, precision) for images, _ in source.in_order()]
    return Outputs(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _outputs(
    model: SemNetwork, images: Tensor, device: torch.device | str, precision: str
) -> Outputs:  # fmt: skip
    place = torch.device(device)
    with (
        torch.inference_mode(),
        torch.autocast(place.type, _AUTOCAST.get(precision), enabled=precision in _AUTOCAST),
    ):
        batch = as_input(images.numpy(), place)
        features = model.features(batch)
        logits = model.logits(features)
    return Outputs(logits.float().cpu().numpy(), features.float().cpu().numpy())


def crop_predictions(
    logits: ArrayLike, table: pd.DataFrame, classes: Sequence[str], *, temperature: float = 1.0
) -> pd.DataFrame:
    """Predictions of crops.

    Parameters
    ----------
    logits : (n, k)
    table : DataFrame
        Columns crop, name, label, in the order of `logits`.
    classes : sequence of str
        Of the k logits.
    temperature : float
        Of the crops (`calibration.fit_temperature`).

    Returns
    -------
    DataFrame
        crop, name, label, prediction, correct, confidence, and p_<class> for each class.
    """
    keys = table[["crop", "name", "label"]].reset_index(drop=True)
    return _predictions(keys, apply_temperature(logits, temperature), classes)


def original_predictions(crops: pd.DataFrame, classes: Sequence[str], *, temperature: float = 1.0) -> pd.DataFrame:
    """Predictions of originals: the mean of their crops' probabilities, to the power of 1 / temperature.

    Parameters
    ----------
    crops : DataFrame
        Of `crop_predictions`.
    classes : sequence of str
    temperature : float
        Of the originals (`calibration.fit_mean_temperature`), fitted on means of probabilities like those in `crops`.

    Returns
    -------
    DataFrame
        name, label, crops (their number), prediction, correct, confidence, p_<class>; sorted by name.
    """
    groups = crops.groupby("name", sort=True)
    keys = groups.agg(label=("label", "first"), crops=("crop", "size")).reset_index()
    means = group_means(probabilities(crops, classes), crops["name"]) if len(crops) else np.zeros((0, len(classes)))
    return _predictions(keys, apply_mean_temperature(means, temperature), classes)


def probabilities(table: pd.DataFrame, classes: Sequence[str]) -> Float64:
    """Columns p_<class> of a table as (n, k)."""
    return table[[f"p_{name}" for name in classes]].to_numpy(np.float64)


def _predictions(keys: pd.DataFrame, values: Float64, classes: Sequence[str]) -> pd.DataFrame:
    prediction = np.asarray(classes, dtype=object)[values.argmax(1)]
    columns = {"prediction": prediction, "correct": keys["label"].to_numpy() == prediction, "confidence": values.max(1)}
    each = {f"p_{name}": values[:, number] for number, name in enumerate(classes)}
    return pd.concat([keys, pd.DataFrame(columns | each, index=keys.index)], axis=1)


class Marginals(NamedTuple):
    """Probabilities of compositions or states: values (n, p), their names (p), and which one each class has (k,)."""

    values: Float64
    names: list[str]
    of_class: NDArray[np.int64]


def marginals(values: ArrayLike, classes: Sequence[str], *, axis: Literal["composition", "state"]) -> Marginals:
    """Sum probabilities (n, k) of classes over all that share a composition or a state; no state is the state "".

    Examples
    --------
    >>> marginals([[0.4, 0.3, 0.3]], ["333", "622", "622_cycled"], axis="composition").values
    array([[0.4, 0.6]])
    """
    parts = [name.partition("_")[0 if axis == "composition" else 2] for name in classes]
    names, of_class = np.unique(np.array(parts), return_inverse=True)
    belongs = of_class[:, None] == np.arange(len(names))
    return Marginals(np.asarray(values, dtype=np.float64) @ belongs, names.tolist(), of_class)


def figures_of_merit(table: pd.DataFrame, classes: Sequence[str], *, bins: int) -> dict[str, float]:
    """Accuracy, macro-F1, accuracy of composition and of state alone, calibration error and likelihood.

    Composition and state are those of the highest probability summed over the classes that share them, not those of
    the predicted class: of 0.4 for 333, 0.3 for 622 and 0.3 for 622_cycled the composition is 622.

    Parameters
    ----------
    table : DataFrame
        Of `crop_predictions` or `original_predictions`, with at least one row.
    classes : sequence of str
    bins : int
        Of confidence (`calibration.expected_calibration_error`).

    Returns
    -------
    dict
        accuracy, composition_accuracy, state_accuracy, macro_f1 (over the classes that occur as label or prediction),
        ece, nll [nat].

    Raises
    ------
    InputError
        No row, or a label that is no class.
    """
    sums = _sums(table, classes, bins)
    figures, _ = _figures(np.ones((1, len(sums.rows))), sums)
    return dict(zip(FIGURES, figures[0].tolist(), strict=True))


def bootstrap(
    table: pd.DataFrame,
    classes: Sequence[str],
    *,
    bins: int,
    bootstrap_samples: int,
    confidence: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Figures of merit with intervals, from resampled originals: crops of one share what makes it easy or hard.

    Originals are drawn within each class, since the split sets how many of each class there are to test on. A bootstrap
    of what is all right has no width; there, and for shares of originals themselves, the interval is Wilson's [1]_ for
    that many originals; other figures then have none. Calibration errors of few originals read high, in the figure and
    more so in its interval.

    Parameters
    ----------
    table : DataFrame
        Of `crop_predictions` or `original_predictions`.
    classes : sequence of str
    bins, bootstrap_samples : int
    confidence : float
        Level of the intervals.
    rng : Generator

    Returns
    -------
    DataFrame
        figure, class, value, low, high, originals: first the figures of `figures_of_merit` with class None, then the
        accuracy of each class that has originals.

    References
    ----------
    .. [1] E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927)
    """
    sums = _sums(table, classes, bins)
    whole = _figures(np.ones((1, len(sums.rows))), sums)
    limits = resampled_limits(
        lambda weights: np.concatenate(_figures(weights, sums), axis=1),
        sums.label, samples=bootstrap_samples, confidence=confidence, rng=rng,
    )  # fmt: skip
    originals = np.bincount(sums.label, minlength=len(classes))
    kinds: list[tuple[str, str | None, int]] = [(name, None, len(sums.rows)) for name in FIGURES]
    kinds += [("accuracy", name, count) for name, count in zip(classes, originals.tolist(), strict=True)]
    values = np.concatenate(whole, axis=1)[0]
    single = len(table) == len(sums.rows)
    rows = []
    for (figure, name, count), value, (low, high) in zip(kinds, values, limits, strict=True):
        share = figure in SHARES
        if count and ((share and single) or (high - low < _ROUNDING and (share or figure == "macro_f1"))):
            low, high = wilson(round(value * count), count, confidence=confidence)
        elif high - low < _ROUNDING:
            # One original in a class is drawn every time: nothing is known of how sure this is.
            low = high = np.nan
        rows.append((figure, name, float(value), float(low), float(high), count))
    result = pd.DataFrame(rows, columns=["figure", "class", "value", "low", "high", "originals"])
    return result[result["originals"] > 0].reset_index(drop=True)


class _Sums(NamedTuple):
    """Sums over the rows of each of m originals; every figure follows from weighted sums of them."""

    label: NDArray[np.int64]
    rows: Float64
    confusion: Float64
    axes: Float64
    nll: Float64
    confidence: Float64
    correct: Float64


def _sums(table: pd.DataFrame, classes: Sequence[str], bins: int) -> _Sums:
    values, k = probabilities(table, classes), len(classes)
    number = {name: place for place, name in enumerate(classes)}
    unknown = sorted(set(table["label"]) - set(number))
    if unknown or table.empty:
        found = ", ".join(unknown) or "no predictions"
        raise InputError("label", found, f"one of the network's classes: {', '.join(classes)}")
    label = np.asarray(table["label"].map(number), dtype=np.int64)
    prediction = np.asarray(table["prediction"].map(number), dtype=np.int64)
    _, first, group = np.unique(table["name"].to_numpy(str), return_index=True, return_inverse=True)
    m, rows = len(first), np.arange(len(table))

    def total(place: NDArray[np.int64], width: int, weight: Float64 | None = None) -> Float64:
        return np.bincount(group * width + place, weight, minlength=m * width).reshape(m, width).astype(np.float64)

    right = []
    for axis in (marginals(values, classes, axis="composition"), marginals(values, classes, axis="state")):
        right.append((axis.values.argmax(1) == axis.of_class[label]).astype(np.float64))
    confidence = values[rows, prediction]
    place = confidence_bins(confidence, bins)
    nothing = np.zeros(len(table), np.int64)
    return _Sums(
        label[first],
        total(nothing, 1),
        total(label * k + prediction, k * k),
        np.concatenate([total(nothing, 1, one) for one in right], axis=1),
        total(nothing, 1, -np.log(np.maximum(values[rows, label], _FLOOR))),
        total(place, bins, confidence),
        total(place, bins, (label == prediction).astype(np.float64)),
    )


def _figures(weights: Float64, sums: _Sums) -> tuple[Float64, Float64]:
    """Figures (s, len(FIGURES)) and accuracies of the classes (s, k) where originals have these weights (s, m)."""
    k = round(np.sqrt(sums.confusion.shape[1]))
    count = weights @ sums.rows
    confusion = (weights @ sums.confusion).reshape(-1, k, k)
    diagonal, labels, predicted = np.einsum("sii->si", confusion), confusion.sum(2), confusion.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(labels + predicted > 0, 2 * diagonal / (labels + predicted), np.nan)
        of_class = diagonal / labels
    gap = np.abs(weights @ sums.confidence - weights @ sums.correct).sum(1, keepdims=True)
    parts = [diagonal.sum(1, keepdims=True) / count, (weights @ sums.axes) / count, np.nanmean(f1, axis=1)[:, None]]
    return np.concatenate([*parts, gap / count, weights @ sums.nll / count], axis=1), of_class
