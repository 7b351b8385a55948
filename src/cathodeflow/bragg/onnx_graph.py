"""BraggNN as an ONNX graph."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cathodeflow.bragg.model import SLOPE, BraggNN

# Supported by onnxruntime since version 1.13.
_OPSET, _IR = 17, 8


def onnx_model(model: BraggNN) -> onnx.ModelProto:
    """Write the network as an ONNX graph, its first linear layers multiplied out (`BraggNN.folded`).

    Input `patches` (n, 1, patch_size, patch_size) float32, output `position` (n, 2): (col, row) over the patch size.
    """
    side = model.patch_size - 2
    with torch.no_grad():
        query, query_bias, mix, bias = (part.cpu().double().numpy() for part in model.folded())
    weights: dict[str, NDArray[Any]] = {
        # One convolution gives the 9 queries and, through unit kernels, the 9 pixels of the neighbourhood.
        "query": np.concatenate([query, np.eye(9)]).reshape(18, 1, 3, 3),
        "query_bias": np.concatenate([query_bias, np.zeros(9)]),
        "mix": mix[:, :, None, None],
        "bias": bias,
    }
    nodes = [
        helper.make_node("Conv", ["patches", "query", "query_bias"], ["both_map"]),
        helper.make_node("Reshape", ["both_map", "to_list"], ["both"]),
        helper.make_node("Split", ["both"], ["queries", "neighbours"], axis=1),
        helper.make_node("Transpose", ["queries"], ["queries_t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["queries_t", "neighbours"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["attention"], axis=-1),
        helper.make_node("Transpose", ["attention"], ["attention_t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["neighbours", "attention_t"], ["attended"]),
        helper.make_node("Concat", ["neighbours", "attended"], ["mixed"], axis=1),
        helper.make_node("Reshape", ["mixed", "to_map"], ["mixed_map"]),
        helper.make_node("Conv", ["mixed_map", "mix", "bias"], ["features"]),
    ]
    name = "features"
    for number, layer in enumerate(_layers_after(model)):
        before, name = name, f"layer_{number}"
        if isinstance(layer, nn.LeakyReLU):
            nodes.append(helper.make_node("LeakyRelu", [before], [name], alpha=SLOPE))
        elif isinstance(layer, nn.Flatten):
            nodes.append(helper.make_node("Flatten", [before], [name]))
        else:
            weights[f"weight_{number}"] = layer.weight.detach().cpu().numpy()
            weights[f"bias_{number}"] = layer.bias.detach().cpu().numpy()
            inputs = [before, f"weight_{number}", f"bias_{number}"]
            linear = isinstance(layer, nn.Linear)
            nodes.append(helper.make_node("Gemm", inputs, [name], transB=1) if linear
                         else helper.make_node("Conv", inputs, [name]))  # fmt: skip
    nodes[-1].output[0] = "position"
    initial = [numpy_helper.from_array(np.ascontiguousarray(w, dtype=np.float32), name) for name, w in weights.items()]
    for name, shape in {"to_list": [0, 18, side * side], "to_map": [0, 18, side, side]}.items():
        initial.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    size = model.patch_size
    graph = helper.make_graph(
        nodes, "BraggNN",
        [helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["n", 1, size, size])],
        [helper.make_tensor_value_info("position", TensorProto.FLOAT, ["n", 2])],
        initial,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    onnx.checker.check_model(made)
    return made


def _layers_after(model: BraggNN) -> Iterator[Any]:
    yield from list(model.cnn_layers)[1:]
    yield nn.Flatten()
    yield from model.dense_layers
