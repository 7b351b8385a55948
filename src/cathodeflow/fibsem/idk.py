"""IDK classifier: pixels where the global model is wrong (HCL-IDK), and the control with the same inputs."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.checkpoints import training_key
from cathodeflow.errors import InputError
from cathodeflow.fibsem.initial_weights import initialised
from cathodeflow.fibsem.network_options import TrainIdk
from cathodeflow.learning import held, resolve_device
from cathodeflow.training.epochs import Epoch, Record
from cathodeflow.training.loop import TrainingResult, fit

# Pixels classified at a time.
_TOGETHER = 2**16


class PixelNetwork(nn.Module):  # type: ignore[misc]
    """Feed-forward network on the output of the global model for one pixel: its logits and their entropy.

    Parameters
    ----------
    n_inputs : int
        n_classes + 1.
    n_outputs : int
        1: logit of the global model being wrong (HCL-IDK); n_classes: logits of the classes (the control `ugsm_mlp`).
    hidden : sequence of int
        Hidden units of each layer; the paper does not state them.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, n_inputs: int, n_outputs: int, *, hidden: Sequence[int]) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"n_inputs": n_inputs, "n_outputs": n_outputs, "hidden": list(hidden)}
        self.register_buffer("mean", torch.zeros(n_inputs))
        self.register_buffer("deviation", torch.ones(n_inputs))
        widths = [n_inputs, *hidden]
        layers: list[nn.Module] = []
        for before, after in zip(widths, hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], n_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Turn (n, n_inputs) features into (n, n_outputs) logits."""
        return self.layers((x - self.mean) / self.deviation)


class Pixels(NamedTuple):
    """Pixels to train on.

    features : (n, n_classes + 1) float32 (`features`).
    target : (n,), whether the global model is wrong, or the class.
    """

    features: Tensor
    target: Tensor


class TrainedPixelNetwork(NamedTuple):
    """A trained network and its training; both on the CPU."""

    model: PixelNetwork
    training: TrainingResult


class Threshold(NamedTuple):
    """Probability above which a pixel is IDK, and its quality on the pixels where it was chosen.

    precision : fraction of the IDK pixels that are wrong; NaN if no pixel is IDK.
    recall : fraction of the wrong pixels that are IDK; NaN if no pixel is wrong.
    share : fraction of all pixels that are IDK.
    """

    value: float
    precision: float
    recall: float
    share: float


def features(logits: Tensor, entropy: Tensor) -> Tensor:
    """Arrange logits (n, n_classes, row, col) and entropy (n, row, col) as a table (n * row * col, n_classes + 1)."""
    return torch.cat([logits.movedim(1, -1), entropy[..., None]], -1).flatten(0, -2)


def train_pixels(
    train: Pixels,
    validation: Pixels,
    options: TrainIdk,
    *,
    n_outputs: int = 1,
    weight: Sequence[float] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    on_epoch: Callable[[Record], None] | None = None,
    label: str = "IDK classifier",
) -> TrainedPixelNetwork:
    """Train a network on single pixels; the epoch with the lowest validation loss is kept.

    Use out-of-fold predictions: on its own training slices the global model is wrong less often and at other
    pixels.

    Parameters
    ----------
    train, validation : Pixels
    options : TrainIdk
    n_outputs : int
        1: `target` is whether the global model is wrong, and the loss is the binary cross-entropy. More: `target` is
        the class, and the loss is the cross-entropy.
    weight : sequence of float, optional
        Class weights of the cross-entropy; with one output, the weight of wrong pixels relative to the others.
    checkpoint, on_epoch, label
        Of `cathodeflow.training.loop.fit`; `on_epoch` is called at the end of each epoch.

    Raises
    ------
    InputError
        There are no pixels, or all training pixels have the same target.
    """
    for name, pixels in (("training", train), ("validation", validation)):
        if not len(pixels.features) or len(pixels.features) != len(pixels.target):
            found = f"{len(pixels.features)} with {len(pixels.target)} targets"
            raise InputError(f"{name} pixels", found, "at least one, each with a target")
    kinds = torch.unique(train.target)
    if len(kinds) < 2:
        found = f"a single class, {int(kinds[0])}"
        if n_outputs == 1:
            found = "only wrong pixels" if kinds[0] else "no wrong pixel, so there is nothing to learn"
        expected = "right and wrong pixels: use more slices" if n_outputs == 1 else "at least two classes"
        raise InputError(f"{label}: training pixels", found, expected)
    count = len(train.target)
    per_epoch = min(options.pixels_per_epoch or count, count)
    model = initialised(
        lambda: PixelNetwork(train.features.shape[1], n_outputs, hidden=options.hidden), options.seed or 0
    )
    deviation, mean = torch.std_mean(train.features, 0)
    model.mean.copy_(mean)
    model.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))
    scale = None if weight is None else torch.tensor(weight, dtype=torch.float32)
    key = training_key(weight, *train, *validation)
    device = resolve_device(options.device or "auto")
    train, validation = Pixels(*held(train, device)), Pixels(*held(validation, device))

    def train_batches(epoch: Epoch) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(count, generator=epoch.random)[:per_epoch].split(options.batch_size):
            yield train.features[rows], train.target[rows]

    def validation_batches() -> Iterator[tuple[Tensor, Tensor]]:
        return zip(validation.features.split(_TOGETHER), validation.target.split(_TOGETHER), strict=True)

    def loss_function(network: nn.Module, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        found, target = network(batch[0]), batch[1]
        weights = None if scale is None else scale.to(found.device)
        if n_outputs == 1:
            return {"loss": F.binary_cross_entropy_with_logits(found[:, 0], target.float(), pos_weight=weights)}
        return {"loss": F.cross_entropy(found, target.long(), weight=weights)}

    result = fit(
        model, loss_function, train_batches, validation_batches, options, checkpoint=checkpoint, key=key,
        on_epoch_end=on_epoch, label=label,
    )  # fmt: skip
    return TrainedPixelNetwork(model, result)


def classify_pixels(model: PixelNetwork, logits: Tensor, entropy: Tensor) -> Tensor:
    """Apply a pixel network to logits (n, n_classes, row, col) and entropy: (n, n_outputs, row, col) float32."""
    device = model.mean.device
    with torch.inference_mode():
        parts = [model(part.to(device)).cpu() for part in features(logits, entropy).split(_TOGETHER)]
    n, _, rows, cols = logits.shape
    return torch.cat(parts).view(n, rows, cols, -1).movedim(-1, 1).contiguous()


def idk_probability(model: PixelNetwork, logits: Tensor, entropy: Tensor) -> Tensor:
    """Probability (n, row, col) that the global model is wrong, by a network with one output."""
    return torch.sigmoid(classify_pixels(model, logits, entropy)[:, 0])


def evaluate_threshold(probability: ArrayLike, wrong: ArrayLike, value: float) -> Threshold:
    """Compute precision, recall and fraction of the IDK pixels, those with a probability of at least `value`."""
    chosen = np.asarray(probability).ravel() >= value
    bad = np.asarray(wrong, dtype=bool).ravel()
    both, n_chosen, n_bad = (float(np.count_nonzero(part)) for part in (chosen & bad, chosen, bad))
    precision, recall = (both / count if count else float("nan") for count in (n_chosen, n_bad))
    return Threshold(value, precision, recall, n_chosen / max(len(bad), 1))


def choose_threshold(probability: ArrayLike, wrong: ArrayLike, options: TrainIdk) -> Threshold:
    """Choose the probability above which a pixel is IDK, on pixels of the validation set.

    Parameters
    ----------
    probability : (n,) float
        Probability of being wrong.
    wrong : (n,) bool
    options : TrainIdk
        `threshold`: "f1", the highest F1 of finding wrong pixels; "fraction", the lowest probability for which at most
        the fraction `target` of all pixels is IDK; "recall", the highest for which at least the fraction `target` of
        the wrong pixels is IDK; "half", 0.5.

    Returns
    -------
    Threshold
        If no pixel is wrong, or the fraction is less than one pixel, just above the highest probability.

    Raises
    ------
    InputError
        There are no pixels, or a probability is not finite.

    Examples
    --------
    >>> choose_threshold([0.9, 0.8, 0.4, 0.1], [True, False, True, False], TrainIdk(target=0.5))
    Threshold(value=0.8, precision=0.5, recall=0.5, share=0.5)
    """
    values = np.asarray(probability).ravel()
    bad = np.asarray(wrong, dtype=bool).ravel()
    if not len(values) or len(values) != len(bad) or not np.isfinite(values).all():
        found = f"{len(values)} probabilities, {len(bad)} references"
        raise InputError("validation pixels", found, "the same number, all finite")
    if options.threshold == "half":
        return evaluate_threshold(values, bad, 0.5)
    cut, n_found, n_chosen = _cuts(values, bad)
    if options.threshold == "fraction":
        allowed = np.flatnonzero(n_chosen <= options.target * len(values))
        index = int(allowed[-1]) if len(allowed) else -1
    elif not bad.any():
        index = -1
    elif options.threshold == "recall":
        index = int(np.argmax(n_found >= options.target * bad.sum()))
    else:
        index = int(np.argmax(2 * n_found / (n_chosen + bad.sum())))
    value = cut[index] if index >= 0 else np.nextafter(cut[0], np.inf, dtype=cut.dtype)
    return evaluate_threshold(values, bad, float(value))


def _cuts(
    values: NDArray[Any], bad: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Distinct probabilities, descending, with the numbers of wrong pixels and of all pixels at or above each."""
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return ordered[last], np.cumsum(bad[order], dtype=np.int64)[last], last.astype(np.int64) + 1
