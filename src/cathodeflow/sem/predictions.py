"""Predictions of a network for crops and originals, and performance metrics with confidence intervals."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cathodeflow.errors import InputError
from cathodeflow.sem.calibration import apply_mean_temperature, apply_temperature
from cathodeflow.sem.onnx_network import Outputs
from cathodeflow.sem.ood import group_means
from cathodeflow.sem.options import Test
from cathodeflow.statistics import confidence_bins, resampled_limits, wilson

if TYPE_CHECKING:
    import torch

    from cathodeflow.sem.model import SemNetwork

Float64 = NDArray[np.float64]

#: Metrics of `figures_of_merit`, in this order; accuracies first.
ACCURACIES = ("accuracy", "composition_accuracy", "state_accuracy")
FIGURES = (*ACCURACIES, "macro_f1", "ece", "nll")
#: Crops per batch where no option says otherwise.
BATCH = 64
_FLOOR = 1e-30
_ROUNDING = 1e-9


def network_outputs(
    model: "SemNetwork",
    crops: Any,
    numbers: ArrayLike | None = None,
    *,
    batch_size: int,
    device: "torch.device | str",
    arithmetic: str = "32-true",
) -> Outputs:
    """Compute logits and features of crops; the next crops are read during the computation.

    Parameters
    ----------
    model : SemNetwork
        Moved to `device` and set to evaluation mode.
    crops : (n, side, side) uint8
        NumPy, Zarr or Dask array.
    numbers : (m,) int, optional
        Crops to use, ascending. Default: all crops.
    batch_size : int
        Crops per batch.
    device : torch.device or str
    arithmetic : {"32-true", "bf16-mixed", "16-mixed"}
        Precision of the convolutions; logits are computed in float32.

    Returns
    -------
    Outputs
        In the order of `numbers`.
    """
    # Figures are drawn and metrics computed without the network.
    import torch

    from cathodeflow.sem.batches import Source

    chosen = np.arange(crops.shape[0]) if numbers is None else np.asarray(numbers, dtype=np.int64)
    model = model.to(device, memory_format=torch.channels_last).eval()
    # Without crops the outputs are empty; a crop of zeros gives their widths.
    if not chosen.size:
        blank = _outputs(model, torch.zeros(1, *crops.shape[1:], dtype=torch.uint8), device, arithmetic)
        return Outputs(blank.logits[:0], blank.features[:0])
    source = Source(crops, chosen, batch_size=batch_size, memory=0)
    parts = [_outputs(model, images, device, arithmetic) for images, _ in source.in_order()]
    return Outputs(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _outputs(model: "SemNetwork", images: "torch.Tensor", device: "torch.device | str", arithmetic: str) -> Outputs:
    import torch

    from cathodeflow.sem.model import as_input

    device = torch.device(device)
    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    autocast = torch.autocast(device.type, kinds.get(arithmetic), enabled=arithmetic in kinds)
    with torch.inference_mode(), autocast:
        batch = as_input(images.numpy(), device)
        features = model.features(batch)
        logits = model.logits(features)
    return Outputs(logits.float().cpu().numpy(), features.float().cpu().numpy())


def crop_predictions(
    logits: ArrayLike, table: pd.DataFrame, classes: Sequence[str], *, temperature: float
) -> pd.DataFrame:
    """Predict crops from their logits.

    Parameters
    ----------
    logits : (n, k)
    table : DataFrame
        Columns crop, name, label, in the order of `logits`.
    classes : sequence of str
        Classes of the k logits.
    temperature : float
        Temperature of the crops (`calibration.fit_temperature`); 1 for uncalibrated probabilities.

    Returns
    -------
    DataFrame
        crop, name, label, prediction, correct, confidence, and p_<class> for each class.
    """
    keys = table[["crop", "name", "label"]].reset_index(drop=True)
    return _predictions(keys, apply_temperature(logits, temperature), classes)


def original_predictions(crops: pd.DataFrame, classes: Sequence[str], *, temperature: float) -> pd.DataFrame:
    """Predict originals by the mean probabilities of their crops, to the power of 1 / temperature.

    Parameters
    ----------
    crops : DataFrame
        Of `crop_predictions`.
    classes : sequence of str
    temperature : float
        Temperature of the originals (`calibration.fit_mean_temperature`), fitted on means of probabilities like those
        in `crops`; 1 for uncalibrated probabilities.

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


