"""Stage: write a network for other programs."""

import logging
import os

from cathodeflow.io.onnx_graphs import write_graph
from cathodeflow.sem.model import load_network
from cathodeflow.sem.onnx_export import onnx_graph
from cathodeflow.sem.use_options import Export
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.sem")


@stage("sem.export")
def export(model: InputFile, *, out: OutputFile, options: Export) -> Metrics:
    """Write the network MODEL as ONNX, which onnxruntime and other programs run without torch.

    `cathodeflow sem predict --model` takes the file too.

    Parameters
    ----------
    model : path
        Model file that `train` wrote.
    out : path
        ONNX file to write.

    Raises
    ------
    InputError
        The model file cannot be read, or a layer of its network cannot be expressed in ONNX.
    """
    network, metadata = load_network(model)
    write_graph(out, onnx_graph(network, metadata))
    size = os.path.getsize(out)
    log.info("network of %d classes as ONNX, %.1f MB", len(network.classes), size / 1e6)
    return Metrics({"classes": len(network.classes), "bytes": size})
