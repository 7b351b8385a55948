"""What the rule of rejection is fitted on: validation images, changed as other sessions would image them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cathodeflow.sem.augment import augment
from cathodeflow.sem.calibration import apply_mean_temperature, apply_temperature
from cathodeflow.sem.instrument_changes import change_instrument, charging_field, magnified
from cathodeflow.sem.model import SemNetwork
from cathodeflow.sem.network_options import Augment
from cathodeflow.sem.octaves import scaled_octaves
from cathodeflow.sem.ood import group_means, ood_score
from cathodeflow.sem.predictions import BATCH, network_outputs
from cathodeflow.sem.rejection import Rejection, fit_rejection, relative_scores, unknown_scores, without_class
from cathodeflow.sem.robust_options import Robust
from cathodeflow.sem.texture import texture_statistics
from cathodeflow.sem.texture_classifier import TextureClassifier, fit_texture

# Crops of an image that are used.
_EACH = 6
# Random changes of the crops that the classifier of the texture is fitted on, as by another session.
_CHANGES = Robust(magnification=1.25, octaves=2.0, curve=0.5, charging=0.1)
_AUGMENT = Augment(flip=False, rotate90=False, gamma=1.6, blur=1.0, noise=0.05)


def simulated_sessions() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return changes that another session of a microscope makes to all crops (n, 1, h, w) of an image, by name."""

    def noisy(x: Tensor) -> Tensor:
        return (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)).clamp(0, 1)

    def charged(x: Tensor) -> Tensor:
        field = charging_field(x.shape[2], x.shape[3], 0.1, len(x), torch.Generator().manual_seed(0))
        return (x + field.to(x)).clamp(0, 1)

    def focused(*factors: float) -> Callable[[Tensor], Tensor]:
        return lambda x: scaled_octaves(x, torch.tensor([factors]).expand(len(x), len(factors)).to(x)).clamp(0, 1)

    def scaled(factor: float) -> Callable[[Tensor], Tensor]:
        return lambda x: magnified(x, torch.full((len(x),), factor))

    return {
        "darker": lambda x: x**1.4,
        "brighter": lambda x: x**0.7,
        "out of focus": focused(0.4, 0.7),
        "sharper": focused(1.6, 1.3),
        "noise": noisy,
        "magnified": scaled(1.15),
        "reduced": scaled(0.87),
        "charging": charged,
    }


def random_session(seed: int) -> Callable[[Tensor], Tensor]:
    """Return a change that differs at random for each of crops (n, 1, h, w), as if sessions of a microscope did."""
    random = torch.Generator().manual_seed(seed)
    return lambda x: augment(change_instrument(x, random, _CHANGES), random, _AUGMENT)


def measured_texture(
    crops: Any, train: NDArray[np.int64], validation: NDArray[np.int64], labels: NDArray[np.int64]
) -> TextureClassifier:
    """Fit the classifier of the texture, on crops as they are and changed at random as other sessions image them.

    Parameters
    ----------
    crops : (n, side, side) uint8
    train, validation : (m,) int, ascending
        Crops to use.
    labels : (n,) int
        Class of each crop.
    """
    change = random_session(0)
    found: list[NDArray[Any]] = []
    for numbers in (train, validation):
        array = np.asarray(crops[numbers])
        parts = [texture_statistics(array), texture_statistics(changed_crops(array, change))]
        found += [np.concatenate(parts), np.tile(labels[numbers], 2)]
    return fit_texture(*found)


def measured_rejection(
    model: SemNetwork,
    crops: Any,
    numbers: NDArray[np.int64],
    labels: NDArray[np.int64],
    originals: NDArray[np.int64],
    metadata: Mapping[str, Any],
    *,
    device: torch.device,
) -> Rejection:
    """Fit the rule of rejection on validation images.

    Parameters
    ----------
    model : SemNetwork
    crops : (n, side, side) uint8
    numbers : (m,) int
        Validation crops.
    labels, originals : (n,) int
        Class and image of each crop.
    metadata : mapping
        temperature, original_temperature, statistics, texture, of this network.
    device : torch.device
    """
    order = np.lexsort((numbers, originals[numbers]))
    groups = originals[numbers][order]
    within = np.arange(len(groups)) - np.searchsorted(groups, groups)
    chosen = np.sort(numbers[order][within < _EACH])
    array = np.asarray(crops[chosen])
    names = originals[chosen]
    first = np.unique(names, return_index=True)[1]
    truth, statistics = labels[chosen][first], metadata["statistics"]
    found: list[tuple[NDArray[Any], ...]] = []

    def add(p: NDArray[Any], score: NDArray[Any], texture: NDArray[Any]) -> None:
        best = p.argmax(1)
        relative = relative_scores(score, statistics)
        found.append((p.max(1), relative, best == truth, texture[np.arange(len(best)), best]))

    for change in (None, *simulated_sessions().values()):
        seen = array if change is None else changed_crops(array, change)
        outputs = network_outputs(model, seen, batch_size=BATCH, device=device)
        means = group_means(apply_temperature(outputs.logits, metadata["temperature"]), names)
        p = apply_mean_temperature(means, metadata["original_temperature"])
        features = group_means(outputs.features, names)
        texture = group_means(metadata["texture"].of_crops(seen), names)
        add(p, ood_score(features, statistics), texture)
        if change is None and len(np.unique(truth)) > 2:
            others = unknown_scores(features, truth, statistics)
            add(without_class(p, truth), others, without_class(texture, truth))
    model.to("cpu")
    kinds = np.repeat(np.arange(len(found)), len(truth))
    confidence, score, right, agreement = (np.concatenate(part) for part in zip(*found, strict=True))
    return fit_rejection(confidence, score, right, kinds, agreement=agreement)


def changed_crops(crops: NDArray[np.uint8], change: Callable[[Tensor], Tensor]) -> NDArray[np.uint8]:
    """Apply a change of crops (n, 1, h, w) in 0..1 to stored ones (n, h, w)."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(crops), BATCH):
            x = torch.from_numpy(crops[start : start + BATCH]).float()[:, None] / 255
            parts.append(change(x).mul(255).round().clamp(0, 255).to(torch.uint8)[:, 0].numpy())
    return np.concatenate(parts)
