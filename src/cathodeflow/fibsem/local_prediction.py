"""Prediction of LCGAR: window by window, or for whole slices where overlapping windows share their features."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cathodeflow.errors import InputError
from cathodeflow.fibsem.local import LCGAR, SLOPE, LocalNetwork, require_windows
from cathodeflow.fibsem.local_baselines import LocalUNet, predict_unet
from cathodeflow.fibsem.windows import Padded, gather
from cathodeflow.learning import resolve_precision


def predict_pixels(model: LocalNetwork, padded: Padded, pixels: Tensor, *, precision: str) -> Tensor:
    """Compute logits of pixels, in ascending order, by any local model, in the fastest way; see `predict_local`."""
    if isinstance(model, LocalUNet):
        return predict_unet(model, padded, pixels, precision=precision)
    # Features that do not depend on the window are computed for a whole slice at once.
    predict = predict_dense if model.architecture.get("padding") == "image" else predict_local
    return predict(model, padded, pixels, precision=precision)


def predict_local(
    model: LocalNetwork, padded: Padded, pixels: Tensor, *, precision: str, together: int = 1024
) -> Tensor:
    """Compute logits (n, n_classes) float32, on the CPU, of pixels (`windows.gather`).

    Parameters
    ----------
    model : LCGAR or WindowResNet
        Moved to the device of the slices.
    padded : Padded
        Made with the model's `grey_low`, `grey_high` and `window`.
    pixels : (n,) int64
    precision : str
        "bf16-mixed", "32-true", or "auto" (`resolve_precision`).
    together : int
        Windows in memory at a time.

    Raises
    ------
    InputError
        The slices were not padded for this model.
    """
    require_windows(model, padded)
    device = padded.image.device
    model = model.to(device, memory_format=torch.channels_last).eval()
    bfloat = resolve_precision(precision, device) == "bf16-mixed"
    found = torch.empty(len(pixels), model.architecture["n_classes"])
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat):
        for start in range(0, len(pixels), together):
            some = slice(start, start + together)
            found[some] = model(*gather(padded, pixels[some])).float().cpu()
    return found


def predict_dense(
    model: LCGAR, padded: Padded, pixels: Tensor, *, precision: str, strip: int = 256
) -> Tensor:  # fmt: skip
    """Compute the same logits as `predict_local` of a model with the padding "image", in one pass over each slice.

    Windows step by one pixel but pool by two, so convolutions after the pooling are dilated by 2, and the features of a
    window are 4 px apart.

    Parameters
    ----------
    model : LCGAR
        Moved to the device of the slices.
    padded : Padded
        Made with the model's `grey_low`, `grey_high` and `window`.
    pixels : (n,) int64
        Ascending (`windows.gather`).
    precision : str
        "bf16-mixed", "32-true", or "auto" (`resolve_precision`).
    strip : int
        Rows of a slice that are computed at a time [px].

    Returns
    -------
    (n, n_classes) float32, on the CPU

    Raises
    ------
    InputError
        The model pads its windows with zeros, the slices were not padded for it, or pixels are not ascending.
    """
    if model.architecture["padding"] != "image":
        found = f"the padding '{model.architecture['padding']}'"
        raise InputError("LCGAR", found, "'image', or prediction window by window")
    require_windows(model, padded)
    if len(pixels) > 1 and not bool((pixels[1:] > pixels[:-1]).all()):
        raise InputError("pixels", "an order that is not ascending", "that of idk.flatten().nonzero()")
    device = padded.image.device
    model = model.to(device, memory_format=torch.channels_last).eval()
    bfloat = resolve_precision(precision, device) == "bf16-mixed"
    n, rows, cols = padded.shape
    found = torch.empty(len(pixels), model.architecture["n_classes"])
    starts = [number * rows + top for number in range(n) for top in range(0, rows, strip)]
    edges = torch.searchsorted(pixels, torch.tensor([*starts, n * rows], device=pixels.device) * cols).tolist()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat):
        for start, first, last in zip(starts, edges, edges[1:], strict=False):
            if first == last:
                continue
            number, top = divmod(start, rows)
            some = pixels[first:last].to(device)
            features = _features(model, padded, number, top, min(strip, rows - top))
            row, col = some // cols - start, some % cols
            reach = 4 * torch.arange(model.architecture["side"] // 4, device=device)
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
    one_hot = [(classes == index).float() for index in range(padded.logits.shape[-1])]
    x = torch.cat([image, torch.stack(one_hot)])[None, : model.channels].contiguous(memory_format=torch.channels_last)
    for index, convolution in enumerate(model.convolutions):
        dilation = 1 if index < 2 else 2
        x = F.conv2d(x, convolution.weight, convolution.bias, dilation=dilation)
        x = F.leaky_relu(_max_pooled(x, dilation) if index in (1, 3) else x, SLOPE, inplace=True)
    return x[0].permute(1, 2, 0)


def _max_pooled(x: Tensor, apart: int) -> Tensor:
    """Maximum of 2x2 features with a distance of `apart` pixels, at every pixel."""
    both = torch.maximum(x[:, :, :-apart], x[:, :, apart:])
    return torch.maximum(both[..., :-apart], both[..., apart:])
