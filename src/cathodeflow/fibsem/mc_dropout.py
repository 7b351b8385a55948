"""Monte Carlo dropout: mean logits of a global network over stochastic passes, for slices of any size."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cathodeflow.errors import InputError
from cathodeflow.fibsem.global_network import GlobalNetwork, MonteCarloDropout, StochasticPasses
from cathodeflow.fibsem.phases import entropy
from cathodeflow.fibsem.unet import UNet
from cathodeflow.fibsem.unet_passes import FoldedUNet
from cathodeflow.learning import resolve_precision
from cathodeflow.seeds import derived_seed

#: Axes of (n, channel, row, col) along which each view of test-time augmentation is reflected.
VIEWS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))


class Prediction(NamedTuple):
    """Mean logits F (n, n_classes, row, col) float32 and the entropy U of their softmax (n, row, col) float32 [nat]."""

    logits: Tensor
    entropy: Tensor


class Tile(NamedTuple):
    """Rows and columns [start, stop) of a tile."""

    top: int
    bottom: int
    left: int
    right: int


def predict_slices(
    network: GlobalNetwork,
    slices: Tensor,
    *,
    passes: int,
    tta: bool,
    tile: int,
    overlap: int,
    seed: int,
    precision: str,
    device: torch.device | str,
    indices: Sequence[int] | None = None,
    together: int = 2**17,
) -> Prediction:
    """Average the logits of stochastic passes (Monte Carlo dropout).

    F is the mean of the passes' logits, the prediction its argmax, and the uncertainty u = -sum_c p_c ln p_c with
    p = softmax(F) (the paper's section 3.1).

    Parameters
    ----------
    network : GlobalNetwork
        Moved to `device`. Without dropout there is one pass, or one for each view.
    slices : (n, context, row, col), or (n, row, col) for a context of 1
        Any numeric type [grey]. Results stay in memory, so pass a few slices at a time.
    passes : int
        T, at least 1; with `tta` rounded up to a multiple of the number of views.
    tta : bool
        Test-time augmentation: the passes are divided between the four reflections along rows and columns.
    tile, overlap : int
        Slices with a longer side are cut into tiles of this side, which overlap; their predictions are blended linearly
        over the overlap [px]. Of reduced slices (`GlobalNetwork.reduction`), so that memory stays the same.
    seed : int
    precision : str
        "bf16-mixed", "32-true", or "auto": bfloat16 where the device has instructions for it.
    device : torch.device or str
    indices : sequence of int, optional
        Indices of the slices in their volume. Default: from 0. The random numbers of a slice depend on `seed` and its
        index, not on the other slices of the call.
    together : int
        Maximum of pixels times passes that are computed at a time.

    Raises
    ------
    InputError
        The slices do not fit the network, or a parameter is out of range.

    Notes
    -----
    Memory: logits of the slices, and per pixel of a tile and pass the features of a few layers.
    """
    if slices.ndim == 3:
        slices = slices.unsqueeze(1)
    target = torch.device(device)
    network = network.to(target).eval()
    model = stochastic_passes(network, resolve_precision(precision, target))
    context = model.context
    if slices.ndim != 4 or slices.shape[1] != context or min(slices.shape[2:], default=0) < 1:
        raise InputError("slices", f"shape {tuple(slices.shape)}", f"(n, {context}, row, col)")
    if passes < 1:
        raise InputError("passes", str(passes), "at least 1")
    if not 0 <= overlap < tile:
        raise InputError("overlap", f"{overlap} px of tiles of {tile} px", "at least 0, less than the tiles")
    tile, overlap = tile * network.reduction, overlap * network.reduction
    each = _per_view(passes if model.stochastic else 1, tta)
    found = torch.empty(len(slices), model.n_classes, *slices.shape[2:])
    with torch.inference_mode():
        for row, image in enumerate(slices):
            slice_seed = derived_seed(seed, row if indices is None else int(indices[row]))
            found[row] = _one_slice(model, image.to(target), each, tile, overlap, slice_seed, together).cpu()
    return Prediction(found, entropy(found))


def stochastic_passes(network: GlobalNetwork, precision: str) -> StochasticPasses:
    """Choose how the passes of a network are computed: `FoldedUNet` for a `UNet`, else `MonteCarloDropout`."""
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    return FoldedUNet(network, dtype) if isinstance(network, UNet) else MonteCarloDropout(network, dtype)


def tiles(rows: int, cols: int, *, tile: int, overlap: int, stride: int = 1) -> list[Tile]:
    """Cover a slice with overlapping tiles, evenly spread.

    Parameters
    ----------
    rows, cols : int
        Of the slice [px].
    tile, overlap : int
        Side, and minimum overlap of neighbours [px].
    stride : int
        Tiles begin at its multiples, as the pixels of the lowest resolution do [px].

    Examples
    --------
    >>> tiles(100, 300, tile=128, overlap=16, stride=8)
    [Tile(top=0, bottom=100, left=0, right=128), Tile(top=0, bottom=100, left=80, right=208), \
Tile(top=0, bottom=100, left=168, right=300)]
    """
    return [Tile(*y, *x) for y, x in itertools.product(*(_spans(side, tile, overlap, stride) for side in (rows, cols)))]


def _spans(side: int, tile: int, overlap: int, stride: int) -> list[tuple[int, int]]:
    if side <= tile:
        return [(0, side)]
    count = -(-(side - overlap) // (tile - overlap))
    starts = [int(number * (side - tile) / (count - 1)) // stride * stride for number in range(count)]
    # The last tile extends to the end, up to a stride further than the others.
    return [(start, side if start == starts[-1] else start + tile) for start in starts]


def _ramp(side: int, before: bool, after: bool, overlap: int, device: torch.device) -> Tensor:
    """Weights along a side: 1, falling to nearly 0 where another tile overlaps."""
    distance = torch.arange(side, device=device) + 0.5
    weight = torch.ones(side, device=device)
    if overlap and before:
        weight = torch.minimum(weight, distance / overlap)
    if overlap and after:
        weight = torch.minimum(weight, distance.flip(0) / overlap)
    return weight


def _per_view(passes: int, tta: bool) -> dict[tuple[int, ...], range]:
    """Divide the passes between the views: their indices by view."""
    if not tta:
        return {(): range(passes)}
    each = -(-passes // len(VIEWS))
    return {view: range(index * each, (index + 1) * each) for index, view in enumerate(VIEWS)}


def _one_slice(
    model: StochasticPasses, x: Tensor, each: dict[tuple[int, ...], range], tile: int, overlap: int, seed: int,
    together: int,
) -> Tensor:  # fmt: skip
    rows, cols = x.shape[-2:]
    parts = tiles(rows, cols, tile=tile, overlap=overlap, stride=model.stride)
    if len(parts) == 1:
        return _one_tile(model, x, each, derived_seed(seed, 0, 0), together)
    total = torch.zeros(model.n_classes, rows, cols, device=x.device)
    weights = torch.zeros(rows, cols, device=x.device)
    for part in parts:
        top, bottom, left, right = part
        logits = _one_tile(model, x[:, top:bottom, left:right], each, derived_seed(seed, top, left), together)
        down = _ramp(bottom - top, top > 0, bottom < rows, overlap, x.device)
        weight = down[:, None] * _ramp(right - left, left > 0, right < cols, overlap, x.device)
        total[:, top:bottom, left:right] += weight * logits
        weights[top:bottom, left:right] += weight
    return total / weights


def _one_tile(
    model: StochasticPasses, x: Tensor, each: dict[tuple[int, ...], range], seed: int, together: int
) -> Tensor:  # fmt: skip
    mean = torch.zeros((), device=x.device)
    for view, numbers in each.items():
        seeds = [derived_seed(seed, number) for number in numbers]
        for part in model.passes(x[None].flip(view), seeds, together):
            mean = mean + part.flip(view)
    return model.logits(mean / sum(map(len, each.values())))[0]
