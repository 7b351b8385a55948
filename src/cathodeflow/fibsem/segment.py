"""Phases of new slices, a few at a time, so that memory does not depend on their number."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from cathodeflow.errors import InputError
from cathodeflow.fibsem.global_network import GlobalNetwork
from cathodeflow.fibsem.methods import Answer, Method, answer
from cathodeflow.fibsem.passes import stochastic
from cathodeflow.fibsem.unet import neighbours
from cathodeflow.fibsem.volume import levelled

# Slices whose mean and deviation stand for those of the volume.
_LOOKED_AT = 16


def segment(
    grey: Any,
    method: Method,
    networks: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    matched: bool = False,
    together: int = 4,
    tile: int = 512,
    overlap: int = 64,
    device: torch.device | str = "cpu",
) -> Iterator[Answer]:
    """Tell the phases of slices.

    Parameters
    ----------
    grey : (slice, row, col) array-like with a shape, such as a Dask array
        Any numeric type [grey]; read a few slices at a time.
    method : Method
    networks, metadata
        Of a bundle, as `methods.answer` takes them; also `passes`, `flips` and `seed` by global network, and
        `levelled`: whether the networks were trained on levelled slices (`volume.levelled`) and so these are, too.
    matched : bool
        Bring mean and deviation of the grey to those that the network was trained on: for slices of another depth,
        brightness or contrast. Not where slices are levelled.
    together : int
        Slices in memory at a time, besides their neighbours.
    tile, overlap
        Of `passes.stochastic`.
    device : torch.device or str

    Yields
    ------
    Answer
        Of `together` slices; the last one of fewer.
    """
    network = networks[method.network]
    n, context = grey.shape[0], network.architecture["context"]
    reach = context // 2
    level = metadata["levelled"]
    factor, shift = _matching(grey, network) if matched and not level else (1.0, 0.0)
    around = neighbours(n, context)
    keywords = {name: metadata[name][method.network] for name in ("passes", "flips", "seed")}
    for start in range(0, n, together):
        stop = min(start + together, n)
        first, last = max(start - reach, 0), min(stop + reach, n)
        values = np.asarray(grey[first:last])
        block = torch.from_numpy(levelled(values) if level else values.astype(np.float32)).mul_(factor).add_(shift)
        near = around[start:stop] - first
        logits = stochastic(
            network, block[near], numbers=range(start, stop), tile=tile, overlap=overlap, device=device, **keywords
        ).logits
        # The slices themselves, then those beside them that only they need.
        own = torch.arange(start - first, stop - first)
        beside = torch.tensor(
            [k for k in range(last - first) if not start - first <= k < stop - first], dtype=torch.int64
        )
        order = torch.cat([own, beside])
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        yield answer(
            method, logits, networks, metadata, grey=block[order], neighbours=place[near], device=device
        )  # fmt: skip


def _matching(grey: Any, network: GlobalNetwork) -> tuple[float, float]:
    """Factor and shift that bring the grey of a volume to that of the training."""
    rows = np.unique(np.linspace(0, grey.shape[0] - 1, _LOOKED_AT).astype(int))
    values = np.stack([np.asarray(grey[int(row)]) for row in rows]).astype(np.float64)
    deviation = float(values.std())
    if not deviation > 0:
        raise InputError("slices", f"the grey {values.flat[0]:g} everywhere", "some contrast")
    factor = float(network.grey_deviation) / deviation
    return factor, float(network.grey_mean) - factor * float(values.mean())