def classes_of(table: pd.DataFrame) -> list[str]:
    """Classes of a table of predictions, in the order of its columns p_<class>."""
    return [str(name).removeprefix("p_") for name in table if str(name).startswith("p_")]


def class_numbers(labels: pd.Series, classes: Sequence[str]) -> NDArray[np.int64]:
    """Positions (n,) of labels in the list of classes."""
    return np.asarray(labels.map({name: number for number, name in enumerate(classes)}), dtype=np.int64)


def _predictions(keys: pd.DataFrame, values: Float64, classes: Sequence[str]) -> pd.DataFrame:
    prediction = np.asarray(classes, dtype=object)[values.argmax(1)]
    columns = {"prediction": prediction, "correct": keys["label"].to_numpy() == prediction, "confidence": values.max(1)}
    each = {f"p_{name}": values[:, number] for number, name in enumerate(classes)}
    return pd.concat([keys, pd.DataFrame(columns | each, index=keys.index)], axis=1)


class Marginals(NamedTuple):
    """Probabilities of compositions or states: values (n, p), names (p), and the one that each class has (k,)."""

    values: Float64
    names: list[str]
    of_class: NDArray[np.int64]


def marginals(values: ArrayLike, classes: Sequence[str], *, axis: Literal["composition", "state"]) -> Marginals:
    """Sum the probabilities (n, k) of all classes of the same composition or state; no state is the state "".

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
    """Compute accuracy, macro-F1, accuracy of composition and of state, calibration error and likelihood.

    The predicted composition (and state) has the highest probability summed over its classes, and may differ from that
    of the predicted class: with 0.4 for 333, 0.3 for 622 and 0.3 for 622_cycled the composition is 622.

    Parameters
    ----------
    table : DataFrame
        Of `crop_predictions` or `original_predictions`, with at least one row.
    classes : sequence of str
    bins : int
        Number of bins of confidence (`calibration.expected_calibration_error`).

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


def bootstrap(table: pd.DataFrame, classes: Sequence[str], options: Test) -> pd.DataFrame:
    """Compute performance metrics with intervals by resampling fields of view, since what they show is not independent.

    Neither are crops of an image, nor images that overlap. Fields, or images with `resample: image`, are drawn within
    each class, since the split determines the number of test images per class. If all predictions are correct, a
    bootstrap interval has no width: then, and for accuracies of originals, the interval is Wilson's [1]_ for that
    number of fields, as if all images of a field were right or wrong together; other metrics then have none.
    Calibration errors of few originals are biased upwards; that resampling adds to it is taken off their intervals, by
    the median of the samples.

    Parameters
    ----------
    table : DataFrame
        Of `crop_predictions` or `original_predictions`; and field, the field of view of each row, without which each
        original is one.
    classes : sequence of str
    options : Test

    Returns
    -------
    DataFrame
        figure (name of the metric), label, value, low, high, originals, fields (their numbers): first the metrics of
        `figures_of_merit` with label None, then the accuracy of each class that has originals.

    References
    ----------
    .. [1] E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927)
    """
    sums = _sums(table, classes, options.bins)
    whole = _figures(np.ones((1, len(sums.rows))), sums)
    values, ece = np.concatenate(whole, axis=1)[0], FIGURES.index("ece")
    field = sums.original if options.resample == "image" else sums.field
    _, first = np.unique(field, return_index=True)
    limits = resampled_limits(
        lambda weights: np.concatenate(_figures(weights[:, field], sums), axis=1),
        sums.label[first], samples=options.bootstrap_samples, confidence=options.confidence,
        rng=np.random.default_rng(options.seed or 0),
        unbiased=np.where(np.arange(values.size) == ece, values, np.nan),
    )  # fmt: skip
    limits[ece] = np.maximum(limits[ece], 0)
    originals, fields = (np.bincount(labels, minlength=len(classes)) for labels in (sums.label, sums.label[first]))
    kinds: list[tuple[str, str | None, int, int]] = [(name, None, len(sums.rows), len(first)) for name in FIGURES]
    kinds += [("accuracy", *counts) for counts in zip(classes, originals.tolist(), fields.tolist(), strict=True)]
    single = len(table) == len(sums.rows)
    rows = []
    for (figure, name, count, drawn), value, (low, high) in zip(kinds, values, limits, strict=True):
        proportion = figure in ACCURACIES
        if count and ((proportion and single) or (high - low < _ROUNDING and (proportion or figure == "macro_f1"))):
            low, high = wilson(round(value * count), count, confidence=options.confidence, independent=drawn)
        elif high - low < _ROUNDING:
            # The only field of a class is drawn every time, so its uncertainty is unknown.
            low = high = np.nan
        rows.append((figure, name, float(value), float(low), float(high), count, drawn))
    result = pd.DataFrame(rows, columns=["figure", "label", "value", "low", "high", "originals", "fields"])
    return result[result["originals"] > 0].reset_index(drop=True)


