"""Parameters, training time and inference time of the methods of a run."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from torch import nn

from cathodeflow.fibsem.forest import RandomForest
from cathodeflow.fibsem.methods import Method
from cathodeflow.fibsem.predict_options import Predict
from cathodeflow.fibsem.segmentation import segment

#: Networks of each kind of method, beside its global network.
_PARTS: dict[str, tuple[str, ...]] = {"network": (), "prior": (), "mlp": ("mlp",), "local": ("idk", "local")}


def n_parameters(method: Method, networks: Mapping[str, nn.Module]) -> int:
    """Count the trained numbers of all networks that a method uses; of a forest, thresholds and class probabilities.

    Parameters
    ----------
    method : Method
    networks : mapping
        Of a bundle, by name.
    """
    names = [method.network, *(f"{method.helpers}-{part}" for part in _PARTS[method.kind])]
    return sum(_size(networks[name]) for name in names)


def _size(network: nn.Module) -> int:
    if isinstance(network, RandomForest):
        return network.threshold.numel() + network.probability.numel()
    return sum(parameter.numel() for parameter in network.parameters())


def training_records(method: Method) -> list[str]:
    """Names, without suffix, of the records of all jobs that train a method, in the folder of a run."""
    network, own = method.network, method.helpers
    if method.kind in ("network", "prior"):
        return [network]
    # The pixel networks are trained on predictions of the global network.
    shared = [network, f"{network}_global", f"{own}_idk"]
    return [*shared, f"{own}_local"] if method.kind == "local" else shared


def job_seconds(records: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Wall-clock and processor time of some jobs by their records [s]; NaN if one has no times."""
    wall = processor = 0.0
    for record in records:
        job = record.get("job")
        if not job:
            return float("nan"), float("nan")
        begin, end = (datetime.fromisoformat(job[key]) for key in ("start", "end"))
        wall += (end - begin).total_seconds()
        processor += job["cpu_time_s"]
    return wall, processor


def seconds_per_slice(
    images: Any, method: Method, networks: Mapping[str, Any], metadata: Mapping[str, Any], options: Predict
) -> float:
    """Wall-clock time of segmenting some slices as `predict` does, divided by their number [s].

    Parameters
    ----------
    images : (slice, row, col) array
    method, networks, metadata, options
        Of `segmentation.segment`.
    """
    begin = time.perf_counter()
    for _ in segment(images, method, networks, metadata, options, together=len(images)):
        pass
    return (time.perf_counter() - begin) / len(images)
