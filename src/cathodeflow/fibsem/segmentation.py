"""Segmentation of new slices, a few at a time, so that memory does not depend on their number."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from cathodeflow.errors import InputError
from cathodeflow.fibsem.global_network import GlobalNetwork
from cathodeflow.fibsem.mc_dropout import predict_slices
from cathodeflow.fibsem.methods import Method, Segmentation, apply_method
from cathodeflow.fibsem.neighbours import neighbours
from cathodeflow.fibsem.predict_options import Predict
from cathodeflow.fibsem.preprocessing import normalize_slices
from cathodeflow.learning import resolve_device

# Slices from which the mean and standard deviation of a volume are estimated.
_SAMPLED = 16


def segment(
    volume: Any,
    method: Method,
    networks: Mapping[str, Any],
    metadata: Mapping[str, Any],
    options: Predict,
    *,
    together: int = 4,
) -> Iterator[Segmentation]:
    """Segment slices.

    Parameters
    ----------
    volume : (slice, row, col) array-like with a shape and a type, such as a Dask array
        Any numeric type [grey]; read a few slices at a time.
    method : Method
    networks, metadata
        Of a bundle, as for `methods.apply_method`; also `passes`, `flips` (test-time augmentation) and `seed` by global
        network, `grey` (data type of the training slices), and `levelled`: whether the networks were trained on
        normalised slices (`preprocessing.normalize_slices`), so that these are normalised, too.
    options : Predict
        Tiles, device, and whether intensities are matched to those of the training slices.
    together : int
        Slices in memory at a time, without their neighbours.

    Yields
    ------
    Segmentation
        Of `together` slices, or fewer at the end.
    """
    network = networks[method.network]
    n, context = volume.shape[0], network.architecture["context"]
    reach = context // 2
    factor, shift = (1.0, 0.0)
    if matches_intensity(volume.dtype, metadata, options):
        factor, shift = _matching(volume, network)
    indices, device = neighbours(n, context), resolve_device(options.device or "auto")
    passes, tta, seed = (metadata[name][method.network] for name in ("passes", "flips", "seed"))
    for start in range(0, n, together):
        stop = min(start + together, n)
        first, last = max(start - reach, 0), min(stop + reach, n)
        values = np.asarray(volume[first:last])
        values = normalize_slices(values) if metadata["levelled"] else values.astype(np.float32)
        block = torch.from_numpy(values).mul_(factor).add_(shift)
        near = indices[start:stop] - first
        logits = predict_slices(
            network, block[near], indices=range(start, stop), passes=passes, tta=tta, tile=options.tile,
            overlap=options.overlap, seed=seed, precision="auto", device=device,
        ).logits  # fmt: skip
        # The slices themselves, followed by their neighbours outside this block.
        own = torch.arange(start - first, stop - first)
        further = torch.tensor(
            [k for k in range(last - first) if not start - first <= k < stop - first], dtype=torch.int64
        )
        order = torch.cat([own, further])
        position = torch.empty_like(order)
        position[order] = torch.arange(len(order))
        yield apply_method(method, logits, networks, metadata, device=device, images=block[order], near=position[near])


def matches_intensity(dtype: Any, metadata: Mapping[str, Any], options: Predict) -> bool:
    """Whether the intensities of slices of this type are scaled to those of the training slices; see `segment`."""
    if metadata["levelled"] or options.match_intensity == "never":
        return False
    return options.match_intensity == "always" or str(np.dtype(dtype)) != metadata["grey"]


def _matching(volume: Any, network: GlobalNetwork) -> tuple[float, float]:
    """Factor and offset that bring the intensities of a volume to those of the training slices."""
    rows = np.unique(np.linspace(0, volume.shape[0] - 1, _SAMPLED).astype(int))
    values = np.stack([np.asarray(volume[int(row)]) for row in rows]).astype(np.float64)
    deviation = float(values.std())
    if not deviation > 0:
        raise InputError("slices", f"the intensity {values.flat[0]:g} in every pixel", "some contrast")
    factor = float(network.grey_deviation) / deviation
    return factor, float(network.grey_mean) - factor * float(values.mean())
