"""A network of `sem train` run by onnxruntime: on CPUs it is twice as fast as torch, which need not be imported."""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded
from cathodeflow.io.onnx_graphs import arrays_from_text, arrays_to_text
from cathodeflow.sem.nickel import NickelRegression
from cathodeflow.sem.ood import FeatureStatistics
from cathodeflow.sem.rejection import Rejection
from cathodeflow.sem.texture_classifier import TextureClassifier

#: Names of the graph's input, (n, 1, side, side) float32 in 0..1, and of its outputs.
CROPS, LOGITS, FEATURES = "crops", "logits", "features"
#: Names of the metadata in the graph, and those that a prediction needs.
METADATA = "cathodeflow"
#: Metadata that are arrays: `cathodeflow.<name>`.
ARRAYS: dict[str, Any] = {
    "statistics": FeatureStatistics,
    "nickel": NickelRegression,
    "rejection": Rejection,
    "texture": TextureClassifier,
}
NEEDED = ("classes", "pixels", "side", "margin", "pixel_nm", "temperature", "original_temperature")
# Those that graphs made by earlier versions lack.
_LATER = ("min_usable",)


class Outputs(NamedTuple):
    """Outputs of a network for crops: logits (n, k) and pooled features (n, c), both float32."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32]


def as_properties(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of a network (`model.load_network`) as texts, which a graph can hold."""
    texts = {METADATA: json.dumps(_chosen(metadata), sort_keys=True)}
    for kind in ARRAYS:
        if (arrays := metadata.get(kind)) is not None:
            texts[f"{METADATA}.{kind}"] = arrays_to_text(arrays._asdict())
    return texts


def _chosen(metadata: Mapping[str, Any]) -> dict[str, Any]:
    later = {name: metadata[name] for name in _LATER if metadata.get(name) is not None}
    return {name: metadata[name] for name in NEEDED} | later


class OnnxNetwork:
    """A network with everything that a prediction needs; several threads may use it at the same time.

    Parameters
    ----------
    graph : bytes
        Of `onnx_export.onnx_graph`.
    where : path
        File that it comes from, for errors.

    Attributes
    ----------
    metadata : dict
        `NEEDED`, the arrays of `ARRAYS` (None where it has none), as `model.load_network` returns them.

    Raises
    ------
    InputError
        The graph is damaged, or not one of `sem export`.
    """

    def __init__(self, graph: bytes, where: str | os.PathLike[str]) -> None:
        import onnxruntime  # only where a network is run

        expected = "a network that `cathodeflow sem export` wrote"
        settings = onnxruntime.SessionOptions()
        # Images are predicted side by side, each in one thread: threads inside a layer wait for each other.
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = 4
        with guarded(where, expected):
            self._session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
            stored = dict(self._session.get_modelmeta().custom_metadata_map)
            self.metadata: dict[str, Any] = json.loads(stored.get(METADATA, "{}"))
        if any(name not in self.metadata for name in NEEDED):
            raise InputError(where, "a graph without a description of its network", expected)
        for kind, fields in ARRAYS.items():
            text = stored.get(f"{METADATA}.{kind}")
            self.metadata[kind] = fields(**arrays_from_text(text, where)) if text else None

    @property
    def classes(self) -> list[str]:
        """Classes in the order of the logits."""
        return list(self.metadata["classes"])

    def outputs(self, crops: NDArray[np.uint8], *, batch_size: int) -> Outputs:
        """Compute logits and features of crops (n, side, side)."""
        parts = []
        for start in range(0, len(crops), batch_size):
            batch = crops[start : start + batch_size, None].astype(np.float32) / np.float32(255)
            parts.append(self._session.run([LOGITS, FEATURES], {CROPS: batch}))
        return Outputs(*(np.concatenate(part) for part in zip(*parts, strict=True)))
