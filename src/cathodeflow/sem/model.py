"""The network that classifies composition and state of a cathode from a crop, and its file."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from cathodeflow.errors import InputError
from cathodeflow.io.models import load_model, restore, save_model
from cathodeflow.options import from_config
from cathodeflow.seeds import derived_seed
from cathodeflow.sem.backbones import Backbone, create_backbone
from cathodeflow.sem.network_options import Train
from cathodeflow.sem.nickel import NickelRegression
from cathodeflow.sem.octaves import equal_histogram, equal_octaves, standardized
from cathodeflow.sem.ood import FeatureStatistics
from cathodeflow.sem.rejection import Rejection
from cathodeflow.sem.texture_classifier import TextureClassifier

_INITIALISATION = 2**32 - 1
# Metadata that are arrays, which the file holds as tensors: `<name>.<field>`.
_ARRAYS: dict[str, Any] = {
    "statistics": FeatureStatistics,
    "nickel": NickelRegression,
    "rejection": Rejection,
    "texture": TextureClassifier,
}
_ARCHITECTURE = ("backbone", "heads", "dropout", "normalization")
# As files of earlier versions call it.
_NORMALIZATION = "standardise"


class SemNetwork(nn.Module):  # type: ignore[misc]
    """Greyscale crops -> logits of the classes.

    Normalization is part of the network, so that no user of the network can forget it. With `heads: axes`, the
    log-probabilities of composition and state are added for the classes that exist.

    Parameters
    ----------
    backbone : Backbone
    classes : sequence of str
        `<composition>` or `<composition>_<state>`, in the order of the outputs.
    options : Train
        `backbone` (its name), `heads`, `dropout`, `normalization`, `frozen`.
    """

    def __init__(self, backbone: Backbone, classes: Sequence[str], options: Train) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {"classes": list(classes), **options.model_dump(include=set(_ARCHITECTURE))}
        self.backbone, self.mean, self.deviation = backbone.network, backbone.mean, backbone.deviation
        self.frozen = options.frozen
        self.backbone.requires_grad_(not options.frozen)
        self.dropout = nn.Dropout(options.dropout)
        axes = [[part.partition("_")[axis] for part in classes] for axis in (0, 2)]
        found = [sorted(set(values)) for values in axes]
        widths = [len(classes)] if options.heads == "joint" else [len(values) for values in found]
        self.heads = nn.ModuleList([nn.Linear(backbone.channels, width) for width in widths])
        # Output of each class's composition and state.
        self._outputs = [[known.index(value) for value in values] for known, values in zip(found, axes, strict=True)]

    @property
    def classes(self) -> list[str]:
        """Classes in the order of the logits."""
        return list(self.architecture["classes"])

    def train(self, mode: bool = True) -> Self:
        """Set the mode of training; frozen layers keep their statistics of batch norm."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def normalized(self, x: Tensor) -> Tensor:
        """Normalize (n, 1, h, w) crops in 0..1."""
        normalization = self.architecture["normalization"]
        if normalization == "crop":
            return standardized(x)
        # In training with bfloat16 crops are rounded: ranks and small differences need all digits.
        if normalization == "octaves":
            return equal_octaves(x.float())
        if normalization == "histogram":
            return equal_histogram(x.float())
        return (x - self.mean) / self.deviation if normalization == "imagenet" else x

    def maps(self, x: Tensor) -> Tensor:
        """Compute the (n, c, h', w') feature maps of (n, 1, h, w) crops in 0..1."""
        return self.backbone(self.normalized(x).contiguous(memory_format=torch.channels_last))

    def pool(self, maps: Tensor) -> Tensor:
        """Average feature maps to (n, c) features."""
        return maps.float().mean((2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """Compute the (n, k) logits of (n, c) features; the class probabilities are their softmax."""
        # In full precision: bfloat16 has two to three digits, which is too few for calibration.
        with torch.autocast(features.device.type, enabled=False):
            outputs = [head(self.dropout(features.float())) for head in self.heads]
            if self.architecture["heads"] == "joint":
                return outputs[0]
            parts = [
                torch.log_softmax(output, 1)[:, numbers] for output, numbers in zip(outputs, self._outputs, strict=True)
            ]
            return torch.log_softmax(parts[0] + parts[1], 1)

    def features(self, x: Tensor) -> Tensor:
        """Compute the (n, c) features of (n, 1, h, w) crops in 0..1."""
        return self.pool(self.maps(x))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the (n, k) logits of (n, 1, h, w) crops in 0..1."""
        return self.logits(self.features(x))


def build_model(classes: Sequence[str], options: Train) -> SemNetwork:
    """Make a network whose initial weights depend only on the seed; the global random state does not change.

    Parameters
    ----------
    classes : sequence of str
        Of `SemNetwork`.
    options : Train
        Those of `SemNetwork`, `weights` (`cathodeflow.sem.backbones.create_backbone`) and `seed`.

    Raises
    ------
    InputError
        Fewer than two classes, classes that occur twice, and what `create_backbone` raises.
    """
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise InputError("classes", ", ".join(classes) or "none", "at least two different ones")
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(derived_seed(options.seed or 0, _INITIALISATION))
        model = SemNetwork(
            create_backbone(options.backbone, weights=options.weights, drop_path=options.drop_connect),
            classes,
            options,
        )
    return model.to(memory_format=torch.channels_last)


def save_network(
    path: str | os.PathLike[str], model: SemNetwork, metadata: Mapping[str, Any], *, graph: bytes | None = None
) -> None:
    """Write a network with everything that is needed to use it.

    Parameters
    ----------
    path : path
    model : SemNetwork
    metadata : mapping
        JSON values such as `pixels`, `side`, `pixel_nm`, `margin`, `temperature`, `original_temperature`, `options`;
        and `statistics`, the features of the training images (`FeatureStatistics`), and `nickel`, the regression of the
        nickel fraction on them (`NickelRegression`), `rejection` and `texture`, or None for each.
    graph : bytes, optional
        The network as ONNX (`onnx_export.onnx_graph`), so that it can be used on CPUs without torch.
    """
    rest = dict(metadata)
    tensors = dict(model.state_dict())
    for kind in _ARRAYS:
        if (arrays := rest.pop(kind, None)) is not None:
            tensors |= {f"{kind}.{name}": torch.from_numpy(value) for name, value in arrays._asdict().items()}
    save_model(path, tensors, rest | model.architecture, graph=graph)


def load_network(path: str | os.PathLike[str]) -> tuple[SemNetwork, dict[str, Any]]:
    """Read a network that `save_network` wrote, also in earlier versions.

    Returns
    -------
    model : SemNetwork
        On the CPU, in evaluation mode.
    metadata : dict
        That of `save_network`, with `statistics`, `nickel`, `rejection` and `texture` (None without any) and `classes`,
        `backbone`, `heads`, `dropout`, `normalization`.

    Raises
    ------
    InputError
        The file is missing, damaged or holds something else.
    """
    expected = "a network of sem_train"
    weights, metadata = load_model(path)
    if _NORMALIZATION in metadata:
        metadata["normalization"] = metadata.pop(_NORMALIZATION)
    if any(name not in metadata for name in ("classes", *_ARCHITECTURE)):
        raise InputError(path, "weights without a description of their network", expected)
    arrays = {kind: _taken(weights, kind, fields) for kind, fields in _ARRAYS.items()}
    options = from_config(Train, {name: metadata[name] for name in _ARCHITECTURE}, os.fspath(path))
    model = restore(lambda: build_model(metadata["classes"], options), weights, where=path, expected=expected)
    return model, metadata | arrays


def _taken(weights: dict[str, Tensor], kind: str, fields: Any) -> Any:
    """Take arrays out of the tensors of a file; None if one is missing."""
    found = {
        name: value.numpy()
        for name in fields._fields
        if (value := weights.pop(f"{kind}.{name}", None)) is not None
    }  # fmt: skip
    return fields(**found) if len(found) == len(fields._fields) else None


def as_input(crops: np.ndarray | Tensor, device: torch.device | str) -> Tensor:
    """Move (n, h, w) uint8 crops to a device as (n, 1, h, w) float32 in 0..1."""
    return torch.as_tensor(crops).to(device).unsqueeze(1).float().div_(255)
