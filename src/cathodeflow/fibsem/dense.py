"""LCGAR over whole slices: overlapping windows share their features, where the model allows it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cathodeflow.errors import InputError
from cathodeflow.fibsem.local import LCGAR, SLOPE, require_windows
from cathodeflow.fibsem.windows import Padded
from cathodeflow.learning import resolve_precision


def predict_dense(
    model: LCGAR, padded: Padded, pixels: Tensor, *, strip: int = 256, precision: str = "auto"
) -> Tensor:  # fmt: skip
    """Compute the same logits as `local.predict_local` of a model with `edges` "seen", in one pass over each slice.

    Where windows step by a pixel and pool by two, convolutions after the pooling reach over every second pixel: they
    are dilated by 2, and the features of a window lie 4 px apart.

    Parameters
    ----------
    model : LCGAR
        Moved to where the slices are.
    padded : Padded
        Made with the model's `grey_low`, `grey_high` and `window`.
    pixels : (n,) int64
        Ascending (`windows.gather`).
    strip : int
        Rows of a slice that are computed at a time [px].
    precision : str
        "bf16-mixed", "32-true", or "auto" (`resolve_precision`).

    Returns
    -------
    (n, n_classes) float32, on the CPU

    Raises
    ------
    InputError
        When the model sees zeros beyond its window, or the slices were not padded for it, or pixels are not ascending.
    """
    if model.architecture["edges"] != "seen":
        raise InputError("LCGAR", f"edges '{model.architecture['edges']}'", "'seen', or predictions window by window")
    require_windows(model, padded)
    if len(pixels) > 1 and not bool((pixels[1:] > pixels[:-1]).all()):
        raise InputError("pixels", "an order that is not ascending", "that of idk.flatten().nonzero()")
    place = padded.image.device
    model = model.to(place, memory_format=torch.channels_last).eval()
    bfloat = resolve_precision(precision, place) == "bf16-mixed"
    n, rows, cols = padded.shape
    found = torch.empty(len(pixels), model.architecture["n_classes"])
    starts = [number * rows + top for number in range(n) for top in range(0, rows, strip)]
    edges = torch.searchsorted(pixels, torch.tensor([*starts, n * rows], device=pixels.device) * cols).tolist()
    with torch.inference_mode(), torch.autocast(place.type, torch.bfloat16, enabled=bfloat):
        for start, first, last in zip(starts, edges, edges[1:], strict=False):
            if first == last:
                continue
            number, top = divmod(start, rows)
            some = pixels[first:last].to(place)
            features = _features(model, padded, number, top, min(strip, rows - top))
            row, col = some // cols - start, some % cols
            reach = 4 * torch.arange(model.architecture["side"] // 4, device=place)
            flat = features[row[:, None, None] + reach[:, None], col[:, None, None] + reach]
            # Flattened as (channel, row, col), like a window's.
            flat = flat.permute(0, 3, 1, 2).flatten(1)
            logits = padded.logits.view(-1, found.shape[1]).index_select(0, some)
            found[first:last] = model.classify(flat, logits).cpu()
    return found


def _features(model: LCGAR, padded: Padded, number: int, top: int, rows: int) -> Tensor:
    """Features (row, col, channel) of the last convolution for a strip of a slice."""
    part = slice(top, top + rows + padded.side - 1)
    image = padded.image[padded.neighbours[number], part]
    classes = padded.classes[number, part]
    one_hot = [(classes == place).float() for place in range(padded.logits.shape[-1])]
    x = torch.cat([image, torch.stack(one_hot)])[None, : model.channels].contiguous(memory_format=torch.channels_last)
    for place, convolution in enumerate(model.convolutions):
        dilation = 1 if place < 2 else 2
        x = F.conv2d(x, convolution.weight, convolution.bias, dilation=dilation)
        x = F.leaky_relu(_greatest(x, dilation) if place in (1, 3) else x, SLOPE, inplace=True)
    return x[0].permute(1, 2, 0)


def _greatest(x: Tensor, apart: int) -> Tensor:
    """Greatest of 2x2 features that are so many pixels apart, at every pixel."""
    both = torch.maximum(x[:, :, :-apart], x[:, :, apart:])
    return torch.maximum(both[..., :-apart], both[..., apart:])
