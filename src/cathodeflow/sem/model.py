"""The network that tells composition and state of a cathode from a grey crop, and its file."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cathodeflow.checkpoints import derived_seed
from cathodeflow.errors import InputError
from cathodeflow.io.models import load_model, restore, save_model
from cathodeflow.sem.backbones import Backbone, create_backbone
from cathodeflow.sem.strangeness import FeatureStatistics

Heads = Literal["joint", "axes"]
Standardise = Literal["crop", "imagenet", "none"]
# A crop without any contrast keeps its zeros instead of turning rounding into a pattern.
_LEAST_DEVIATION = 1e-3
_INITIALISATION = 2**32 - 1
_STATISTICS = "statistics."
_ARCHITECTURE = ("classes", "backbone", "heads", "dropout", "standardise")


class SemNetwork(nn.Module):  # type: ignore[misc]
    """Grey crops -> logits of the classes.

    Standardising is part of the network, so that nothing that uses it can forget it.

    Parameters
    ----------
    backbone : Backbone
    name : str
        The backbone's.
    classes : sequence of str
        `<composition>` or `<composition>_<state>`, in the order of the outputs.
    heads : {"joint", "axes"}
        One output per class; or one per composition and per state, whose log-probabilities are added for the classes
        that exist.
    dropout : float
        Share of features left out in training.
    standardise : {"crop", "imagenet", "none"}
        Every crop to mean 0 and deviation 1; by ImageNet's mean and deviation of grey; not at all.
    """

    def __init__(
        self, backbone: Backbone, name: str, classes: Sequence[str], *, heads: Heads, dropout: float,
        standardise: Standardise,
    ) -> None:  # fmt: skip
        super().__init__()
        self.architecture: dict[str, Any] = {
            "classes": list(classes), "backbone": name, "heads": heads, "dropout": dropout, "standardise": standardise
        }  # fmt: skip
        self.backbone, self.mean, self.deviation = backbone.network, backbone.mean, backbone.deviation
        self.dropout = nn.Dropout(dropout)
        axes = [[part.partition("_")[axis] for part in classes] for axis in (0, 2)]
        found = [sorted(set(values)) for values in axes]
        widths = [len(classes)] if heads == "joint" else [len(values) for values in found]
        self.heads = nn.ModuleList([nn.Linear(backbone.channels, width) for width in widths])
        # Number of each class's composition and state.
        self._places = [[known.index(value) for value in values] for known, values in zip(found, axes, strict=True)]

    @property
    def classes(self) -> list[str]:
        """Classes in the order of the logits."""
        return list(self.architecture["classes"])

    def standardised(self, x: Tensor) -> Tensor:
        """Standardise (n, 1, h, w) crops in 0..1."""
        how = self.architecture["standardise"]
        if how == "crop":
            centred = x - x.mean((1, 2, 3), keepdim=True)
            return centred / centred.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(_LEAST_DEVIATION)
        return (x - self.mean) / self.deviation if how == "imagenet" else x

    def maps(self, x: Tensor) -> Tensor:
        """Turn (n, 1, h, w) crops in 0..1 into (n, c, h', w') feature maps."""
        return self.backbone(self.standardised(x).contiguous(memory_format=torch.channels_last))

    def pool(self, maps: Tensor) -> Tensor:
        """Mean (n, c) features of maps."""
        return maps.float().mean((2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """Turn (n, c) features into (n, k) logits; the classes' probabilities are their softmax."""
        # In full precision: bfloat16 has two to three digits, and calibration looks at more.
        with torch.autocast(features.device.type, enabled=False):
            outputs = [head(self.dropout(features.float())) for head in self.heads]
            if self.architecture["heads"] == "joint":
                return outputs[0]
            parts = [
                torch.log_softmax(output, 1)[:, places] for output, places in zip(outputs, self._places, strict=True)
            ]
            return torch.log_softmax(parts[0] + parts[1], 1)

    def features(self, x: Tensor) -> Tensor:
        """Turn (n, 1, h, w) crops in 0..1 into (n, c) features."""
        return self.pool(self.maps(x))

    def forward(self, x: Tensor) -> Tensor:
        """Turn (n, 1, h, w) crops in 0..1 into (n, k) logits."""
        return self.logits(self.features(x))


def build_model(
    classes: Sequence[str],
    *,
    backbone: str = "resnet18_half",
    weights: str | os.PathLike[str] = "none",
    heads: Heads = "joint",
    dropout: float = 0.1,
    standardise: Standardise = "crop",
    seed: int = 0,
) -> SemNetwork:
    """Make a network with initial weights that depend on the seed alone; global random state stays as it was.

    Parameters
    ----------
    classes, heads, dropout, standardise
        Of `SemNetwork`.
    backbone, weights
        Of `cathodeflow.sem.backbones.create_backbone`.
    seed : int

    Raises
    ------
    InputError
        Fewer than two classes, classes that occur twice, and what `create_backbone` raises.
    """
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise InputError("classes", ", ".join(classes) or "none", "at least two different ones")
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(derived_seed(seed, _INITIALISATION))
        network = create_backbone(backbone, weights=weights)
        model = SemNetwork(network, backbone, classes, heads=heads, dropout=dropout, standardise=standardise)
    return model.to(memory_format=torch.channels_last)


def save_network(path: str | os.PathLike[str], model: SemNetwork, metadata: Mapping[str, Any]) -> None:
    """Write a network with all that using it needs.

    Parameters
    ----------
    path : path
    model : SemNetwork
    metadata : mapping
        What JSON can hold, such as `pixels`, `side`, `pixel_nm`, `margin`, `temperature`, `original_temperature`,
        `options`; and `statistics`, the features of known images (`FeatureStatistics`) or None.
    """
    rest = dict(metadata)
    statistics = rest.pop("statistics", None)
    tensors = dict(model.state_dict())
    if statistics is not None:
        tensors |= {_STATISTICS + name: torch.from_numpy(value) for name, value in statistics._asdict().items()}
    save_model(path, tensors, rest | model.architecture)


def load_network(path: str | os.PathLike[str]) -> tuple[SemNetwork, dict[str, Any]]:
    """Read what `save_network` wrote.

    Returns
    -------
    model : SemNetwork
        On the CPU, in evaluation mode.
    metadata : dict
        As it was given, with `statistics` (None where there were none) and `classes`, `backbone`, `heads`, `dropout`,
        `standardise`.

    Raises
    ------
    InputError
        When the file is missing, damaged or holds something else.
    """
    expected = "a network of sem_train"
    weights, metadata = load_model(path)
    if any(name not in metadata for name in _ARCHITECTURE):
        raise InputError(path, "weights without a description of their network", expected)
    found = {
        name: value.numpy()
        for name in FeatureStatistics._fields
        if (value := weights.pop(_STATISTICS + name, None)) is not None
    }
    described = {name: metadata[name] for name in _ARCHITECTURE}
    model = restore(lambda: build_model(**described), weights, where=path, expected=expected)
    complete = len(found) == len(FeatureStatistics._fields)
    return model, metadata | {"statistics": FeatureStatistics(**found) if complete else None}


def as_input(crops: np.ndarray | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Bring (n, h, w) uint8 crops to a device as (n, 1, h, w) float32 in 0..1."""
    return torch.as_tensor(crops).to(device).unsqueeze(1).float().div_(255)
