"""Segmentation of new slices, a few at a time, so that memory does not depend on their number."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from cathodeflow.fibsem.grey_matching import Matching
from cathodeflow.fibsem.mc_dropout import predict_slices
from cathodeflow.fibsem.methods import Method, Segmentation, apply_method
from cathodeflow.fibsem.neighbours import neighbours, with_neighbours
from cathodeflow.fibsem.predict_options import Predict
from cathodeflow.fibsem.preprocessing import normalize_slices
from cathodeflow.fibsem.training_appearance import compared_slices, matching_of
from cathodeflow.learning import resolve_device


def segment(
    volume: Any,
    method: Method,
    networks: Mapping[str, Any],
    metadata: Mapping[str, Any],
    options: Predict,
    *,
    matching: Matching | None = None,
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
        network, `grey` (data type of the training slices), `appearance` (of `training_appearance`), and `levelled`:
        whether the networks were trained on normalised slices (`preprocessing.normalize_slices`), so that these are
        normalised, too.
    options : Predict
        Tiles, device, and whether intensities are matched to those of the training slices.
    matching : Matching, optional
        Gain and offset of the intensities. Default: found from some of the slices.
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
    if matching is None:
        images = compared_slices(lambda number: volume[number], range(n))
        matching = matching_of(images, network, metadata, how=options.match_intensity, dtype=volume.dtype)
    indices, device = neighbours(n, context), resolve_device(options.device or "auto")
    passes, tta, seed = (metadata[name][method.network] for name in ("passes", "flips", "seed"))
    for start in range(0, n, together):
        stop = min(start + together, n)
        first, last = max(start - reach, 0), min(stop + reach, n)
        values = np.asarray(volume[first:last])
        values = normalize_slices(values) if metadata["levelled"] else values.astype(np.float32)
        block = torch.from_numpy(values).mul_(matching.gain).add_(matching.offset)
        near = indices[start:stop] - first
        # The slices themselves, followed by their neighbours outside this block.
        order, position = with_neighbours(np.arange(start - first, stop - first), near.numpy())
        logits = predict_slices(
            network, block[near], indices=range(start, stop), passes=passes, tta=tta, tile=options.tile,
            overlap=options.overlap, seed=seed, precision="auto", device=device,
        ).logits  # fmt: skip
        # The test reads logits from a store of half precision, so that scores are those of the same numbers.
        logits = logits.half().float()
        yield apply_method(method, logits, networks, metadata, device=device, images=block[order], near=position)
