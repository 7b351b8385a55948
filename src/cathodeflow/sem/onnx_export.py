"""A trained network as an ONNX graph, for onnxruntime and other programs."""

import copy
import io
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cathodeflow.errors import InputError
from cathodeflow.io.guard import one_line
from cathodeflow.sem.fixed_padding import fix_padding
from cathodeflow.sem.model import SemNetwork
from cathodeflow.sem.onnx_network import CROPS, FEATURES, LOGITS, as_properties

# Supported by onnxruntime since version 1.13.
_OPSET = 17


class _BothOutputs(nn.Module):  # type: ignore[misc]
    def __init__(self, network: SemNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.features(crops)
        return self.network.logits(features), features


def onnx_graph(model: SemNetwork, metadata: Mapping[str, Any]) -> bytes:
    """Make an ONNX graph of a network, with batch norm and padding folded into the convolutions.

    Parameters
    ----------
    model : SemNetwork
        It is not changed.
    metadata : mapping
        Of `model.load_network`.

    Returns
    -------
    bytes
        Input `crops` (n, 1, side, side) float32 in 0..1; outputs `logits` (n, k) before the temperature and `features`
        (n, c); metadata `cathodeflow` in JSON and `cathodeflow.statistics`. The same network gives the same bytes.

    Raises
    ------
    InputError
        A layer of the network cannot be expressed in ONNX.
    """
    import onnx  # only where a graph is made

    # A copy: the exporter changes the mode of the network that it is given.
    network = _BothOutputs(copy.deepcopy(model).cpu()).eval()
    example = torch.zeros(2, 1, metadata["side"], metadata["side"])
    fix_padding(network, example)
    buffer = io.BytesIO()
    axes = {name: {0: "n"} for name in (CROPS, LOGITS, FEATURES)}
    with warnings.catch_warnings():
        # The exporter by tracing is called old; the new one needs a further package and several times as long.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                network, (example,), buffer, dynamo=False, opset_version=_OPSET, input_names=[CROPS],
                output_names=[LOGITS, FEATURES], dynamic_axes=axes,
            )  # fmt: skip
        except (RuntimeError, TypeError, ValueError) as error:
            raise InputError("network", f"an error ({one_line(error)})", "layers that ONNX has") from error
    made = onnx.load_from_string(buffer.getvalue())
    for name, text in as_properties(metadata).items():
        made.metadata_props.add(key=name, value=text)
    graph: bytes = made.SerializeToString(deterministic=True)
    return graph