class _Sums(NamedTuple):
    """Sums over the rows of each of m originals; every metric follows from weighted sums of them.

    `original` are their numbers, and `field` those of their fields of view; a field of several classes is one of each.
    """

    original: NDArray[np.int64]
    field: NDArray[np.int64]
    label: NDArray[np.int64]
    rows: Float64
    confusion: Float64
    axes: Float64
    nll: Float64
    confidence: Float64
    correct: Float64


def _sums(table: pd.DataFrame, classes: Sequence[str], bins: int) -> _Sums:
    values, k = probabilities(table, classes), len(classes)
    unknown = sorted(set(table["label"]) - set(classes))
    if unknown or table.empty:
        found = ", ".join(unknown) or "no predictions"
        raise InputError("label", found, f"one of the network's classes: {', '.join(classes)}")
    label, prediction = (class_numbers(table[name], classes) for name in ("label", "prediction"))
    _, first, group = np.unique(table["name"].to_numpy(str), return_index=True, return_inverse=True)
    m, rows = len(first), np.arange(len(table))

    def total(number: NDArray[np.int64], width: int, weight: Float64 | None = None) -> Float64:
        return np.bincount(group * width + number, weight, minlength=m * width).reshape(m, width).astype(np.float64)

    correct = []
    for axis in (marginals(values, classes, axis="composition"), marginals(values, classes, axis="state")):
        correct.append((axis.values.argmax(1) == axis.of_class[label]).astype(np.float64))
    confidence = values[rows, prediction]
    number = confidence_bins(confidence, bins)
    zero = np.zeros(len(table), np.int64)
    fields = table["field" if "field" in table else "name"].to_numpy(str)[first]
    pairs = np.array([f"{number} {name}" for number, name in zip(label[first], fields, strict=True)])
    return _Sums(
        np.arange(m),
        np.unique(pairs, return_inverse=True)[1],
        label[first],
        total(zero, 1),
        total(label * k + prediction, k * k),
        np.concatenate([total(zero, 1, values) for values in correct], axis=1),
        total(zero, 1, -np.log(np.maximum(values[rows, label], _FLOOR))),
        total(number, bins, confidence),
        total(number, bins, (label == prediction).astype(np.float64)),
    )


def _figures(weights: Float64, sums: _Sums) -> tuple[Float64, Float64]:
    """Metrics (s, len(FIGURES)) and accuracies of the classes (s, k) for weights (s, m) of the originals."""
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
