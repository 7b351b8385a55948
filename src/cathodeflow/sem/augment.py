"""Random changes of training crops, none of which changes what class they show."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(
    batch: Tensor,
    generator: torch.Generator,
    *,
    flip: bool = False,
    turn: bool = False,
    rotation: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
    gamma: float = 1.0,
    noise: float = 0.0,
    blur: float = 0.0,
) -> Tensor:
    """Change every crop by numbers of its own; with all options off the batch comes back as it is.

    The order is that of a microscope: how the sample lies, focus, detector (gamma, contrast, brightness), noise.

    Parameters
    ----------
    batch : (n, 1, h, w) float
        Crops in 0..1, on any device; square where `turn` is on.
    generator : torch.Generator
        Draws all numbers, as many for a batch's shape whatever its values are; on the CPU or the batch's device.
    flip, turn : bool
        Mirror half of the crops; turn them by 0 to 3 quarters.
    rotation : float
        Largest further rotation either way, about the middle, edges mirrored [degree].
    brightness : float
        Largest change either way, as a share of the range.
    contrast : float
        Largest relative change either way of the differences from the crop's mean.
    gamma : float
        Exponents from 1 / gamma to gamma, evenly in their logarithm.
    noise : float
        Largest deviation of Gaussian noise, as a share of the range.
    blur : float
        Largest deviation of a Gaussian blur [px].

    Returns
    -------
    (n, 1, h, w) float
        In 0..1.
    """
    x = batch
    if flip or turn:
        x = _symmetries(x, 2 if flip else 1, 4 if turn else 1, generator)
    if rotation:
        x = _rotated(x, _drawn(x, -rotation, rotation, generator) * (math.pi / 180))
    if blur:
        x = _blurred(x, _drawn(x, 0, blur, generator), blur)
    if gamma > 1:
        limit = math.log(gamma)
        x = x.pow(_drawn(x, -limit, limit, generator).exp())
    if contrast:
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (mean + (x - mean) * (1 + _drawn(x, -contrast, contrast, generator))).clamp(0, 1)
    if brightness:
        x = (x + _drawn(x, -brightness, brightness, generator)).clamp(0, 1)
    if noise:
        field = torch.randn(x.shape, generator=generator, device=generator.device).to(x)
        x = (x + field * _drawn(x, 0, noise, generator)).clamp(0, 1)
    return x


def random_windows(batch: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Cut from each crop a square window at a place of its own.

    Parameters
    ----------
    batch : (n, 1, h, w)
    side : int
        Of the windows [px]; crops that are no larger stay whole.
    generator : torch.Generator

    Returns
    -------
    (n, 1, side, side)
    """
    n, _, rows, cols = batch.shape
    high, wide = min(side, rows), min(side, cols)
    top = torch.randint(rows - high + 1, (n, 1, 1), generator=generator, device=generator.device).to(batch.device)
    left = torch.randint(cols - wide + 1, (n, 1, 1), generator=generator, device=generator.device).to(batch.device)
    row = top + torch.arange(high, device=batch.device)[None, :, None]
    col = left + torch.arange(wide, device=batch.device)[None, None, :]
    return batch[torch.arange(n, device=batch.device)[:, None, None], 0, row, col].unsqueeze(1)


def _drawn(x: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw a number for each crop, shaped to go with the batch."""
    return (low + (high - low) * torch.rand(len(x), 1, 1, 1, generator=generator, device=generator.device)).to(x)


def _symmetries(x: Tensor, sides: int, turns: int, generator: torch.Generator) -> Tensor:
    """Give each crop one of as many sides and turns."""
    shape, where = (len(x),), generator.device
    mirrored = torch.randint(sides, shape, generator=generator, device=where).to(x.device)
    quarters = torch.randint(turns, shape, generator=generator, device=where).to(x.device)
    out = torch.empty_like(x)
    for side in range(sides):
        for turn in range(turns):
            mine = (mirrored == side) & (quarters == turn)
            part = torch.rot90(x[mine], turn, (2, 3))
            out[mine] = part.flip(3) if side else part
    return out


def _rotated(x: Tensor, angle: Tensor) -> Tensor:
    sine, cosine, zero = angle.flatten().sin(), angle.flatten().cos(), torch.zeros(len(x)).to(x)
    # In coordinates from -1 to 1 along each axis, whose units differ where crops are not square.
    ratio = x.shape[2] / x.shape[3]
    matrix = torch.stack([cosine, -sine * ratio, zero, sine / ratio, cosine, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False).clamp(0, 1)


def _blurred(x: Tensor, deviation: Tensor, largest: float) -> Tensor:
    radius = min(math.ceil(3 * largest), x.shape[2] - 1, x.shape[3] - 1)
    place = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (place / deviation.view(-1, 1).clamp_min(1e-3)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).unsqueeze(1)
    n = len(x)
    padded = F.pad(x, (radius,) * 4, mode="reflect").view(1, n, x.shape[2] + 2 * radius, x.shape[3] + 2 * radius)
    down = F.conv2d(padded, kernel.unsqueeze(3), groups=n)
    return F.conv2d(down, kernel.unsqueeze(2), groups=n).view_as(x).clamp(0, 1)
