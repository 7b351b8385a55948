"""Random augmentation of training crops, which does not change their class."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cathodeflow.sem.network_options import Augment


def augment(batch: Tensor, generator: torch.Generator, options: Augment) -> Tensor:
    """Augment every crop with random numbers of its own; with all options disabled the batch is returned unchanged.

    The order is that of a microscope: orientation of the sample, focus, detector (gamma, contrast, brightness), noise.
    Reflections occur in half of the crops. Rotations by any angle are about the centre, with mirrored edges. The
    exponent of gamma is uniform in its logarithm; contrast scales the differences from the mean of the crop.

    Parameters
    ----------
    batch : (n, 1, h, w) float
        Crops in 0..1, on any device; square with `rotate90`.
    generator : torch.Generator
        Source of all random numbers, on the CPU or the device of the batch; batches of the same shape draw equally
        many.
    options : Augment

    Returns
    -------
    (n, 1, h, w) float
        In 0..1.
    """
    x = batch
    if options.flip or options.rotate90:
        x = _symmetries(x, 2 if options.flip else 1, 4 if options.rotate90 else 1, generator)
    if options.rotation:
        x = _rotated(x, _drawn(x, -options.rotation, options.rotation, generator) * (math.pi / 180))
    if options.blur:
        x = _blurred(x, _drawn(x, 0, options.blur, generator), options.blur)
    if options.gamma > 1:
        limit = math.log(options.gamma)
        x = x.pow(_drawn(x, -limit, limit, generator).exp())
    if options.contrast:
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (mean + (x - mean) * (1 + _drawn(x, -options.contrast, options.contrast, generator))).clamp(0, 1)
    if options.brightness:
        x = (x + _drawn(x, -options.brightness, options.brightness, generator)).clamp(0, 1)
    if options.noise:
        field = torch.randn(x.shape, generator=generator, device=generator.device).to(x)
        x = (x + field * _drawn(x, 0, options.noise, generator)).clamp(0, 1)
    return x


def random_windows(batch: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Cut a square window from each crop at a random position.

    Parameters
    ----------
    batch : (n, 1, h, w)
    side : int
        Side of the windows [px]; crops that are not larger stay whole.
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
    """Draw a number for each crop, shaped to broadcast over the batch."""
    return (low + (high - low) * torch.rand(len(x), 1, 1, 1, generator=generator, device=generator.device)).to(x)


def _symmetries(x: Tensor, sides: int, turns: int, generator: torch.Generator) -> Tensor:
    """Give each crop a random reflection (of `sides`) and a random rotation (of `turns` quarter turns)."""
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
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / deviation.view(-1, 1).clamp_min(1e-3)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).unsqueeze(1)
    n = len(x)
    padded = F.pad(x, (radius,) * 4, mode="reflect").view(1, n, x.shape[2] + 2 * radius, x.shape[3] + 2 * radius)
    down = F.conv2d(padded, kernel.unsqueeze(3), groups=n)
    return F.conv2d(down, kernel.unsqueeze(2), groups=n).view_as(x).clamp(0, 1)
