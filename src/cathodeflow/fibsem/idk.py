"""Pixels on which the global model is not to be trusted (HCL-IDK), and the control that sees the same few numbers."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.checkpoints import training_key
from cathodeflow.errors import InputError
from cathodeflow.fibsem.networks import initialised
from cathodeflow.learning import held, resolve_device
from cathodeflow.training import Record, TrainingResult, fit, warm_up_cosine

# Pixels classified at a time.
_TOGETHER = 2**16


class PixelNetwork(nn.Module):  # type: ignore[misc]
    """Feed-forward network on what the global model says of one pixel: its logits and their entropy.

    Parameters
    ----------
    n_inputs : int
        n_classes + 1.
    n_outputs : int
        1: the logit of being wrong (HCL-IDK); n_classes: logits of the phases (the control `ugsm_mlp`).
    hidden : sequence of int
        Widths of the hidden layers; the paper does not give them.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, n_inputs: int = 4, n_outputs: int = 1, *, hidden: Sequence[int] = (64, 64)) -> None:
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
    target : (n,), whether the global model is wrong, or the phase.
    """

    features: Tensor
    target: Tensor


class TrainedPixelNetwork(NamedTuple):
    """A trained network and its training; both on the CPU."""

    model: PixelNetwork
    training: TrainingResult


class Threshold(NamedTuple):
    """From which probability on a pixel is IDK, and what that gives on the pixels where it was chosen.

    precision : share of IDK pixels that are wrong; NaN where none is IDK.
    recall : share of wrong pixels that are IDK; NaN where none is wrong.
    share : of pixels that are IDK.
    """

    value: float
    precision: float
    recall: float
    share: float


def features(logits: Tensor, entropy: Tensor) -> Tensor:
    """Table (n * row * col, n_classes + 1) of logits (n, n_classes, row, col) and entropy (n, row, col)."""
    return torch.cat([logits.movedim(1, -1), entropy[..., None]], -1).flatten(0, -2)


def train_pixels(
    train: Pixels,
    validation: Pixels,
    *,
    n_outputs: int = 1,
    hidden: Sequence[int] = (64, 64),
    weight: Sequence[float] | None = None,
    epochs: int = 15,
    batch_size: int = 1024,
    pixels_per_epoch: int | None = None,
    learning_rate: float = 2e-3,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    accelerator: str = "cpu",
    on_epoch: Callable[[Record], None] | None = None,
    label: str = "IDK classifier",
) -> TrainedPixelNetwork:
    """Train on single pixels; the best epoch in validation is kept.

    Train on outputs for slices that the global model was not trained on: on its own training slices it is wrong less
    often, and in other places.

    Parameters
    ----------
    train, validation : Pixels
    n_outputs : int
        1: `target` says whether the global model is wrong, and the loss is the binary cross-entropy. More: `target` is
        the phase, and the loss the cross-entropy.
    hidden
        Of `PixelNetwork`.
    weight : sequence of float, optional
        Of the classes in the cross-entropy; of wrong pixels, the others having 1, where there is one output.
    epochs, batch_size
        15 and 1024 in the paper.
    pixels_per_epoch : int, optional
        Of the training pixels, drawn anew in every epoch; default: all.
    learning_rate : float
        Adam's at first; it follows half a cosine.
    patience, seed, checkpoint, accelerator, on_epoch, label
        Of `cathodeflow.training.fit`.

    Raises
    ------
    InputError
        When there are no pixels, or not two kinds of them, to train on.
    """
    for name, pixels in (("training", train), ("validation", validation)):
        if not len(pixels.features) or len(pixels.features) != len(pixels.target):
            found = f"{len(pixels.features)} with {len(pixels.target)} targets"
            raise InputError(f"{name} pixels", found, "some, each with a target")
    if len(torch.unique(train.target)) < 2:
        kinds = "right and wrong ones" if n_outputs == 1 else "at least two phases"
        raise InputError("training pixels", "all of one kind", kinds)
    count = len(train.target)
    per_epoch = min(pixels_per_epoch or count, count)
    model = initialised(
        lambda: PixelNetwork(train.features.shape[1], n_outputs, hidden=hidden), seed
    )  # fmt: skip
    deviation, mean = torch.std_mean(train.features, 0)
    model.mean.copy_(mean)
    model.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))
    scale = None if weight is None else torch.tensor(weight, dtype=torch.float32)
    settings = [weight, batch_size, per_epoch, learning_rate]
    key = training_key(settings, *train, *validation)
    place = resolve_device("cpu" if accelerator == "cpu" else "auto")
    train, validation = Pixels(*held(train, place)), Pixels(*held(validation, place))

    def train_batches(random: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(count, generator=random)[:per_epoch].split(batch_size):
            yield train.features[rows], train.target[rows]

    def validation_batches() -> Iterator[tuple[Tensor, Tensor]]:
        return zip(validation.features.split(_TOGETHER), validation.target.split(_TOGETHER), strict=True)

    def loss_function(network: nn.Module, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        found, target = network(batch[0]), batch[1]
        place = None if scale is None else scale.to(found.device)
        if n_outputs == 1:
            return {"loss": F.binary_cross_entropy_with_logits(found[:, 0], target.float(), pos_weight=place)}
        return {"loss": F.cross_entropy(found, target.long(), weight=place)}

    result = fit(
        model, loss_function, train_batches, validation_batches,
        epochs=epochs, patience=patience, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch, label=label,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=learning_rate),
        schedule=warm_up_cosine(epochs), key=key, accelerator=accelerator,
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
    """Precision, recall and share of IDK pixels, those with a probability of at least `value`."""
    chosen = np.asarray(probability).ravel() >= value
    bad = np.asarray(wrong, dtype=bool).ravel()
    both, n_chosen, n_bad = (float(np.count_nonzero(part)) for part in (chosen & bad, chosen, bad))
    precision, recall = (both / count if count else float("nan") for count in (n_chosen, n_bad))
    return Threshold(value, precision, recall, n_chosen / max(len(bad), 1))


def choose_threshold(
    probability: ArrayLike, wrong: ArrayLike, *, by: Literal["f1", "share", "recall"] = "f1", target: float = 0.2
) -> Threshold:
    """Choose from which probability on pixels are IDK. On validation pixels: those of the test must not decide.

    Parameters
    ----------
    probability : (n,) float
        Of being wrong.
    wrong : (n,) bool
    by : {"f1", "share", "recall"}
        The highest F1 of finding wrong pixels; the lowest threshold by which at most `target` of all pixels are IDK;
        or the highest one by which at least `target` of the wrong pixels are.
    target : float
        In (0, 1].

    Returns
    -------
    Threshold
        Where nothing is wrong, or the share allows no pixel, just above the highest probability.

    Raises
    ------
    InputError
        When there are no pixels, a probability is not finite, or `target` is out of range.

    Examples
    --------
    >>> choose_threshold([0.9, 0.8, 0.4, 0.1], [True, False, True, False], by="share", target=0.5)
    Threshold(value=0.8, precision=0.5, recall=0.5, share=0.5)
    """
    values = np.asarray(probability).ravel()
    bad = np.asarray(wrong, dtype=bool).ravel()
    if not len(values) or len(values) != len(bad) or not np.isfinite(values).all():
        raise InputError("validation pixels", f"{len(values)} probabilities, {len(bad)} answers", "as many, all finite")
    if not 0 < target <= 1:
        raise InputError("target", str(target), "above 0, at most 1")
    cut, found, chosen = _cuts(values, bad)
    if by == "share":
        allowed = np.flatnonzero(chosen <= target * len(values))
        place = int(allowed[-1]) if len(allowed) else -1
    elif not bad.any():
        place = -1
    elif by == "recall":
        place = int(np.argmax(found >= target * bad.sum()))
    else:
        place = int(np.argmax(2 * found / (chosen + bad.sum())))
    value = cut[place] if place >= 0 else np.nextafter(cut[0], np.inf, dtype=cut.dtype)
    return evaluate_threshold(values, bad, float(value))


def _cuts(
    values: NDArray[Any], bad: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Distinct probabilities, descending, with the number of wrong ones and of all from each on."""
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return ordered[last], np.cumsum(bad[order], dtype=np.int64)[last], last.astype(np.int64) + 1
