"""BraggNN and its derivatives as an ONNX graph."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cathodeflow.bragg.model import BORDER, LAST_CHANNELS, SLOPE, BraggNN

# Supported by onnxruntime since version 1.13.
_OPSET, _IR = 17, 8


def onnx_model(model: BraggNN, *, jacobian: bool = False) -> onnx.ModelProto:
    """Write the network as an ONNX graph, its first linear layers multiplied out (`BraggNN.folded`).

    Input `patches` (n, 1, patch_size, patch_size) float32, output `position` (n, 2): (col, row) over the patch size.
    With `jacobian`, the second output is `slopes` (n, 2, patch_size, patch_size): the derivatives of these two numbers
    by the pixels of their patch, by reverse accumulation written out as nodes.
    """
    size = model.patch_size
    graph = _Graph(model)
    graph.forward()
    outputs = [helper.make_tensor_value_info("position", TensorProto.FLOAT, ["n", 2])]
    if jacobian:
        graph.backward()
        outputs.append(helper.make_tensor_value_info("slopes", TensorProto.FLOAT, ["n", 2, size, size]))
    made = helper.make_model(
        helper.make_graph(
            graph.nodes, "BraggNN",
            [helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["n", 1, size, size])],
            outputs, list(graph.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR,
    )  # fmt: skip
    onnx.checker.check_model(made)
    return made


class _Graph:
    """Nodes and constants of the graph while it is written: first `forward`, then `backward` if wanted."""

    mix: NDArray[np.float64]

    def __init__(self, model: BraggNN) -> None:
        self.model, self.side = model, model.patch_size - 2
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        # Layers behind the non-local block, each with the name of its input.
        self.layers: list[tuple[Any, str]] = []
        self._numbers = count()

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        name = name or f"{kind}_{next(self._numbers)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, name: str, values: Any) -> str:
        """Add a constant, float32 or int64, and return its name; one of this name is there once."""
        array = np.asarray(values)
        kind = np.int64 if array.dtype.kind == "i" else np.float32
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array, dtype=kind), name)
        return name

    def axis(self, number: int) -> str:
        return self.constant(f"axis_{number}", [number])

    def reshape(self, value: str, *shape: int, name: str = "") -> str:
        """Add a node that reshapes; 0 keeps a length, -1 is what remains."""
        return self.node("Reshape", value, self.constant("shape" + "_".join(map(str, shape)), shape), name=name)

    def split(self, value: str, *names: str, axis: int) -> None:
        """Add a node that splits an axis in equal parts of these names."""
        self.nodes.append(helper.make_node("Split", [value], names, axis=axis))

    def forward(self) -> None:
        """Add the nodes from `patches` to `position`."""
        with torch.no_grad():
            query, query_bias, mix, bias = (part.cpu().double().numpy() for part in self.model.folded())
        # One convolution gives the 9 queries and, through unit kernels, the 9 pixels of the neighbourhood.
        self.constant("query", np.concatenate([query, np.eye(9)]).reshape(18, 1, 3, 3))
        self.constant("query_bias", np.concatenate([query_bias, np.zeros(9)]))
        self.mix = mix[:, :, None, None]
        self.constant("mix", self.mix)
        both = self.reshape(self.node("Conv", "patches", "query", "query_bias"), 0, 18, self.side**2)
        self.split(both, "queries", "neighbours", axis=1)
        scores = self.node("MatMul", self.node("Transpose", "queries", perm=[0, 2, 1]), "neighbours")
        self.node("Softmax", scores, name="attention", axis=-1)
        self.node("MatMul", "neighbours", self.node("Transpose", "attention", perm=[0, 2, 1]), name="attended")
        mixed = self.reshape(self.node("Concat", "neighbours", "attended", axis=1), 0, 18, self.side, self.side)
        value = self.node("Conv", mixed, "mix", self.constant("bias", bias))
        layers = list(_layers_after(self.model))
        for number, layer in enumerate(layers):
            self.layers.append((layer, value))
            name = "position" if number == len(layers) - 1 else f"layer_{number}"
            if isinstance(layer, nn.LeakyReLU):
                value = self.node("LeakyRelu", value, name=name, alpha=SLOPE)
            elif isinstance(layer, nn.Flatten):
                value = self.node("Flatten", value, name=name)
            else:
                weight, bias = layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()
                inputs = value, self.constant(f"weight_{number}", weight), self.constant(f"bias_{number}", bias)
                value = (
                    self.node("Gemm", *inputs, name=name, transB=1)
                    if isinstance(layer, nn.Linear)
                    else self.node("Conv", *inputs, name=name)
                )

    def backward(self) -> None:
        """Add the nodes to `slopes`, the derivatives of both numbers side by side."""
        pixels, side, size = self.side**2, self.side, self.model.patch_size
        # Derivatives by the neighbourhoods P (9, pixels) and the attended ones T = P A^T, A the attention.
        self.split(self._through_layers(), "by_p", "by_t", axis=2)
        # A = softmax(S): dS = A (dA - mean of dA with the weights A); dA is dT^T P, so that the mean is dT^T T. A row
        # of ones below P subtracts it within the product.
        by_t_of_t = self.node("Mul", "by_t", self.node("Unsqueeze", "attended", self.axis(1)))
        mean = self.node("Neg", self.node("ReduceSum", by_t_of_t, self.axis(2), keepdims=1))
        turned = self.node("Transpose", self.node("Concat", "by_t", mean, axis=2), perm=[0, 1, 3, 2])
        pads = self.constant("pads", [0, 0, 0, 0, 1, 0])
        below = self.node("Pad", "neighbours", pads, self.constant("one", 1.0))
        centred = self.node("MatMul", self.reshape(turned, 0, 2 * pixels, 10), below)
        weights = self.node("Unsqueeze", "attention", self.axis(1))
        by_s = self.node("Mul", self.reshape(centred, 0, 2, pixels, pixels), weights)
        # S = Q^T P.
        neighbours = self.node("Transpose", "neighbours", perm=[0, 2, 1])
        by_q = self.node("MatMul", self.reshape(by_s, 0, 2 * pixels, pixels), neighbours)
        by_q = self.node("Transpose", self.reshape(by_q, 0, 2, pixels, 9), perm=[0, 1, 3, 2])
        through_s = self.node("MatMul", self.node("Unsqueeze", "queries", self.axis(1)), by_s)
        through_t = self.node("MatMul", self.reshape("by_t", 0, 18, pixels), "attention")
        by_p = self.node("Sum", "by_p", through_s, self.reshape(through_t, 0, 2, 9, pixels))
        by_both = self.reshape(self.node("Concat", by_q, by_p, axis=2), -1, 18, side, side)
        self.reshape(self.node("ConvTranspose", by_both, "query"), -1, 2, size, size, name="slopes")

    def _through_layers(self) -> str:
        """Add the derivatives by the mixed neighbourhoods, (n, 2, 18, pixels)."""
        value, side, channels = "", 0, LAST_CHANNELS
        for number, (layer, before) in reversed(list(enumerate(self.layers))):
            weight = f"weight_{number}"
            if isinstance(layer, nn.Linear):
                value = self.node("MatMul", value, weight) if value else weight
            elif isinstance(layer, nn.Flatten):
                side = self.model.patch_size - BORDER
                value = self.reshape(value, 0, 2, channels, side**2)
            elif isinstance(layer, nn.LeakyReLU):
                positive = self.node("Greater", before, self.constant("zero", 0.0))
                slope = self.node("Where", positive, self.constant("one", 1.0), self.constant("leak", SLOPE))
                slope = self.reshape(slope, *((0, 1, channels, side**2) if side else (0, 1, -1)))
                value = self.node("Mul", value, slope)
            else:
                turned = layer.weight.detach().cpu().numpy().transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
                turned = self.constant(f"turned_{number}", turned)
                value = self.node("Conv", self.reshape(value, -1, channels, side, side), turned, pads=[2, 2, 2, 2])
                side, channels = side + 2, layer.in_channels
                value = self.reshape(value, -1, 2, channels, side**2)
        mix = self.constant("mix_turned", self.mix.transpose(1, 0, 2, 3))
        value = self.node("Conv", self.reshape(value, -1, channels, side, side), mix)
        return self.reshape(value, -1, 2, 18, side**2)


def _layers_after(model: BraggNN) -> Iterator[Any]:
    yield from list(model.cnn_layers)[1:]
    yield nn.Flatten()
    yield from model.dense_layers
