"""What another session of a microscope changes in an image, simulated on crops at random.

Magnification, focus, noise and contrast of details, histogram, and charging.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cathodeflow.sem.octaves import scaled_octaves
from cathodeflow.sem.robust_options import Robust

# Octaves that are changed: coarser ones are brightness, which `charging` changes.
_OCTAVES = 6
_KNOTS = 6
# Fraction of the lines of a crop that charge, and the length [lines] over which they recover.
_LINES, _RECOVERY = 0.05, 4.0


def change_instrument(x: Tensor, generator: torch.Generator, options: Robust) -> Tensor:
    """Change every crop as if another session had imaged it, with random numbers of its own.

    In the order of a microscope: magnification, focus and noise (octaves), charging, grey levels. With all options
    disabled, nothing is drawn and the batch is returned unchanged.

    Parameters
    ----------
    x : (n, 1, h, w) float
        Crops in 0..1, on any device.
    generator : torch.Generator
    options : Robust

    Returns
    -------
    (n, 1, h, w) float
        In 0..1.
    """
    if options.magnification > 1:
        x = magnified(x, _log_uniform(len(x), 1, options.magnification, generator)[:, 0])
    if options.octaves > 1:
        x = scaled_octaves(x, _log_uniform(len(x), _OCTAVES, options.octaves, generator)).clamp(0, 1)
    if options.charging:
        x = (x + charging_field(x.shape[2], x.shape[3], options.charging, len(x), generator).to(x)).clamp(0, 1)
    if options.curve:
        steps = -torch.rand(len(x), _KNOTS, generator=generator, device=generator.device).clamp_min(1e-6).log()
        weight = options.curve * torch.rand(len(x), 1, generator=generator, device=generator.device)
        x = curved(x, (steps / steps.sum(1, keepdim=True)).to(x), weight.to(x))
    return x


def magnified(x: Tensor, factors: Tensor) -> Tensor:
    """Magnify crops (n, 1, h, w) about their centre by factors (n,); what is missing at the edges is mirrored."""
    matrix = torch.zeros(len(x), 2, 3, device=x.device, dtype=x.dtype)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / factors.to(x)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def curved(x: Tensor, steps: Tensor, weight: Tensor) -> Tensor:
    """Apply increasing curves of grey levels, from 0 to 1.

    Parameters
    ----------
    x : (n, 1, h, w)
        In 0..1.
    steps : (n, k)
        By which the curve of each crop rises in each of k equal intervals; positive, with the sum 1.
    weight : (n, 1)
        Of the curve; the rest is the unchanged crop.
    """
    count = steps.shape[1]
    levels = F.pad(steps.cumsum(1), (1, 0))
    place = (x.flatten(1) * count).clamp(0, count)
    interval = place.floor().clamp(max=count - 1).long()
    fraction = place - interval
    value = levels.gather(1, interval) + fraction * steps.gather(1, interval)
    return ((1 - weight) * x.flatten(1) + weight * value).view_as(x)


def charging_field(rows: int, cols: int, amplitude: float, count: int, generator: torch.Generator) -> Tensor:
    """Brightness that charging adds (n, 1, rows, cols): a gradient, and lines that recover slowly.

    Parameters
    ----------
    rows, cols : int
    amplitude : float
        Maximum of the gradient between edge and centre, and of a line.
    count : int
        Number of crops, n.
    generator : torch.Generator
    """

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=generator.device)

    angle, strength = 2 * math.pi * draw(count, 1, 1), amplitude * draw(count, 1, 1)
    down, across = (torch.linspace(-1, 1, size, device=generator.device) for size in (rows, cols))
    gradient = strength * (angle.sin() * down[None, :, None] + angle.cos() * across[None, None, :])
    charged = (draw(count, rows) < _LINES) * (2 * draw(count, rows) - 1) * amplitude
    after = torch.arange(min(rows, math.ceil(4 * _RECOVERY)), device=generator.device)
    kernel = torch.exp(-after / _RECOVERY).flip(0)[None, None]
    lines = F.conv1d(F.pad(charged[:, None], (len(after) - 1, 0)), kernel)[:, 0]
    return (gradient + lines[:, :, None])[:, None]


def _log_uniform(count: int, each: int, largest: float, generator: torch.Generator) -> Tensor:
    """Draw (count, each) factors between 1 / largest and largest, uniform in their logarithm."""
    drawn = 2 * torch.rand(count, each, generator=generator, device=generator.device) - 1
    return (drawn * math.log(largest)).exp()
