"""Windows around pixels for the local model, gathered from padded slices."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cathodeflow.errors import InputError


class Padded(NamedTuple):
    """Slices on a device, reflected beyond their edges by half a window.

    image : (slice or more, row + 2 margin, col + 2 margin) float32, intensity in [-1, 1]; the slices, then further
        neighbours.
    classes : (slice, row + 2 margin, col + 2 margin) uint8, the global model's class; n_classes where the pixel is IDK.
    logits : (slice, row, col, n_classes) float32, of the global model.
    neighbours : (slice, context) int64, indices of the slices whose images enter together.
    side : int, side of a window [px].
    """

    image: Tensor
    classes: Tensor
    logits: Tensor
    neighbours: Tensor
    side: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns without the margin."""
        n, rows, cols, _ = self.logits.shape
        return n, rows, cols


def pad_slices(
    slices: Tensor,
    logits: Tensor,
    idk: Tensor,
    *,
    side: int,
    low: float,
    high: float,
    device: torch.device | str,
    near: Tensor | None = None,
) -> Padded:
    """Prepare slices for `gather`.

    Parameters
    ----------
    slices : (slice or more, row, col)
        Any numeric type [grey]; the slices of the logits, then further neighbours.
    logits : (slice, n_classes, row, col) float
        Of the global model (`mc_dropout.predict_slices`).
    idk : (slice, row, col) bool
        Pixels where the class of the global model is unreliable.
    side : int
        Side of a window, odd [px]; 11, 17 and 25 in the paper.
    low, high : float
        Intensities that are scaled to -1 and 1; values outside are clipped [grey].
    device : torch.device or str
        Device on which windows are gathered.
    near : (slice, context) int64, optional
        Indices in `slices` of those that enter together (`neighbours.with_neighbours`). Default: each slice alone.

    Raises
    ------
    InputError
        Shapes differ, `side` is even, or `high` is not above `low`.
    """
    if side < 1 or side % 2 == 0:
        raise InputError("window", f"a side of {side} px", "an odd number")
    if not high > low:
        raise InputError("slices", f"intensities from {low:g} to {high:g}", "some contrast")
    shape = tuple(slices.shape)
    own = (len(logits), *logits.shape[2:])
    if logits.ndim != 4 or own != tuple(idk.shape) or shape[1:] != own[1:] or shape[0] < own[0]:
        raise InputError("slices", f"shape {shape} with logits {tuple(logits.shape)}, IDK {tuple(idk.shape)}",
                         "(slice, row, col), (slice, n_classes, row, col) and (slice, row, col)")  # fmt: skip
    n, rows, cols = own
    target = torch.device(device)
    if near is None:
        near = torch.arange(n)[:, None]
    grey = ((slices.to(target).float() - low) * (2 / (high - low)) - 1).clamp_(-1, 1)
    logits = logits.to(target).float()
    classes = logits.argmax(1).to(torch.uint8).masked_fill_(idk.to(target), logits.shape[1])
    mirrored = [
        torch.from_numpy(np.pad(np.arange(length), side // 2, mode="reflect" if length > 1 else "edge")).to(target)
        for length in (rows, cols)
    ]
    at = (slice(None), mirrored[0][:, None], mirrored[1])
    return Padded(grey[at], classes[at], logits.permute(0, 2, 3, 1).contiguous(), near.to(target), side)


def gather(padded: Padded, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Copy windows out of padded slices; only these windows are in memory.

    Parameters
    ----------
    padded : Padded
    pixels : (n,) int64
        Flat indices of the pixels, (slice * rows + row) * cols + col: `idk.flatten().nonzero()`.

    Returns
    -------
    windows : (n, context + n_classes, side, side) float32
        On the slices' device, channels last in memory: images, then classes one-hot, zero at IDK pixels.
    logits : (n, n_classes) float32
        Of the pixels themselves.
    """
    _, rows, cols = padded.shape
    pixels = pixels.to(padded.image.device)
    col = pixels % cols
    row = pixels // cols % rows
    number = pixels // (rows * cols)
    context, n_classes = padded.neighbours.shape[1], padded.logits.shape[-1]
    images = _view(padded.image, padded.side)[padded.neighbours[number], row[:, None], col[:, None]]
    classes = _view(padded.classes, padded.side)[number, row, col]
    windows = torch.empty(
        (len(pixels), context + n_classes, padded.side, padded.side),
        device=pixels.device, memory_format=torch.channels_last,
    )  # fmt: skip
    windows[:, :context] = images
    for index in range(n_classes):
        windows[:, context + index] = classes == index
    return windows, padded.logits.view(-1, n_classes).index_select(0, pixels)


def _view(padded: Tensor, side: int) -> Tensor:
    """All windows (slice, row, col, side, side) as a view that overlaps itself."""
    return padded.unfold(1, side, 1).unfold(2, side, 1)
