"""Bragg peaks located by BraggNN, on a GPU through torch or on CPUs through onnxruntime."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, TypeVar, cast

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cathodeflow.bragg.model import SLOPE, BraggNN
from cathodeflow.bragg.patches import Float32, prepare_patches

Engine = Literal["auto", "torch", "onnx"]
Floats = NDArray[np.floating]
_GPU_BATCH = 4096
_OPSET, _IR = 17, 8
_Number = TypeVar("_Number", float, Floats)


class Located(NamedTuple):
    """Positions of peaks [px]; row_std, col_std are their spread under turns of the patch, or None.

    All are (n,); float32 in a patch, float64 in a frame, where float32 would round at 1e-4 px.
    """

    row: Floats
    col: Floats
    row_std: Floats | None = None
    col_std: Floats | None = None


Locator = Callable[[Float32], Located]


def build_locator(
    model: BraggNN, *, engine: Engine = "auto", batch_size: int = 64, threads: int | None = None, tta: bool = False
) -> Locator:
    """Make the function that locates the peaks of prepared patches.

    Parameters
    ----------
    model : BraggNN
    engine : str
        "torch" runs on a GPU if there is one, else on the CPU; "onnx" runs on the CPU; "auto" is "torch" where there is
        a GPU and "onnx" elsewhere. They agree within rounding (1e-4 px).
    batch_size : int
        Patches at a time on a CPU; on a GPU it is 4096.
    threads : int, optional
        Of "onnx"; by default one for each core this process may use. The result does not depend on it.
    tta : bool
        Locate all 8 turns and reflections of each patch: the mean is returned, and the spread.

    Returns
    -------
    function
        (n, patch_size, patch_size) float32 -> `Located`, in patch pixels.
    """
    if engine == "auto":
        engine = "torch" if torch.cuda.is_available() else "onnx"
    if engine == "torch":
        run = _torch_runner(model, batch_size)
    else:
        run = _onnx_runner(model, batch_size, threads or len(os.sched_getaffinity(0)))

    def locator(patches: Float32) -> Located:
        inputs = np.ascontiguousarray(patches, dtype=np.float32)
        if len(inputs) == 0:
            nothing = np.empty(0, np.float32)
            return Located(nothing, nothing, nothing, nothing) if tta else Located(nothing, nothing)
        if not tta:
            position = run(inputs) * np.float32(model.patch_size)
            return Located(position[:, 1], position[:, 0])
        return _over_turns(lambda turned: run(turned) * np.float32(model.patch_size), inputs)

    return locator


def locate(patches: Float32, model: BraggNN, **engine: Any) -> Located:
    """Locate the peaks of prepared patches, once; `build_locator` is for many calls and has the options.

    Parameters
    ----------
    patches : (n, patch_size, patch_size) float32
        `cathodeflow.bragg.patches.prepare_patches`.
    model : BraggNN

    Returns
    -------
    Located
        In patch pixels.
    """
    return build_locator(model, **engine)(patches)


def locate_peaks(
    frame: NDArray[np.floating], rows: ArrayLike, cols: ArrayLike, locator: Locator, *,
    patch_size: int = 11, min_value: float = 0.0,
) -> Located:  # fmt: skip
    """Locate the peaks around candidate pixels of a frame.

    Parameters
    ----------
    frame : (row, col) floating
    rows, cols : (n,) int
        Candidate pixels, inside the frame.
    locator : function
        `build_locator`.
    patch_size, min_value
        Of `cathodeflow.bragg.patches.prepare_patches`; as in training.

    Returns
    -------
    Located
        In the frame's pixels.
    """
    found = locator(prepare_patches(frame, rows, cols, patch_size=patch_size, min_value=min_value))
    corner_row = np.asarray(rows, dtype=np.float64) - patch_size // 2
    corner_col = np.asarray(cols, dtype=np.float64) - patch_size // 2
    return found._replace(row=corner_row + found.row, col=corner_col + found.col)


def to_detector(position: _Number, binning: int) -> _Number:
    """Turn a position in binned pixels into one in the detector's own, pixel centres being at integers in both.

    Examples
    --------
    >>> to_detector(0.0, 2)  # the first binned pixel covers pixels 0 and 1
    0.5
    """
    return (position + 0.5) * binning - 0.5


def _over_turns(run: Callable[[Float32], Float32], patches: Float32) -> Located:
    rows, cols = [], []
    last = patches.shape[1] - 1
    for transpose in (False, True):
        square = patches.transpose(0, 2, 1) if transpose else patches
        for row_step in (1, -1):
            for col_step in (1, -1):
                col, row = run(np.ascontiguousarray(square[:, ::row_step, ::col_step])).T
                row, col = row if row_step == 1 else last - row, col if col_step == 1 else last - col
                rows.append(col if transpose else row)
                cols.append(row if transpose else col)
    return Located(np.mean(rows, 0), np.mean(cols, 0), np.std(rows, 0), np.std(cols, 0))


def _torch_runner(model: BraggNN, batch_size: int) -> Callable[[Float32], Float32]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    size = _GPU_BATCH if device.type == "cuda" else batch_size

    def run(patches: Float32) -> Float32:
        with torch.inference_mode():
            parts = [model(part.to(device)) for part in torch.from_numpy(patches)[:, None].split(size)]
            return cast(Float32, torch.cat(parts).cpu().numpy())

    return run


def _onnx_runner(model: BraggNN, batch_size: int, threads: int) -> Callable[[Float32], Float32]:
    settings = onnxruntime.SessionOptions()
    # Batches side by side on single threads: they never wait for each other, and results do not depend on `threads`.
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        onnx_model(model).SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )

    def run(patches: Float32) -> Float32:
        found = np.empty((len(patches), 2), np.float32)

        def one(start: int) -> None:
            part = slice(start, start + batch_size)
            found[part] = session.run(None, {"patches": patches[part, None]})[0]

        starts = range(0, len(patches), batch_size)
        if threads == 1 or len(starts) < 2:
            for start in starts:
                one(start)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(one, starts))
        return found

    return run


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
